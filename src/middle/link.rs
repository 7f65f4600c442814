//! The way up to one middle-proxy connection: a queue that is bounded in messages and in bytes, made
//! with the connection and closed with it. Clients' threads send into it, the connection's writer
//! ([`Outgoing`]) takes from it.
//!
//! Waiting for room in it is how a slow middle proxy holds back its clients: their threads stand
//! here, and TCP does the rest. One lock a connection; nothing blocks under it.

use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, MutexGuard, OnceLock};
use std::time::Instant;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use mtproxy::limits::{UPLINK_BYTES, UPLINK_MESSAGES};

use crate::base::buffers::{Account, Buffer};
use crate::base::lock::{self, Mutex};

/// A ready middle-proxy connection.
pub struct Link {
    /// The connection.
    pub socket: TcpStream,
    /// The middle proxy that it leads to.
    pub target: SocketAddr,
    /// Clients that are pinned to it.
    pub clients: AtomicUsize,
    /// The slot that it is of.
    pub slot: usize,
    /// Whether a client has got an answer over it.
    pub has_answered: AtomicBool,
    /// Why it ended.
    ended: OnceLock<&'static str>,
    /// When it became ready; round trips are measured from here.
    since: Instant,
    /// When the last ping was sent, microseconds behind `since`, never 0; 0 once it is answered.
    pinged: AtomicU32,
    round_trip: AtomicU32,
    queue: Mutex<Queue>,
    room: Condvar,
}

/// What waits for the writer.
struct Queue {
    /// None once the connection has ended.
    messages: Option<Sender<Buffer>>,
    bytes: usize,
    /// Threads that wait for room.
    waiting: usize,
}

impl Queue {
    /// Whether there is no room. A closed queue is not full: nobody is to wait for it.
    fn is_full(&self) -> bool {
        let messages = self.messages.as_ref();
        messages.is_some_and(|messages| messages.is_full() || self.bytes > UPLINK_BYTES)
    }

    fn push(&mut self, mut message: Buffer) -> bool {
        let bytes = message.len();
        // Ending the client does not give it back any more.
        message.charge_to(Account::Backends);
        let open = self.messages.as_ref().filter(|_| !self.is_full());
        let sent = open.is_some_and(|messages| messages.try_send(message).is_ok());
        if sent {
            self.bytes += bytes;
        }
        sent
    }
}

/// The writer's end.
pub struct Outgoing {
    /// The connection.
    pub link: Arc<Link>,
    messages: Receiver<Buffer>,
}

/// Both ends for a slot's connection that has become ready.
pub fn new(slot: usize, socket: TcpStream, target: SocketAddr) -> (Arc<Link>, Outgoing) {
    let (send, messages) = bounded(UPLINK_MESSAGES);
    let link = Arc::new(Link {
        socket,
        target,
        clients: AtomicUsize::new(0),
        slot,
        has_answered: AtomicBool::new(false),
        ended: OnceLock::new(),
        since: Instant::now(),
        pinged: AtomicU32::new(0),
        round_trip: AtomicU32::new(0),
        queue: Mutex::new(Queue {
            messages: Some(send),
            bytes: 0,
            waiting: 0,
        }),
        room: Condvar::new(),
    });
    let outgoing = Outgoing {
        link: link.clone(),
        messages,
    };
    (link, outgoing)
}

impl Link {
    /// Sends a message up; waits while the queue is full, unless `abandoned` says so after a
    /// [`Link::wake`]. False if it was not sent.
    pub fn send(&self, message: Buffer, abandoned: &dyn Fn() -> bool) -> bool {
        let mut queue = self.queue();
        while queue.is_full() && !abandoned() {
            queue.waiting += 1;
            queue = lock::wait(&self.room, queue);
            queue.waiting -= 1;
        }
        let sent = queue.push(message);
        self.pass_on(&queue);
        sent
    }

    /// Sends a message up only if that needs no waiting: for the connection's own reader, which
    /// must never wait for its writer, and for what is not worth waiting for.
    pub fn try_send(&self, message: Buffer) -> bool {
        self.queue().push(message)
    }

    /// Wakes one thread that waits, if there is room for it. Whoever is woken calls this in turn: the
    /// writer may have made room for several.
    fn pass_on(&self, queue: &Queue) {
        if queue.waiting > 0 && !queue.is_full() {
            self.room.notify_one();
        }
    }

    /// Lets everybody who waits for room look whether that is still worth it.
    pub fn wake(&self) {
        drop(self.queue());
        self.room.notify_all();
    }

    /// Ends the connection: whoever waits for room or for a message, reads or writes, stops. The first
    /// reason counts.
    pub fn close(&self, reason: &'static str) {
        let _ = self.ended.set(reason);
        let _ = self.socket.shutdown(Shutdown::Both);
        self.queue().messages = None;
        self.room.notify_all();
    }

    /// Why it ended.
    pub fn ended(&self) -> &'static str {
        self.ended.get().copied().unwrap_or("closed")
    }

    /// A ping was answered: takes the time since it was sent.
    pub fn ponged(&self) {
        let sent = self.pinged.swap(0, Ordering::Relaxed);
        if sent != 0 {
            // Wraps after 71 minutes, and pings are an hour apart at most.
            let took = self.micros().wrapping_sub(sent).max(1);
            self.round_trip.store(took, Ordering::Relaxed);
        }
    }

    fn micros(&self) -> u32 {
        self.since.elapsed().as_micros() as u32
    }

    /// What the last answered ping took, microseconds, if one was answered.
    pub fn round_trip(&self) -> Option<u32> {
        let micros = self.round_trip.load(Ordering::Relaxed);
        (micros > 0).then_some(micros)
    }

    /// Bytes in the queue.
    pub fn queued(&self) -> usize {
        self.queue().bytes
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock()
    }
}

impl Outgoing {
    /// The next message, or `Timeout` at the deadline. `Disconnected` once the link is closed and
    /// nothing is left.
    pub fn next(&self, deadline: Instant) -> Result<Buffer, RecvTimeoutError> {
        let message = self.messages.recv_deadline(deadline)?;
        Ok(self.taken(message))
    }

    /// A further message if one is there.
    pub fn more(&self) -> Option<Buffer> {
        self.messages
            .try_recv()
            .ok()
            .map(|message| self.taken(message))
    }

    /// A ping is being sent.
    pub fn pinged(&self) {
        let now = self.link.micros().max(1);
        self.link.pinged.store(now, Ordering::Relaxed);
    }

    fn taken(&self, message: Buffer) -> Buffer {
        let mut queue = self.link.queue();
        queue.bytes -= message.len();
        self.link.pass_on(&queue);
        message
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::thread;
    use std::time::Duration;

    fn link() -> (Arc<Link>, Outgoing) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = listener.local_addr().unwrap();
        new(0, TcpStream::connect(target).unwrap(), target)
    }

    fn fill(link: &Link) -> usize {
        let mut sent = 0;
        while link.try_send(Buffer::new(1)) {
            sent += 1;
        }
        sent
    }

    fn wait_for_waiting(link: &Link, count: usize) {
        while link.queue().waiting < count {
            thread::yield_now();
        }
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(30)
    }

    #[test]
    fn the_queue_is_bounded_in_messages_and_bytes() {
        let (small, _outgoing) = link();
        assert_eq!(fill(&small), UPLINK_MESSAGES);
        let (large, _outgoing) = link();
        let size = 1 << 18;
        let mut bytes = 0;
        while large.try_send(Buffer::new(size)) {
            bytes += size;
        }
        assert_eq!(bytes, UPLINK_BYTES + size);
    }

    #[test]
    fn whoever_waits_goes_on_when_there_is_room_again() {
        let (link, outgoing) = link();
        fill(&link);
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| assert!(link.send(Buffer::new(1), &|| false)));
            }
            wait_for_waiting(&link, 3);
            for _ in 0..UPLINK_MESSAGES + 3 {
                assert!(outgoing.next(soon()).is_ok());
            }
        });
        assert!(outgoing.more().is_none());
        assert_eq!(link.queued(), 0);
    }

    #[test]
    fn a_full_queue_is_left_when_it_closes_or_is_no_longer_worth_it() {
        let (link, _outgoing) = link();
        fill(&link);
        let abandoned = AtomicBool::new(false);
        thread::scope(|scope| {
            let one =
                scope.spawn(|| link.send(Buffer::new(1), &|| abandoned.load(Ordering::Relaxed)));
            let other = scope.spawn(|| link.send(Buffer::new(1), &|| false));
            wait_for_waiting(&link, 2);
            abandoned.store(true, Ordering::Relaxed);
            link.wake();
            assert!(!one.join().unwrap());
            assert!(!other.is_finished());
            link.close("first");
            assert!(!other.join().unwrap());
        });
        link.close("second");
        assert_eq!(link.ended(), "first");
        assert!(!link.try_send(Buffer::new(1)));
    }

    #[test]
    fn a_writer_that_waits_is_woken_by_the_end_and_what_was_sent_still_comes() {
        let (link, outgoing) = link();
        assert!(link.try_send(Buffer::new(1)));
        assert!(outgoing.next(soon()).is_ok());
        let timeout = outgoing.next(Instant::now()).err();
        assert_eq!(timeout, Some(RecvTimeoutError::Timeout));
        thread::scope(|scope| {
            let writer = scope.spawn(|| outgoing.next(soon()).err());
            // Most likely it waits by then; if not, it must see the end all the same.
            thread::yield_now();
            link.close("closed");
            let ended = writer.join().unwrap();
            assert_eq!(ended, Some(RecvTimeoutError::Disconnected));
        });
    }

    #[test]
    fn a_round_trip_is_from_a_ping_to_the_first_pong() {
        let (link, outgoing) = link();
        link.ponged();
        assert_eq!(link.round_trip(), None, "nobody asked for that one");
        let before = Instant::now();
        outgoing.pinged();
        link.ponged();
        let took = link.round_trip().unwrap();
        assert!(u128::from(took) <= before.elapsed().as_micros().max(1));
        link.round_trip.store(7, Ordering::Relaxed);
        link.ponged();
        assert_eq!(link.round_trip(), Some(7), "it was answered already");
    }
}
