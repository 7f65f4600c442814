//! What both pages show besides the counters: facts that were settled at start, and figures of this
//! moment. A page's thread collects them when it is asked, under short locks, none of which is held while
//! the page is sent. What proc(5) doesn't tell, as in a chroot without /proc, is 0.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mtproxy::crypto::middle_key;
use mtproxy::proto::wire::decimal;

use crate::base::buffers::{self, Usage};
use crate::base::clock;
use crate::base::lock::Mutex;
use crate::door::rules::{LiveRules, Rules};
use crate::middle::{dcs::Snapshot, registry};
use crate::operator::options::Config;
use crate::operator::proc::{self, number_behind};
use crate::stats::{self, CLIENTS, Figure, Traffic};

/// What is settled at start.
pub struct Facts {
    /// When the process started.
    pub started: Instant,
    /// The same in unix seconds.
    pub start_time: u64,
    /// The command line.
    pub config: Arc<Config>,
    /// The statistics port.
    pub port: u16,
    /// Telegram's files, as they were read last.
    pub telegram: Arc<Mutex<Arc<Telegram>>>,
    /// The sets of middle proxies, and the handshakes that are remembered.
    pub rules: Arc<LiveRules>,
    /// Clients at a time.
    pub most_clients: u32,
}

/// Telegram's files.
#[derive(Default)]
pub struct Telegram {
    /// The list of middle proxies; None in direct mode.
    pub config: Option<FileFacts>,
    pub proxy_secret: Option<FileFacts>,
    /// When a reload was applied last, unix seconds; 0: never.
    pub reloaded: u64,
}

impl Telegram {
    /// Both, with the names that metrics have for them.
    pub fn files(&self) -> impl Iterator<Item = (&'static str, &FileFacts)> {
        let both = [
            ("config", &self.config),
            ("proxy_secret", &self.proxy_secret),
        ];
        both.into_iter()
            .filter_map(|(name, file)| Some((name, file.as_ref()?)))
    }
}

/// A file as it was read.
pub struct FileFacts {
    /// Its name.
    pub name: String,
    /// Bytes.
    pub size: usize,
    /// Their MD5.
    pub md5: [u8; 16],
    /// When it was read, unix seconds.
    pub loaded_at: u64,
    /// When it was last written by then, unix seconds, if the system knows.
    pub written: Option<u64>,
}

impl FileFacts {
    /// Of a file that was just read.
    pub fn new(path: &Path, bytes: &[u8]) -> FileFacts {
        FileFacts {
            name: path.display().to_string(),
            size: bytes.len(),
            md5: middle_key::fingerprint(bytes),
            loaded_at: clock::unix(),
            written: clock::written(path),
        }
    }
}

impl FileFacts {
    /// How long ago it was written, if the system knows.
    pub fn age(&self) -> Option<Duration> {
        let age = clock::unix().saturating_sub(self.written?);
        Some(Duration::from_secs(age))
    }
}

/// The figures of one moment.
pub struct Live<'a> {
    pub facts: &'a Facts,
    pub rules: Arc<Rules>,
    pub telegram: Arc<Telegram>,
    /// When the figures were collected.
    pub begun: Instant,
    /// Milliseconds since the start.
    pub uptime: u64,
    /// Milliseconds that processors worked for the process.
    pub cpu: u64,
    /// Bytes: the address space, what of it is in memory, and of data.
    pub memory: [u64; 3],
    pub threads: u64,
    /// Connected clients, handshakes included.
    pub clients: u64,
    /// Those of them whose handshake is done.
    pub open: u64,
    pub traffic: Vec<&'static Traffic>,
    /// As the rules' sets.
    pub sets: Vec<Snapshot>,
    pub buffers: Usage,
    /// Bytes that wait, upwards and downwards.
    pub queued: [u64; 2],
}

impl Live<'_> {
    /// The figures of this moment.
    pub fn collect(facts: &Facts) -> Live<'_> {
        let status = proc::text("/proc/self/status");
        let kib = |name| number_behind(&status, name).unwrap_or(0) * 1024;
        let traffic = stats::all_traffic();
        let rules = facts.rules.current();
        let sets = rules.sets().iter();
        let sets: Vec<Snapshot> = sets.map(|set| set.snapshot()).collect();
        let (up, down) = registry::queued();
        let links = sets.iter().flat_map(|set| &set.ready);
        let in_channels: usize = links.map(|link| link.queued()).sum();
        Live {
            facts,
            rules,
            telegram: facts.telegram.lock().clone(),
            begun: Instant::now(),
            uptime: facts.started.elapsed().as_millis() as u64,
            cpu: cpu_of(&proc::text("/proc/self/stat")),
            memory: [kib("VmSize:"), kib("VmRSS:"), kib("VmData:")],
            threads: number_behind(&status, "Threads:").unwrap_or(0),
            clients: CLIENTS.value().into(),
            open: stats::sum(&traffic, &|_| true, open),
            traffic,
            sets,
            buffers: buffers::usage(),
            queued: [up + in_channels as u64, down],
        }
    }

    /// Sums a figure of all traffic that fits.
    pub fn sum(&self, fits: &dyn Fn(&Traffic) -> bool, figure: Figure) -> u64 {
        stats::sum(&self.traffic, fits, figure)
    }
}

/// Clients connected now.
pub fn open(traffic: &Traffic) -> u64 {
    traffic.open.value().into()
}

/// The processor time of this process in milliseconds, from the line of proc(5)'s stat. The name in
/// parentheses may hold anything; fields 14 and 15, counted from the line's beginning, are user and
/// system time in hundredths of a second.
#[inline(never)]
fn cpu_of(stat: &str) -> u64 {
    let (_, behind) = stat.rsplit_once(')').unwrap_or_default();
    let fields = behind.split(' ').skip(12).take(2);
    let ticks = fields.filter_map(|field| decimal::<u64>(field.as_bytes()));
    10 * ticks.sum::<u64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_proc_says() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 90 0 0 0 12 30 5 6 20 0 3 0 100 1 2";
        assert_eq!(cpu_of(stat), 420);
        assert_eq!(cpu_of(""), 0);
        let own = proc::text("/proc/self/status");
        assert!(number_behind(&own, "VmRSS:") > Some(0));
        assert!(number_behind(&own, "Threads:") > Some(0));
    }
}
