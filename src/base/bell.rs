//! A bell: wakes the one thread that waits for it, now or when it waits the next time. One lock, held for a look.

use std::sync::Condvar;
use std::time::Duration;

use super::lock::{self, Mutex};

/// The bell.
#[derive(Default)]
pub struct Bell {
    rung: Mutex<bool>,
    changed: Condvar,
}

impl Bell {
    /// Wakes whoever waits.
    pub fn ring(&self) {
        *self.rung.lock() = true;
        self.changed.notify_one();
    }

    /// Waits until it is rung; false if it wasn't for so long.
    pub fn wait(&self, time: Duration) -> bool {
        let silent = |rung: &mut bool| !*rung;
        let mut rung = lock::wait_while(&self.changed, self.rung.lock(), time, silent);
        std::mem::take(&mut *rung)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_is_heard_once_whenever_it_was() {
        let bell = Bell::default();
        assert!(!bell.wait(Duration::ZERO));
        bell.ring();
        bell.ring();
        assert!(bell.wait(Duration::ZERO) && !bell.wait(Duration::ZERO));
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| bell.wait(Duration::from_secs(60)));
            bell.ring();
            assert!(waiter.join().unwrap());
        });
    }
}
