//! `/stats`: lines of name, tab, value. First what the C program's page has (protocol.md 10.2): the
//! process, the memory, and the proxy, by its names and in its order, so that scripts that read that
//! page go on working. Then every other counter, by its own name.
//!
//! What this program has no counterpart of is 0: an event loop, worker processes, remote calls of its own and
//! their Diffie-Hellman (that of --force-dh is not counted). Idle is the time since the start less the
//! processor time of the process. One lock remembers when the page was last asked for.

use std::fmt::{Display, Write};
use std::net::Ipv4Addr;

use super::exposition::{Decimal, millionths, thousandths};
use super::live::{FileFacts, Live, open};
use crate::base::{clock, lock::Mutex, threads};
use crate::middle::dcs::{Dcs, Snapshot};
use crate::stats::{self, Close, DIRECT, PENDING, Row, STATS};

/// The page.
pub fn render(live: &Live) -> String {
    let mut page = Page {
        out: String::with_capacity(8 << 10),
        counters: stats::counters(),
    };
    process(&mut page, live);
    configuration(&mut page, live);
    connections(&mut page, live);
    buffers_and_http(&mut page, live);
    own(&mut page, live);
    page.out
}

struct Page {
    out: String,
    /// Those that are not on the page yet.
    counters: Vec<Row>,
}

impl Page {
    #[inline(never)] // small, not fast
    fn line(&mut self, name: &str, value: &dyn Display) {
        let _ = writeln!(self.out, "{name}\t{value}");
    }

    /// Lines whose values never change.
    #[inline(never)]
    fn fixed(&mut self, lines: &str) {
        self.out.push_str(lines);
    }

    /// The line of the counter that has this name.
    #[inline(never)]
    fn counter(&mut self, name: &str) {
        if let Some(place) = self.counters.iter().position(|row| row.name == name) {
            let row = self.counters.remove(place);
            self.line(row.name, &row.value);
        }
    }
}

/// Parts 1 and 3.
fn process(page: &mut Page, live: &Live) {
    let (facts, pid) = (live.facts, std::process::id());
    let idle = live.uptime.saturating_sub(live.cpu);
    let (time, cpu) = since_last_time(live);
    page.line("pid", &pid);
    page.line("start_time", &facts.start_time);
    page.line("current_time", &clock::unix());
    page.line("uptime", &(live.uptime / 1000));
    page.line("tot_idle_time", &thousandths(idle));
    page.line("average_idle_percent", &percent(idle, live.uptime));
    let recent = percent(time.saturating_sub(cpu), time);
    page.line("recent_idle_percent", &recent);
    page.fixed(
        "active_network_events\t0\ntime_after_epoll\t0.000000\nepoll_calls\t0\nepoll_intr\t0\n",
    );
    let address = facts.config.address.unwrap_or(Ipv4Addr::UNSPECIFIED.into());
    let (port, start) = (facts.port, facts.start_time);
    page.line("PID", &format_args!("[{address}:{port}:{pid}:{start}]"));
    let took = live.begun.elapsed().as_micros() as u64;
    page.line("stats_generate_time", &millionths(took));
    let [size, resident, data] = live.memory;
    page.line("vmsize_bytes", &size);
    page.line("vmrss_bytes", &resident);
    page.line("vmdata_bytes", &data);
}

/// Part 4, up to what is about connections.
fn configuration(page: &mut Page, live: &Live) {
    let file = live.telegram.config.as_ref();
    page.line("config_filename", &file.map_or("", |file| &file.name));
    page.line("config_loaded_at", &file.map_or(0, |file| file.loaded_at));
    page.line("config_size", &file.map_or(0, |file| file.size));
    page.line("config_md5", &md5(file));
    let clusters = live.rules.dcs().map_or(0, Dcs::clusters);
    page.line("config_auth_clusters", &clusters);
    page.fixed("workers\t0\nqueries_get\t0\nqps_get\t0.000\n");
    page.counter("tot_forwarded_queries");
    page.fixed("expired_forwarded_queries\t0\n");
    page.counter("dropped_queries");
    page.counter("tot_forwarded_responses");
    page.counter("dropped_responses");
    page.counter("tot_forwarded_simple_acks");
    page.counter("dropped_simple_acks");
    page.fixed("active_rpcs_created\t0\nactive_rpcs\t0\n");
    page.fixed("rpc_dropped_answers\t0\nrpc_dropped_running\t0\n");
    page.line("window_clamp", &live.facts.config.window_clamp());
}

fn connections(page: &mut Page, live: &Live) {
    let sets = live.rules.sets().iter();
    let targets: usize = sets.map(|set| set.targets.len()).sum();
    let links: usize = live.sets.iter().map(|set| set.ready.len()).sum();
    let outbound = links as u64 + u64::from(DIRECT.value());
    let connections = live.clients + outbound;
    page.line("total_ready_targets", &ready_targets(live));
    page.line("total_allocated_targets", &targets);
    page.line("total_declared_targets", &targets);
    page.fixed("total_inactive_targets\t0\n");
    page.line("total_connections", &connections);
    page.line("total_encrypted_connections", &(live.open + outbound));
    page.line("total_allocated_connections", &connections);
    page.line("total_allocated_outbound_connections", &outbound);
    page.line("total_allocated_inbound_connections", &live.clients);
    page.line("total_allocated_socket_connections", &connections);
    page.fixed("total_dh_connections\t0\ntotal_dh_rounds\t0 0 0\n");
    page.line("total_special_connections", &live.clients);
    page.line("total_max_special_connections", &live.facts.most_clients);
    let threads = STATS.accept_thread_failed.value();
    let calls = STATS.accept_calls_failed.value();
    let limit = STATS.accept_connection_limit_failed.value();
    let rate = STATS.accept_rate_limit_failed.value();
    let failed = format_args!("{threads} {calls} {limit} {rate} 0");
    page.line("total_accept_connections_failed", &failed);
    page.line("ext_connections", &live.open);
    page.counter("ext_connections_created");
    page.fixed("total_active_network_events\t0\n");
}

fn buffers_and_http(page: &mut Page, live: &Live) {
    let buffers = &live.buffers;
    let allocated = buffers.bytes + buffers.free_bytes;
    let chunks = buffers.used + buffers.free;
    let most = chunks.max(buffers.most);
    page.line("total_network_buffers_used_size", &buffers.bytes);
    page.line("total_network_buffers_allocated_bytes", &allocated);
    page.line("total_network_buffers_used", &buffers.used);
    page.line("total_network_buffer_chunks_allocated", &chunks);
    page.line("total_network_buffer_chunks_allocated_max", &most);
    page.line("mtproto_proxy_errors", &threads::PANICS.value());
    page.counter("connections_failed_lru");
    page.counter("connections_failed_flood");
    let over_http = live.sum(&|t| t.transport.is_none(), open);
    page.line("http_connections", &over_http);
    page.line("pending_http_queries", &PENDING.value());
    page.counter("http_queries");
    page.counter("http_bad_headers");
    let seconds = (live.uptime / 1000).max(1);
    let rate = STATS.http_queries.value() * 1_000_000 / seconds;
    page.line("http_qps", &millionths(rate));
    page.fixed("proxy_mode\t2\n");
    page.line(
        "proxy_tag_set",
        &u8::from(live.facts.config.ad_tag.is_some()),
    );
    let version = env!("CARGO_PKG_VERSION");
    page.line("version", &format_args!("mtproxy-{version}"));
}

/// The counters that are not on the page yet, the ends by reason, and the secrets.
fn own(page: &mut Page, live: &Live) {
    page.line("aes_pwd_hash", &md5(live.telegram.proxy_secret.as_ref()));
    for row in std::mem::take(&mut page.counters) {
        page.line(row.name, &row.value);
    }
    for row in Close::rows() {
        page.line(&["closed_", row.name].concat(), &row.value);
    }
    for (number, account) in (1..).zip(&live.rules.accounts) {
        let mut line = |what: &str, value: &dyn Display| {
            page.line(&format!("secret_{number}_{what}"), value);
        };
        line("label", &account.label);
        line("connections", &account.open.value());
        line("refused", &account.refused[0].value());
    }
}

fn percent(part: u64, of: u64) -> Decimal {
    thousandths(part * 100_000 / of.max(1))
}

/// Targets that have a ready connection.
fn ready_targets(live: &Live) -> usize {
    let in_set = |set: &Snapshot| {
        let targets: Vec<_> = set.ready.iter().map(|link| Some(link.target)).collect();
        let is_first = |place: &usize| !targets[..*place].contains(&targets[*place]);
        (0..targets.len()).filter(is_first).count()
    };
    live.sets.iter().map(in_set).sum()
}

/// Milliseconds since the page was last asked for, at first since the start, and the processor time of
/// these.
fn since_last_time(live: &Live) -> (u64, u64) {
    static LAST: Mutex<(u64, u64)> = Mutex::new((0, 0));
    let mut last = LAST.lock();
    let (time, cpu) = std::mem::replace(&mut *last, (live.uptime, live.cpu));
    // Another request may have come between this one's figures and here.
    let since = |now: u64, before| now.saturating_sub(before);
    (since(live.uptime, time), since(live.cpu, cpu))
}

/// A file's MD5; zeros if there is none.
fn md5(file: Option<&FileFacts>) -> String {
    let md5 = u128::from_be_bytes(file.map_or([0; 16], |file| file.md5));
    format!("{md5:032x}")
}
