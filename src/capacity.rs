//! How many clients this machine can carry, from the limits that the system sets on descriptors,
//! threads, mappings and memory. A server that runs into one of them would fail in the middle of its
//! work (std ends the process when a thread's stack can't be mapped), so it stays below all.

use std::fs::read_to_string;

use crate::sys::{self, Resource};

/// What was found.
pub struct Capacity {
    /// Clients at a time.
    pub clients: u32,
    /// Client threads, writers of slow clients included.
    pub threads: usize,
    /// Which limit decided.
    pub decided_by: &'static str,
    /// Bytes of memory that this process may use.
    pub memory: u64,
}

/// Descriptors and threads that the server needs besides its clients and backend slots.
const RESERVE: u64 = 64;
/// Memory of an idle client, kernel included: thread stack, both structures, socket.
const CLIENT_MEMORY: u64 = 48 << 10;
/// One client in this many may need a writer at the same time.
const WRITER_SHARE: u64 = 8;

/// Raises what may be raised and takes the smallest of all limits. `asked` is -C, `descriptors` -c;
/// `slots` backend slots need two threads and a descriptor each.
pub fn find(asked: Option<u32>, descriptors: Option<u32>, slots: u64) -> Capacity {
    let unlimited = u64::MAX;
    let nofile = sys::raise_limit(Resource::Descriptors).unwrap_or(1024);
    let nofile = nofile.min(descriptors.map_or(unlimited, u64::from));
    let nproc = sys::raise_limit(Resource::Threads).unwrap_or(unlimited);
    let memory = memory();
    let threads = |limit: u64| limit.saturating_sub(RESERVE + 2 * slots);
    let clients = |limit: u64| threads(limit) / (WRITER_SHARE + 1) * WRITER_SHARE;
    let rows = [
        ("-C", asked.map_or(65_536, u64::from)),
        (
            "RLIMIT_NOFILE or -c",
            nofile.saturating_sub(RESERVE + slots),
        ),
        ("RLIMIT_NPROC", clients(nproc)),
        (
            "kernel.threads-max",
            clients(number("/proc/sys/kernel/threads-max") / 2),
        ),
        (
            "kernel.pid_max",
            clients(number("/proc/sys/kernel/pid_max").saturating_sub(2_000)),
        ),
        ("cgroup pids.max", clients(cgroup("pids.max"))),
        // Two mappings a thread, with the entry point of sys.rs.
        (
            "vm.max_map_count",
            clients(number("/proc/sys/vm/max_map_count").saturating_sub(2_000) / 2),
        ),
        ("memory", memory / 2 / CLIENT_MEMORY),
    ];
    let (decided_by, clients) = rows
        .into_iter()
        .min_by_key(|(_, limit)| *limit)
        .unwrap_or(("-C", 1));
    let clients = clients.max(1);
    let threads = clients + clients / WRITER_SHARE + 1;
    Capacity {
        clients: clients as u32,
        threads: threads as usize,
        decided_by,
        memory,
    }
}

/// Memory of the machine, or of this process's control group if that is less.
fn memory() -> u64 {
    let text = read_to_string("/proc/meminfo").unwrap_or_default();
    let total = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .and_then(first_number);
    total
        .map_or(1 << 30, |kib| kib * 1024)
        .min(cgroup("memory.max"))
}

/// A limit of this process's control group (version 2); none found: unlimited.
fn cgroup(file: &str) -> u64 {
    let groups = read_to_string("/proc/self/cgroup").unwrap_or_default();
    let path = groups
        .lines()
        .find_map(|line| line.strip_prefix("0::"))
        .unwrap_or("/");
    let mut path = std::path::PathBuf::from(format!("/sys/fs/cgroup{path}"));
    let mut least = u64::MAX;
    // A parent's limit holds as well.
    while path.starts_with("/sys/fs/cgroup") {
        least = least.min(
            read_to_string(path.join(file))
                .ok()
                .and_then(|t| first_number(&t))
                .unwrap_or(u64::MAX),
        );
        path.pop();
    }
    least
}

/// The number in a file; none: unlimited.
fn number(path: &str) -> u64 {
    read_to_string(path)
        .ok()
        .and_then(|text| first_number(&text))
        .unwrap_or(u64::MAX)
}

fn first_number(text: &str) -> Option<u64> {
    text.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_limit_decides() {
        let few = find(Some(10), None, 0);
        assert_eq!((few.clients, few.decided_by), (10, "-C"));
        assert!(few.threads >= 11);
        let some = find(None, Some(164), 10);
        assert_eq!((some.clients, some.decided_by), (90, "RLIMIT_NOFILE or -c"));
        let machine = find(None, None, 0);
        assert!(machine.clients > 0 && machine.memory > 1 << 20);
    }

    #[test]
    fn numbers_and_their_absence() {
        assert_eq!(first_number(" 42 kB\n"), Some(42));
        assert_eq!(first_number("max\n"), None);
        assert_eq!(number("/nonexistent"), u64::MAX);
    }
}
