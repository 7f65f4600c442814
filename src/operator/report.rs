//! What an operator reads at the start (design.md 5): version, mode, addresses, limits, and whatever
//! looks wrong. Prose, on standard error. Called by `server` once, when all is read and open.

use std::net::SocketAddr;
use std::path::Path;

use mtproxy::limits;

use crate::base::{clock, log, sys};
use crate::middle::dcs::Dcs;
use crate::operator::capacity::Capacity;
use crate::operator::options::Config;

/// What the start has come to.
pub struct Report<'a> {
    pub config: &'a Config,
    /// In middle mode.
    pub dcs: Option<&'a Dcs>,
    /// Where clients are listened for.
    pub addresses: &'a [SocketAddr],
    /// 0: nowhere.
    pub stats_port: u16,
    pub capacity: &'a Capacity,
    /// Telegram's proxy-secret is there.
    pub has_proxy_secret: bool,
    /// There are domains.
    pub fake_tls: bool,
}

impl Report<'_> {
    /// Says all of it.
    pub fn say(&self) {
        let version = env!("CARGO_PKG_VERSION");
        match self.dcs {
            Some(dcs) => log::say(format_args!(
                "mtproxy {version}: middle mode, {} data centres in {} sets of targets",
                dcs.clusters(),
                dcs.sets.len()
            )),
            None => log::say(format_args!("mtproxy {version}: direct mode")),
        }
        for address in self.addresses {
            log::say(format_args!("listening on {address}"));
        }
        if self.config.http_stats {
            log::say(format_args!("stats on port {}", self.stats_port));
        }
        let Capacity {
            clients,
            decided_by,
            ..
        } = self.capacity;
        log::say(format_args!(
            "limits: {clients} clients ({decided_by} decides)"
        ));
        self.warn();
        if let (Some(_), Some(path)) = (self.dcs, &self.config.config_file) {
            warn_of_config_file(path);
        }
    }

    fn warn(&self) {
        let config = self.config;
        if config.is_open() {
            warn("no -S is given: the proxy is open to everybody");
        }
        if self.dcs.is_some() && !self.has_proxy_secret {
            warn(
                "no --aes-pwd is given and there is no file named secret: no middle proxy can be reached",
            );
        }
        if config.user.is_none() && sys::is_root() {
            warn("running as root: there is no user mtproxy or nobody to become");
        }
        if self.fake_tls && clock::unix() < limits::RELEASED {
            warn("this machine's clock is wrong: until it is set, no client of fake TLS gets in");
        }
        if config.slots > limits::MAX_SLOTS as u32 {
            let (asked, most) = (config.slots, limits::MAX_SLOTS);
            warn(&format!("-M {asked} is more than {most}: taken as that"));
        }
        if config.stats_ports.is_some() && !config.http_stats {
            warn("-p does nothing without --http-stats");
        }
        if let Some(dcs) = self.dcs
            && dcs
                .sets
                .iter()
                .flat_map(|set| &set.targets)
                .all(SocketAddr::is_ipv6)
        {
            warn("all middle proxies are IPv6: they are reported to be unreliable");
        }
    }
}

fn warn_of_config_file(path: &Path) {
    if std::fs::File::open(path).is_err() {
        warn("the configuration file can't be read as the user that the server runs as now");
    }
    let modified = std::fs::metadata(path).and_then(|file| file.modified());
    let age = modified.ok().and_then(|time| time.elapsed().ok());
    let days = age.map_or(0, |age| age.as_secs() / 86_400);
    if days >= 7 {
        let path = path.display();
        warn(&format!(
            "{path} is {days} days old: Telegram changes it often"
        ));
    }
}

fn warn(text: &str) {
    log::say(format_args!("warning: {text}"));
}
