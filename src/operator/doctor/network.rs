//! Telegram and the own port, as `doctor` finds them: each job runs in a thread of its own and ends by the
//! deadline.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::time::{Duration, Instant};

use mtproxy::formats::config_file::ConfigFile;
use mtproxy::formats::secret::{Form, SecretEntry};
use mtproxy::limits::DOCTOR_DIAL;
use mtproxy::proto::wire::DcId;

use crate::base::{net, outgoing};
use crate::direct::table::{self, Table};
use crate::middle::dial::Dialer;
use crate::middle::nat::NatRules;
use crate::operator::client::Question;
use crate::operator::findings::{Finding, Job, Verdict, millis};
use crate::operator::options::Config;
use crate::operator::{links, ping};
use crate::stats::Dials;

/// How the names of middle proxies' findings begin.
pub const MIDDLE: &str = "middle proxy ";

/// Each data centre that has an address of its own.
pub fn data_centres(config: &Config, table: &Table, end: Instant, jobs: &mut Vec<Job>) {
    let mut ids: Vec<i16> = (1..=5).collect();
    let overridden = table.overrides.iter().map(|(dc, _)| dc.0);
    ids.extend(overridden.filter(|id| !(1..=5).contains(id)));
    ids.dedup();
    for id in ids {
        let (addresses, _) = table.addresses(DcId(id), table::has_ipv6);
        let question = Question {
            addresses,
            source: config.source(),
            is_own: false,
            secret: None,
            form: Form::Plain,
            dc: DcId(id),
            count: 1,
            deadline: end - DOCTOR_DIAL,
        };
        let name = format!("DC {id}");
        let fallback = !config.is_direct();
        add(jobs, name.clone(), move || {
            let mut found = ping::finding(name, question.ask());
            if found.verdict == Verdict::Fail {
                if fallback {
                    found.verdict = Verdict::Warn;
                }
                found.hint = "does a firewall or the provider block it? other ways: --source, a configuration file".into();
            }
            found
        });
    }
}

fn add(jobs: &mut Vec<Job>, name: String, run: impl FnOnce() -> Finding + Send + 'static) {
    let run = Box::new(run);
    jobs.push(Job { name, run });
}

/// Every middle proxy of the file, with the server's own handshake.
pub fn middle_proxies(file: &ConfigFile, dialer: &'static Dialer, jobs: &mut Vec<Job>) {
    let mut seen: Vec<SocketAddr> = Vec::new();
    for cluster in &file.clusters {
        for target in &cluster.targets {
            if seen.contains(target) || seen.len() >= MOST_MIDDLE {
                continue;
            }
            seen.push(*target);
            let target = *target;
            let name = format!("{MIDDLE}{target} (DC {})", cluster.dc.0);
            add(jobs, name.clone(), move || {
                middle_proxy(name, target, dialer)
            });
        }
    }
}

fn middle_proxy(name: String, target: SocketAddr, dialer: &Dialer) -> Finding {
    let begun = Instant::now();
    let word = match dialer.dial(target, &Dials::default()) {
        Ok(_) => {
            let took = begun.elapsed();
            let text = format!("handshake done after {} ms", millis(took));
            return Finding {
                times: vec![took],
                ..Finding::ok(name, text)
            };
        }
        Err(word) => word,
    };
    let hint = match word {
        "connection_refused" | "connect_timeout" | "connect" => {
            "a firewall, or the configuration file is old"
        }
        "clock" => "set this machine's clock",
        _ => "is --aes-pwd Telegram's file, and behind NAT --nat-info right?",
    };
    Finding {
        phase: "middle",
        ..Finding::new(Verdict::Warn, name, word, hint)
    }
}

/// What to do if no middle proxy finished the handshake.
pub fn nat(config: &Config) -> Option<Finding> {
    let from = links::source_towards("0.0.0.0:0", links::SOMEWHERE_V4);
    let local = config.source().or(from)?;
    let rules = NatRules(config.nat_rules.clone());
    let hint = format!("behind NAT: --nat-info {local}:PUBLIC");
    let text = format!("{local} is private, and no middle proxy finished the handshake");
    let missing = rules.is_missing_for(SocketAddr::new(local, 0));
    missing.then(|| Finding::new(Verdict::Fail, "NAT", text, &hint))
}

/// Whether IPv6, if there is any, leads to Telegram.
pub fn ipv6(config: &Config, table: &Table, end: Instant, jobs: &mut Vec<Job>) {
    let (mut addresses, _) = table.addresses(DcId(2), || true);
    addresses.retain(SocketAddr::is_ipv6);
    if addresses.is_empty() {
        return;
    }
    let wanted = config.prefer_ipv6;
    add(jobs, "IPv6".into(), move || {
        if !table::has_ipv6() {
            return match wanted {
                true => Finding::new(
                    Verdict::Warn,
                    "IPv6",
                    "no route",
                    "--prefer-ipv6 does nothing",
                ),
                false => Finding::ok("IPv6", "no route, none needed"),
            };
        }
        let within = net::left(end - DOCTOR_DIAL).unwrap_or_default();
        match outgoing::dial_any(&addresses, None, within) {
            Ok(_) => Finding::ok("IPv6", "leads to Telegram"),
            Err(e) => {
                let text = format!("there is a route, but not to Telegram: {e}");
                Finding::new(
                    Verdict::Warn,
                    "IPv6",
                    text,
                    "mend it or turn it off: it costs time",
                )
            }
        }
    });
}

/// Whether the server runs, and whether clients reach it where links send them.
pub fn own_port(
    config: &'static Config,
    entries: &[SecretEntry],
    only: bool,
    end: Instant,
    jobs: &mut Vec<Job>,
) {
    let port = config.first_port().unwrap_or(0);
    let entry = entries.first();
    let question = Question {
        addresses: Vec::new(),
        source: None,
        is_own: true,
        secret: entry.map(|entry| entry.secret),
        form: entry.map_or(Form::Plain, |entry| {
            links::served_form(config, entries, entry)
        }),
        dc: DcId(2),
        count: 1,
        deadline: end - DOCTOR_DIAL,
    };
    if port == 0 || (entries.is_empty() && !config.is_open()) {
        let text = "can't be looked at without a fixed port and secret";
        let verdict = if only { Verdict::Fail } else { Verdict::Warn };
        add(jobs, OWN.into(), move || {
            Finding::new(verdict, OWN, text, "give -H and -S")
        });
        return;
    }
    add(jobs, OWN.into(), move || {
        let here = config.address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let mut question = question;
        question.addresses = vec![SocketAddr::new(here, port)];
        match (
            only,
            outgoing::dial_here(&question.addresses, None, Duration::from_secs(1)),
        ) {
            (true, _) => ping::finding(OWN.into(), question.ask()),
            (false, Err(_)) => {
                let text = format!("nothing listens on {here}:{port}");
                Finding::new(Verdict::Warn, OWN, text, "start the server, and ask again")
            }
            (false, Ok(_)) => outside(config, question, port),
        }
    });
}

/// Through the address of the links.
fn outside(config: &Config, mut question: Question, port: u16) -> Finding {
    let Ok(server) = links::find_server(config) else {
        let text = "the server runs; the address of its links is not known";
        return Finding::new(Verdict::Warn, OWN, text, "give --server HOST");
    };
    match (server.as_str(), port).to_socket_addrs() {
        Ok(found) => question.addresses = found.collect(),
        Err(e) => {
            let text = format!("--server {server}: {e}");
            return Finding::new(Verdict::Fail, OWN, text, "is the name right?");
        }
    }
    let mut found = ping::finding(OWN.into(), question.ask());
    match found.phase {
        "" => found.text = format!("serves at {server}:{port}: {}", found.text),
        "connect" => {
            found.verdict = Verdict::Warn;
            found.hint = format!(
                "{server}:{port} isn't reached from here: a firewall, a port that isn't forwarded, or a router \
                 that doesn't let its own side in: try `mtproxy ping` from outside"
            );
        }
        _ => {}
    }
    found
}

const OWN: &str = "own port";
/// Files have about 20.
const MOST_MIDDLE: usize = 64;
