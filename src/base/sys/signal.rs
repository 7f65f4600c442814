//! Signals: all that matter are ignored at first, then blocked, and taken by one thread that waits.

use std::ffi::{c_int, c_void};
use std::ptr;
use std::time::Duration;

use super::consts::*;

/// 128 bytes everywhere.
#[repr(C)]
struct SignalSet([u64; 16]);

#[repr(C)]
struct TimeSpec {
    seconds: isize,
    nanoseconds: isize,
}

unsafe extern "C" {
    fn signal(signal: c_int, handler: usize) -> usize;
    fn sigemptyset(set: *mut SignalSet) -> c_int;
    fn sigaddset(set: *mut SignalSet, signal: c_int) -> c_int;
    fn pthread_sigmask(how: c_int, set: *const SignalSet, old: *mut SignalSet) -> c_int;
    fn sigtimedwait(set: *const SignalSet, info: *mut c_void, timeout: *const TimeSpec) -> c_int;
}

/// A signal that the daemon takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Signal {
    /// SIGTERM or SIGINT.
    Stop,
    /// SIGUSR1
    Reopen,
    /// SIGHUP
    Reload,
    /// One that has no meaning: its name.
    Ignored(&'static str),
}

/// Ignores what would end the process: at once, as the C proxy does, before anything else is started.
pub fn ignore() {
    // Those with a name are waited for later. The realtime ones are those that the C proxy accepts and
    // does nothing for.
    let realtime = [0, 1, 4, 8, 9].map(|n| SIGRTMAX - n);
    let named = IGNORED.map(|(number, _)| number);
    for number in [SIGPIPE, SIGPOLL].iter().chain(&named).chain(&realtime) {
        // SAFETY: ignoring a signal has no handler that could run.
        unsafe { signal(*number, SIG_IGN) };
    }
}

/// Signals that are waited for and do not stop anything, with their names.
const IGNORED: [(c_int, &str); 3] = [
    (SIGHUP, "SIGHUP"),
    (SIGUSR1, "SIGUSR1"),
    (SIGUSR2, "SIGUSR2"),
];

fn signal_set() -> SignalSet {
    let mut set = SignalSet([0; 16]);
    // SAFETY: the set is as large as the largest that a libc uses.
    unsafe {
        sigemptyset(&mut set);
        for signal in [SIGINT, SIGTERM] {
            sigaddset(&mut set, signal);
        }
        for (signal, _) in IGNORED {
            sigaddset(&mut set, signal);
        }
    }
    set
}

/// Blocks the daemon's signals in this thread and in all that it starts.
pub fn block_signals() {
    // SAFETY: the set is initialised; the old mask is not asked for.
    unsafe { pthread_sigmask(SIG_BLOCK, &signal_set(), ptr::null_mut()) };
}

/// Waits for a signal that [`block_signals`] blocked; None after `timeout`.
pub fn wait_signal(timeout: Duration) -> Option<Signal> {
    let time = TimeSpec {
        seconds: timeout.as_secs() as isize,
        nanoseconds: timeout.subsec_nanos() as isize,
    };
    // SAFETY: set and time are initialised; the signal's details are not asked for.
    match unsafe { sigtimedwait(&signal_set(), ptr::null_mut(), &time) } {
        SIGTERM | SIGINT => Some(Signal::Stop),
        SIGUSR1 => Some(Signal::Reopen),
        SIGHUP => Some(Signal::Reload),
        number => {
            let (_, name) = IGNORED.into_iter().find(|(known, _)| *known == number)?;
            Some(Signal::Ignored(name))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts() {
        assert_eq!(size_of::<SignalSet>(), 128);
        assert_eq!(size_of::<TimeSpec>(), 2 * size_of::<usize>());
    }
}
