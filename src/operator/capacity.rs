//! How many clients this machine can carry, from the limits that the system sets on descriptors,
//! threads, mappings and memory. A server that runs into one of them would fail in the middle of its
//! work (std ends the process when a thread's stack can't be mapped), so it stays below all.

use std::path::Path;

use mtproxy::limits::{
    self, MAX_CLIENTS, RESERVE, SYSTEM_RESERVE, THREAD_MEMORY, THREAD_SPACE, WRITER_SHARE,
};

use crate::base::sys::{self, Resource};
use crate::operator::options::Config;
use crate::operator::proc::{number_behind, text};

/// What was found.
pub struct Capacity {
    /// Clients at a time.
    pub clients: u32,
    /// Of these, how many may go direct in middle mode.
    pub fallbacks: u32,
    /// Connections at a time that have proven no secret.
    pub unauthenticated: u32,
    /// Strangers at a time that are shown the mask site.
    pub strangers: u32,
    /// Threads that serve connections.
    pub threads: usize,
    /// Which limit decided.
    pub decided_by: &'static str,
    /// Bytes of memory that this process may use.
    pub memory: u64,
}

/// What the server is going to need.
pub struct Demand<'a> {
    pub config: &'a Config,
    /// Backend slots: two threads and a descriptor each.
    pub slots: u64,
    /// Limits of secrets, all together: these clients take a descriptor more.
    pub limited: u64,
    /// There are domains, whose sites strangers are shown.
    pub fake_tls: bool,
}

/// What goes with a number of clients.
impl Demand<'_> {
    fn unauthenticated(&self, clients: u64) -> u64 {
        let derived = (clients / u64::from(limits::UNAUTHENTICATED_SHARE)).clamp(
            limits::MIN_UNAUTHENTICATED.into(),
            limits::MAX_UNAUTHENTICATED.into(),
        );
        self.config.max_unauthenticated.map_or(derived, u64::from)
    }

    fn strangers(&self, clients: u64) -> u64 {
        let derived = (clients / u64::from(limits::MASK_SHARE))
            .clamp(limits::MIN_MASK.into(), limits::MAX_MASK.into());
        match self.fake_tls {
            true => self.config.mask_max.map_or(derived, u64::from),
            false => 0,
        }
    }

    /// Threads that serve connections.
    fn client_threads(&self, clients: u64) -> u64 {
        let second = match self.config.is_direct() {
            true => clients,
            false => clients / WRITER_SHARE + 1,
        };
        // A stranger at the site has two threads, one that waits has one.
        clients + second + self.unauthenticated(clients) + 3 * self.strangers(clients)
    }

    fn threads(&self, clients: u64) -> u64 {
        RESERVE + 2 * self.slots + self.client_threads(clients)
    }

    fn descriptors(&self, clients: u64) -> u64 {
        // A client that goes direct has two sockets, and a pipe while it is busy.
        let direct = match self.config.is_direct() {
            true => clients,
            false if self.config.has_fallback() => clients.div_ceil(WRITER_SHARE),
            false => 0,
        };
        let strangers = self.unauthenticated(clients) + 3 * self.strangers(clients);
        RESERVE + self.slots + clients + 3 * direct + strangers + self.limited.min(clients)
    }
}

/// Raises what may be raised and takes the smallest of all limits.
pub fn find(demand: &Demand) -> Capacity {
    let nofile = sys::raise_limit(Resource::Descriptors).unwrap_or(1024);
    let nofile = nofile.min(demand.config.connections.map_or(u64::MAX, u64::from));
    let nproc = sys::raise_limit(Resource::Threads).unwrap_or(u64::MAX);
    let (space, memory) = (address_space(), memory());
    let threads = |limit: u64| most(limit, |clients| demand.threads(clients));
    let descriptors = |limit: u64| most(limit, |clients| demand.descriptors(clients));
    let asked = demand.config.max_clients.map_or(MAX_CLIENTS, u64::from);
    let threads_max = number("/proc/sys/kernel/threads-max") / 2;
    let pid_max = number("/proc/sys/kernel/pid_max").saturating_sub(SYSTEM_RESERVE);
    let mappings = number("/proc/sys/vm/max_map_count").saturating_sub(SYSTEM_RESERVE);
    let rows = [
        ("-C", asked),
        ("RLIMIT_NOFILE or -c", descriptors(nofile)),
        ("RLIMIT_NPROC", threads(nproc)),
        ("kernel.threads-max", threads(threads_max)),
        ("kernel.pid_max", threads(pid_max)),
        ("cgroup pids.max", threads(cgroup("pids", &["pids.max"]))),
        // Two mappings a thread, with the entry point of sys.rs.
        ("vm.max_map_count", threads(mappings / 2)),
        ("RLIMIT_AS", threads(space / 2 / THREAD_SPACE)),
        ("memory", threads(memory / 2 / THREAD_MEMORY)),
    ];
    let least = rows.into_iter().min_by_key(|(_, limit)| *limit);
    let (decided_by, clients) = least.unwrap_or(("-C", 1));
    let clients = clients.max(1);
    Capacity {
        clients: clients as u32,
        fallbacks: (clients / WRITER_SHARE) as u32,
        unauthenticated: demand.unauthenticated(clients) as u32,
        strangers: demand.strangers(clients) as u32,
        threads: demand.client_threads(clients) as usize,
        decided_by,
        memory: memory.min(space),
    }
}

/// The most clients whose need stays within a limit; as many as the registry takes if all do.
fn most(limit: u64, need: impl Fn(u64) -> u64) -> u64 {
    let (mut fits, mut too_many) = (0, 1 << 22);
    while too_many - fits > 1 {
        let middle = (fits + too_many) / 2;
        match need(middle) <= limit {
            true => fits = middle,
            false => too_many = middle,
        }
    }
    fits
}

/// Memory of the machine, or of this process's control group if that is less.
fn memory() -> u64 {
    let total = number_behind(&text("/proc/meminfo"), "MemTotal:");
    let machine = total.map_or(1 << 30, |kib| kib * 1024);
    machine.min(cgroup("memory", &["memory.max", "memory.limit_in_bytes"]))
}

/// What is left of this process's address space.
fn address_space() -> u64 {
    let used = number_behind(&text("/proc/self/status"), "VmSize:").unwrap_or(0) * 1024;
    match number_behind(&text("/proc/self/limits"), "Max address space") {
        Some(limit) => {
            sys::use_one_heap();
            limit.saturating_sub(used)
        }
        None => u64::MAX,
    }
}

/// The least that one of these files says of this process's control group or one above it, whose limits
/// hold as well; none found: unlimited. `controller` names the hierarchy of version 1; version 2 has one
/// without a name.
fn cgroup(controller: &str, files: &[&str]) -> u64 {
    let groups = text("/proc/self/cgroup");
    let mut least = u64::MAX;
    for line in groups.lines() {
        let parts = line
            .split_once(':')
            .and_then(|(_, rest)| rest.split_once(':'));
        let Some((names, group)) = parts else {
            continue;
        };
        let root = match names {
            "" => "/sys/fs/cgroup".to_owned(),
            _ if names.split(',').any(|name| name == controller) => {
                format!("/sys/fs/cgroup/{controller}")
            }
            _ => continue,
        };
        // In a container the path may be one of the host's: then its root is the group itself.
        let own = format!("{root}{group}");
        let up_to_root = Path::new(&own).ancestors();
        for path in up_to_root.take_while(|path| path.starts_with(&root)) {
            let limits = files.iter().map(|file| number(path.join(file)));
            least = limits.fold(least, u64::min);
        }
    }
    least
}

/// The number that a file begins with; none: unlimited.
fn number(path: impl AsRef<Path>) -> u64 {
    number_behind(&text(path), "").unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::options::{self, Command};
    use std::ffi::OsString;

    fn config(flags: &str) -> Config {
        let words = flags.split_whitespace().map(OsString::from);
        match options::parse(words) {
            Ok(Command::Run(config)) => *config,
            other => panic!("{flags}: {other:?}"),
        }
    }

    fn demand(config: &Config) -> Demand<'_> {
        Demand {
            config,
            slots: 0,
            limited: 0,
            fake_tls: config.has_domain(),
        }
    }

    /// Middle mode, without a way around it.
    const MIDDLE: &str = "-H 1 --no-fallback file";

    #[test]
    fn the_smallest_limit_decides() {
        let few = find(&demand(&config(&format!("-C 10 {MIDDLE}"))));
        assert_eq!((few.clients, few.decided_by), (10, "-C"));
        assert_eq!((few.unauthenticated, few.strangers), (64, 0));
        assert!(few.threads >= 11 + 64);
        let some = find(&Demand {
            slots: 10,
            ..demand(&config(&format!("-c 264 {MIDDLE}")))
        });
        assert_eq!(
            (some.clients, some.decided_by),
            (126, "RLIMIT_NOFILE or -c")
        );
        let direct = find(&demand(&config("-c 264 --max-unauthenticated 100")));
        assert_eq!((direct.clients, direct.threads), (25, 150));
        let machine = find(&demand(&config(MIDDLE)));
        assert!(machine.clients > 0 && machine.memory > 1 << 20);
    }

    #[test]
    fn what_strangers_get_follows_the_clients() {
        let derived = config("-D a.b");
        for (clients, unauthenticated, strangers) in
            [(1, 64, 64), (1000, 250, 125), (65_536, 4096, 512)]
        {
            let demand = demand(&derived);
            let found = (demand.unauthenticated(clients), demand.strangers(clients));
            assert_eq!(found, (unauthenticated, strangers), "{clients}");
        }
        let asked = config("-D a.b --mask-max 3 --max-unauthenticated 5");
        let asked = demand(&asked);
        assert_eq!((asked.unauthenticated(9999), asked.strangers(9999)), (5, 3));
    }

    #[test]
    fn as_many_as_fit() {
        for (limit, wanted) in [
            (0, 0),
            (99, 0),
            (100, 0),
            (102, 1),
            (1_000_000, 499_950),
            (u64::MAX, (1 << 22) - 1),
        ] {
            assert_eq!(most(limit, |clients| 100 + 2 * clients), wanted, "{limit}");
        }
    }

    #[test]
    fn a_limit_that_is_not_told_is_none() {
        assert_eq!(number("/nonexistent"), u64::MAX);
    }
}
