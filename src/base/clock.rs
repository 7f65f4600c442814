//! Time: since the start for durations, since 1970 for the world.

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Since the first call; never goes back.
fn running() -> Duration {
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

/// Seconds since 1970.
pub fn unix() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}
