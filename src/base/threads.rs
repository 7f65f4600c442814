//! The client threads: a job goes to a thread that has finished its last one, else to a new one. A
//! finished thread waits a while for the next job. A job that panics ends alone and is counted.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::Builder;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use mtproxy::limits::{THREAD_LINGER, THREAD_STACK};

use super::gauge::Counter;

/// What a thread is asked to do.
pub type Job = Box<dyn FnOnce() + Send>;

/// Threads that ended by a bug.
pub static PANICS: Counter = Counter::new();

struct Pool {
    send: Sender<Job>,
    receive: Receiver<Job>,
    running: AtomicUsize,
    most: AtomicUsize,
}

fn pool() -> &'static Pool {
    static POOL: OnceLock<Pool> = OnceLock::new();
    POOL.get_or_init(|| {
        // No capacity: a job is taken by a waiting thread, or by none.
        let (send, receive) = bounded(0);
        Pool {
            send,
            receive,
            running: AtomicUsize::new(0),
            most: AtomicUsize::new(usize::MAX),
        }
    })
}

/// Bounds the number of client threads.
pub fn set_most(most: usize) {
    pool().most.store(most, Ordering::Relaxed);
}

/// Client threads that there are now, and how many there may be.
pub fn running() -> (usize, usize) {
    let pool = pool();
    let most = pool.most.load(Ordering::Relaxed);
    (pool.running.load(Ordering::Relaxed), most)
}

/// Runs `job` on a client thread; false (and the job is dropped) if no thread can be had.
pub fn run(job: Job) -> bool {
    let pool = pool();
    let job = match pool.send.try_send(job) {
        Ok(()) => return true,
        Err(TrySendError::Full(job) | TrySendError::Disconnected(job)) => job,
    };
    let room = pool.running.fetch_add(1, Ordering::Relaxed) < pool.most.load(Ordering::Relaxed);
    let started = room && spawn("client", move || work(job)).is_ok();
    if !started {
        pool.running.fetch_sub(1, Ordering::Relaxed);
    }
    started
}

/// Starts a named thread with the stack that every thread has.
pub fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    spawn_job(name, Box::new(body))
}

/// Not generic, nor inlined: what std does to start a thread is large.
#[inline(never)]
fn spawn_job(name: &str, body: Job) -> std::io::Result<()> {
    Builder::new()
        .name(name.into())
        .stack_size(THREAD_STACK)
        .spawn(body)
        .map(drop)
}

fn work(first: Job) {
    let mut job = first;
    loop {
        guarded(job);
        match pool().receive.recv_timeout(THREAD_LINGER) {
            Ok(next) => job = next,
            Err(_) => break,
        }
    }
    pool().running.fetch_sub(1, Ordering::Relaxed);
}

/// Runs `body`; a panic ends here and is counted. True if there was none.
pub fn guarded(body: impl FnOnce()) -> bool {
    let ended = catch_unwind(AssertUnwindSafe(body));
    if ended.is_err() {
        PANICS.add(1);
    }
    ended.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread::{ThreadId, current};

    fn thread_of_a_job() -> ThreadId {
        let (send, receive) = bounded(1);
        assert!(run(Box::new(move || send.send(current().id()).unwrap())));
        receive.recv().unwrap()
    }

    #[test]
    fn a_panic_is_counted_and_the_pool_goes_on() {
        let before = PANICS.value();
        let (send, receive) = bounded::<()>(0);
        let job = move || {
            let _held = send;
            panic!("on purpose");
        };
        assert!(run(Box::new(job)));
        assert!(receive.recv().is_err(), "the job's things are dropped");
        thread_of_a_job();
        while PANICS.value() == before {
            std::thread::yield_now();
        }
    }

    #[test]
    fn jobs_run_on_threads_that_have_finished() {
        let threads: Vec<ThreadId> = (0..200).map(|_| thread_of_a_job()).collect();
        let distinct = threads
            .iter()
            .collect::<std::collections::HashSet<_>>()
            .len();
        assert!(distinct < 200, "{distinct} threads for 200 jobs");
    }
}
