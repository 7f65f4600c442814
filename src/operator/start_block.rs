//! What an operator reads at the start (design.md 5): version, mode, addresses, limits, and whatever
//! looks wrong. Prose, on standard error.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use mtproxy::limits;

use crate::base::{clock, log};
use crate::middle::dcs::Dcs;
use crate::operator::Fatal;
use crate::operator::capacity::Capacity;
use crate::operator::options::Config;
use crate::operator::ports;
use crate::operator::privileges::Identity;

/// Version, mode, addresses and limits. Returns the statistics port, 0 if there is none.
pub fn show(
    dcs: Option<&Dcs>,
    listeners: &[SocketAddr],
    stats: Option<&Arc<TcpListener>>,
    capacity: &Capacity,
) -> Result<u16, Fatal> {
    show_mode(dcs);
    let port = ports::show(listeners, stats)?;
    log::say(format_args!(
        "limits: {} clients ({} decides)",
        capacity.clients, capacity.decided_by
    ));
    Ok(port)
}

fn show_mode(dcs: Option<&Dcs>) {
    let version = env!("CARGO_PKG_VERSION");
    match dcs {
        Some(dcs) => log::say(format_args!(
            "mtproxy {version}: middle mode, {} data centres in {} sets of targets",
            dcs.clusters(),
            dcs.sets.len()
        )),
        None => log::say(format_args!("mtproxy {version}: direct mode")),
    }
}

/// What warnings depend on besides the command line.
pub struct Found<'a> {
    /// Telegram's file is there.
    pub proxy_secret: bool,
    pub identity: Identity,
    pub dcs: Option<&'a Dcs>,
    /// There are domains.
    pub tls: bool,
}

/// Warns of what looks wrong.
pub fn warn(config: &Config, found: &Found) {
    let say = |text: &str| log::say(format_args!("warning: {text}"));
    if config.open {
        say("no -S is given: the proxy is open to everybody");
    }
    if found.dcs.is_some() && !found.proxy_secret {
        say(
            "no --aes-pwd is given and there is no file named secret: no middle proxy can be reached",
        );
    }
    if matches!(found.identity, Identity::Root) {
        say("running as root: there is no user mtproxy or nobody to become");
    }
    if found.tls && clock::unix() < limits::RELEASED {
        say("this machine's clock is wrong: until it is set, no client of fake TLS gets in");
    }
    if config.slots_asked > limits::MAX_SLOTS as u32 {
        say(&format!(
            "-M {} is more than {}: taken as that",
            config.slots_asked,
            limits::MAX_SLOTS
        ));
    }
    if config.stats_ports.is_some() && !config.http_stats {
        say("-p does nothing without --http-stats");
    }
    let (Some(dcs), Some(path)) = (found.dcs, &config.config_file) else {
        return;
    };
    if std::fs::File::open(path).is_err() {
        say("the configuration file can't be read as the user that the server runs as now");
    }
    let age = std::fs::metadata(path)
        .and_then(|m| m.modified())
        .ok()
        .and_then(|t| t.elapsed().ok());
    if let Some(days) = age.map(|age| age.as_secs() / 86_400)
        && days >= 7
    {
        say(&format!(
            "{} is {days} days old: Telegram changes it often",
            path.display()
        ));
    }
    if dcs
        .sets
        .iter()
        .flat_map(|set| &set.targets)
        .all(SocketAddr::is_ipv6)
    {
        say("all middle proxies are IPv6: they are reported to be unreliable");
    }
}
