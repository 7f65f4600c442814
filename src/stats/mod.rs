//! Counters: one table. A row declares the counter, its name (the C proxy's where it has one) and its
//! meaning; all output derives from the rows. Also the reasons why connections end, one counter each.

mod times;
mod traffic;

use crate::base::gauge::{Counter, Gauge};
use crate::base::threads;
use std::fmt::Write;

pub use times::{Dials, Histogram, all_dials, dials};
#[cfg(test)]
pub use traffic::of as traffic_of;
pub use traffic::{Guest, Traffic, all as all_traffic, labels, set_up};

/// Name, meaning and value of a counter.
pub type Row = (&'static str, &'static str, u64);

macro_rules! counters {
    ($($name:ident: $help:literal,)*) => {
        /// Every counter.
        pub struct Stats {
            $(#[doc = $help] pub $name: Counter,)*
        }

        /// The process's counters.
        pub static STATS: Stats = Stats { $($name: Counter::new(),)* };

        /// Every counter, those of [`Traffic`] first.
        pub fn rows() -> Vec<Row> {
            let mut rows = traffic::sums();
            let values = [$(STATS.$name.value(),)*];
            add_rows(&mut rows, concat!($(stringify!($name), "\n", $help, "\n",)*), &values);
            let bugs = "threads that ended by a bug; each cost one connection";
            rows.push(("thread_panics", bugs, threads::PANICS.value()));
            rows
        }
    };
}

/// Adds rows, of whose names and meanings the lines of `text` are: one string is smaller than a table
/// of many.
#[inline(never)]
fn add_rows(rows: &mut Vec<Row>, text: &'static str, values: &[u64]) {
    let mut lines = text.split('\n');
    for value in values {
        if let (Some(name), Some(help)) = (lines.next(), lines.next()) {
            rows.push((name, help, *value));
        }
    }
}

counters! {
    inbound_connections_accepted: "connections accepted on client ports",
    accept_connection_limit_failed: "connections closed because of the client limit",
    accept_calls_failed: "calls to accept a connection that failed",
    accept_thread_failed: "connections closed because no thread could be had",
    tot_forwarded_simple_acks: "quick acks forwarded to clients",
    dropped_queries: "client packets dropped because no middle proxy was ready",
    dropped_responses: "answers for unknown clients",
    dropped_simple_acks: "quick acks for unknown clients",
    filtered_queries: "client packets that are no message to forward",
    connections_failed_lru: "clients closed because memory was short",
    connections_failed_flood: "clients closed because they left too much unread",
    backend_connects: "connections to middle proxies that became ready",
    backend_connect_failures: "connections to middle proxies that failed before they were ready",
    backend_losses: "ready connections to middle proxies that were lost",
    backend_pings_sent: "pings sent to middle proxies",
    backend_pongs_received: "pongs received from middle proxies",
    backend_replies_dropped: "pongs and close notices that a full channel did not take",
    direct_connects: "connections to data centres",
    direct_unknown_dcs: "clients of unknown data centres, sent to DC 2",
    tls_hellos_accepted: "fake-TLS hellos that proved a secret",
    tls_refused_not_tls: "strangers: other bytes than a TLS hello",
    tls_refused_malformed: "strangers: a hello that no Telegram client sends",
    tls_refused_unknown_name: "strangers: a hello for a name that -D doesn't give",
    tls_refused_wrong_name: "strangers: a hello that proves a secret, for another name than -D gives",
    tls_refused_bad_digest: "strangers: a hello that proves no secret",
    tls_refused_skew: "strangers: a hello whose time stamp is too old or too new",
    tls_refused_replay: "strangers: a hello that was used before",
    tls_refused_incomplete: "strangers: silence or part of a hello until the deadline",
    headers_replayed: "obfuscated2 headers that were used before",
    mask_connections: "strangers that were shown the mask site",
    mask_refused_full: "strangers closed because --mask-max were there",
    mask_unreachable: "strangers closed because the mask site could not be reached",
    http_queries: "packets over HTTP forwarded",
    http_bad_headers: "requests over HTTP whose head was malformed",
    stats_requests: "requests for statistics answered",
    stats_refusals: "requests for statistics refused: malformed, unknown, or of strangers",
}

/// Clients that are connected.
pub static CLIENTS: Gauge = Gauge::new();
/// Connections to data centres.
pub static DIRECT: Gauge = Gauge::new();
/// HTTP requests without an answer yet.
pub static PENDING: Gauge = Gauge::new();
/// Strangers at mask sites.
pub static STRANGERS: Gauge = Gauge::new();

macro_rules! close_reasons {
    ($($variant:ident $word:literal $help:literal,)*) => {
        /// Why a client's connection ended.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u8)]
        pub enum Close {
            $(#[doc = $help] $variant,)*
        }

        const REASONS: &[(Close, &str, &str)] = &[$((Close::$variant, $word, $help),)*];
        static CLOSED: [Counter; REASONS.len()] = [const { Counter::new() }; REASONS.len()];
    };
}

close_reasons! {
    ClientGone "client_gone" "the client closed",
    ClientLost "client_lost" "the client's connection broke",
    HandshakeTimeout "handshake_timeout" "no whole header within the deadline",
    NoSecretFits "no_secret_fits" "the header fits no secret; read and discarded until the deadline",
    Masked "masked" "a stranger, whom the mask site was to be shown",
    BadRecord "bad_record" "in fake TLS an alert, or another record than data",
    BadLength "bad_length" "a packet length that the transport forbids",
    SecretFull "secret_full" "the secret's limit of clients is reached",
    UnknownDc "unknown_dc" "no middle proxy is configured for the data centre",
    NoBackend "no_backend" "no middle proxy became ready in time",
    BackendLost "backend_lost" "the client's middle-proxy connection was lost",
    BackendClosed "backend_closed" "the middle proxy asked to close",
    DcUnreachable "dc_unreachable" "no address of the data centre could be reached",
    DcClosed "dc_closed" "the data centre closed",
    DcLost "dc_lost" "the connection to the data centre broke",
    HalfOpen "half_open" "one half had ended and the other made no progress",
    HttpDone "http_done" "an HTTP connection that was not to be kept was answered",
    HttpRefused "http_refused" "a request over HTTP that is no client's",
    HttpIdle "http_idle" "no further HTTP request in time, or not a whole one",
    HttpLate "http_late" "no answer to an HTTP request in time",
    Flood "flood" "too much unread",
    Evicted "evicted" "memory was short",
    Stalled "stalled" "the client did not fetch the rest in time",
    NoThread "no_thread" "no thread for the client's writer",
    Panicked "panicked" "a bug; it was logged",
    Stopping "stopping" "the server stops",
}

impl Close {
    /// The word for the log and for the counter's name.
    pub fn word(self) -> &'static str {
        REASONS.get(self as usize).map_or("", |(_, word, _)| word)
    }

    /// The reason that is number `n`.
    pub fn from_number(n: u8) -> Option<Close> {
        REASONS.get(usize::from(n)).map(|(reason, ..)| *reason)
    }

    /// Counts an end. To be called before the client can see it.
    pub fn counted(self) -> Close {
        if let Some(counter) = CLOSED.get(self as usize) {
            counter.add(1);
        }
        self
    }

    /// Every reason: its word, its meaning, and how many ended so.
    pub fn rows() -> impl Iterator<Item = Row> {
        let row = |(reason, word, help): &(Close, _, _)| (*word, *help, reason.value());
        REASONS.iter().map(row)
    }

    /// How many ended so.
    fn value(self) -> u64 {
        CLOSED.get(self as usize).map_or(0, Counter::value)
    }
}

/// All counters in one line of `name=value`.
pub fn summary() -> String {
    let mut out = format!("summary ext_connections={}", CLIENTS.value());
    for (name, _, value) in rows() {
        let _ = write!(out, " {name}={value}");
    }
    for (word, _, value) in Close::rows() {
        let _ = write!(out, " closed_{word}={value}");
    }
    out
}

/// Refused clients so far, by reason.
#[inline(never)] // else loops over it are unrolled
pub fn refusal_rows() -> Vec<(&'static str, u64)> {
    let mut rows = vec![
        ("limit", STATS.accept_connection_limit_failed.value()),
        ("accept_thread", STATS.accept_thread_failed.value()),
    ];
    let kinds = [
        Close::HandshakeTimeout,
        Close::NoSecretFits,
        Close::BadRecord,
        Close::SecretFull,
        Close::BadLength,
        Close::NoBackend,
        Close::UnknownDc,
        Close::DcUnreachable,
        Close::NoThread,
    ];
    rows.extend(kinds.map(|kind| (kind.word(), kind.value())));
    let strangers = [
        ("not_tls", &STATS.tls_refused_not_tls),
        ("malformed_hello", &STATS.tls_refused_malformed),
        ("unknown_name", &STATS.tls_refused_unknown_name),
        ("wrong_name", &STATS.tls_refused_wrong_name),
        ("bad_digest", &STATS.tls_refused_bad_digest),
        ("skew", &STATS.tls_refused_skew),
        ("replay", &STATS.tls_refused_replay),
        ("incomplete_hello", &STATS.tls_refused_incomplete),
    ];
    rows.extend(strangers.map(|(word, counter)| (word, counter.value())));
    rows
}

/// The same as `word=count`, and their sum.
pub fn refusals() -> (u64, String) {
    let (mut sum, mut words) = (0, String::new());
    for (word, n) in refusal_rows() {
        let space = if words.is_empty() { "" } else { " " };
        let _ = write!(words, "{space}{word}={n}");
        sum += n;
    }
    (sum, words)
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
        let mut names: Vec<&str> = rows().iter().map(|r| r.0).collect();
        names.extend(REASONS.iter().map(|r| r.1));
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
        assert!(rows().iter().all(|r| !r.1.is_empty()));
        for (i, (reason, ..)) in REASONS.iter().enumerate() {
            assert_eq!(Close::from_number(i as u8), Some(*reason));
        }
        assert_eq!(Close::from_number(REASONS.len() as u8), None);
    }

    #[test]
    fn the_summary_has_every_row() {
        let text = summary();
        for (name, ..) in rows() {
            assert!(text.contains(&format!(" {name}=")), "{name}");
        }
        assert!(text.contains(" closed_client_gone="));
    }
}
