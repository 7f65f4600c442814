//! Places at the mask site. While there are some, every stranger gets one. When all are taken a stranger
//! waits, as at a busy site, for one to be left or to be given way to: by the idlest of the source that
//! has most, or by whoever has been idle for long. Called by `mask` on the stranger's thread. One lock,
//! held for a look at all visitors.

use std::net::{IpAddr, Shutdown};
use std::sync::{Arc, Condvar};
use std::time::{Duration, Instant};

use mtproxy::limits::{MASK_LOOK, MASK_SCARCE_IDLE, MASK_SOURCES, MASK_WAIT};

use crate::base::gauge::{Gauge, Place};
use crate::base::lock::{self, Mutex};
use crate::base::net::{self, source_of};
use crate::pair::Pair;
use crate::stats::{STATS, STRANGERS};

/// Who is at the site, and who waits.
pub struct Visitors {
    /// --mask-max
    most: usize,
    all: Mutex<Vec<Visitor>>,
    /// Notified when a place is left.
    left: Condvar,
}

struct Visitor {
    source: Option<IpAddr>,
    /// What is known of it again.
    id: Arc<()>,
    state: State,
}

enum State {
    Waits,
    /// Its site is being connected to.
    Placed,
    /// It is relayed; how many steps the relay had made, and when that was first seen.
    Relayed(Arc<Pair>, u32, Instant),
}

/// A place at the site. Left when dropped.
pub struct Visit<'a> {
    visitors: &'a Visitors,
    id: Arc<()>,
    _counted: Option<Place<&'static Gauge>>,
}

impl Visitors {
    /// With so many places.
    pub fn new(most: u32) -> Visitors {
        Visitors {
            most: most as usize,
            all: Mutex::default(),
            left: Condvar::new(),
        }
    }

    /// Takes a place for a stranger, for which it may have to wait. None: there is none for it.
    pub fn enter(&self, ip: IpAddr) -> Option<Visit<'_>> {
        let (source, deadline) = (source_of(ip), Instant::now() + MASK_WAIT);
        let share = (self.most / MASK_SOURCES).max(1);
        let mut all = self.all.lock();
        let waits = |v: &&Visitor| matches!(v.state, State::Waits);
        let of_source = all.iter().filter(waits).filter(|v| is_from(v, source));
        if of_source.count() >= share || all.iter().filter(waits).count() >= self.most {
            return None;
        }
        let mut visit = Visit {
            visitors: self,
            id: Arc::new(()),
            _counted: None,
        };
        all.push(Visitor {
            source,
            id: visit.id.clone(),
            state: State::Waits,
        });
        let dropped = loop {
            let placed = all.iter().filter(|v| !waits(v)).count();
            let own = of(&all, source);
            if placed < self.most && (own < share || placed < self.most / 2) {
                break None;
            }
            if own < share
                && let Some(victim) = choose(&mut all, own + 1, share)
            {
                break Some(all.swap_remove(victim));
            }
            let Some(left) = net::left(deadline) else {
                drop(all);
                return None; // and no longer waits
            };
            (all, _) = lock::wait_for(&self.left, all, left.min(MASK_LOOK));
        };
        visit.set(&mut all, State::Placed);
        visit._counted = Some(Gauge::enter(&STRANGERS));
        drop(all);
        if let Some(State::Relayed(pair, ..)) = dropped.map(|visitor| visitor.state) {
            STATS.mask_dropped.add(1);
            let _ = pair.client.shutdown(Shutdown::Both);
            let _ = pair.far.shutdown(Shutdown::Both);
        }
        Some(visit)
    }
}

/// The visitor who is to give way to one of whose source there are then `own`.
fn choose(all: &mut [Visitor], own: usize, share: usize) -> Option<usize> {
    let now = Instant::now();
    let mut victim: Option<((bool, usize, Duration), usize)> = None;
    for at in 0..all.len() {
        let of_source = of(all, all.get(at)?.source);
        let State::Relayed(pair, steps, since) = &mut all.get_mut(at)?.state else {
            continue;
        };
        if pair.steps() != *steps {
            (*steps, *since) = (pair.steps(), now);
        }
        let (is_greedy, idle) = (of_source > own.max(share), now - *since);
        if is_greedy || idle >= MASK_SCARCE_IDLE {
            victim = victim.max(Some(((is_greedy, of_source, idle), at)));
        }
    }
    victim.map(|(_, at)| at)
}

/// How many visitors from a source have places.
fn of(all: &[Visitor], source: Option<IpAddr>) -> usize {
    let placed = |v: &&Visitor| !matches!(v.state, State::Waits);
    all.iter()
        .filter(placed)
        .filter(|v| is_from(v, source))
        .count()
}

/// Visitors of no source that is known are from sources of their own.
fn is_from(visitor: &Visitor, source: Option<IpAddr>) -> bool {
    source.is_some() && visitor.source == source
}

impl Visit<'_> {
    /// It is relayed by this pair from now on, and may have to give way.
    pub fn relayed(&self, pair: &Arc<Pair>) {
        let state = State::Relayed(pair.clone(), pair.steps(), Instant::now());
        self.set(&mut self.visitors.all.lock(), state);
    }

    fn set(&self, all: &mut [Visitor], state: State) {
        if let Some(own) = all.iter_mut().find(|v| Arc::ptr_eq(&v.id, &self.id)) {
            own.state = state;
        }
    }
}

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        let mut all = self.visitors.all.lock();
        all.retain(|visitor| !Arc::ptr_eq(&visitor.id, &self.id));
        drop(all);
        self.visitors.left.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    fn pair() -> Arc<Pair> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        Arc::new(Pair::new(ours, listener.accept().unwrap().0, None))
    }

    fn relayed<'a>(visitors: &'a Visitors, from: &str) -> (Visit<'a>, Arc<Pair>) {
        let (visit, pair) = (visitors.enter(from.parse().unwrap()).unwrap(), pair());
        visit.relayed(&pair);
        (visit, pair)
    }

    /// Its connections were shut down.
    fn is_dropped(pair: &Pair) -> bool {
        pair.client.set_nonblocking(true).unwrap();
        pair.client.peek(&mut [0]).is_ok()
    }

    #[test]
    fn the_idlest_of_the_greediest_source_gives_way() {
        let visitors = Visitors::new(16);
        let greedy: Vec<_> = (0..8).map(|_| relayed(&visitors, "192.0.2.1")).collect();
        let _others: Vec<_> = (0..8)
            .map(|n| relayed(&visitors, &format!("198.51.100.{n}")))
            .collect();
        // All but one have just made a step, which is seen at the next look.
        std::thread::sleep(Duration::from_millis(2));
        let (idle, busy) = greedy.split_last().unwrap();
        busy.iter().for_each(|(_, pair)| pair.step());
        let one = relayed(&visitors, "203.0.113.1");
        assert!(is_dropped(&idle.1));
        assert!(busy.iter().all(|(_, pair)| !is_dropped(pair)));
        assert_eq!(visitors.all.lock().len(), 16);
        drop(greedy);
        drop(one);
        assert_eq!(visitors.all.lock().len(), 8);
    }

    #[test]
    fn who_must_wait_gets_the_place_that_is_left() {
        let visitors = Visitors::new(2);
        let (first, _second) = (
            relayed(&visitors, "192.0.2.1"),
            relayed(&visitors, "192.0.2.2"),
        );
        std::thread::scope(|scope| {
            let third = scope.spawn(|| visitors.enter("192.0.2.3".parse().unwrap()).is_some());
            while visitors.all.lock().len() < 3 {
                std::thread::yield_now();
            }
            // One source has no more than its share of those that wait.
            assert!(visitors.enter("192.0.2.3".parse().unwrap()).is_none());
            drop(first);
            assert!(third.join().unwrap());
        });
        assert!(
            Visitors::new(0)
                .enter("192.0.2.1".parse().unwrap())
                .is_none()
        );
    }
}
