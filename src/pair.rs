//! Two connections whose bytes are relayed into each other, one thread for each direction (a half), until
//! both halves have ended. When one side shuts down its sending, that is passed on and the other half goes
//! on, so nothing in flight is lost. `direct` relays a client and its data centre so, `door::mask` a
//! stranger and the site that it is shown.
//!
//! Locks: a list of all pairs, from which the server ends them when it stops, and in each pair how far its
//! halves are, taken behind the former. Neither is held while bytes are moved.

use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar};
use std::time::Duration;

use mtproxy::limits::HALF_OPEN;

use crate::base::lock::{self, Mutex};
use crate::base::{sys, threads};
use crate::stats::{Close, Owner};

/// Both connections, and how far both halves are.
pub struct Pair {
    /// The connection that was accepted.
    pub client: TcpStream,
    /// The connection that was made for it.
    pub far: TcpStream,
    /// Whose client it is, if it is one's.
    owner: Option<Owner>,
    /// Steps of both halves so far: changes as long as there is progress.
    steps: AtomicU32,
    ended: Mutex<Ended>,
    both: Condvar,
}

#[derive(Default)]
struct Ended {
    halves: u8,
    reason: Option<Close>,
}

/// Why a half can't go on.
pub enum Broken {
    /// The client's connection broke, or nothing that it still says is of use: both halves end.
    Client(Close),
    /// The other connection broke: what has come from it is on its way to the client.
    Far(Close),
}

/// One direction: relays until its source has ended, passes that on, and returns.
pub type Half = Result<(), Broken>;

/// Relays until both halves have ended; says what ended first. A half that returns orderly has ended
/// for `orderly`: first the client's, then the other one's.
pub fn run(
    pair: &Arc<Pair>,
    orderly: [Close; 2],
    up: impl FnOnce(&Pair) -> Half,
    down: impl FnOnce(&Pair) -> Half + Send + 'static,
) -> (Close, Listed) {
    let listed = Listed::new(pair);
    let theirs = pair.clone();
    let job = move || theirs.half(orderly[1], || down(&theirs));
    if !threads::run(Box::new(job)) {
        return (Close::NoThread, listed);
    }
    pair.half(orderly[0], || up(pair));
    let ended = pair.ended.lock();
    (ended.reason.unwrap_or(Close::Panicked), listed)
}

/// All pairs.
static PAIRS: Mutex<Pairs> = Mutex::new(Pairs {
    slots: Vec::new(),
    free: Vec::new(),
    stopped: false,
});
/// Notified when the last pair leaves.
static EMPTY: Condvar = Condvar::new();

struct Pairs {
    slots: Vec<Option<Arc<Pair>>>,
    free: Vec<usize>,
    stopped: bool,
}

impl Pairs {
    fn all(&self) -> impl Iterator<Item = &Arc<Pair>> {
        self.slots.iter().flatten()
    }

    fn is_empty(&self) -> bool {
        self.free.len() == self.slots.len()
    }
}

/// A pair that is in the list, until this is dropped: when its end is counted.
pub struct Listed(usize);

impl Listed {
    fn new(pair: &Arc<Pair>) -> Listed {
        let mut pairs = PAIRS.lock();
        let slot = pairs.free.pop().unwrap_or_else(|| {
            pairs.slots.push(None);
            pairs.slots.len() - 1
        });
        pairs.slots[slot] = Some(pair.clone());
        if pairs.stopped {
            pair.finish();
        }
        Listed(slot)
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        let mut pairs = PAIRS.lock();
        let last = pairs.slots[self.0].take();
        pairs.free.push(self.0);
        if pairs.is_empty() {
            EMPTY.notify_all();
        }
        drop(pairs);
        drop(last); // closes both connections, which takes the system longer than others may wait
    }
}

/// Ends all pairs, now and from now on, once what has come from their far sides has gone to clients.
pub fn finish_all() {
    let mut pairs = PAIRS.lock();
    pairs.stopped = true;
    pairs.all().for_each(|pair| pair.finish());
}

/// Ends the pairs of some owners now.
pub fn end_of(is_one: &dyn Fn(Owner) -> bool, reason: Close) {
    let pairs = PAIRS.lock();
    let is_own = |pair: &&Arc<Pair>| pair.owner.is_some_and(is_one);
    for pair in pairs.all().filter(is_own) {
        pair.ended.lock().reason.get_or_insert(reason);
        pair.shut_down();
    }
}

/// Ends all pairs now, whatever is on its way.
pub fn end_all() {
    let pairs = PAIRS.lock();
    pairs.all().for_each(|pair| pair.shut_down());
}

/// Waits until there is no pair; false if some are left after `wait`.
pub fn wait_empty(wait: Duration) -> bool {
    let pairs = lock::wait_while(&EMPTY, PAIRS.lock(), wait, |pairs| !pairs.is_empty());
    pairs.is_empty()
}

/// Pairs both of whose halves go on, and a figure that changes while clients take something or speak.
pub fn movement() -> (u64, u64) {
    let pairs = PAIRS.lock();
    pairs.all().fold((0, 0_u64), |(whole, sum), pair| {
        let moved = sys::unconfirmed(&pair.client) + (u64::from(pair.steps()) << 32);
        (
            whole + u64::from(!pair.has_ended()),
            sum.wrapping_add(moved),
        )
    })
}

impl Pair {
    /// Neither half has begun.
    pub fn new(client: TcpStream, far: TcpStream, owner: Option<Owner>) -> Pair {
        Pair {
            client,
            far,
            owner,
            steps: AtomicU32::new(0),
            ended: Mutex::default(),
            both: Condvar::new(),
        }
    }

    /// Nothing more is taken from the far side, save what has come: the system gives that first.
    fn finish(&self) {
        self.ended.lock().reason.get_or_insert(Close::Stopping);
        let _ = self.far.shutdown(Shutdown::Read);
    }

    /// There was progress.
    pub fn step(&self) {
        self.steps.fetch_add(1, Ordering::Relaxed);
    }

    /// Steps of both halves so far.
    pub fn steps(&self) -> u32 {
        self.steps.load(Ordering::Relaxed)
    }

    /// Whether one of the halves has ended.
    pub fn has_ended(&self) -> bool {
        let ended = self.ended.lock();
        ended.halves > 0
    }

    /// One direction from its start to the end of both. The other half may go on while it makes
    /// progress.
    fn half(&self, orderly: Close, relay: impl FnOnce() -> Half) {
        let mut result = Err(Broken::Client(Close::Panicked));
        threads::guarded(|| result = relay());
        let mut ended = self.ended.lock();
        let (reason, of_client) = match result {
            Ok(()) => (orderly, None),
            Err(Broken::Client(reason)) => (reason, Some(Shutdown::Both)),
            Err(Broken::Far(reason)) => (reason, Some(Shutdown::Write)),
        };
        ended.reason.get_or_insert(reason);
        if let Some(how) = of_client {
            let _ = self.far.shutdown(Shutdown::Both);
            let _ = self.client.shutdown(how);
        }
        ended.halves += 1;
        if ended.halves == 2 {
            drop(ended); // else whoever wakes would wait for it
            self.both.notify_all();
            return;
        }
        while ended.halves < 2 {
            let before = self.steps();
            let timed_out;
            (ended, timed_out) = lock::wait_for(&self.both, ended, HALF_OPEN);
            if ended.halves < 2 && timed_out && before == self.steps() {
                ended.reason = Some(Close::HalfOpen);
                self.shut_down();
            }
        }
    }

    fn shut_down(&self) {
        let _ = self.client.shutdown(Shutdown::Both);
        let _ = self.far.shutdown(Shutdown::Both);
    }
}
