//! The client threads: a job goes to a thread that has finished its last one, else to a new one. A
//! finished thread waits a while for the next job. A job that panics ends alone and is counted.
//!
//! Locks: the list of those that wait, and in each of its seats the job. Nothing is done under them, and
//! nobody spins or yields: a thread that does is put behind all others, which a client would see as tens of
//! milliseconds. (A channel without capacity hands over so.)

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar};
use std::thread::Builder;

use mtproxy::limits::{THREAD_LINGER, THREAD_STACK};

use super::gauge::Counter;
use super::lock::{self, Mutex};

/// What a thread is asked to do.
pub type Job = Box<dyn FnOnce() + Send>;

/// Threads that ended by a bug.
pub static PANICS: Counter = Counter::new();

/// Where a thread that has finished waits for its next job.
#[derive(Default)]
struct Seat {
    job: Mutex<Option<Job>>,
    called: Condvar,
}

/// Threads that wait. The last one that came is called first: what it needs is still in the caches, and
/// the others can end.
static WAITING: Mutex<Vec<Arc<Seat>>> = Mutex::new(Vec::new());

static RUNNING: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(usize::MAX);

/// Bounds the number of client threads.
pub fn set_most(most: usize) {
    MOST.store(most, Ordering::Relaxed);
}

/// Client threads that there are now, and how many there may be.
pub fn running() -> (usize, usize) {
    (
        RUNNING.load(Ordering::Relaxed),
        MOST.load(Ordering::Relaxed),
    )
}

/// Runs `job` on a client thread; false (and the job is dropped) if no thread can be had.
pub fn run(job: Job) -> bool {
    let seat = WAITING.lock().pop();
    if let Some(seat) = seat {
        seat.call(job);
        return true;
    }
    let room = RUNNING.fetch_add(1, Ordering::Relaxed) < MOST.load(Ordering::Relaxed);
    let started = room && spawn("client", move || work(job)).is_ok();
    if !started {
        RUNNING.fetch_sub(1, Ordering::Relaxed);
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
    let mut seat = None; // not before it is needed: a client may stay for days
    let mut next = Some(first);
    while let Some(job) = next {
        guarded(job);
        let seat = seat.get_or_insert_with(Arc::<Seat>::default);
        WAITING.lock().push(seat.clone());
        next = seat.wait();
    }
    RUNNING.fetch_sub(1, Ordering::Relaxed);
}

impl Seat {
    /// Gives its thread the next job.
    fn call(&self, job: Job) {
        *self.job.lock() = Some(job);
        self.called.notify_one();
    }

    /// The next job; None, and the seat is taken away, if none comes for a while.
    fn wait(self: &Arc<Seat>) -> Option<Job> {
        let empty = |job: &mut Option<Job>| job.is_none();
        let job = lock::wait_while(&self.called, self.job.lock(), THREAD_LINGER, empty).take();
        match job.is_some() || remove(&mut WAITING.lock(), self) {
            true => job,
            false => self.called_for(), // just now
        }
    }

    /// The job of a thread that has been called: it is there, or comes at once.
    fn called_for(&self) -> Option<Job> {
        let mut job = self.job.lock();
        while job.is_none() {
            job = lock::wait(&self.called, job);
        }
        job.take()
    }
}

/// Takes a seat away; false if its thread has been called.
fn remove(waiting: &mut Vec<Arc<Seat>>, seat: &Arc<Seat>) -> bool {
    // Those that have waited for longest are in front.
    let place = waiting.iter().position(|other| Arc::ptr_eq(other, seat));
    place.map(|at| waiting.remove(at)).is_some()
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
    use crossbeam_channel::bounded;
    use std::collections::HashSet;
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
    fn a_job_runs_on_the_thread_that_finished_last() {
        let seat = Arc::<Seat>::default();
        let waits = seat.clone();
        // Nobody else's job may come to it, so it is not among those that wait.
        let thread = std::thread::spawn(move || waits.wait().map(|job| job()).is_some());
        let (send, receive) = bounded(1);
        seat.call(Box::new(move || send.send(current().id()).unwrap()));
        assert_eq!(receive.recv().unwrap(), thread.thread().id());
        assert!(thread.join().unwrap());
        let threads: Vec<ThreadId> = (0..200).map(|_| thread_of_a_job()).collect();
        let distinct: HashSet<_> = threads.iter().collect();
        assert!(
            distinct.len() < 200,
            "{} threads for 200 jobs",
            distinct.len()
        );
    }

    #[test]
    fn a_thread_that_leaves_as_it_is_called_does_the_job() {
        let seat = Arc::<Seat>::default();
        // `run` has taken it from the list, and its time has passed: it waits for the job.
        assert!(!remove(&mut WAITING.lock(), &seat));
        let caller = seat.clone();
        let calling = std::thread::spawn(move || caller.call(Box::new(|| ())));
        assert!(seat.called_for().is_some());
        calling.join().unwrap();
        let mut waiting = vec![seat.clone(), Arc::default()];
        assert!(remove(&mut waiting, &seat) && !remove(&mut waiting, &seat));
        assert_eq!(waiting.len(), 1);
    }

    #[test]
    fn many_jobs_at_once_all_run_one_time() {
        let (send, receive) = bounded(4000);
        let givers: Vec<_> = (0..4)
            .map(|giver| {
                let send = send.clone();
                std::thread::spawn(move || {
                    for i in 0..1000 {
                        let send = send.clone();
                        let job = move || send.send(giver * 1000 + i).unwrap();
                        assert!(run(Box::new(job)));
                    }
                })
            })
            .collect();
        givers.into_iter().for_each(|giver| giver.join().unwrap());
        drop(send);
        let mut done: Vec<u32> = receive.iter().collect();
        done.sort_unstable();
        assert!(done.into_iter().eq(0..4000));
    }
}
