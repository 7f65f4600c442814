//! The mask thread: looks the sites up and probes each with ClientHellos like those of clients, at start
//! and then hourly, so that our first flight looks like theirs. A slow site or name server delays nobody:
//! meanwhile clients are answered with what is known. Sites' bytes are untrusted.

use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mtproxy::crypto::random::Random;
use mtproxy::limits::{
    MAX_SITE_FLIGHT, PROBE_FLIGHT, PROBE_INTERVAL, PROBE_RETRY, PROBE_SILENCE, PROBE_TIMES,
};
use mtproxy::proto::faketls::probe::{self, Flight, Kind, Unusable};
use mtproxy::proto::faketls::record;

use super::rules::LiveRules;
use super::sites::{Rejection, Site, Sites};
use crate::base::{clock, log, net, sys};

/// Keeps what is known of the sites up to date, for ever. Sites that a reload brings are looked at at once.
pub fn run(rules: &LiveRules) {
    let mut random = match sys::random_array() {
        Ok(seed) => Random::new(&seed),
        Err(_) => return, // nothing else works then
    };
    let mut before: Option<Arc<Sites>> = None;
    let mut troubles = Vec::new();
    let mut retry = PROBE_RETRY;
    while let Some(sites) = rules.sites() {
        if before.is_none_or(|before| !Arc::ptr_eq(&before, &sites)) {
            troubles = vec![None; sites.sites.len()];
        }
        // All names first: strangers can be shown a site that has not been probed yet.
        let found: Vec<Result<(), String>> = sites.sites.iter().map(|s| sites.look_up(s)).collect();
        let mut all_well = true;
        for ((site, trouble), found) in sites.sites.iter().zip(&mut troubles).zip(found) {
            let found = found.and_then(|()| sites.probe(site, &mut random)).err();
            all_well &= found.is_none();
            site.noted(|look| (look.at, look.is_well) = (clock::unix(), found.is_none()));
            // Once, not every hour.
            if let Some(text) = found.as_ref().filter(|_| *trouble != found) {
                site.warn(text);
            }
            *trouble = found;
        }
        let wait = if all_well { PROBE_INTERVAL } else { retry };
        retry = match all_well {
            true => PROBE_RETRY,
            false => (2 * retry).min(PROBE_INTERVAL),
        };
        // Spread, or an observer of many servers could see the rhythm.
        let jitter = wait / 4000 * (random.next_u32() % 1000);
        let until = Instant::now() + wait * 7 / 8 + jitter;
        while let Some(left) = net::left(until)
            && rules.sites().is_some_and(|now| Arc::ptr_eq(&now, &sites))
        {
            rules.changed.wait(left);
        }
        before = Some(sites);
    }
}

impl Sites {
    /// Looks a site up. The error says what is wrong and what to do.
    pub fn look_up(&self, site: &Site) -> Result<(), String> {
        if let Ok(address) = site.host.parse() {
            site.set_addresses(vec![address]);
            return Ok(());
        }
        // The operator's own hosts file is taken at its word, and comes first as in the resolver. A name
        // server is somebody else's: it must not lead strangers into this network.
        let mut addresses = net::hosts_file(&site.host);
        let mut closed = None;
        if addresses.is_empty()
            && let Ok(found) = (site.host.as_str(), 0).to_socket_addrs()
        {
            addresses = found.map(|a| a.ip()).collect();
            if !self.private {
                closed = addresses.iter().copied().find(|ip| !net::is_global(*ip));
                addresses.retain(|ip| net::is_global(*ip));
            }
        }
        // The resolver lists an address once for each kind of socket.
        addresses.dedup();
        // IPv4 first, as the C proxy.
        let (ipv4, ipv6): (Vec<_>, Vec<_>) = addresses.iter().partition(|ip| ip.is_ipv4());
        addresses = [ipv4, ipv6].concat();
        let has_none = addresses.is_empty();
        // A failed lookup leaves the addresses that were known.
        if !has_none || site.state().addresses.is_none() {
            site.set_addresses(addresses);
        }
        if let Some(address) = self.own_address(site) {
            site.set_addresses(Vec::new());
            return Err(format!(
                "its site {address} is this server itself: name another one, or give --mask HOST:PORT"
            ));
        }
        match (closed, has_none) {
            (Some(ip), _) => Err(format!(
                "its name leads to {ip}, which is no public address: strangers are not shown what is \
                 there; give --mask-private if they shall be, or --mask HOST:PORT"
            )),
            (None, true) => {
                Err("no address is found: is the name right? strangers can't be shown it".into())
            }
            (None, false) => Ok(()),
        }
    }

    /// Probes with each kind of ClientHello, several times.
    fn probe(&self, site: &Site, random: &mut Random) -> Result<(), String> {
        let addresses = site.addresses(443, Duration::ZERO);
        let mut learnt = 0;
        let mut mlkem = false;
        let mut trouble = None;
        let mut at = None;
        for kind in Kind::ALL {
            let mut answered = false;
            for _ in 0..PROBE_TIMES {
                match self.probe_once(site, &addresses, kind, random) {
                    Ok((address, flight, first_read)) => {
                        mlkem |= flight.look.hybrid;
                        site.state().model.note(kind, &flight, first_read);
                        (answered, at) = (true, Some(address));
                    }
                    Err(e) => {
                        trouble = trouble.or(Some(e));
                        break;
                    }
                }
            }
            learnt += u32::from(answered);
            // The site is down: further probes would only take time.
            if trouble == Some(Unusable::Nothing) {
                break;
            }
        }
        if std::mem::take(&mut site.state().came_back) && trouble == Some(Unusable::Nothing) {
            site.set_addresses(Vec::new());
            let text =
                "its site leads back to this server: name another one, or give --mask HOST:PORT";
            return Err(text.into());
        }
        site.noted(|look| (look.tls13, look.mlkem) = (at.is_some(), mlkem));
        if let Some(address) = at {
            log::event(format_args!(
                "mask domain={} site={address} shapes={learnt} mlkem={}",
                site.name,
                if mlkem { "yes" } else { "no" }
            ));
        }
        match (at, trouble) {
            (_, None) => Ok(()),
            (Some(_), Some(trouble)) => Err(format!(
                "for some kinds of clients the site {trouble}: answers to these won't look like it"
            )),
            (None, Some(trouble)) => Err(format!(
                "the site {trouble}: answers to clients won't look like it; choose another domain, or \
                 give --mask HOST:PORT"
            )),
        }
    }

    /// One ClientHello and the flight that answers it; also how many bytes the first read gave.
    pub fn probe_once(
        &self,
        site: &Site,
        addresses: &[SocketAddr],
        kind: Kind,
        random: &mut Random,
    ) -> Result<(SocketAddr, Flight, usize), Unusable> {
        let dialled = self.dial(addresses, None).ok_or(Unusable::Nothing)?;
        let (socket, address) = (dialled.socket, dialled.target);
        let hello = probe::hello(&site.name, kind, &mut |bytes| random.fill(bytes));
        site.state().probe = hello.get(11..43).and_then(|r| r.try_into().ok());
        let answer = exchange(&socket, &hello);
        site.state().probe = None;
        let (answer, first_read) = answer.map_err(|_| Unusable::Nothing)?;
        let flight = probe::read(&answer, &hello)?;
        // The delay includes the way to the site, which is as near as its clients are to it.
        if kind == Kind::ALL[0]
            && let Some(rejection) = provoke(&socket, random)
        {
            site.state().rejection = rejection;
        }
        Ok((address, flight, first_read))
    }
}

/// Sends the ClientHello; returns what comes until the site falls silent, and the length of the first read.
fn exchange(mut socket: &TcpStream, hello: &[u8]) -> std::io::Result<(Vec<u8>, usize)> {
    socket.write_all(hello)?;
    let deadline = Instant::now() + PROBE_FLIGHT;
    let mut flight = vec![0; MAX_SITE_FLIGHT];
    let (mut len, mut first_read) = (0, 0);
    while len < flight.len() {
        let until = match len {
            0 => deadline,
            _ => deadline.min(Instant::now() + PROBE_SILENCE),
        };
        match net::read_before(until, socket, &mut flight[len..]) {
            Ok(0) => break,
            Ok(n) => len += n,
            Err(e) if len > 0 || e.kind() == ErrorKind::TimedOut => break,
            Err(e) => return Err(e),
        }
        if first_read == 0 {
            first_read = len;
        }
    }
    flight.truncate(len);
    Ok((flight, first_read))
}

/// Sends a record that fits no keys behind a first flight; returns what the site does. None: it waits.
fn provoke(mut socket: &TcpStream, random: &mut Random) -> Option<Rejection> {
    let mut bytes = vec![0x14, 3, 3, 0, 1, 1];
    bytes.extend(record::header(FINISHED_LEN));
    let payload = bytes.len();
    bytes.resize(payload + FINISHED_LEN, 0);
    random.fill(&mut bytes[payload..]);
    let begun = Instant::now();
    socket.write_all(&bytes).ok()?;
    let mut records = Vec::new();
    let mut delay = None;
    loop {
        let mut some = [0; 64];
        let result = net::read_before(begun + PROBE_SILENCE * 4, socket, &mut some);
        delay.get_or_insert(begun.elapsed());
        let reset = match result {
            Ok(0) => false,
            Ok(n) if records.len() + n <= some.len() => {
                records.extend(&some[..n]);
                continue;
            }
            Err(e) if e.kind() == ErrorKind::ConnectionReset => true,
            _ => return None,
        };
        let delay = delay.unwrap_or_default();
        return Some(Rejection {
            records,
            reset,
            delay,
        });
    }
}

/// Payload of a client's Finished with AES-128: header, hash, type, tag.
const FINISHED_LEN: usize = 53;
