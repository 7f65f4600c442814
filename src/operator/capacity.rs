//! How many clients this machine can carry, from the limits that the system sets on descriptors,
//! threads, mappings and memory. A server that runs into one of them would fail in the middle of its
//! work (std ends the process when a thread's stack can't be mapped), so it stays below all.

use std::fs::read_to_string;
use std::path::Path;

use mtproxy::limits::{MAX_CLIENTS, RESERVE, SYSTEM_RESERVE, THREAD_MEMORY, WRITER_SHARE};
use mtproxy::proto::wire::decimal;

use crate::base::sys::{self, Resource};

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
        match demand.direct {
            true => left / threads,
            false => left / (WRITER_SHARE + 1) * WRITER_SHARE,
        }
    };
    let setting = |name: &str| number(format!("/proc/sys/{name}"));
    let open = nofile.saturating_sub(RESERVE + demand.slots + demand.strangers);
    let pids = setting("kernel/pid_max").saturating_sub(SYSTEM_RESERVE);
    // A thread with the entry point of base::sys takes two mappings.
    let maps = setting("vm/max_map_count").saturating_sub(SYSTEM_RESERVE) / 2;
    let limits = [
        ("-C", demand.clients.map_or(MAX_CLIENTS, u64::from)),
        ("RLIMIT_NOFILE or -c", descriptors(open)),
        ("RLIMIT_NPROC", clients(nproc)),
        (
            "kernel.threads-max",
            clients(setting("kernel/threads-max") / 2),
        ),
        ("kernel.pid_max", clients(pids)),
        ("cgroup pids.max", clients(cgroup("pids.max"))),
        ("vm.max_map_count", clients(maps)),
        ("memory", memory / 2 / (threads * THREAD_MEMORY)),
    ];
    let least = limits.into_iter().min_by_key(|(_, clients)| *clients);
    let (decided_by, clients) = least.unwrap_or(("-C", 1));
    let clients = clients.max(1);
    let writers = match demand.direct {
        true => clients,
        false => clients / WRITER_SHARE + 1,
    };
    Capacity {
        clients: clients as u32,
        fallbacks: (clients / WRITER_SHARE) as u32,
        threads: (clients + writers + demand.strangers) as usize,
        decided_by,
        memory,
    }
}

/// Memory of the machine, or of this process's control group if that is less.
fn memory() -> u64 {
    let text = read_to_string("/proc/meminfo").unwrap_or_default();
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let total = total.and_then(first_number).map(|kib| kib * 1024);
    total.unwrap_or(1 << 30).min(cgroup("memory.max"))
}

/// A limit of this process's control group (version 2) or of those that it is in; none found: unlimited.
fn cgroup(file: &str) -> u64 {
    let groups = read_to_string("/proc/self/cgroup").unwrap_or_default();
    let own = groups.lines().find_map(|line| line.strip_prefix("0::"));
    let own = format!("/sys/fs/cgroup{}", own.unwrap_or("/"));
    let groups = Path::new(&own).ancestors();
    let groups = groups.take_while(|group| group.starts_with("/sys/fs/cgroup"));
    let limits = groups.map(|group| number(group.join(file)));
    limits.min().unwrap_or(u64::MAX)
}

/// The number in a file; none: unlimited.
fn number(path: impl AsRef<Path>) -> u64 {
    let text = read_to_string(path).unwrap_or_default();
    first_number(&text).unwrap_or(u64::MAX)
}

fn first_number(text: &str) -> Option<u64> {
    decimal(text.split_whitespace().next()?.as_bytes())
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
