//! Reload: what files say is read again and takes the place of what held before, as a whole or not at all. A
//! thread does it on SIGHUP, and when one of the files has changed, which it looks for once a minute. Targets and
//! secrets that stay lose no connection; who came by one that is gone has --drain seconds.
//!
//! All input is the operator's. The thread owns its state; the locks that it takes are those of the things that
//! it replaces, held for the replacement.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use mtproxy::limits::{DAY, LATECOMERS, RELOAD_SETTLE, SUMMARY_INTERVAL};
use mtproxy::proto::secret::Secret;

use crate::base::bell::Bell;
use crate::base::clock::{self, Every};
use crate::base::lock::Mutex;
use crate::base::{log, threads};
use crate::door::closing;
use crate::door::rules::{LiveRules, Rules};
use crate::middle::dcs::{MainTask, Set};
use crate::middle::dial::Dialer;
use crate::middle::slot;
use crate::operator::access::Secrets;
use crate::operator::files::Watch;
use crate::operator::load::{self, Lasting};
use crate::operator::notify;
use crate::operator::options::{self, Config};
use crate::operator::pages::Telegram;
use crate::operator::report::warn_of_age;
use crate::stats::{self, Close, STATS};

/// What a reload needs, and what it replaces.
pub struct Reload {
    /// What holds now.
    pub config: Arc<Config>,
    pub secrets: Secrets,
    pub rules: Arc<LiveRules>,
    pub telegram: Arc<Mutex<Arc<Telegram>>>,
    pub dialer: Option<Arc<Dialer>>,
    /// The files, as they were when they were read.
    pub watch: Watch,
    /// What stays.
    pub lasting: Lasting,
    pub requests: Sender<MainTask>,
    /// Where the server listens.
    pub ours: Vec<SocketAddr>,
    /// What has been removed, and when who came by it is to go.
    pub leaving: Vec<(Instant, Gone)>,
}

/// What has been removed.
#[derive(Clone)]
pub enum Gone {
    Targets(Arc<Set>),
    Secret(Secret),
}

/// The files that a server with these flags reads.
pub fn files(config: &Config) -> Vec<PathBuf> {
    let telegrams = match config.is_direct() {
        true => None,
        false => config.config_file.clone(),
    };
    // Without --aes-pwd it need not be there.
    let secret = telegrams.as_ref().map(|_| config.proxy_secret_file());
    let secret = secret.filter(|path| config.aes_pwd.is_some() || path.exists());
    let secret = secret.map(Into::into);
    let Config {
        settings_file,
        secret_file,
        allowed,
        blocked,
        ..
    } = config;
    let others = [settings_file, secret_file, allowed, blocked];
    let others = others.into_iter().flatten().cloned();
    others.chain(telegrams).chain(secret).collect()
}

impl Reload {
    /// Starts the thread, and returns the bell that has it reload; None if there is no file to read.
    pub fn start(mut self) -> std::io::Result<Option<Arc<Bell>>> {
        if self.watch.paths().next().is_none() {
            return Ok(None);
        }
        let bell = Arc::new(Bell::default());
        let rung = bell.clone();
        let run = move || while !threads::guarded(|| self.run(&rung)) {};
        threads::spawn("reload", run)?;
        Ok(Some(bell))
    }

    /// Reloads for ever, when the bell is rung or a file has changed.
    fn run(&mut self, bell: &Bell) {
        let mut minute = Every::new(SUMMARY_INTERVAL);
        let mut day = Every::new(DAY);
        loop {
            let now = Instant::now();
            let ends = self.leaving.iter().map(|(end, _)| *end - now);
            let asked = bell.wait(ends.fold(minute.left(), Duration::min));
            self.end_due(Instant::now());
            if asked {
                self.reload();
            }
            if minute.is_due() {
                self.look(|| thread::sleep(RELOAD_SETTLE));
            }
            if day.is_due() {
                warn_of_age(&self.telegram.lock().clone());
            }
        }
    }

    /// Reloads if a file has changed since it was read, and is complete: what is written in pieces is not the
    /// same twice, before and after a wait. If it isn't, the next look tells.
    fn look(&mut self, wait: impl FnOnce()) {
        let now = self.watch.again();
        if now == self.watch {
            return;
        }
        let before = now.fingerprint();
        wait();
        if self.watch.again() == now && now.fingerprint() == before {
            self.reload();
        }
    }

    /// Reads everything and applies it, or says what is wrong.
    fn reload(&mut self) {
        notify::say("RELOADING=1");
        let watch = self.watch.again();
        let result = self.load();
        match &result {
            Ok(fixed) => {
                STATS.reloads.add(1);
                log::event(format_args!("reloaded"));
                for name in fixed {
                    log::event(format_args!(
                        "reload_skipped name={name} hint=\"restart for it\""
                    ));
                }
            }
            Err(error) => {
                STATS.reload_failures.add(1);
                log::event(format_args!("reload_failed error={error:?}"));
            }
        }
        notify::say("READY=1");
        // What has failed is tried again when it has changed again.
        self.watch = Watch::new(files(&self.config)).since(&watch);
    }

    /// The names of flags that were changed and can't be applied; or why nothing was applied.
    fn load(&mut self) -> Result<Vec<&'static str>, String> {
        let (config, fixed) = options::again(&self.config).map_err(|error| error.text)?;
        let before = self.rules.current();
        let mut files = load::read(&config, &self.requests, Some(&before)).map_err(|e| e.0)?;
        if files.secrets.made_up && self.secrets.made_up {
            files.secrets = self.secrets.clone();
        }
        let (own, theirs) = (&self.secrets, &files.secrets);
        if own.made_up != theirs.made_up || own.entries.is_empty() != theirs.entries.is_empty() {
            return Err("a reload can't take all secrets away, nor give the first: restart".into());
        }
        if files.domains.is_empty() != before.tls.is_none() {
            return Err("a reload can't begin or end fake TLS: restart".into());
        }
        let known = self.rules.sites();
        let sites = load::sites(&config, &files.domains, &self.ours, known).map_err(|e| e.0)?;

        // From here on nothing fails.
        if let (Some(secret), Some(dialer)) = (files.proxy_secret.take(), &self.dialer) {
            *dialer.secret.lock() = secret;
        }
        let mut telegram = std::mem::take(&mut files.telegram);
        telegram.reloaded = clock::unix();
        *self.telegram.lock() = Arc::new(telegram);
        self.secrets = files.secrets.clone();
        stats::set_served(files.served());
        let rules = Arc::new(load::rules(&config, files, sites, &self.lasting));
        log::set_verbosity(config.verbosity);
        self.config = Arc::new(config);
        self.rules.replace(rules.clone());
        self.part(&before, &rules);
        Ok(fixed)
    }

    /// Begins what is new and lets go of what is gone.
    fn part(&mut self, before: &Rules, now: &Rules) {
        let drain = Duration::from_secs(self.config.drain.0.into());
        let later = (drain < LATECOMERS).then_some(LATECOMERS);
        let start = Instant::now();
        let mut goes = |gone: Gone| {
            let waits = [drain].into_iter().chain(later);
            let ends = waits.map(|wait| (start + wait, gone.clone()));
            self.leaving.extend(ends);
        };
        for set in now.sets() {
            if !before.has_set(set) {
                set.start_first();
            }
        }
        for set in before.sets() {
            if !now.has_set(set) {
                set.retire();
                goes(Gone::Targets(set.clone()));
            }
        }
        for secret in &before.secrets {
            if !now.secrets.contains(secret) {
                goes(Gone::Secret(*secret));
            }
        }
        let is_back =
            |gone: &Gone| matches!(gone, Gone::Secret(secret) if now.secrets.contains(secret));
        self.leaving.retain(|(_, gone)| !is_back(gone));
    }

    /// Ends the connections of those whose time is over.
    fn end_due(&mut self, now: Instant) {
        self.leaving.retain(|(end, gone)| {
            if *end > now {
                return true;
            }
            match gone {
                Gone::Targets(set) => slot::end_set(set),
                Gone::Secret(secret) => {
                    closing::end(&|(_, by)| by.as_ref() == Some(secret), Close::Drained);
                }
            }
            false
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::gauge::Gauge;
    use crate::door::admission::{Admission, Caps};
    use crate::door::replay::Replays;
    use crate::door::visitors::Visitors;
    use crate::operator::options::Command;
    use crossbeam_channel::unbounded;
    use mtproxy::formats::cidr::List;
    use std::fs;

    const A: &str = "00112233445566778899aabbccddeeff:a";
    const B: &str = "ffeeddccbbaa99887766554433221100:b";

    /// A server whose secrets stand in a file of this name.
    fn server(path: &str, drain: &str) -> Reload {
        let words = ["-H", "1", "--secret-file", path, "--drain", drain].map(Into::into);
        let config = match options::parse(words) {
            Ok(Command::Run(config)) => *config,
            other => panic!("{other:?}"),
        };
        let (requests, _) = unbounded();
        let caps = Caps {
            per_second: 0,
            unproven: 2,
            held: 0,
            clients: 2,
        };
        let lasting = Lasting {
            admission: Arc::new(Admission::new(caps, &[0; 48])),
            replays: Arc::new(Replays::new(1).unwrap()),
            visitors: Arc::new(Visitors::new(0)),
            lists: Arc::default(),
            fallbacks: (Arc::new(Gauge::new()), 0),
        };
        let watch = Watch::new(files(&config));
        let files = load::read(&config, &requests, None).unwrap();
        let secrets = files.secrets.clone();
        let rules = LiveRules::new(load::rules(&config, files, None, &lasting));
        Reload {
            config: Arc::new(config),
            secrets,
            rules: Arc::new(rules),
            telegram: Arc::default(),
            dialer: None,
            watch,
            lasting,
            requests,
            ours: Vec::new(),
            leaving: Vec::new(),
        }
    }

    #[test]
    fn a_file_that_has_changed_is_read_once_it_is_complete() {
        let path = std::env::temp_dir().join(format!("mtproxy-reload-{}", std::process::id()));
        let path = path.to_str().unwrap();
        let write = |text: &str| fs::write(path, text).unwrap();
        write(A);
        let mut server = server(path, "300");
        let labels = |server: &Reload| -> Vec<String> {
            let rules = server.rules.current();
            rules
                .accounts
                .iter()
                .map(|account| account.label.clone())
                .collect()
        };
        let failures = || STATS.reload_failures.value();
        server.look(|| panic!("nothing has changed"));
        // It is written in pieces.
        write(&A[..20]);
        server.look(|| write(&format!("{A}\n{B}\n")));
        assert_eq!((labels(&server), failures()), (vec!["a".to_owned()], 0));
        server.look(|| ());
        assert_eq!(labels(&server), ["a", "b"]);
        assert!(server.leaving.is_empty());
        // A mistake is told once.
        write("nonsense");
        server.look(|| ());
        assert_eq!(failures(), 1);
        server.look(|| panic!("it has not changed since"));
        fs::remove_file(path).unwrap();
        server.look(|| ());
        assert_eq!((labels(&server).len(), failures()), (2, 2));
        // Somebody goes, comes back and goes again.
        let soon = Instant::now() + Duration::from_secs(299);
        for (text, leaving) in [(B, 1), (&format!("{A}\n{B}\n"), 0), (B, 1)] {
            write(text);
            server.look(|| ());
            server.end_due(soon);
            assert_eq!(server.leaving.len(), leaving);
        }
        server.end_due(soon + Duration::from_secs(10));
        assert!(server.leaving.is_empty());
        let _ = fs::remove_file(path);
    }

    #[test]
    fn the_rules_of_an_old_client_keep_no_old_list() {
        let path = std::env::temp_dir().join(format!("mtproxy-lists-{}", std::process::id()));
        let path = path.to_str().unwrap();
        fs::write(path, A).unwrap();
        let server = server(path, "0");
        let (old, ip) = (server.rules.current(), "192.0.2.1".parse().unwrap());
        assert!(!old.refuse(ip));
        let mut files = load::read(&server.config, &server.requests, Some(&old)).unwrap();
        files.lists.blocked = List::parse("192.0.2.0/24", "f").ok();
        let new = load::rules(&server.config, files, None, &server.lasting);
        assert!(old.refuse(ip) && new.refuse(ip));
        let _ = fs::remove_file(path);
    }

    #[test]
    fn who_was_on_the_way_in_is_looked_for_after_a_short_drain() {
        let path = std::env::temp_dir().join(format!("mtproxy-drain-{}", std::process::id()));
        let path = path.to_str().unwrap();
        fs::write(path, A).unwrap();
        let mut server = server(path, "0");
        fs::write(path, B).unwrap();
        server.look(|| ());
        let now = Instant::now();
        for (seconds, left) in [(0, 1), (50, 1), (60, 0)] {
            server.end_due(now + Duration::from_secs(seconds));
            assert_eq!(server.leaving.len(), left, "{seconds}");
        }
        let _ = fs::remove_file(path);
    }
}
