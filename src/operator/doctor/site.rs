//! The sites of fake TLS, as `doctor` finds them: where their names lead, what they answer to a client's
//! hello, and what time it is there. A thread for each site; its bytes are untrusted.

use std::io::Write;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::time::{Duration, Instant};

use mtproxy::crypto::random::Random;
use mtproxy::formats::date;
use mtproxy::limits::SITE_DATE;
use mtproxy::proto::faketls::probe::Kind;

use crate::base::{clock, net, outgoing, sys};
use crate::door::sites::{self, Domain, LeadsBack, Site, Sites};
use crate::operator::findings::{Finding, Job, Verdict};
use crate::operator::options::Config;

/// A job for each domain.
pub fn jobs(config: &'static Config, domains: &[Domain], jobs: &mut Vec<Job>) {
    let ip = config.address.unwrap_or(IpAddr::from([0; 4]));
    let ours: Vec<SocketAddr> = config
        .ports
        .iter()
        .map(|port| SocketAddr::new(ip, *port))
        .collect();
    let flags = (config.mask_proxy_protocol, config.mask_private);
    let known = match Sites::new(domains, config.mask.as_ref(), flags, &ours, None) {
        Ok(known) => known,
        Err(LeadsBack(text)) => {
            let run = Box::new(|| Finding::new(Verdict::Fail, "site", text, "name another one"));
            let name = "site".into();
            return jobs.push(Job { name, run });
        }
    };
    let known: &'static Sites = Box::leak(Box::new(known));
    for site in known.all() {
        let name = format!("site {}", site.name);
        let run = Box::new(move || look(known, site, config));
        jobs.push(Job { name, run });
    }
}

fn look(sites: &Sites, site: &Site, config: &Config) -> Finding {
    let name = format!("site {}", site.name);
    if let Err(text) = sites.look_up(site) {
        return Finding::new(Verdict::Fail, name, text, "");
    }
    let addresses = site.addresses(443, Duration::ZERO);
    let Ok(seed) = sys::random_array() else {
        return Finding::new(Verdict::Fail, name, "no random bytes", "");
    };
    let mut random = Random::new(&seed);
    // Today's hello, and that of clients before it.
    let [today, before] = [Kind::ALL[3], Kind::ALL[0]]
        .map(|kind| sites.probe_once(site, &addresses, kind, &mut random));
    let (at, flight) = match (today, before) {
        (Ok((at, flight, _)), Ok(_)) => (at, flight),
        (Err(e), _) | (_, Err(e)) => {
            let hint = "choose another domain, or give --mask HOST:PORT";
            return Finding::new(Verdict::Fail, name, format!("it {e}"), hint);
        }
    };
    let group = if flight.look.hybrid {
        "X25519MLKEM768"
    } else {
        "X25519"
    };
    let text = format!(
        "TLS 1.3 at {at}, {group}, {:?}, {} bytes behind its hello; {}",
        flight.look.cipher,
        flight.encrypted,
        leads(&site.name, config)
    );
    let hint = "it has no hybrid keys (ML-KEM), and stands out by that";
    let verdict = if flight.look.hybrid {
        Verdict::Ok
    } else {
        Verdict::Warn
    };
    Finding {
        skew: date_of(at, &site.name).map(|time| time as i64 - clock::unix() as i64),
        ..Finding::new(
            verdict,
            name,
            text,
            if flight.look.hybrid { "" } else { hint },
        )
    }
}

/// Where the name leads: whoever looks it up compares.
fn leads(name: &str, config: &Config) -> &'static str {
    let addresses = |name: &str| -> Vec<IpAddr> {
        let found = (name, 0).to_socket_addrs();
        found.map_or(Vec::new(), |all| all.map(|address| address.ip()).collect())
    };
    let shown = config.server.as_deref().map(addresses).unwrap_or_default();
    let is_here = |ip: &IpAddr| shown.contains(ip) || sites::is_local(*ip);
    match addresses(name).iter().any(is_here) {
        true => "its name leads here",
        false => "its name leads elsewhere, which who looks it up can see",
    }
}

/// The time in what a web server says to a request without TLS; on its port for TLS many refuse that with it.
fn date_of(at: SocketAddr, name: &str) -> Option<u64> {
    [at.port(), 80].iter().find_map(|port| {
        let deadline = Instant::now() + SITE_DATE;
        let mut at = at;
        at.set_port(*port);
        let mut socket = outgoing::dial_here(&[at], None, SITE_DATE).ok()?.socket;
        let request = format!("HEAD / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).ok()?;
        let mut head = vec![0; 2048];
        let mut len = 0;
        while let Ok(n) = net::read_more(deadline, &socket, &mut head[len..]) {
            len += n;
        }
        let head = String::from_utf8_lossy(&head[..len]);
        let mut lines = head.lines();
        date::parse(lines.find_map(|line| line.strip_prefix("Date: "))?)
    })
}
