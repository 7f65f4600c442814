//! Middle proxies: the life of a slot. A slot is one connection and its two threads: the slot's own
//! thread dials ([`dial`]), then writes ([`writer`]); a second one reads ([`reader`]). Whoever notices
//! an end closes the link; everything else is undone here, then the slot dials again.

use super::{dial, slot_reader, slot_writer};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;
use mtproxy::crypto::crc32::Checksums;
use mtproxy::limits::{BACKOFF_FIRST, BACKOFF_FORGIVEN, BACKOFF_MAX};
use mtproxy::proto::secret::ProxySecret;

use crate::base::{log, sys, threads};
use crate::middle::dcs::Set;
use crate::middle::link;
use crate::middle::link::Link;
use crate::middle::nat::NatRules;
use crate::middle::registry;
use crate::stats::{self, STATS};

/// What is the same for every connection to a middle proxy.
pub struct Setup {
    /// Telegram's proxy-secret.
    pub secret: ProxySecret,
    /// --address: where connections come from.
    pub source: Option<Ipv4Addr>,
    /// --nat-info
    pub nat: NatRules,
    /// Between pings.
    pub ping_interval: Duration,
    /// The machine's checksums.
    pub checksums: Checksums,
    /// When the process started, unix seconds.
    pub start_time: u32,
}

/// Starts a slot. It lives as long as the process; after a bug it begins anew.
pub fn start_slot(set: Arc<Set>, slot: usize, setup: Arc<Setup>) -> std::io::Result<()> {
    let name = format!("b{}.{slot}w", set.number);
    threads::spawn(&name, move || {
        while !threads::guarded(|| run_slot(&set, slot, &setup)) {
            std::thread::sleep(BACKOFF_FIRST);
        }
    })
}

#[inline(never)] // as `live`
fn run_slot(set: &Arc<Set>, slot: usize, setup: &Arc<Setup>) {
    let mut backoff = Backoff::default();
    let mut turn = slot;
    let mut failures = 0;
    loop {
        let target = set.targets[turn % set.targets.len()];
        let error = match dial::dial(target, setup, stats::dials(set.dc)) {
            Ok(ready) => {
                STATS.backend_connects.add(1);
                let since = Instant::now();
                live(Connection::new(set.clone(), slot, target, setup), ready);
                if since.elapsed() >= BACKOFF_FORGIVEN {
                    backoff = Backoff::default();
                    failures = 0;
                    continue;
                }
                None
            }
            Err(error) => Some(error),
        };
        // Another target may be alive: only after a whole round is it time to wait. A connection
        // that was ready but soon lost is a failure too.
        turn += 1;
        failures += 1;
        let wait = failures % set.targets.len() == 0;
        if let Some(error) = error {
            STATS.backend_connect_failures.add(1);
            let retry = if wait { backoff.0.as_millis() } else { 0 };
            log::event(format_args!(
                "backend_failed target={target} reason={} retry={}.{:03}",
                error.word(),
                retry / 1000,
                retry % 1000
            ));
        }
        if wait {
            let jitter = sys::random_array::<1>().map_or(0, |[b]| b);
            std::thread::sleep(backoff.next(jitter));
        }
    }
}

/// Waits between rounds of dialling (protocol.md 6.5).
struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Backoff {
        Backoff(BACKOFF_FIRST)
    }
}

impl Backoff {
    /// The wait to come; `jitter` spreads it.
    fn next(&mut self, jitter: u8) -> Duration {
        let spread = |most: u64| Duration::from_millis(u64::from(jitter) * most / 256);
        let wait = self.0;
        if wait < BACKOFF_MAX {
            self.0 = wait + wait / 2 + spread(200);
        }
        wait + spread(100)
    }
}

/// A ready connection, shared by its two threads.
pub struct Connection {
    set: Arc<Set>,
    slot: usize,
    target: SocketAddr,
    pub ping_interval: Duration,
    /// Why it ended; the first reason counts.
    pub reason: OnceLock<&'static str>,
    /// Whether it has ever answered a ping.
    pub answers_pings: AtomicBool,
}

impl Connection {
    fn new(set: Arc<Set>, slot: usize, target: SocketAddr, setup: &Setup) -> Connection {
        Connection {
            set,
            slot,
            target,
            ping_interval: setup.ping_interval,
            reason: OnceLock::new(),
            answers_pings: AtomicBool::new(false),
        }
    }

    /// Ends the connection for `reason`.
    pub fn end(&self, link: &Link, reason: &'static str) {
        let _ = self.reason.set(reason);
        link.close();
    }
}

/// A ready connection from its publication to its end.
#[inline(never)] // else it is there twice
fn live(connection: Connection, ready: dial::Ready) {
    static LAST_ID: AtomicU32 = AtomicU32::new(0);
    let id = u64::from(LAST_ID.fetch_add(1, Ordering::Relaxed)) + 1;
    let connection = Arc::new(connection);
    let (link, intake) = link::new(id, connection.slot, ready.socket.clone());
    let (send_end, reader_end) = bounded::<()>(0);
    let name = format!("b{}.{}r", connection.set.number, connection.slot);
    let reads = slot_reader::Reading::new(
        connection.clone(),
        link.clone(),
        ready.socket.clone(),
        ready.reader,
    );
    let spawned = threads::spawn(&name, move || {
        let _dropped_at_the_end = send_end;
        slot_reader::run(reads);
    });
    if spawned.is_ok() {
        log::event(format_args!(
            "backend_ready target={} set={} slot={} local={}",
            connection.target, connection.set.number, connection.slot, ready.local
        ));
        connection.set.publish(link.clone());
        let ended = threads::guarded(|| {
            slot_writer::run(&connection, &intake, ready.writer, &ready.socket)
        });
        connection.end(&link, if ended { "write" } else { "panic" });
    } else {
        connection.end(&link, "no_thread");
    }
    // Nobody new comes, whoever stands in the channel is released, whoever is pinned is closed.
    connection.set.withdraw(&link);
    drop(intake);
    let clients = registry::end_clients_of(id);
    let _ = reader_end.recv();
    STATS.backend_losses.add(1);
    let reason = connection.reason.get().copied().unwrap_or("closed");
    log::event(format_args!(
        "backend_lost target={} reason={reason} clients={clients}",
        connection.target
    ));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_by_half_until_twenty_seconds() {
        let mut backoff = Backoff::default();
        let mut waits: Vec<u128> = (0..12).map(|_| backoff.next(0).as_millis()).collect();
        assert_eq!(waits[..4], [1000, 1500, 2250, 3375]);
        assert!(waits[8] >= 20_000 && waits[9] == waits[8] && waits[11] == waits[8]);
        let mut backoff = Backoff::default();
        waits = (0..2).map(|_| backoff.next(255).as_millis()).collect();
        assert!((1090..1100).contains(&waits[0]) && (1780..1800).contains(&waits[1]));
    }
}
