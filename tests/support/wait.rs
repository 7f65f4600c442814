//! Waiting for something to happen in another thread: a value behind a lock with a condition variable.
//! Every wait has a deadline far beyond what a slow machine needs, and a name that the failure shows.

use std::io::{self, ErrorKind};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long any test waits for anything before it gives up. Never part of what is tested.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A read or peek at a socket with a deadline, again where it was broken off: the kernel does that to all of
/// them when a process has been stopped for a while.
pub fn uninterrupted(mut wait: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match wait() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

#[derive(Default)]
pub struct Watch<T> {
    value: Mutex<T>,
    changed: Condvar,
}

impl<T> Watch<T> {
    pub fn new(value: T) -> Watch<T> {
        Watch {
            value: Mutex::new(value),
            changed: Condvar::new(),
        }
    }

    /// Looks at the value or changes it; everybody who waits looks again.
    pub fn with<R>(&self, look: impl FnOnce(&mut T) -> R) -> R {
        let result = look(&mut self.lock());
        self.changed.notify_all();
        result
    }

    /// Waits until `look` gives something; None after PATIENCE.
    pub fn wait<R>(&self, mut look: impl FnMut(&mut T) -> Option<R>) -> Option<R> {
        let end = Instant::now() + PATIENCE;
        let mut value = self.lock();
        loop {
            if let Some(found) = look(&mut value) {
                return Some(found);
            }
            let left = end.checked_duration_since(Instant::now())?;
            let woken = self.changed.wait_timeout(value, left);
            value = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    // A test that panics while it looks must not hide its own message behind a poisoned lock.
    fn lock(&self) -> MutexGuard<'_, T> {
        self.value.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
