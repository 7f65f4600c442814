//! What both pages show besides the counters: facts of the start, and what is so at this moment.
//! Collected when somebody asks, under short locks, none of which is held while a page is sent.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Instant, SystemTime};

use mtproxy::crypto::middle_key;

use crate::base::buffers;
use crate::base::buffers::Usage;
use crate::base::clock;
use crate::door::replay::Replays;
use crate::middle::dcs::{Set, Snapshot};
use crate::middle::registry;
use crate::stats::{self, CLIENTS, DIRECT, Traffic};

/// What does not change.
pub struct Facts {
    /// When the process started.
    pub started: Instant,
    /// The same in unix seconds.
    pub start_time: u64,
    /// --address, or 0.0.0.0.
    pub address: Ipv4Addr,
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
    /// With fake TLS.
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
    pub fn new(path: &std::path::Path, bytes: &[u8]) -> FileFacts {
        FileFacts {
            name: path.display().to_string(),
            size: bytes.len(),
            md5: middle_key::fingerprint(bytes),
            loaded_at: clock::unix(),
            modified: std::fs::metadata(path).and_then(|m| m.modified()).ok(),
        }
    }
}

/// What is so now.
pub struct Live {
    /// Unix seconds.
    pub now: u64,
    pub begun: Instant,
    /// Milliseconds since the start, and of these, those that processors worked for us.
    pub uptime: u64,
    pub cpu: u64,
    /// Bytes: the address space, what of it is in memory, and of data.
    pub memory: [u64; 3],
    pub threads: u64,
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

impl Live {
    pub fn collect(facts: &Facts) -> Live {
        let status = proc("/proc/self/status");
        let kib = |name| number_behind(&status, name) * 1024;
        let traffic = stats::all_traffic();
        let sets: Vec<Snapshot> = facts.sets.iter().map(|set| set.snapshot()).collect();
        let (up, down) = registry::queued();
        let links = sets.iter().flat_map(|set| &set.ready);
        let in_channels: usize = links.map(|link| link.queued()).sum();
        let open = sum(&traffic, &|_| true, open);
        Live {
            now: clock::unix(),
            begun: Instant::now(),
            uptime: facts.started.elapsed().as_millis() as u64,
            cpu: cpu_of(&proc("/proc/self/stat")),
            memory: [kib("VmSize:"), kib("VmRSS:"), kib("VmData:")],
            threads: number_behind(&status, "Threads:"),
            clients: CLIENTS.value().into(),
            open,
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
}

/// What is taken of the traffic of one kind.
pub type Figure = fn(&Traffic) -> u64;

/// Clients connected now.
pub fn open(traffic: &Traffic) -> u64 {
    traffic.open.load(Ordering::Relaxed).into()
}

/// Sums a figure of all traffic that fits.
#[inline(never)]
pub fn sum(traffic: &[&Traffic], fits: &dyn Fn(&Traffic) -> bool, of: Figure) -> u64 {
    let fitting = traffic.iter().filter(|t| fits(t));
    fitting.map(|t| of(t)).sum()
}

/// A file of ours in proc(5); nothing if it can't be read.
#[inline(never)]
fn proc(path: &str) -> Vec<u8> {
    std::fs::read(path).unwrap_or_default()
}

/// The number behind a name at the start of a line; 0 if there is none.
#[inline(never)]
fn number_behind(text: &[u8], name: &str) -> u64 {
    let mut lines = text.split(|byte| *byte == b'\n');
    let found = lines.find_map(|line| line.strip_prefix(name.as_bytes()));
    number(found.unwrap_or_default())
}

/// The digits among these bytes, as a number.
#[inline(never)]
fn number(text: &[u8]) -> u64 {
    let digits = text.iter().filter(|byte| byte.is_ascii_digit());
    digits.fold(0, |sum, digit| {
        sum.wrapping_mul(10) + u64::from(digit - b'0')
    })
}

/// What processors have worked for this process, milliseconds: of the line of proc(5)'s stat. The name
/// in parentheses may hold anything; fields 14 and 15 of all are user and system time in hundredths of
/// a second.
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
        let own = proc("/proc/self/status");
        assert!(number_behind(&own, "VmRSS:") > 0 && number_behind(&own, "Threads:") > 0);
    }
}
