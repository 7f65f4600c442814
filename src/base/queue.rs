//! A bounded queue to one thread that does slow work for others: whoever adds never waits. One lock, held for
//! a push or a swap. (A channel would do the same in ten times the code of the program.)

use std::collections::VecDeque;
use std::sync::Condvar;
use std::time::Duration;

use super::lock::{self, Mutex};

/// The queue.
pub struct Queue<T> {
    state: Mutex<State<T>>,
    /// Notified when there is something to take, and when all that was taken is done.
    changed: Condvar,
}

struct State<T> {
    items: VecDeque<T>,
    /// What was taken is being worked on.
    busy: bool,
    closed: bool,
}

impl<T> Queue<T> {
    /// An empty one.
    pub const fn new() -> Queue<T> {
        Queue {
            state: Mutex::new(State {
                items: VecDeque::new(),
                busy: false,
                closed: false,
            }),
            changed: Condvar::new(),
        }
    }

    /// Adds an item unless `most` wait; false if it is not taken.
    pub fn push(&self, item: T, most: usize) -> bool {
        let mut state = self.state.lock();
        let has_room = state.items.len() < most;
        if has_room {
            state.items.push_back(item);
            self.changed.notify_all();
        }
        has_room
    }

    /// All that waits; waits for the first. None once the queue is closed and empty. What was taken before
    /// counts as done.
    pub fn take(&self) -> Option<VecDeque<T>> {
        let mut state = self.state.lock();
        state.busy = false;
        self.changed.notify_all();
        while state.items.is_empty() && !state.closed {
            state = lock::wait(&self.changed, state);
        }
        state.busy = !state.items.is_empty();
        state.busy.then(|| std::mem::take(&mut state.items))
    }

    /// Waits until everything is done, at most for so long.
    pub fn wait_done(&self, time: Duration) {
        let is_busy = |state: &mut State<T>| state.busy || !state.items.is_empty();
        drop(lock::wait_while(
            &self.changed,
            self.state.lock(),
            time,
            is_busy,
        ));
    }

    /// Nothing more comes.
    pub fn close(&self) {
        self.state.lock().closed = true;
        self.changed.notify_all();
    }
}
