//! The way up to one middle-proxy connection: a channel that is bounded in messages and in bytes,
//! made with the connection and dropped with it. Client readers send; the connection's writer takes.
//!
//! Waiting for room in it is how a slow middle proxy holds back its clients: their readers stand
//! here, and TCP does the rest.

use crate::base::lock;
use crate::base::lock::Mutex;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, MutexGuard};
use std::time::Instant;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use mtproxy::limits::{UPLINK_BYTES, UPLINK_MESSAGES};

use crate::base::buffers::Buffer;

/// The connection is gone.
#[derive(Debug)]
pub struct Lost;

/// A ready middle-proxy connection, as its clients see it.
pub struct Link {
    /// Unique in this process.
    pub id: u64,
    /// Clients that are pinned to it.
    pub clients: AtomicUsize,
    /// The slot that it is of.
    pub slot: usize,
    /// When it became ready; round trips are measured from here.
    since: Instant,
    /// When the last ping was sent, microseconds behind `since`, never 0; 0 once it is answered.
    pinged: AtomicU32,
    round_trip: AtomicU32,
    socket: Arc<TcpStream>,
    messages: Sender<Buffer>,
    gate: Mutex<Gate>,
    room: Condvar,
}

#[derive(Default)]
struct Gate {
    messages: usize,
    bytes: usize,
    waiting: usize,
    closed: bool,
}

impl Gate {
    fn has_room(&self) -> bool {
        self.messages < UPLINK_MESSAGES && self.bytes <= UPLINK_BYTES
    }
}

/// The writer's end.
pub struct Intake {
    link: Arc<Link>,
    messages: Receiver<Buffer>,
}

/// Both ends for a slot's connection that has become ready.
pub fn new(id: u64, slot: usize, socket: Arc<TcpStream>) -> (Arc<Link>, Intake) {
    let (send, receive) = bounded(UPLINK_MESSAGES + 1);
    let link = Arc::new(Link {
        id,
        clients: AtomicUsize::new(0),
        slot,
        since: Instant::now(),
        pinged: AtomicU32::new(0),
        round_trip: AtomicU32::new(0),
        socket,
        messages: send,
        gate: Mutex::default(),
        room: Condvar::new(),
    });
    (
        link.clone(),
        Intake {
            link,
            messages: receive,
        },
    )
}

impl Link {
    /// Sends a message up; waits while the channel is full, unless `abandoned` says so after a
    /// [`Link::wake`]. Lost as well if it was abandoned.
    pub fn send(&self, message: Buffer, abandoned: &dyn Fn() -> bool) -> Result<(), Lost> {
        let mut gate = self.gate();
        while !gate.has_room() && !gate.closed && !abandoned() {
            gate.waiting += 1;
            gate = lock::wait(&self.room, gate);
            gate.waiting -= 1;
        }
        let sent = self.enter(&mut gate, message);
        // A wake-up may have come for several: whoever sees room left passes it on.
        if gate.waiting > 0 && gate.has_room() {
            self.room.notify_one();
        }
        if sent { Ok(()) } else { Err(Lost) }
    }

    /// Sends a message up only if that needs no waiting: for the connection's own reader, which
    /// must never wait for its writer, and for what is not worth waiting for.
    pub fn try_send(&self, message: Buffer) -> bool {
        self.enter(&mut self.gate(), message)
    }

    fn enter(&self, gate: &mut Gate, message: Buffer) -> bool {
        if gate.closed || !gate.has_room() {
            return false;
        }
        let bytes = message.len();
        // There is room: the channel holds as many messages as the gate lets in.
        let sent = self.messages.try_send(message).is_ok();
        if sent {
            gate.messages += 1;
            gate.bytes += bytes;
        }
        sent
    }

    /// Lets everybody who waits for room look whether that is still worth it.
    pub fn wake(&self) {
        drop(self.gate());
        self.room.notify_all();
    }

    /// Takes no more messages; what is in the channel still goes out.
    pub fn refuse(&self) {
        self.gate().closed = true;
        self.room.notify_all();
    }

    /// Ends the connection: whoever waits for room, reads or writes, stops.
    pub fn close(&self) {
        self.refuse();
        let _ = self.socket.shutdown(Shutdown::Both);
        // Wakes the writer if it waits for a message; if the channel is full it doesn't. There is a
        // place for this one beyond what the gate lets in.
        let _ = self.messages.try_send(Buffer::default());
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

    /// Bytes in the channel.
    pub fn queued(&self) -> usize {
        self.gate().bytes
    }

    /// The other side's address.
    pub fn target(&self) -> Option<SocketAddr> {
        self.socket.peer_addr().ok()
    }

    fn gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock()
    }
}

impl Intake {
    /// The next message; waits until `deadline`, then None. Lost once the link is closed.
    pub fn next(&self, deadline: Instant) -> Result<Option<Buffer>, Lost> {
        match self.messages.recv_deadline(deadline) {
            Ok(message) if message.is_empty() => Err(Lost),
            Ok(message) => Ok(Some(self.taken(message))),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(Lost),
        }
    }

    /// A further message if one is there. An empty one says that the link is closed: the next
    /// write finds that out too.
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
        let mut gate = self.link.gate();
        // close() sends an empty message past the gate.
        gate.messages = gate.messages.saturating_sub(1);
        gate.bytes = gate.bytes.saturating_sub(message.len());
        let wake = gate.waiting > 0 && gate.has_room();
        drop(gate);
        if wake {
            self.link.room.notify_one();
        }
        message
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::sync::atomic::AtomicBool;
    use std::time::Duration;

    fn link() -> (Arc<Link>, Intake) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        new(
            1,
            0,
            Arc::new(TcpStream::connect(listener.local_addr().unwrap()).unwrap()),
        )
    }

    fn fill(link: &Link) -> usize {
        let mut sent = 0;
        while link.try_send(Buffer::new(1)) {
            sent += 1;
        }
        sent
    }

    fn wait_for_waiting(link: &Link, count: usize) {
        while link.gate().waiting < count {
            std::thread::yield_now();
        }
    }

    #[test]
    fn the_channel_is_bounded_in_messages_and_bytes() {
        let (small, _intake) = link();
        assert_eq!(fill(&small), UPLINK_MESSAGES);
        let (large, _intake) = link();
        let size = 1 << 18;
        let mut bytes = 0;
        while large.try_send(Buffer::new(size)) {
            bytes += size;
        }
        assert_eq!(bytes, UPLINK_BYTES + size);
    }

    #[test]
    fn whoever_waits_goes_on_when_there_is_room_again() {
        let (link, intake) = link();
        fill(&link);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| link.send(Buffer::new(1), &|| false).unwrap());
            }
            wait_for_waiting(&link, 3);
            for _ in 0..UPLINK_MESSAGES + 3 {
                assert!(
                    intake
                        .next(Instant::now() + Duration::from_secs(30))
                        .unwrap()
                        .is_some()
                );
            }
        });
        assert!(intake.more().is_none());
    }

    #[test]
    fn a_full_channel_is_left_when_it_closes_or_is_no_longer_worth_it() {
        let (link, _intake) = link();
        fill(&link);
        let abandoned = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let one =
                scope.spawn(|| link.send(Buffer::new(1), &|| abandoned.load(Ordering::Relaxed)));
            let other = scope.spawn(|| link.send(Buffer::new(1), &|| false));
            wait_for_waiting(&link, 2);
            abandoned.store(true, Ordering::Relaxed);
            link.wake();
            assert!(one.join().unwrap().is_err());
            assert!(!other.is_finished());
            link.close();
            assert!(other.join().unwrap().is_err());
        });
        assert!(!link.try_send(Buffer::new(1)));
    }

    #[test]
    fn a_round_trip_is_from_a_ping_to_the_first_pong() {
        let (link, intake) = link();
        link.ponged();
        assert_eq!(link.round_trip(), None, "nobody asked for that one");
        let before = Instant::now();
        intake.pinged();
        link.ponged();
        let took = link.round_trip().unwrap();
        assert!(u128::from(took) <= before.elapsed().as_micros().max(1));
        link.round_trip.store(7, Ordering::Relaxed);
        link.ponged();
        assert_eq!(link.round_trip(), Some(7), "it was answered already");
    }
}
