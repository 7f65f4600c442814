//! How many connections may come in a second. Called by `admission` for each; one lock, held for a comparison.

use std::time::{Duration, Instant};

use crate::base::lock::Mutex;

/// --max-accept-rate: a bucket of tokens, into which as many as it holds are put a second.
pub struct Rate {
    /// Between two tokens.
    interval: Duration,
    /// When the bucket will be full.
    full: Mutex<Instant>,
}

impl Rate {
    /// A full bucket; None for any number of connections.
    pub fn new(per_second: u32) -> Option<Rate> {
        Some(Rate {
            interval: Duration::from_secs(1).checked_div(per_second)?,
            full: Mutex::new(Instant::now()),
        })
    }

    /// Takes a token; false if there is none.
    pub fn take(&self, now: Instant) -> bool {
        let mut full = self.full.lock();
        let then = (*full).max(now) + self.interval;
        let has_token = then <= now + Duration::from_secs(1);
        if has_token {
            *full = then;
        }
        has_token
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_what_a_second_brings() {
        assert!(Rate::new(0).is_none());
        for per_second in [1, 3, 7, 1000] {
            let rate = Rate::new(per_second).unwrap();
            let start = Instant::now();
            let at = |millis| start + Duration::from_millis(millis);
            let taken = |now| (0..2000).take_while(|_| rate.take(now)).count() as u32;
            assert_eq!(taken(at(0)), per_second);
            assert_eq!(taken(at(1)), u32::from(per_second == 1000));
            // A third of a second brings a third of them, and hours no more than a second.
            let third = taken(at(334));
            assert!(
                (per_second / 3..=per_second / 3 + 1).contains(&third),
                "{third}"
            );
            assert_eq!(taken(at(10_000_000)), per_second);
        }
    }
}
