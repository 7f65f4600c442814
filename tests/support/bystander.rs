//! A client that echoes all the while something happens to others, and loses nothing.

use super::client::Client;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

/// A client that is served all the time.
pub struct Bystander {
    goes_on: Arc<AtomicBool>,
    thread: JoinHandle<usize>,
}

impl Bystander {
    pub fn start(mut client: Client) -> Bystander {
        let goes_on = Arc::new(AtomicBool::new(true));
        let flag = goes_on.clone();
        let thread = thread::spawn(move || {
            let mut echoes = 0;
            while flag.load(Ordering::Relaxed) {
                client.echo(1_000);
                echoes += 1;
            }
            echoes
        });
        Bystander { goes_on, thread }
    }

    /// It has lost nothing.
    pub fn end(self) {
        self.goes_on.store(false, Ordering::Relaxed);
        assert!(self.thread.join().expect("a bystander that is served") > 0);
    }
}
