//! How long it took to reach Telegram: histograms by data centre.

use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::time::Duration;

use mtproxy::limits::TIME_BUCKETS;
use mtproxy::proto::wire::DcId;

use crate::base::{gauge::Counter, lock::Mutex};

/// How far another clock was ahead of ours, seconds.
pub struct Skew(AtomicI32);

/// By the last middle proxy's handshake.
pub static MIDDLE_SKEW: Skew = Skew(AtomicI32::new(i32::MIN));
/// By the last fake-TLS hello that proved a secret, whether it was too old or not.
pub static HELLO_SKEW: Skew = Skew(AtomicI32::new(i32::MIN));

impl Skew {
    /// Compares a time of the other clock with ours, unix seconds both.
    pub fn note(&self, theirs: u32, ours: u32) {
        let ahead = i64::from(theirs) - i64::from(ours);
        let ahead = i32::try_from(ahead).unwrap_or(i32::MAX);
        self.0.store(ahead, Ordering::Relaxed);
    }

    /// None: nothing was compared yet.
    pub fn seconds(&self) -> Option<i32> {
        Some(self.0.load(Ordering::Relaxed)).filter(|seconds| *seconds > i32::MIN)
    }
}

/// A histogram of durations.
#[derive(Default)]
pub struct Histogram {
    /// Durations above the previous bucket's bound and up to this one's; the last bucket has no bound.
    counts: [Counter; TIME_BUCKETS.len() + 1],
    micros: Counter,
}

impl Histogram {
    /// Counts one duration.
    #[inline(never)] // else the search is unrolled
    pub fn add(&self, time: Duration) {
        let fits = |most: &u16| time <= Duration::from_millis((*most).into());
        let place = TIME_BUCKETS.iter().position(fits);
        if let Some(count) = self.counts.get(place.unwrap_or(TIME_BUCKETS.len())) {
            count.add(1);
        }
        self.micros.add(time.as_micros() as u64);
    }

    /// How many were at most as long as each bound, then how many there are in all.
    pub fn cumulative(&self) -> [u64; TIME_BUCKETS.len() + 1] {
        let mut sum = 0;
        self.counts.each_ref().map(|count| {
            sum += count.value();
            sum
        })
    }

    /// The sum of all durations, microseconds.
    pub fn micros(&self) -> u64 {
        self.micros.value()
    }
}

/// Connections to one data centre, or to middle proxies that serve it.
#[derive(Default)]
pub struct Dials {
    /// The data centre; the first of those that share their middle proxies.
    pub dc: DcId,
    /// TCP's part.
    pub connect: Histogram,
    /// The nonces and the handshake that middle proxies want; direct mode has none.
    pub handshake: Histogram,
    /// Connections that failed.
    pub failures: Counter,
    /// When the last warning of them was logged, in seconds of the clock + 1; 0 while it can be reached.
    pub warned: AtomicU32,
}

static DIALS: Mutex<Vec<&Dials>> = Mutex::new(Vec::new());

/// The entry of a data centre, made when it is first dialled.
pub fn dials(dc: DcId) -> &'static Dials {
    let mut all = DIALS.lock();
    if let Some(dials) = all.iter().find(|dials| dials.dc == dc) {
        return dials;
    }
    let new = Dials {
        dc,
        ..Dials::default()
    };
    let dials = Box::leak(Box::new(new));
    all.push(dials);
    dials
}

/// The entries of all data centres that were dialled.
pub fn all_dials() -> Vec<&'static Dials> {
    DIALS.lock().clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_fall_into_their_buckets() {
        let histogram = Histogram::default();
        for micros in [0, 5_000, 5_001, 99_000, 5_000_000, 5_000_001] {
            histogram.add(Duration::from_micros(micros));
        }
        assert_eq!(histogram.cumulative(), [2, 3, 3, 3, 4, 4, 4, 4, 4, 5, 6]);
        assert_eq!(histogram.micros(), 10_109_002);
    }

    #[test]
    fn one_entry_for_each_data_centre() {
        dials(DcId(31)).connect.add(Duration::ZERO);
        assert!(std::ptr::eq(dials(DcId(31)), dials(DcId(31))));
        let all = all_dials();
        assert_eq!(all.iter().filter(|dials| dials.dc == DcId(31)).count(), 1);
    }
}
