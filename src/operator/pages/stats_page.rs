//! `/stats`: lines of name, tab, value. First what the C program's page has (protocol.md 10.2): the
//! process, the memory, and the proxy, by its names and in its order, so that scripts that read that
//! page go on working. Then every other counter of the table, by its own name.
//!
//! What this program has nothing of is 0: an event loop, worker processes, remote calls of its own,
//! Diffie-Hellman. The processor's time is the process's own; idle is what is left of the time.

use crate::base::lock::Mutex;
use crate::base::threads;
use std::fmt::Write;
use std::sync::atomic::Ordering;

use crate::operator::pages::live::{Facts, FileFacts, Live, open, sum};
use crate::stats::{self, Close, PENDING, STATS, Traffic};

/// The page.
pub fn render(facts: &Facts, live: &Live) -> String {
    let mut page = String::with_capacity(8 << 10);
    process(&mut page, facts, live);
    configuration(&mut page, facts);
    proxy(&mut page, facts, live);
    own(&mut page, facts);
    page
}

/// Part 1. A `%` is the next value, a `$` one of thousandths, a `#` one of millionths.
const PROCESS: &str = "pid\t%\nstart_time\t%\ncurrent_time\t%\nuptime\t%\n\
    tot_idle_time\t$\naverage_idle_percent\t$\nrecent_idle_percent\t$\n\
    active_network_events\t0\ntime_after_epoll\t0.000000\nepoll_calls\t0\nepoll_intr\t0\n";

/// Part 3.
const MEMORY: &str = "stats_generate_time\t#\nvmsize_bytes\t%\nvmrss_bytes\t%\nvmdata_bytes\t%\n";

/// Part 4, behind what is about the file.
const PROXY: &str = "config_auth_clusters\t%\nworkers\t0\nqueries_get\t0\nqps_get\t0.000\n\
    tot_forwarded_queries\t%\nexpired_forwarded_queries\t0\ndropped_queries\t%\n\
    tot_forwarded_responses\t%\ndropped_responses\t%\n\
    tot_forwarded_simple_acks\t%\ndropped_simple_acks\t%\n\
    active_rpcs_created\t0\nactive_rpcs\t0\nrpc_dropped_answers\t0\nrpc_dropped_running\t0\n\
    window_clamp\t%\n\
    total_ready_targets\t%\ntotal_allocated_targets\t%\ntotal_declared_targets\t%\n\
    total_inactive_targets\t0\n\
    total_connections\t%\ntotal_encrypted_connections\t%\ntotal_allocated_connections\t%\n\
    total_allocated_outbound_connections\t%\ntotal_allocated_inbound_connections\t%\n\
    total_allocated_socket_connections\t%\n\
    total_dh_connections\t0\ntotal_dh_rounds\t0 0 0\n\
    total_special_connections\t%\ntotal_max_special_connections\t%\n\
    total_accept_connections_failed\t% % % 0 0\n\
    ext_connections\t%\next_connections_created\t%\n\
    total_active_network_events\t0\n\
    total_network_buffers_used_size\t%\ntotal_network_buffers_allocated_bytes\t%\n\
    total_network_buffers_used\t%\ntotal_network_buffer_chunks_allocated\t%\n\
    total_network_buffer_chunks_allocated_max\t%\n\
    mtproto_proxy_errors\t%\nconnections_failed_lru\t%\nconnections_failed_flood\t%\n\
    http_connections\t%\npending_http_queries\t%\nhttp_queries\t%\nhttp_bad_headers\t%\n\
    http_qps\t#\n\
    proxy_mode\t2\nproxy_tag_set\t%\n";

/// Writes lines with their values.
#[inline(never)]
fn fill(page: &mut String, lines: &str, values: &[u64]) {
    let mut values = values.iter();
    for c in lines.chars() {
        let parts = match c {
            '%' => 0,
            '$' => 1_000,
            '#' => 1_000_000,
            c => {
                page.push(c);
                continue;
            }
        };
        let value = values.next().copied().unwrap_or(0);
        let _ = match parts {
            0 => write!(page, "{value}"),
            1_000 => write!(page, "{}.{:03}", value / parts, value % parts),
            _ => write!(page, "{}.{:06}", value / parts, value % parts),
        };
    }
}

fn process(page: &mut String, facts: &Facts, live: &Live) {
    let pid = std::process::id();
    let percent = |idle: u64, of: u64| idle * 100_000 / of.max(1);
    let idle = live.uptime.saturating_sub(live.cpu);
    let (time, cpu) = since_last_time(live);
    fill(
        page,
        PROCESS,
        &[
            pid.into(),
            facts.start_time,
            live.now,
            live.uptime / 1000,
            idle,
            percent(idle, live.uptime),
            percent(time.saturating_sub(cpu), time),
        ],
    );
    let (address, port, start) = (facts.address, facts.port, facts.start_time);
    let _ = writeln!(page, "PID\t[{address}:{port}:{pid}:{start}]");
    let took = live.begun.elapsed().as_micros() as u64;
    let [size, resident, data] = live.memory;
    fill(page, MEMORY, &[took, size, resident, data]);
}

fn configuration(page: &mut String, facts: &Facts) {
    let file = facts.config.as_ref();
    let (name, loaded, size) = file.map_or(("", 0, 0), |file| {
        (file.name.as_str(), file.loaded_at, file.size)
    });
    let _ = writeln!(
        page,
        "config_filename\t{name}\nconfig_loaded_at\t{loaded}\nconfig_size\t{size}\nconfig_md5\t{}",
        Hex(file)
    );
}

fn proxy(page: &mut String, facts: &Facts, live: &Live) {
    let all = |of: fn(&Traffic) -> u64| sum(&live.traffic, &|_| true, of);
    let targets = facts.sets.iter().map(|set| set.targets.len() as u64).sum();
    let outbound = live.links() + live.direct;
    let connections = live.clients + outbound;
    let buffers = &live.buffers;
    let chunks = buffers.used + buffers.free;
    let http_queries = STATS.http_queries.value();
    fill(
        page,
        PROXY,
        &[
            facts.clusters as u64,
            all(|t| t.queries.value()),
            STATS.dropped_queries.value(),
            all(|t| t.answers.value()),
            STATS.dropped_responses.value(),
            STATS.tot_forwarded_simple_acks.value(),
            STATS.dropped_simple_acks.value(),
            facts.window_clamp.into(),
            ready_targets(live),
            targets,
            targets,
            connections,
            live.open + outbound,
            connections,
            outbound,
            live.clients,
            connections,
            live.clients,
            facts.most_clients.into(),
            STATS.accept_thread_failed.value(),
            STATS.accept_calls_failed.value(),
            STATS.accept_connection_limit_failed.value(),
            live.open,
            all(|t| t.clients.value()),
            buffers.bytes as u64,
            (buffers.bytes + buffers.free_bytes) as u64,
            buffers.used as u64,
            chunks as u64,
            chunks.max(buffers.most) as u64,
            threads::PANICS.value(),
            STATS.connections_failed_lru.value(),
            STATS.connections_failed_flood.value(),
            sum(&live.traffic, &|t| t.transport.is_none(), open),
            PENDING.value().into(),
            http_queries,
            STATS.http_bad_headers.value(),
            http_queries * 1_000_000 / (live.uptime / 1000).max(1),
            facts.has_tag.into(),
        ],
    );
    let _ = writeln!(page, "version\tmtproxy-{}", env!("CARGO_PKG_VERSION"));
}

/// Every counter that stands nowhere above, and the secrets.
fn own(page: &mut String, facts: &Facts) {
    let _ = writeln!(page, "aes_pwd_hash\t{}", Hex(facts.proxy_secret.as_ref()));
    let mut row = |prefix: &str, name: &str, value: u64| {
        let _ = writeln!(page, "{prefix}{name}\t{value}");
    };
    for (name, _, value) in stats::rows() {
        if !SHARED.contains(&name) {
            row("", name, value);
        }
    }
    for (word, _, value) in Close::rows() {
        row("closed_", word, value);
    }
    for (number, label) in (1_u32..).zip(stats::labels()) {
        let name = &label.name;
        let open = label.open.load(Ordering::Relaxed);
        let refused = label.refused.value();
        let _ = write!(
            page,
            "secret_{number}_label\t{name}\nsecret_{number}_connections\t{open}\n\
             secret_{number}_refused\t{refused}\n"
        );
    }
}

/// Counters that are among the C program's lines.
const SHARED: [&str; 11] = [
    "http_queries",
    "http_bad_headers",
    "ext_connections_created",
    "tot_forwarded_queries",
    "tot_forwarded_responses",
    "tot_forwarded_simple_acks",
    "dropped_queries",
    "dropped_responses",
    "dropped_simple_acks",
    "connections_failed_lru",
    "connections_failed_flood",
];

/// Targets that have a ready connection.
fn ready_targets(live: &Live) -> u64 {
    let mut ready = 0;
    for set in &live.sets {
        let mut targets = Vec::with_capacity(set.ready.len());
        for target in set.ready.iter().map(|link| link.target()) {
            if !targets.contains(&target) {
                targets.push(target);
            }
        }
        ready += targets.len() as u64;
    }
    ready
}

/// Time and processor's time since the page was last asked for, milliseconds; at first, since the
/// start.
fn since_last_time(live: &Live) -> (u64, u64) {
    static LAST: Mutex<(u64, u64)> = Mutex::new((0, 0));
    let mut last = LAST.lock();
    let (time, cpu) = std::mem::replace(&mut *last, (live.uptime, live.cpu));
    // Another request may have come between this one's figures and here.
    (
        live.uptime.saturating_sub(time),
        live.cpu.saturating_sub(cpu),
    )
}

/// A file's MD5; zeros if there is none.
struct Hex<'a>(Option<&'a FileFacts>);

impl std::fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let md5 = u128::from_be_bytes(self.0.map_or([0; 16], |file| file.md5));
        write!(f, "{md5:032x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_fill_their_lines() {
        let mut page = String::new();
        fill(&mut page, "a\t%\nb\t$\nc\t# 0\n", &[7, 1_050, 2_000_003]);
        assert_eq!(page, "a\t7\nb\t1.050\nc\t2.000003 0\n");
    }
}
