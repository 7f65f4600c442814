//! The mask thread: looks the sites up and probes each with ClientHellos like those of clients, at start
//! and then hourly, so that our first flight looks like theirs. A slow site or name server delays nobody:
//! meanwhile clients are answered with what is known. Sites' bytes are untrusted.

use std::io::{ErrorKind, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use mtproxy::crypto::random::Random;
use mtproxy::limits::{
    MAX_SITE_FLIGHT, PROBE_FLIGHT, PROBE_INTERVAL, PROBE_RETRY, PROBE_SILENCE, PROBE_TIMES,
};
use mtproxy::proto::faketls::probe::{self, Flight, Kind, Unusable};

use super::sites::{Site, Sites};
use crate::base::{log, net, sys};

/// Keeps what is known of the sites up to date, for ever.
pub fn run(sites: &Sites) {
    let mut random = match sys::random_array() {
        Ok(seed) => Random::new(&seed),
        Err(_) => return, // nothing else works then
    };
    let mut troubles: Vec<Option<String>> = vec![None; sites.sites.len()];
    let mut retry = PROBE_RETRY;
    loop {
        // All names first: strangers can be shown a site that has not been probed yet.
        let found: Vec<Result<(), String>> = sites.sites.iter().map(|s| sites.look_up(s)).collect();
        let mut all_well = true;
        for ((site, trouble), found) in sites.sites.iter().zip(&mut troubles).zip(found) {
            let found = found.and_then(|()| sites.probe(site, &mut random)).err();
            all_well &= found.is_none();
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
        std::thread::sleep(wait * 7 / 8 + jitter);
    }
}

impl Sites {
    /// Looks a site up. The error says what is wrong and what to do.
    fn look_up(&self, site: &Site) -> Result<(), String> {
        if let Ok(address) = site.host.parse() {
            site.set_addresses(vec![address]);
            return Ok(());
        }
        let found = (site.host.as_str(), 0).to_socket_addrs();
        let mut addresses: Vec<IpAddr> = match found {
            Ok(found) => found
                .map(|a| a.ip())
                .filter(|ip| !is_link_local(ip))
                .collect(),
            Err(_) => Vec::new(),
        };
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
        match has_none {
            true => {
                Err("no address is found: is the name right? strangers can't be shown it".into())
            }
            false => Ok(()),
        }
    }

    /// Probes with each kind of ClientHello, several times.
    fn probe(&self, site: &Site, random: &mut Random) -> Result<(), String> {
        let addresses = site.addresses(443, Duration::ZERO);
        let mut learnt = 0;
        let mut trouble = None;
        let mut at = None;
        for kind in Kind::ALL {
            let mut answered = false;
            for _ in 0..PROBE_TIMES {
                match self.probe_once(site, &addresses, kind, random) {
                    Ok((address, flight, first_read)) => {
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
        if let Some(address) = at {
            log::event(format_args!(
                "mask domain={} site={address} shapes={learnt}",
                site.name
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
    fn probe_once(
        &self,
        site: &Site,
        addresses: &[SocketAddr],
        kind: Kind,
        random: &mut Random,
    ) -> Result<(SocketAddr, Flight, usize), Unusable> {
        let socket = self.dial(addresses, None).ok_or(Unusable::Nothing)?;
        let hello = probe::hello(&site.name, kind, &mut |bytes| random.fill(bytes));
        site.state().probe = hello.get(11..43).and_then(|r| r.try_into().ok());
        let answer = exchange(&socket, &hello);
        site.state().probe = None;
        let (answer, first_read) = answer.map_err(|_| Unusable::Nothing)?;
        let flight = probe::read(&answer, &hello)?;
        let address = socket.peer_addr().map_err(|_| Unusable::Nothing)?;
        Ok((address, flight, first_read))
    }
}

/// Sends the ClientHello; returns what comes until the site falls silent, and the length of the first read.
fn exchange(mut socket: &TcpStream, hello: &[u8]) -> std::io::Result<(Vec<u8>, usize)> {
    socket.write_all(hello)?;
    let deadline = Instant::now() + PROBE_FLIGHT;
    let mut answer = vec![0; MAX_SITE_FLIGHT];
    let (mut len, mut first_read) = (0, 0);
    while len < answer.len() {
        let until = match len {
            0 => deadline,
            _ => deadline.min(Instant::now() + PROBE_SILENCE),
        };
        match net::read_before(until, socket, &mut answer[len..]) {
            Ok(0) => break,
            Ok(n) => len += n,
            Err(e) if len > 0 || e.kind() == ErrorKind::TimedOut => break,
            Err(e) => return Err(e),
        }
        if first_read == 0 {
            first_read = len;
        }
    }
    answer.truncate(len);
    Ok((answer, first_read))
}

/// Link-local addresses are trusted much, and a public name has no reason to lead to one.
fn is_link_local(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_unspecified(),
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.is_unspecified(),
    }
}
