//! What is counted: counters, which only grow, and gauges of what comes and goes.
//!
//! Counts are exact on every target. Where there are no 64-bit atomics (MIPS, old ARM) a counter is a
//! number behind a lock, which costs as much there as two 32-bit operations.

use std::ops::Deref;
use std::sync::atomic::{AtomicU32, Ordering};

/// A count that only grows.
#[derive(Default)]
pub struct Counter(
    #[cfg(target_has_atomic = "64")] std::sync::atomic::AtomicU64,
    #[cfg(not(target_has_atomic = "64"))] super::lock::Mutex<u64>,
);

#[cfg(target_has_atomic = "64")]
impl Counter {
    /// Nothing counted yet.
    pub const fn new() -> Counter {
        Counter(std::sync::atomic::AtomicU64::new(0))
    }

    /// Counts `n` more.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// The count so far.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(not(target_has_atomic = "64"))]
impl Counter {
    /// Nothing counted yet.
    pub const fn new() -> Counter {
        Counter(super::lock::Mutex::new(0))
    }

    /// Counts `n` more.
    pub fn add(&self, n: u64) {
        *self.0.lock() += n;
    }

    /// The count so far.
    pub fn value(&self) -> u64 {
        *self.0.lock()
    }
}

/// How many there are now of something that comes and goes.
#[derive(Default)]
pub struct Gauge(AtomicU32);

impl Gauge {
    /// None yet.
    pub const fn new() -> Gauge {
        Gauge(AtomicU32::new(0))
    }

    /// How many there are.
    pub fn value(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    /// One more, until the place is dropped.
    pub fn enter<G: Deref<Target = Gauge>>(gauge: G) -> Place<G> {
        gauge.0.fetch_add(1, Ordering::Relaxed);
        Place(gauge)
    }

    /// One more, if that makes at most `most`.
    pub fn try_enter<G: Deref<Target = Gauge>>(gauge: G, most: u32) -> Option<Place<G>> {
        let more = |now: u32| (now < most).then(|| now + 1);
        let entered = gauge
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        entered.ok().map(|_| Place(gauge))
    }
}

/// One of those that a gauge counts. Leaves when dropped, also when a panic ends the work.
pub struct Place<G: Deref<Target = Gauge>>(G);

impl<G: Deref<Target = Gauge>> Drop for Place<G> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}
