//! Waiting, in one place: every wait of the tests and their peers has a deadline far beyond what a slow machine
//! needs, and a name that the failure shows. Sockets have theirs from sockets.rs, programs from programs.rs.

use std::any::Any;
use std::io::{self, ErrorKind};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How long any test waits for anything before it gives up. Never part of what is tested.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How long a peer waits for what the test may let it wait for: longer than any test takes.
pub const ANY_TEST: Duration = Duration::from_secs(900);

/// Between two looks at something that can't call us.
const PAUSE: Duration = Duration::from_millis(2);

/// A read or peek at a socket with a deadline, again where it was broken off: the kernel does that to all of
/// them when a process has been stopped for a while.
pub fn uninterrupted<T>(mut wait: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match wait() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Tries again and again until there is something; panics with `what` after PATIENCE.
pub fn until<R>(what: &str, attempt: impl FnMut() -> Option<R>) -> R {
    until_within(PATIENCE, attempt)
        .unwrap_or_else(|| panic!("waited {PATIENCE:?} in vain for {what}"))
}

/// The same, with another patience and without a panic.
pub fn until_within<R>(patience: Duration, mut attempt: impl FnMut() -> Option<R>) -> Option<R> {
    let started = Instant::now();
    loop {
        if let Some(found) = attempt() {
            return Some(found);
        }
        if started.elapsed() > patience {
            return None;
        }
        thread::sleep(PAUSE);
    }
}

/// What a thread gives that is about to end; its panic is passed on.
pub fn joined<T>(what: &str, thread: JoinHandle<T>) -> T {
    until(what, || thread.is_finished().then_some(()));
    thread
        .join()
        .unwrap_or_else(|why| panic!("{what}: {}", message(&*why)))
}

/// What a panic has said.
fn message(why: &(dyn Any + Send)) -> &str {
    let text = why.downcast_ref::<String>().map(String::as_str);
    text.or(why.downcast_ref::<&str>().copied())
        .unwrap_or("a panic")
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

    /// Waits until `look` gives something; panics with `what` after PATIENCE.
    pub fn wait_for<R>(&self, what: &str, look: impl FnMut(&mut T) -> Option<R>) -> R {
        self.wait(look)
            .unwrap_or_else(|| panic!("waited {PATIENCE:?} in vain for {what}"))
    }

    /// The same for a peer, which tells what it has seen instead.
    pub fn wait_telling<R>(
        &self,
        what: &str,
        look: impl FnMut(&mut T) -> Option<R>,
        tell: impl FnOnce(&mut T) -> String,
    ) -> R {
        self.wait(look).unwrap_or_else(|| {
            let seen = self.with(tell);
            panic!("waited {PATIENCE:?} in vain for {what}: {seen}")
        })
    }

    /// Waits until `look` gives something; None after PATIENCE, for callers who have more to say then.
    pub fn wait<R>(&self, look: impl FnMut(&mut T) -> Option<R>) -> Option<R> {
        self.wait_within(PATIENCE, look)
    }

    pub fn wait_within<R>(
        &self,
        patience: Duration,
        mut look: impl FnMut(&mut T) -> Option<R>,
    ) -> Option<R> {
        let end = Instant::now() + patience;
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
