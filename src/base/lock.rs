//! A mutex that a panic does not poison: a bug ends one connection, and what it held stays in use.
//! Nothing that is guarded is left half changed in a way that others can't live with.

use std::sync::{Condvar, MutexGuard, PoisonError};
use std::time::Duration;

/// Guards a `T`.
#[derive(Default)]
pub struct Mutex<T>(std::sync::Mutex<T>);

impl<T> Mutex<T> {
    /// A mutex around `value`.
    pub const fn new(value: T) -> Mutex<T> {
        Mutex(std::sync::Mutex::new(value))
    }

    /// Waits for the value.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The value, if nobody has it.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        match self.0.try_lock() {
            Ok(guard) => Some(guard),
            Err(std::sync::TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(std::sync::TryLockError::WouldBlock) => None,
        }
    }
}

/// Waits for a notification.
pub fn wait<'a, T>(condition: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    condition
        .wait(guard)
        .unwrap_or_else(PoisonError::into_inner)
}

/// Waits for a notification, or for so long; true if it was so long.
pub fn wait_for<'a, T>(
    condition: &Condvar,
    guard: MutexGuard<'a, T>,
    time: Duration,
) -> (MutexGuard<'a, T>, bool) {
    let result = condition.wait_timeout(guard, time);
    let (guard, result) = result.unwrap_or_else(PoisonError::into_inner);
    (guard, result.timed_out())
}

/// Waits while `unmet`, at most for so long.
pub fn wait_while<'a, T>(
    condition: &Condvar,
    guard: MutexGuard<'a, T>,
    time: Duration,
    unmet: impl FnMut(&mut T) -> bool,
) -> MutexGuard<'a, T> {
    let result = condition.wait_timeout_while(guard, time, unmet);
    result.unwrap_or_else(PoisonError::into_inner).0
}
