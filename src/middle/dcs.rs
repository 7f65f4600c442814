//! The live table of data centres: which set of middle proxies serves a data centre, which of a
//! set's connections are ready, and who waits for one.
//!
//! Data centres with equal sets of targets share a set and its connections. (One address and port
//! under data centres whose sets differ is dialled for each of these sets.) One lock a set; nothing
//! is sent or written under it but to the main thread's channel, which always has room.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, MutexGuard};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use mtproxy::formats::config_file::ConfigFile;
use mtproxy::limits::{CLIENTS_PER_SLOT, FALLBACK_AFTER, MAX_WAITING, SLOT_PATIENCE};
use mtproxy::proto::wire::DcId;

use super::link::Link;
use crate::base::lock::{self, Mutex};
use crate::base::log;

/// What other threads ask the main thread to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MainTask {
    /// Start a slot of a set.
    StartSlot {
        /// The set's number.
        set: usize,
        /// The slot's, from 0 on.
        slot: usize,
    },
    /// Stop the server.
    Stop,
    /// Keep what is to outlast the process.
    Save,
}

/// A distinct set of targets.
pub struct Set {
    /// Its number, which no other set has while the process lives.
    pub number: usize,
    /// The first of its data centres.
    pub dc: DcId,
    /// Addresses in the order of the file.
    pub targets: Vec<SocketAddr>,
    slots: usize,
    state: Mutex<State>,
    /// Notified when a connection is ready, and at the stop.
    changed: Condvar,
    start: Sender<MainTask>,
}

struct State {
    ready: Vec<Arc<Link>>,
    started: usize,
    /// Clients that wait for a ready connection.
    waiting: usize,
    stopped: bool,
    /// No data centre has it any more: connections that are lost are not made again.
    retired: bool,
    /// When the last ready connection was lost; at first, the start.
    down_since: Instant,
    shown_down: bool,
}

/// How a set is.
pub struct Snapshot {
    /// Slots that it may have.
    pub slots: usize,
    /// Of these, slots that were started.
    pub started: usize,
    /// The connections of those that are ready.
    pub ready: Vec<Arc<Link>>,
    /// Clients that wait for one.
    pub waiting: usize,
}

impl Set {
    fn new(
        (number, dc): (usize, DcId),
        targets: Vec<SocketAddr>,
        slots: usize,
        start: &Sender<MainTask>,
    ) -> Set {
        let state = Mutex::new(State {
            ready: Vec::new(),
            started: 0,
            waiting: 0,
            stopped: false,
            retired: false,
            down_since: Instant::now(),
            shown_down: false,
        });
        Set {
            number,
            dc,
            targets,
            slots,
            state,
            changed: Condvar::new(),
            start: start.clone(),
        }
    }

    /// A connection for one more client: the ready one with the fewest. Waits for one at most
    /// `wait`. Asks for a further slot when all have many clients, or none becomes ready soon.
    pub fn acquire(&self, wait: Duration) -> Option<Arc<Link>> {
        let mut state = self.state();
        let none = |state: &mut State| state.ready.is_empty() && !state.stopped && !state.retired;
        if none(&mut state) {
            if state.waiting >= MAX_WAITING {
                return None;
            }
            state.waiting += 1;
            let patience = wait.min(SLOT_PATIENCE);
            state = lock::wait_while(&self.changed, state, patience, none);
            if none(&mut state) {
                // The slot that is being dialled may stand before a dead address.
                self.start_next(&mut state);
                state = lock::wait_while(&self.changed, state, wait - patience, none);
            }
            state.waiting -= 1;
        }
        let load = |link: &&Arc<Link>| link.clients.load(Ordering::Relaxed);
        let link = state.ready.iter().min_by_key(load)?.clone();
        if link.clients.fetch_add(1, Ordering::Relaxed) >= CLIENTS_PER_SLOT {
            self.start_next(&mut state);
        }
        Some(link)
    }

    /// The server stops: nobody waits for a connection any more.
    pub fn stop(&self) {
        self.state().stopped = true;
        self.changed.notify_all();
    }

    /// No data centre has it any more. Its connections stay for those who have one; nobody waits for another.
    pub fn retire(&self) {
        self.state().retired = true;
        self.changed.notify_all();
    }

    /// Whether it was.
    pub fn is_retired(&self) -> bool {
        self.state().retired
    }

    /// A slot that was asked for could not be started; it may be asked for again.
    pub fn slot_failed(&self) {
        self.state().started -= 1;
    }

    /// Starts the first slot.
    pub fn start_first(&self) {
        self.start_next(&mut self.state());
    }

    fn start_next(&self, state: &mut State) {
        let all_ready = state.ready.len() == state.started;
        // One slot at a time, unless those that were started don't become ready.
        let due = state.started < self.slots && (all_ready || state.ready.is_empty());
        let task = MainTask::StartSlot {
            set: self.number,
            slot: state.started,
        };
        if due && self.start.try_send(task).is_ok() {
            state.started += 1;
        }
    }

    /// A connection is ready: whoever waits gets it.
    pub fn publish(&self, link: Arc<Link>) {
        let mut state = self.state();
        state.ready.push(link);
        let was_down = std::mem::take(&mut state.shown_down);
        drop(state);
        self.changed.notify_all();
        if was_down {
            log::event(format_args!("fallback_ends set={}", self.number));
        }
    }

    /// A connection is lost: nobody gets it any more.
    pub fn withdraw(&self, link: &Link) {
        let mut state = self.state();
        let before = state.ready.len();
        state.ready.retain(|own| !std::ptr::eq(&**own, link));
        if state.ready.is_empty() && before > 0 {
            state.down_since = Instant::now();
        }
    }

    /// Whether none of the set's middle proxies could be reached for so long that new clients are
    /// better served without. Says so once.
    pub fn is_down(&self) -> bool {
        let mut state = self.state();
        let down = state.ready.is_empty() && state.down_since.elapsed() >= FALLBACK_AFTER;
        let news = down && !std::mem::replace(&mut state.shown_down, true);
        drop(state);
        if news {
            log::event(format_args!("fallback_begins set={}", self.number));
        }
        down
    }

    /// How it is now.
    pub fn snapshot(&self) -> Snapshot {
        let state = self.state();
        Snapshot {
            slots: self.slots,
            started: state.started,
            ready: state.ready.clone(),
            waiting: state.waiting,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

/// Which set serves which data centre.
pub struct Dcs {
    /// Every set once.
    pub sets: Vec<Arc<Set>>,
    /// Data centres, and the places of their sets.
    clusters: Vec<(DcId, usize)>,
    default: DcId,
    /// The number of the next set.
    next: usize,
}

impl Dcs {
    /// The table of a configuration, with up to `slots` connections a set, to be started through
    /// `start`. Sets of the table `before` whose targets are the same are kept, with their connections.
    pub fn new(
        config: &ConfigFile,
        slots: usize,
        start: &Sender<MainTask>,
        before: Option<&Dcs>,
    ) -> Dcs {
        let mut sets: Vec<Arc<Set>> = Vec::new();
        let mut clusters = Vec::new();
        let kept = before.map_or(&[][..], |dcs| &dcs.sets);
        let mut next = before.map_or(0, |dcs| dcs.next);
        for cluster in &config.clusters {
            let targets = distinct(&cluster.targets);
            // Neither holds an address twice.
            let same = |set: &Arc<Set>| {
                let known = |target| set.targets.contains(target);
                set.targets.len() == targets.len() && targets.iter().all(known)
            };
            let place = sets.iter().position(same).unwrap_or(sets.len());
            if place == sets.len() {
                let kept = kept.iter().find(|set| same(set));
                let set = kept.cloned().unwrap_or_else(|| {
                    next += 1;
                    Arc::new(Set::new((next - 1, cluster.dc), targets, slots, start))
                });
                sets.push(set);
            }
            clusters.push((cluster.dc, place));
        }
        Dcs {
            sets,
            clusters,
            default: config.default_dc,
            next,
        }
    }

    /// The set of a data centre: an exact match, else the default's (protocol.md 3.5).
    pub fn route(&self, dc: DcId) -> Option<&Arc<Set>> {
        let of = |id: DcId| self.clusters.iter().find(|(cluster, _)| *cluster == id);
        let (_, place) = of(dc).or_else(|| of(self.default))?;
        self.sets.get(*place)
    }

    /// The data centre of clients that name none.
    pub fn default_dc(&self) -> DcId {
        self.default
    }

    /// The first data centre of the set at a place.
    pub fn first_of(&self, place: usize) -> DcId {
        let mut clusters = self.clusters.iter();
        let first = clusters.find(|(_, own)| *own == place);
        first.map_or(self.default, |(dc, _)| *dc)
    }

    /// Data centres in the configuration.
    pub fn clusters(&self) -> usize {
        self.clusters.len()
    }

    /// The data centres themselves, and the one that serves clients of all others.
    pub fn served(&self) -> (Vec<DcId>, DcId) {
        let all = self.clusters.iter().map(|(dc, _)| *dc).collect();
        (all, self.default)
    }
}

/// Each address once, in order.
fn distinct(targets: &[SocketAddr]) -> Vec<SocketAddr> {
    let mut once = Vec::new();
    for target in targets {
        if !once.contains(target) {
            once.push(*target);
        }
    }
    once
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam_channel::{Receiver, unbounded};
    use std::net::{TcpListener, TcpStream};

    fn dcs(text: &str, slots: usize) -> (Dcs, Receiver<MainTask>) {
        let config =
            mtproxy::formats::config_file::parse("conf", text.as_bytes(), &mut |_, _| None)
                .unwrap();
        let (send, receive) = unbounded();
        (Dcs::new(&config, slots, &send, None), receive)
    }

    fn link() -> Arc<Link> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = listener.local_addr().unwrap();
        let socket = TcpStream::connect(target).unwrap();
        crate::middle::link::new(0, socket, target).0
    }

    #[test]
    fn equal_sets_are_shared_and_unknown_ids_go_to_the_default() {
        let (dcs, _) = dcs(
            "default 2; proxy_for 2 192.0.2.1:80; proxy_for -2 192.0.2.1:80; \
             proxy_for 5 192.0.2.2:80; proxy_for 5 192.0.2.3:80; proxy_for -5 192.0.2.3:80; proxy_for -5 192.0.2.2:80;",
            2,
        );
        assert_eq!(dcs.sets.len(), 2);
        let number = |dc| dcs.route(DcId(dc)).map(|s| s.number);
        assert_eq!(
            (
                number(2),
                number(-2),
                number(203),
                number(0),
                number(-10002)
            ),
            (Some(0), Some(0), Some(0), Some(0), Some(0))
        );
        assert_eq!((number(5), number(-5)), (Some(1), Some(1)));
    }

    #[test]
    fn a_set_whose_targets_stay_is_kept_and_no_number_comes_twice() {
        let (first, tasks) = dcs(
            "proxy_for 1 192.0.2.1:80; proxy_for 2 192.0.2.2:80; proxy_for 2 192.0.2.3:80;",
            1,
        );
        let next = |text: &str, before: &Dcs| {
            let mut none = |_: &str, _| None;
            let parse = mtproxy::formats::config_file::parse;
            let config = parse("conf", text.as_bytes(), &mut none).unwrap();
            let (send, _) = unbounded();
            Dcs::new(&config, 1, &send, Some(before))
        };
        let other = next(
            "proxy_for 3 192.0.2.9:80; proxy_for 5 192.0.2.3:80; proxy_for 5 192.0.2.2:80;",
            &first,
        );
        assert!(Arc::ptr_eq(&other.sets[1], &first.sets[1]));
        assert_eq!((other.sets[0].number, other.sets[1].number), (2, 1));
        assert!(Arc::ptr_eq(other.route(DcId(5)).unwrap(), &first.sets[1]));
        let back = next("proxy_for 1 192.0.2.1:80;", &other);
        assert_eq!(back.sets[0].number, 3);
        assert!(tasks.try_recv().is_err());
    }

    #[test]
    fn without_a_default_cluster_an_unknown_id_has_no_set() {
        let (dcs, _) = dcs("proxy_for 2 192.0.2.1:80;", 1);
        assert!(dcs.route(DcId(3)).is_none());
        assert!(dcs.route(DcId(2)).is_some());
    }

    #[test]
    fn nobody_waits_for_a_set_that_is_retired() {
        let (dcs, _tasks) = dcs("proxy 192.0.2.1:80;", 1);
        let (set, long) = (&dcs.sets[0], Duration::from_secs(60));
        let begun = Instant::now();
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| set.acquire(long).is_none());
            while set.snapshot().waiting == 0 && begun.elapsed() < long {
                std::thread::yield_now();
            }
            set.retire();
            assert!(waiter.join().unwrap());
        });
        assert!(begun.elapsed() < long, "it waited to the end");
        set.publish(link());
        assert!(set.acquire(Duration::ZERO).is_some());
    }

    #[test]
    fn a_client_goes_to_the_connection_with_fewest_and_a_further_slot_starts_at_eight_each() {
        let (dcs, tasks) = dcs("proxy 192.0.2.1:80;", 3);
        let set = &dcs.sets[0];
        let started = |slot| tasks.try_recv() == Ok(MainTask::StartSlot { set: 0, slot });
        let acquire = || set.acquire(Duration::ZERO).unwrap();
        set.start_first();
        assert!(started(0));
        let (first, second) = (link(), link());
        set.publish(first.clone());
        for _ in 0..8 {
            acquire();
        }
        assert!(tasks.try_recv().is_err());
        assert!(Arc::ptr_eq(&acquire(), &first));
        assert!(started(1));
        acquire();
        assert!(tasks.try_recv().is_err(), "the second one is being dialled");
        set.publish(second.clone());
        for _ in 0..8 {
            assert!(Arc::ptr_eq(&acquire(), &second));
        }
        first.clients.store(7, Ordering::Relaxed);
        assert!(Arc::ptr_eq(&acquire(), &first));
        assert!(tasks.try_recv().is_err());
        acquire();
        assert!(started(2), "both have eight");
        let now = set.snapshot();
        assert_eq!((now.slots, now.started, now.ready.len()), (3, 3, 2));
        set.withdraw(&second);
        assert!(Arc::ptr_eq(&acquire(), &first));
    }

    #[test]
    fn who_gives_up_makes_room_for_others() {
        let (dcs, _started) = dcs("proxy 192.0.2.1:80;", 1);
        let set = &dcs.sets[0];
        for _ in 0..2 * MAX_WAITING {
            assert!(set.acquire(Duration::ZERO).is_none());
        }
        assert_eq!(set.state().waiting, 0);
    }

    #[test]
    fn stopping_sends_everybody_away() {
        let (dcs, _started) = dcs("proxy 192.0.2.1:80;", 1);
        let set = dcs.sets[0].clone();
        let waiter = {
            let set = set.clone();
            std::thread::spawn(move || set.acquire(Duration::MAX).is_none())
        };
        while set.state().waiting == 0 {
            std::thread::yield_now();
        }
        set.stop();
        assert!(waiter.join().unwrap());
        assert!(set.acquire(Duration::MAX).is_none());
    }

    #[test]
    fn who_waits_is_served_and_who_waits_too_long_is_not() {
        let (dcs, _started) = dcs("proxy 192.0.2.1:80;", 1);
        let set = dcs.sets[0].clone();
        assert!(set.acquire(Duration::ZERO).is_none());
        let waiter = {
            let set = set.clone();
            std::thread::spawn(move || set.acquire(Duration::from_secs(30)).unwrap())
        };
        while set.state().waiting == 0 {
            std::thread::yield_now();
        }
        let link = link();
        set.publish(link.clone());
        assert!(Arc::ptr_eq(&waiter.join().unwrap(), &link));
    }
}
