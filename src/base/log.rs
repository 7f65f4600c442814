//! The log: one event a line on standard error, `time EVENT key=value ...`. Nothing per packet, never
//! a secret. Prose for the operator (start block, errors) is written by `say`.

use std::fmt::{Arguments, Write as _};
use std::io::Write as _;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::base::clock;

use mtproxy::formats::date::Moment;

static VERBOSITY: AtomicU32 = AtomicU32::new(0);

/// Sets how many -v were given.
pub fn set_verbosity(level: u32) {
    VERBOSITY.store(level, Ordering::Relaxed);
}

/// Logs an event that an operator wants to know of.
pub fn event(what: Arguments) {
    line(format_args!("{} {what}", Utc(clock::unix())));
}

/// Logs an event that is only of interest with -v.
pub fn detail(what: Arguments) {
    if VERBOSITY.load(Ordering::Relaxed) > 0 {
        event(what);
    }
}

/// Prints a line of prose.
pub fn say(what: Arguments) {
    line(what);
}

/// One write, so that lines of several threads don't mix. Nothing can be done if it fails.
fn line(what: Arguments) {
    let mut text = String::with_capacity(160);
    let _ = writeln!(text, "{what}");
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// Unix seconds, shown as 2026-11-23T04:10:00Z.
struct Utc(u64);

impl std::fmt::Display for Utc {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let moment = Moment::new(self.0);
        let (year, month, day) = (moment.year, moment.month, moment.day);
        let (h, m, s) = (
            moment.seconds / 3_600,
            moment.seconds / 60 % 60,
            moment.seconds % 60,
        );
        write!(f, "{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}Z")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (seconds, wanted) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_795_401_000, "2026-11-23T02:30:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(Utc(seconds).to_string(), wanted);
        }
    }
}
