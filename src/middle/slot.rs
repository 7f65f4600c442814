//! Middle proxies: the life of a slot. A slot is one connection and its two threads: the slot's own
//! thread dials ([`dial`]), then writes ([`slot_writer`]); a second one reads ([`slot_reader`]).
//! Whoever notices an end closes the link; everything else is undone here, then the slot dials again.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;
use mtproxy::limits::{BACKOFF_FIRST, BACKOFF_FORGIVEN, BACKOFF_MAX};

use super::dcs::Set;
use super::dial::{Connected, Dialer};
use super::link::Link;
use super::{http, link, registry, slot_reader, slot_writer};
use crate::base::{log, sys, threads};
use crate::stats::{self, Close, STATS};

/// Starts a slot. It lives until its set is retired; after a bug it begins anew.
pub fn start_slot(set: Arc<Set>, slot: usize, dialer: Arc<Dialer>) -> std::io::Result<()> {
    let name = format!("b{}.{slot}w", set.number);
    threads::spawn(&name, move || {
        while !threads::guarded(|| run_slot(&set, slot, &dialer)) {
            std::thread::sleep(BACKOFF_FIRST);
        }
    })
}

#[inline(never)] // as `live`
fn run_slot(set: &Set, slot: usize, dialer: &Dialer) {
    let mut backoff = BACKOFF_FIRST;
    let mut turn = slot;
    let mut failures = 0;
    while !set.is_retired() {
        let target = set.targets[turn % set.targets.len()];
        let error = match dialer.dial(target, stats::dials(set.dc)) {
            Ok(_) if set.is_retired() => return,
            Ok(connected) => {
                STATS.backend_connects.add(1);
                if live(set, slot, connected, dialer.ping_interval) {
                    backoff = BACKOFF_FIRST;
                    failures = 0;
                    continue;
                }
                None
            }
            Err(error) => Some(error),
        };
        // Another target may be alive: only after a whole round is it time to wait. A connection
        // that was ready but soon lost, without an answer, is a failure too.
        turn += 1;
        failures += 1;
        let wait = failures % set.targets.len() == 0;
        if let Some(error) = error {
            STATS.backend_connect_failures.add(1);
            stats::dials(set.dc).failures.add(1);
            let retry = if wait { backoff.as_millis() } else { 0 };
            log::event(format_args!(
                "backend_failed target={target} reason={error} retry={}.{:03}",
                retry / 1000,
                retry % 1000
            ));
        }
        if wait {
            let jitter = sys::random_array::<1>().map_or(0, |[b]| b);
            std::thread::sleep(next_wait(&mut backoff, jitter));
        }
    }
}

/// How long to wait before the next round of dialling (protocol.md 6.5); the back-off grows. `jitter`
/// spreads both.
fn next_wait(backoff: &mut Duration, jitter: u8) -> Duration {
    let spread = |most: u64| Duration::from_millis(u64::from(jitter) * most / 256);
    let wait = *backoff;
    if wait < BACKOFF_MAX {
        *backoff = wait + wait / 2 + spread(200);
    }
    wait + spread(100)
}

/// A ready connection from its publication to its end; false if it was of no use.
#[inline(never)] // smaller than a second copy of it
fn live(set: &Set, slot: usize, connected: Connected, ping_interval: Duration) -> bool {
    let since = Instant::now();
    let target = connected.target;
    let (link, outgoing) = link::new(slot, connected.socket, target);
    let (send_end, reader_end) = bounded::<()>(0);
    let (read_link, frames) = (link.clone(), connected.reader);
    let spawned = threads::spawn(&format!("b{}.{slot}r", set.number), move || {
        let _dropped_at_the_end = send_end;
        slot_reader::run(&read_link, frames);
    });
    if spawned.is_ok() {
        log::event(format_args!(
            "backend_ready target={target} set={} slot={slot} local={}",
            set.number, connected.local
        ));
        set.publish(link.clone());
        let mut reason = "panic";
        threads::guarded(|| reason = slot_writer::run(&outgoing, connected.writer, ping_interval));
        link.close(reason);
    } else {
        link.close("no_thread");
    }
    // Nobody new comes, whoever stands in the queue is released, whoever is pinned is closed.
    set.withdraw(&link);
    drop(outgoing);
    let clients = end_clients(&link, Close::BackendLost);
    let _ = reader_end.recv();
    STATS.backend_losses.add(1);
    log::event(format_args!(
        "backend_lost target={target} reason={} clients={}",
        link.ended(),
        clients
    ));
    link.has_answered.load(Ordering::Relaxed) || since.elapsed() >= BACKOFF_FORGIVEN
}

/// Ends all clients of a connection; how many these were.
fn end_clients(link: &Link, reason: Close) -> usize {
    let clients = registry::clients_of(link);
    for client in &clients {
        if !http::fail(client, reason) {
            client.end(reason);
        }
    }
    clients.len()
}

/// Ends the connections of a set that is retired, and their clients.
pub fn end_set(set: &Set) {
    for link in set.snapshot().ready {
        end_clients(&link, Close::Drained);
        link.close("removed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_by_half_until_twenty_seconds() {
        let waits = |jitter, count| -> Vec<u128> {
            let mut backoff = BACKOFF_FIRST;
            let wait = |_| next_wait(&mut backoff, jitter).as_millis();
            (0..count).map(wait).collect()
        };
        let even = waits(0, 12);
        assert_eq!(even[..4], [1000, 1500, 2250, 3375]);
        assert!(even[8] >= 20_000 && even[9] == even[8] && even[11] == even[8]);
        let late = waits(255, 2);
        assert!((1090..1100).contains(&late[0]) && (1780..1800).contains(&late[1]));
    }
}
