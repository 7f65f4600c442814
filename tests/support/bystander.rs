//! A client that echoes all the while something happens to others, and loses nothing.

use super::client::Client;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// A client that echoes all the time, in a thread of its own.
pub struct Bystander {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Echoes>,
}

/// What a bystander saw. It panics at an echo that is lost or wrong.
pub struct Echoes {
    pub count: usize,
    pub slowest: Duration,
}

impl Bystander {
    /// Echoes packets of so many bytes.
    pub fn start(mut client: Client, bytes: usize) -> Bystander {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            let (mut count, mut slowest) = (0, Duration::ZERO);
            while !stopped.load(Ordering::Relaxed) {
                let begun = Instant::now();
                client.echo(bytes);
                slowest = slowest.max(begun.elapsed());
                count += 1;
                thread::sleep(Duration::from_millis(2));
            }
            Echoes { count, slowest }
        });
        Bystander { stop, thread }
    }

    /// Ends it; None if it lost something.
    pub fn end(self) -> Option<Echoes> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().ok()
    }

    /// Ends it; nothing was lost, and no echo took longer than `most`.
    pub fn unharmed(self, most: Duration) -> Echoes {
        let echoes = self.end().expect("the bystander lost something");
        assert!(echoes.count > 0, "the bystander had no time");
        assert!(echoes.slowest < most, "an echo took {:?}", echoes.slowest);
        echoes
    }
}
