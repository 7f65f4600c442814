//! How many clients this machine can carry, from the limits that the system sets on descriptors,
//! threads, mappings and memory. A server that runs into one of them would fail in the middle of its
//! work (std ends the process when a thread's stack can't be mapped), so it stays below all.

use std::fs::read_to_string;

use crate::base::sys;
use crate::base::sys::Resource;

/// What was found.
pub struct Capacity {
    /// Clients at a time.
    pub clients: u32,
    /// Of these, how many may go direct in middle mode.
    pub fallbacks: u32,
    /// Client threads, writers of slow clients included.
    pub threads: usize,
    /// Which limit decided.
    pub decided_by: &'static str,
    /// Bytes of memory that this process may use.
    pub memory: u64,
}

/// What the server is going to need.
pub struct Demand {
    /// -C
    pub clients: Option<u32>,
    /// -c
    pub descriptors: Option<u32>,
    /// Backend slots: two threads and a descriptor each.
    pub slots: u64,
    /// Direct mode: two threads for each client, two sockets, and a pipe while it is busy.
    pub direct: bool,
    /// Middle mode: some clients may have to go direct.
    pub fallback: bool,
    /// Strangers at a time: a thread and a descriptor more than a client each.
    pub strangers: u64,
}

/// Descriptors and threads that the server needs besides its clients and backend slots.
const RESERVE: u64 = 64;
/// Memory of an idle client's thread, kernel included: its stacks, structures, a socket's both ends.
const THREAD_MEMORY: u64 = 48 << 10;
/// Middle mode: one client in this many may need a second thread at the same time, for its writer or
/// because it goes direct.
const WRITER_SHARE: u64 = 8;

/// Raises what may be raised and takes the smallest of all limits.
pub fn find(demand: &Demand) -> Capacity {
    let unlimited = u64::MAX;
    let nofile = sys::raise_limit(Resource::Descriptors).unwrap_or(1024);
    let nofile = nofile.min(demand.descriptors.map_or(unlimited, u64::from));
    let nproc = sys::raise_limit(Resource::Threads).unwrap_or(unlimited);
    let memory = memory();
    let (sockets, threads) = if demand.direct { (4, 2) } else { (1, 1) };
    // One client in eight with three descriptors more.
    let descriptors = |limit: u64| match demand.fallback && !demand.direct {
        true => limit * WRITER_SHARE / (WRITER_SHARE + 3),
        false => limit / sockets,
    };
    let clients = |limit: u64| {
        let left = limit.saturating_sub(RESERVE + 2 * demand.slots + demand.strangers);
        if demand.direct {
            left / threads
        } else {
            left / (WRITER_SHARE + 1) * WRITER_SHARE
        }
    };
    let rows = [
        ("-C", demand.clients.map_or(65_536, u64::from)),
        (
            "RLIMIT_NOFILE or -c",
            descriptors(nofile.saturating_sub(RESERVE + demand.slots + demand.strangers)),
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
        ("memory", memory / 2 / (threads * THREAD_MEMORY)),
    ];
    let (decided_by, clients) = rows
        .into_iter()
        .min_by_key(|(_, limit)| *limit)
        .unwrap_or(("-C", 1));
    let clients = clients.max(1);
    let writers = if demand.direct {
        clients
    } else {
        clients / WRITER_SHARE + 1
    };
    let threads = (clients + writers + demand.strangers) as usize;
    Capacity {
        clients: clients as u32,
        fallbacks: (clients / WRITER_SHARE) as u32,
        threads,
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
        let demand = |clients, descriptors, slots, direct| {
            find(&Demand {
                clients,
                descriptors,
                slots,
                direct,
                fallback: false,
                strangers: 0,
            })
        };
        let few = demand(Some(10), None, 0, false);
        assert_eq!((few.clients, few.decided_by), (10, "-C"));
        assert!(few.threads >= 11);
        let some = demand(None, Some(164), 10, false);
        assert_eq!((some.clients, some.decided_by), (90, "RLIMIT_NOFILE or -c"));
        let direct = demand(None, Some(164), 0, true);
        assert_eq!((direct.clients, direct.threads), (25, 50));
        let machine = demand(None, None, 0, false);
        assert!(machine.clients > 0 && machine.memory > 1 << 20);
    }

    #[test]
    fn numbers_and_their_absence() {
        assert_eq!(first_number(" 42 kB\n"), Some(42));
        assert_eq!(first_number("max\n"), None);
        assert_eq!(number("/nonexistent"), u64::MAX);
    }
}
