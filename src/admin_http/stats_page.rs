//! `/stats`: lines of name, tab, value. First what the C program's page has (protocol.md 10.2): the
//! process, the memory, and the proxy, by its names and in its order, so that scripts that read that
//! page go on working. Then every other counter of the table, by its own name.
//!
//! What this program has nothing of is 0: an event loop, worker processes, remote calls of its own,
//! Diffie-Hellman. The processor's time is the process's own; idle is what is left of the time.

use std::fmt::{Arguments, Write};
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};

use super::live::{Facts, FileFacts, Live};
use crate::stats::{self, Close, STATS};

/// The page.
pub fn render(facts: &Facts, live: &Live) -> String {
    let mut page = Page(String::with_capacity(8 << 10));
    page.process(facts, live);
    page.memory(live);
    page.configuration(facts);
    page.forwarded();
    page.connections(facts, live);
    page.endings(facts, live);
    page.own(facts);
    page.0
}

struct Page(String);

impl Page {
    fn line(&mut self, name: &str, value: Arguments) {
        let _ = writeln!(self.0, "{name}\t{value}");
    }

    fn number(&mut self, name: &str, value: u64) {
        self.line(name, format_args!("{value}"));
    }

    fn zeros(&mut self, names: &[&str]) {
        names.iter().for_each(|name| self.number(name, 0));
    }

    /// A number of thousandths.
    fn thousandths(&mut self, name: &str, value: u64) {
        self.line(name, format_args!("{}.{:03}", value / 1000, value % 1000));
    }

    /// A number of millionths.
    fn millionths(&mut self, name: &str, value: u64) {
        let (whole, part) = (value / 1_000_000, value % 1_000_000);
        self.line(name, format_args!("{whole}.{part:06}"));
    }

    /// Part 1.
    fn process(&mut self, facts: &Facts, live: &Live) {
        let pid = std::process::id();
        self.number("pid", pid.into());
        self.number("start_time", facts.start_time);
        self.number("current_time", live.now);
        self.number("uptime", live.uptime / 1000);
        let idle = live.uptime.saturating_sub(live.cpu);
        self.thousandths("tot_idle_time", idle);
        let percent = |idle: u64, of: u64| idle * 100_000 / of.max(1);
        self.thousandths("average_idle_percent", percent(idle, live.uptime));
        let (time, cpu) = since_last_time(live);
        let recent = percent(time.saturating_sub(cpu), time);
        self.thousandths("recent_idle_percent", recent);
        self.number("active_network_events", 0);
        self.millionths("time_after_epoll", 0);
        self.zeros(&["epoll_calls", "epoll_intr"]);
        let (address, port, start) = (facts.address, facts.port, facts.start_time);
        self.line("PID", format_args!("[{address}:{port}:{pid}:{start}]"));
    }

    /// Part 3.
    fn memory(&mut self, live: &Live) {
        let took = live.begun.elapsed().as_micros() as u64;
        self.millionths("stats_generate_time", took);
        for (name, bytes) in ["vmsize_bytes", "vmrss_bytes", "vmdata_bytes"]
            .iter()
            .zip(live.memory)
        {
            self.number(name, bytes);
        }
    }

    /// Part 4, as far as it is about the file.
    fn configuration(&mut self, facts: &Facts) {
        let file = facts.config.as_ref();
        let name = file.map_or("", |file| &file.name);
        self.line("config_filename", format_args!("{name}"));
        self.number("config_loaded_at", file.map_or(0, |file| file.loaded_at));
        self.number("config_size", file.map_or(0, |file| file.size as u64));
        self.line("config_md5", format_args!("{}", Hex(file)));
        self.number("config_auth_clusters", facts.clusters as u64);
    }

    fn forwarded(&mut self) {
        self.zeros(&["workers", "queries_get"]);
        self.thousandths("qps_get", 0);
        let rows = stats::rows();
        let copy = |page: &mut Page, name: &str| {
            let row = rows.iter().find(|(row, ..)| *row == name);
            page.number(name, row.map_or(0, |(_, _, value)| *value));
        };
        copy(self, "tot_forwarded_queries");
        self.number("expired_forwarded_queries", 0);
        copy(self, "dropped_queries");
        copy(self, "tot_forwarded_responses");
        copy(self, "dropped_responses");
        copy(self, "tot_forwarded_simple_acks");
        copy(self, "dropped_simple_acks");
        self.zeros(&[
            "active_rpcs_created",
            "active_rpcs",
            "rpc_dropped_answers",
            "rpc_dropped_running",
        ]);
    }

    fn connections(&mut self, facts: &Facts, live: &Live) {
        self.number("window_clamp", facts.window_clamp.into());
        let targets: usize = facts.sets.iter().map(|set| set.targets.len()).sum();
        self.number("total_ready_targets", ready_targets(live));
        self.number("total_allocated_targets", targets as u64);
        self.number("total_declared_targets", targets as u64);
        self.number("total_inactive_targets", 0);
        let outbound = live.links() + live.direct;
        let all = live.clients + outbound;
        self.number("total_connections", all);
        self.number("total_encrypted_connections", live.open + outbound);
        self.number("total_allocated_connections", all);
        self.number("total_allocated_outbound_connections", outbound);
        self.number("total_allocated_inbound_connections", live.clients);
        self.number("total_allocated_socket_connections", all);
        self.number("total_dh_connections", 0);
        self.line("total_dh_rounds", format_args!("0 0 0"));
        self.number("total_special_connections", live.clients);
        let most = facts.most_clients.into();
        self.number("total_max_special_connections", most);
        let failed = [
            &STATS.accept_thread_failed,
            &STATS.accept_calls_failed,
            &STATS.accept_connection_limit_failed,
        ]
        .map(|counter| counter.value());
        self.line(
            "total_accept_connections_failed",
            format_args!("{} {} {} 0 0", failed[0], failed[1], failed[2]),
        );
        self.number("ext_connections", live.open);
        let created = live.traffic.iter().map(|t| t.clients.value());
        self.number("ext_connections_created", created.sum());
    }

    fn endings(&mut self, facts: &Facts, live: &Live) {
        let buffers = &live.buffers;
        let allocated = (buffers.bytes + buffers.free_bytes) as u64;
        self.number("total_active_network_events", 0);
        self.number("total_network_buffers_used_size", buffers.bytes as u64);
        self.number("total_network_buffers_allocated_bytes", allocated);
        self.number("total_network_buffers_used", buffers.used as u64);
        let chunks = (buffers.used + buffers.free) as u64;
        self.number("total_network_buffer_chunks_allocated", chunks);
        self.number(
            "total_network_buffer_chunks_allocated_max",
            chunks.max(buffers.most as u64),
        );
        self.number("mtproto_proxy_errors", STATS.thread_panics.value());
        let (lru, flood) = (
            &STATS.connections_failed_lru,
            &STATS.connections_failed_flood,
        );
        self.number("connections_failed_lru", lru.value());
        self.number("connections_failed_flood", flood.value());
        self.zeros(&[
            "http_connections",
            "pending_http_queries",
            "http_queries",
            "http_bad_headers",
        ]);
        self.millionths("http_qps", 0);
        self.number("proxy_mode", 2);
        self.number("proxy_tag_set", facts.has_tag.into());
        let version = env!("CARGO_PKG_VERSION");
        self.line("version", format_args!("mtproxy-{version}"));
    }

    /// Every counter that stands nowhere above, and the secrets.
    fn own(&mut self, facts: &Facts) {
        let secret = facts.proxy_secret.as_ref();
        self.line("aes_pwd_hash", format_args!("{}", Hex(secret)));
        for (name, _, value) in stats::rows() {
            if !self.0.contains(&format!("\n{name}\t")) {
                self.number(name, value);
            }
        }
        for (word, _, value) in Close::rows() {
            self.number(&format!("closed_{word}"), value);
        }
        for (number, label) in (1..).zip(stats::labels()) {
            let name = &label.name;
            self.line(&format!("secret_{number}_label"), format_args!("{name}"));
            let open = label.open.load(Ordering::Relaxed).into();
            self.number(&format!("secret_{number}_connections"), open);
            self.number(&format!("secret_{number}_refused"), label.refused.value());
        }
    }
}

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
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
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
        let bytes = self.0.map_or([0; 16], |file| file.md5);
        bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
