//! What both pages show besides the counters: facts that were settled at start, and figures of this
//! moment. A page's thread collects them when it is asked, under short locks, none of which is held while
//! the page is sent. What proc(5) doesn't tell, as in a chroot without /proc, is 0.

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use mtproxy::crypto::middle_key;

use crate::base::buffers::{self, Usage};
use crate::base::clock;
use crate::door::replay::Replays;
use crate::middle::dcs::{Set, Snapshot};
use crate::middle::registry;
use crate::stats::{self, CLIENTS, DIRECT, Figure, Traffic};

/// What is settled at start.
pub struct Facts {
    /// When the process started.
    pub started: Instant,
    /// The same in unix seconds.
    pub start_time: u64,
    /// --address, or 0.0.0.0.
    pub address: IpAddr,
    /// The statistics port.
    pub port: u16,
    /// Telegram's configuration; None in direct mode.
    pub config: Option<FileFacts>,
    /// Data centres in it.
    pub clusters: usize,
    /// Telegram's proxy-secret.
    pub proxy_secret: Option<FileFacts>,
    /// The sets of middle proxies.
    pub sets: Vec<Arc<Set>>,
    /// -W
    pub window_clamp: u32,
    /// Whether there is -P.
    pub has_tag: bool,
    /// Clients at a time.
    pub most_clients: u32,
    /// The handshakes that are remembered.
    pub replays: Option<Arc<Replays>>,
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
    /// When it was last written by then, if the system knows.
    pub modified: Option<SystemTime>,
}

impl FileFacts {
    /// Of a file that was just read.
    pub fn new(path: &Path, bytes: &[u8]) -> FileFacts {
        FileFacts {
            name: path.display().to_string(),
            size: bytes.len(),
            md5: middle_key::fingerprint(bytes),
            loaded_at: clock::unix(),
            modified: fs::metadata(path).and_then(|m| m.modified()).ok(),
        }
    }
}

/// The figures of one moment.
pub struct Live<'a> {
    pub facts: &'a Facts,
    /// Unix seconds.
    pub now: u64,
    /// When the figures were collected.
    pub begun: Instant,
    /// Milliseconds since the start.
    pub uptime: u64,
    /// Milliseconds that processors worked for the process.
    pub cpu: u64,
    /// Bytes: the address space, what of it is in memory, and of data.
    pub memory: [u64; 3],
    pub threads: u64,
    /// Descriptors that are open, and how many may be.
    pub descriptors: u64,
    pub most_descriptors: u64,
    /// Connected clients, handshakes included.
    pub clients: u64,
    /// Those of them whose handshake is done.
    pub open: u64,
    /// Connections to data centres.
    pub direct: u64,
    pub traffic: Vec<&'static Traffic>,
    /// As the facts' sets.
    pub sets: Vec<Snapshot>,
    pub buffers: Usage,
    /// Bytes that wait, upwards and downwards.
    pub queued: [u64; 2],
}

impl Live<'_> {
    /// The figures of this moment.
    pub fn collect(facts: &Facts) -> Live<'_> {
        let status = proc("/proc/self/status");
        let kib = |name| number_behind(&status, name) * 1024;
        let traffic = stats::all_traffic();
        let sets: Vec<Snapshot> = facts.sets.iter().map(|set| set.snapshot()).collect();
        let (up, down) = registry::queued();
        let links = sets.iter().flat_map(|set| &set.ready);
        let in_channels: usize = links.map(|link| link.queued()).sum();
        Live {
            facts,
            now: clock::unix(),
            begun: Instant::now(),
            uptime: facts.started.elapsed().as_millis() as u64,
            cpu: cpu_of(&proc("/proc/self/stat")),
            memory: [kib("VmSize:"), kib("VmRSS:"), kib("VmData:")],
            threads: number_behind(&status, "Threads:"),
            descriptors: fs::read_dir("/proc/self/fd").map_or(0, |open| open.count() as u64),
            most_descriptors: number_behind(&proc("/proc/self/limits"), "Max open files"),
            clients: CLIENTS.value().into(),
            open: stats::sum(&traffic, &|_| true, open),
            direct: DIRECT.value().into(),
            traffic,
            sets,
            buffers: buffers::usage(),
            queued: [up + in_channels as u64, down],
        }
    }

    /// Ready connections to middle proxies.
    pub fn links(&self) -> u64 {
        self.sets.iter().map(|set| set.ready.len() as u64).sum()
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

/// A file of ours in proc(5); nothing if it can't be read.
#[inline(never)]
fn proc(path: &str) -> Vec<u8> {
    fs::read(path).unwrap_or_default()
}

/// The first number behind a name at the start of a line; 0 if there is none.
#[inline(never)]
fn number_behind(text: &[u8], name: &str) -> u64 {
    let mut lines = text.split(|byte| *byte == b'\n');
    let found = lines.find_map(|line| line.strip_prefix(name.as_bytes()));
    number(found.unwrap_or_default())
}

/// The first number among these bytes.
#[inline(never)]
fn number(text: &[u8]) -> u64 {
    let digits = text.iter().skip_while(|byte| !byte.is_ascii_digit());
    let digits = digits.take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |sum, digit| {
        sum.wrapping_mul(10) + u64::from(digit - b'0')
    })
}

/// The processor time of this process in milliseconds, from the line of proc(5)'s stat. The name in
/// parentheses may hold anything; fields 14 and 15, counted from the line's beginning, are user and
/// system time in hundredths of a second.
#[inline(never)]
fn cpu_of(stat: &[u8]) -> u64 {
    let behind = stat.iter().rposition(|byte| *byte == b')').unwrap_or(0);
    let fields = stat[behind..].split(|byte| *byte == b' ');
    10 * fields.skip(12).take(2).map(number).sum::<u64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_proc_says() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 90 0 0 0 12 30 5 6 20 0 3 0 100 1 2";
        assert_eq!(cpu_of(stat.as_bytes()), 420);
        assert_eq!(cpu_of(b""), 0);
        let status = b"Name:\tThreads:\nVmSize:\t   12 kB\nThreads:\t3\n";
        assert_eq!(number_behind(status, "VmSize:"), 12);
        assert_eq!(number_behind(status, "Threads:"), 3);
        assert_eq!(number_behind(status, "VmRSS:"), 0);
        let limits = b"Max open files            1024                 524288               files\n";
        assert_eq!(number_behind(limits, "Max open files"), 1_024);
        let own = proc("/proc/self/status");
        assert!(number_behind(&own, "VmRSS:") > 0 && number_behind(&own, "Threads:") > 0);
    }
}
