//! Time: since the start for durations, since 1970 for the world.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use mtproxy::limits::{CLOCK_HORIZON, RELEASED, SUMMARY_INTERVAL};

use super::sys::time;

/// Since the first call; never goes back.
pub fn running() -> Duration {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}

/// Seconds since the first call.
pub fn seconds() -> u32 {
    running().as_secs() as u32
}

/// Milliseconds since the first call; wraps after 49 days.
pub fn millis() -> u32 {
    running().as_millis() as u32
}

/// When something is due that is done at an interval, whatever happens in between.
pub struct Every {
    interval: Duration,
    due: Instant,
}

impl Every {
    /// For the first time when `interval` has passed.
    pub fn new(interval: Duration) -> Every {
        let due = Instant::now() + interval;
        Every { interval, due }
    }

    /// How long until it is due.
    pub fn left(&self) -> Duration {
        self.due.saturating_duration_since(Instant::now())
    }

    /// Whether it is due; the interval begins anew then.
    pub fn is_due(&mut self) -> bool {
        let due = self.left().is_zero();
        if due {
            *self = Every::new(self.interval);
        }
        due
    }
}

/// What is to be said once a minute at most.
pub struct Rarely(AtomicU32);

impl Rarely {
    /// Not said yet.
    pub const fn new() -> Rarely {
        Rarely(AtomicU32::new(0))
    }

    /// Whether it is to be said now.
    pub fn is_due(&self) -> bool {
        let now = seconds().max(1);
        let last = self.0.load(Ordering::Relaxed);
        let due = last == 0 || now - last >= SUMMARY_INTERVAL.as_secs() as u32;
        if due {
            self.0.store(now, Ordering::Relaxed);
        }
        due
    }
}

/// Seconds since 1970. The program's only way to that clock; see [`time`].
pub fn unix() -> u64 {
    u64::try_from(time::unix()).unwrap_or(0)
}

/// Whether a clock that says this is certainly wrong.
pub fn is_implausible(unix: u64) -> bool {
    !(RELEASED..CLOCK_HORIZON).contains(&unix)
}

/// When a file was last written, seconds since 1970, if the system knows.
pub fn written(path: &Path) -> Option<u64> {
    Some(whole(fs::metadata(path).ok()?.mtime()))
}

/// On 32-bit machines std gives the lower half of a file's time, as a signed number.
fn whole(seconds: i64) -> u64 {
    match i32::try_from(seconds) {
        Ok(lower) if cfg!(target_pointer_width = "32") => lower.cast_unsigned().into(),
        _ => u64::try_from(seconds).unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_is_not_put_off_by_what_comes_in_between() {
        let (begun, interval) = (Instant::now(), Duration::from_millis(50));
        let mut every = Every::new(interval);
        let mut times = 0;
        while begun.elapsed() < 3 * interval {
            assert!(every.left() <= interval);
            std::thread::sleep(every.left().min(interval / 10));
            times += u32::from(every.is_due());
        }
        assert!((1..=3).contains(&times), "{times} times in three intervals");
    }
}
