//! What an operator reads at the start (design.md 5): version, mode, addresses, limits, and whatever
//! looks wrong. Prose, on standard error. Called by `server` once, when all is read and open.

use std::fs::File;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use mtproxy::limits;
use mtproxy::proto::secret::ProxySecret;

use crate::base::{clock, log, net::Listener, sys};
use crate::middle::dcs::Dcs;
use crate::operator::files::Watch;
use crate::operator::pages::Telegram;
use crate::operator::{capacity::Capacity, options::Config};

/// What is to be said of a start.
pub struct Report<'a> {
    pub config: &'a Config,
    /// In middle mode.
    pub dcs: Option<&'a Dcs>,
    /// Where clients are accepted.
    pub listeners: &'a [Arc<Listener>],
    /// 0: there is none.
    pub stats_port: u16,
    pub capacity: &'a Capacity,
    /// Telegram's, if it is there.
    pub proxy_secret: Option<&'a ProxySecret>,
    pub telegram: &'a Telegram,
    /// The files that a reload reads, and the user that it does so as, if that is another one now.
    pub watch: &'a Watch,
    pub user: Option<&'a str>,
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
        for listener in self.listeners {
            log::say(format_args!("listening on {listener}"));
        }
        if self.config.http_stats {
            log::say(format_args!("stats on port {}", self.stats_port));
        }
        let (clients, limit) = (self.capacity.clients, self.capacity.decided_by);
        log::say(format_args!("limits: {clients} clients ({limit} decides)"));
        self.warn();
        self.warn_of_secret_files();
        for (_, file) in self.telegram.files() {
            if let Some(age) = file.age() {
                let (hours, name) = (age.as_secs() / 3_600, &file.name);
                log::say(format_args!(
                    "{name} is {} days and {} h old",
                    hours / 24,
                    hours % 24
                ));
            }
        }
        warn_of_age(self.telegram);
        for path in self.watch.paths() {
            if let Err(e) = File::open(path) {
                let (path, user) = (
                    path.display(),
                    self.user.unwrap_or("the user of this process"),
                );
                warn(&format!(
                    "{path} can't be read as {user}: {e}: no reload will work"
                ));
            }
        }
    }

    fn warn_of_secret_files(&self) {
        let path = self.config.proxy_secret_file();
        if let Some(doubt) = self.proxy_secret.and_then(ProxySecret::doubt) {
            let path = path.display();
            warn(&format!(
                "{path} is hardly Telegram's proxy-secret: {doubt}; if no middle proxy answers, fetch \
                 https://core.telegram.org/getProxySecret"
            ));
        }
        let own = self.config.secret_file.as_deref();
        for path in self.proxy_secret.map(|_| path).into_iter().chain(own) {
            let mode = std::fs::metadata(path).map_or(0, |file| file.mode());
            if mode & 0o004 != 0 {
                let path = path.display();
                warn(&format!(
                    "every user of this machine can read {path}: chmod o-r {path}"
                ));
            }
        }
    }

    fn warn(&self) {
        let config = self.config;
        if config.is_open() {
            warn("no -S is given: the proxy is open to everybody");
        }
        if self.dcs.is_some() && self.proxy_secret.is_none() {
            let what = "no --aes-pwd is given and there is no file named secret";
            warn(&format!("{what}: no middle proxy can be reached"));
        }
        if config.user.is_none() && sys::is_root() {
            warn("running as root: there is no user mtproxy or nobody to become");
        }
        if clock::is_implausible(clock::unix()) {
            warn(
                "this machine's clock is wrong: until it is set, fake TLS and middle proxies don't work",
            );
        }
        if config.slots > limits::MAX_SLOTS as u32 {
            let (asked, most) = (config.slots, limits::MAX_SLOTS);
            warn(&format!("-M {asked} is more than {most}: taken as that"));
        }
        if let Some(path) = &config.log_file
            && let Err(e) = log::open(path)
        {
            let path = path.display();
            warn(&format!(
                "-l {path}: can't be opened again by the user that the server runs as now, so SIGUSR1 will \
                 change nothing: {e}"
            ));
        }
        let (given, taken) = (config.ping_milliseconds, config.ping_interval());
        if given > 0 && u128::from(given) != taken.as_millis() {
            warn(&format!("-T: taken as {} s", taken.as_secs()));
        }
        if config.stats_ports.is_some() && !config.http_stats {
            warn("-p does nothing without --http-stats");
        }
        let sets = self.dcs.map_or(&[][..], |dcs| &dcs.sets);
        let mut targets = sets.iter().flat_map(|set| &set.targets);
        if self.dcs.is_some() && targets.all(SocketAddr::is_ipv6) {
            warn("all middle proxies are IPv6: they are reported to be unreliable");
        }
    }
}

/// Warns of Telegram's files that have not been fetched for long.
pub fn warn_of_age(telegram: &Telegram) {
    for (_, file) in telegram.files() {
        let age = file.age().filter(|age| *age >= limits::FILES_OLD);
        if let Some(age) = age {
            let (days, name) = (age.as_secs() / 86_400, &file.name);
            warn(&format!(
                "{name} is {days} days old: Telegram changes it often, fetch it daily"
            ));
        }
    }
}

fn warn(text: &str) {
    log::say(format_args!("warning: {text}"));
}
