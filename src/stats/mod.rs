//! What the server counts: one row a counter, a gauge or a reason why a connection ended. Every thread
//! counts here with plain atomic additions; both pages, the summary at exit and the line about refusals
//! are made of the rows. What is counted by secret and data centre is in `traffic`, times in `times`;
//! each has one short lock around its list.

mod account;
mod close;
mod present;
mod row;
mod times;
mod traffic;

use std::fmt::Write;

use crate::base::gauge::{Counter, Gauge};
use crate::base::{outgoing, threads};

pub use account::{Account, OPEN, Owner, REFUSALS, accounts, until_expiry};
pub use close::Close;
pub use present::addresses;
pub use row::Row;
use row::add;
pub use times::{Dials, HELLO_SKEW, Histogram, MIDDLE_SKEW, all_dials, dials};
#[cfg(test)]
pub use traffic::of as traffic_of;
pub use traffic::{Figure, Guest, Traffic, all as all_traffic, set_served, sum};

macro_rules! counters {
    ($($name:ident: $help:literal $(refusal $reason:literal)?,)*) => {
        /// The counters, except those of [`Traffic`].
        pub struct Stats {
            $(#[doc = $help] pub $name: Counter,)*
        }

        /// The process's counters.
        pub static STATS: Stats = Stats { $($name: Counter::new(),)* };

        /// Every counter, those of [`Traffic`] first.
        #[inline(never)] // small, not fast
        pub fn counters() -> Vec<Row> {
            let mut rows = traffic::rows();
            $(add(
                &mut rows,
                concat!(stringify!($name), "\n", $help, $("\n", $reason)?),
                STATS.$name.value(),
            );)*
            let panics = "thread_panics\nthreads that ended by a bug; each cost one connection";
            add(&mut rows, panics, threads::PANICS.value());
            let socks = "socks_failures\nconnections that the SOCKS5 server of --socks5 failed to make";
            add(&mut rows, socks, outgoing::FAILURES.value());
            rows
        }
    };
}

macro_rules! gauges {
    ($($gauge:ident $name:ident: $help:literal,)*) => {
        $(#[doc = $help] pub static $gauge: Gauge = Gauge::new();)*

        /// Every gauge.
        pub fn gauges() -> Vec<Row> {
            let mut rows = Vec::new();
            $(add(&mut rows, concat!(stringify!($name), "\n", $help), $gauge.value().into());)*
            rows
        }
    };
}

counters! {
    inbound_connections_accepted: "connections accepted on client ports",
    accept_connection_limit_failed: "connections closed because of the client limit" refusal "limit",
    unproven_refused_share: "connections refused while places are scarce: their source has its share" refusal "source_share",
    unproven_refused_rate: "connections refused while places are scarce: their source connects too often" refusal "source_rate",
    unproven_refused_early: "connections refused while places are scarce: by chance, none is more dispensable" refusal "early",
    unproven_dropped_early: "connections that had proven no secret, closed for newer ones" refusal "dropped_early",
    unproven_dropped_memory: "connections that had proven no secret, closed because they held most" refusal "dropped_memory",
    secret_silent_closed: "clients that were silent for long, closed for new ones at their secret's limit",
    accept_calls_failed: "calls to accept a connection that failed",
    accept_thread_failed: "connections closed because no thread could be had" refusal "accept_thread",
    tot_forwarded_simple_acks: "quick acks forwarded to clients",
    dropped_queries: "client packets dropped because no middle proxy was ready",
    dropped_responses: "responses for unknown clients",
    dropped_simple_acks: "quick acks for unknown clients",
    filtered_queries: "client packets that are no message to forward",
    connections_failed_lru: "clients closed because memory was short",
    connections_failed_flood: "clients closed because they left too much unread",
    backend_connects: "connections to middle proxies that became ready",
    backend_connect_failures: "connections to middle proxies that failed before they were ready",
    backend_losses: "ready connections to middle proxies that were lost",
    backend_frames_refused: "connections to middle proxies dropped because a frame took too much memory",
    backend_pings_sent: "pings sent to middle proxies",
    backend_pongs_received: "pongs received from middle proxies",
    backend_replies_dropped: "pongs and close notices that a full channel did not take",
    direct_connects: "connections to data centres",
    direct_unknown_dcs: "clients of unknown data centres, sent to DC 2",
    tls_hellos_accepted: "fake-TLS hellos that proved a secret",
    tls_refused_not_tls: "strangers: other bytes than a TLS hello" refusal "not_tls",
    tls_refused_malformed: "strangers: a hello that no Telegram client sends" refusal "malformed_hello",
    tls_refused_unknown_name: "strangers: a hello for a name that -D doesn't give" refusal "unknown_name",
    tls_refused_wrong_name: "strangers: a hello that proves a secret, for another name than -D gives" refusal "wrong_name",
    tls_refused_bad_digest: "strangers: a hello that proves no secret" refusal "bad_digest",
    tls_refused_skew: "strangers: a hello whose time stamp is too old or too new" refusal "skew",
    tls_refused_replay: "strangers: a hello that was used before" refusal "replay",
    tls_refused_incomplete: "strangers: silence or part of a hello until the deadline" refusal "incomplete_hello",
    tls_refused_allowance: "strangers: a hello that proves a secret which lets nobody else in" refusal "allowance",
    headers_replayed: "obfuscated2 headers that were used before",
    mask_connections: "strangers that were shown the mask site",
    mask_refused_full: "strangers closed because --mask-max were there for too long, or as many waited",
    mask_dropped: "strangers at the mask site that gave way to others",
    mask_unreachable: "strangers closed because the mask site could not be reached",
    http_queries: "packets over HTTP forwarded",
    http_bad_headers: "requests over HTTP whose head was malformed",
    stats_requests: "requests for statistics that were served",
    stats_refusals: "requests for statistics refused: malformed, unknown, or of strangers",
    accept_rate_limit_failed: "connections closed because of --max-accept-rate" refusal "accept_rate",
    tls_refused_address: "strangers: a hello from an address that a list refuses" refusal "address",
    reloads: "reloads that were applied",
    reload_failures: "reloads that found a mistake and changed nothing",
    proxy_untrusted: "connections refused with --proxy-protocol: not from a trusted front" refusal "untrusted_front",
    web_pages: "pages served to apps for proxy type WEB",
    web_sessions: "sessions that such pages began",
    web_lanes: "lanes that their sessions opened",
    web_refused_full: "sessions of pages refused because there are too many" refusal "web_full",
    web_lanes_refused: "lanes refused: no such session, or not this lane" refusal "web_lane",
}

gauges! {
    PENDING http_pending_queries: "packets over HTTP without a response yet",
    DIRECT direct_connections: "connections to data centres",
    STRANGERS mask_open_connections: "strangers at mask sites",
    PROVEN proven_connections: "connections that have proven a secret, if there is any",
    WEB_OPEN_SESSIONS web_open_sessions: "sessions of pages for proxy type WEB",
    WEB_OPEN_LANES web_open_lanes: "lanes of these, strangers included",
}

/// Connections on client ports, handshakes included.
pub static CLIENTS: Gauge = Gauge::new();

/// The rows that count clients that were not served.
#[inline(never)] // small, not fast
pub fn refusals() -> Vec<Row> {
    let mut rows = counters();
    rows.append(&mut Close::rows());
    rows.retain(|row| !row.refusal.is_empty());
    rows
}

/// The log line about refusals, and their sum.
pub fn refused() -> (u64, String) {
    let (mut sum, mut line) = (0, String::from("refused"));
    for row in refusals() {
        sum += row.value;
        append(&mut line, "", row.refusal, row.value);
    }
    (sum, line)
}

/// The log line at exit: the counters that are not zero.
pub fn summary() -> String {
    let mut line = format!("summary ext_connections={}", CLIENTS.value());
    for row in counters() {
        append(&mut line, "", row.name, row.value);
    }
    for row in Close::rows() {
        append(&mut line, "closed_", row.name, row.value);
    }
    line
}

#[inline(never)] // small, not fast
fn append(line: &mut String, prefix: &str, name: &str, value: u64) {
    if value > 0 {
        let _ = write!(line, " {prefix}{name}={value}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_pass_32_bits() {
        let counter = Counter::default();
        counter.add(u64::from(u32::MAX));
        counter.add(2);
        assert_eq!(counter.value(), (1 << 32) + 1);
    }

    #[test]
    fn rows_are_documented_and_unique() {
        let rows: Vec<Row> = counters().into_iter().chain(gauges()).collect();
        assert!(rows.iter().all(|row| !row.help.is_empty()));
        let reasons = refusals().into_iter().map(|row| row.refusal);
        for mut names in [
            rows.iter()
                .map(|row| row.name)
                .chain(Close::rows().iter().map(|row| row.name))
                .collect(),
            reasons.collect::<Vec<_>>(),
        ] {
            let count = names.len();
            names.sort();
            names.dedup();
            assert_eq!(names.len(), count);
        }
    }

    #[test]
    fn the_log_shows_what_is_not_zero() {
        Close::NoSecretFits.counted();
        STATS.tls_refused_malformed.add(1);
        let (sum, refused) = refused();
        assert!(sum >= 2);
        for (line, shown) in [
            (&refused, " no_secret_fits="),
            (&refused, " malformed_hello="),
            (&summary(), " closed_no_secret_fits="),
            (&summary(), " tls_refused_malformed="),
        ] {
            assert!(line.contains(shown), "{shown} in {line}");
            assert!(!line.contains("mask_unreachable="), "{line}");
        }
    }
}
