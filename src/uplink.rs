//! The way up to one middle-proxy connection: a channel that is bounded in messages and in bytes,
//! made with the connection and dropped with it. Client readers send; the connection's writer takes.
//!
//! Waiting for room in it is how a slow middle proxy holds back its clients: their readers stand
//! here, and TCP does the rest.

use std::net::{Shutdown, TcpStream};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use mtproxy::limits::{UPLINK_BYTES, UPLINK_MESSAGES};

use crate::buffers::Buffer;

/// The connection is gone.
#[derive(Debug)]
pub struct Lost;

/// A ready middle-proxy connection, as its clients see it.
pub struct Link {
    /// Unique in this process.
    pub id: u64,
    /// Clients that are pinned to it.
    pub clients: AtomicUsize,
    socket: Arc<TcpStream>,
    messages: Sender<Buffer>,
    gate: Mutex<Gate>,
    room: Condvar,
}

#[derive(Default)]
struct Gate {
    bytes: usize,
    waiting: usize,
    closed: bool,
}

/// The writer's end.
pub struct Intake {
    link: Arc<Link>,
    messages: Receiver<Buffer>,
}

/// Both ends for a connection that has become ready.
pub fn new(id: u64, socket: Arc<TcpStream>) -> (Arc<Link>, Intake) {
    let (send, receive) = bounded(UPLINK_MESSAGES);
    let link = Arc::new(Link {
        id,
        clients: AtomicUsize::new(0),
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
    /// Sends a message up; waits while the channel is full.
    pub fn send(&self, message: Buffer) -> Result<(), Lost> {
        let mut gate = self.gate();
        while gate.bytes > UPLINK_BYTES && !gate.closed {
            gate.waiting += 1;
            gate = self.room.wait(gate).unwrap_or_else(PoisonError::into_inner);
            gate.waiting -= 1;
        }
        if gate.closed {
            return Err(Lost);
        }
        gate.bytes += message.len();
        drop(gate);
        self.messages.send(message).map_err(|_| Lost)
    }

    /// Sends a message up only if that needs no waiting: the connection's own reader must never
    /// wait for its writer.
    pub fn try_send(&self, message: Buffer) -> bool {
        let len = message.len();
        self.gate().bytes += len;
        let taken = self.messages.try_send(message).is_ok();
        if !taken {
            self.gate().bytes -= len;
        }
        taken
    }

    /// Ends the connection: whoever waits for room, reads or writes, stops.
    pub fn close(&self) {
        self.gate().closed = true;
        self.room.notify_all();
        let _ = self.socket.shutdown(Shutdown::Both);
        // Wakes the writer if it waits for a message; if the channel is full it doesn't.
        let _ = self.messages.try_send(Buffer::default());
    }

    fn gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
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

    fn taken(&self, message: Buffer) -> Buffer {
        let mut gate = self.link.gate();
        gate.bytes = gate.bytes.saturating_sub(message.len());
        let wake = gate.waiting > 0 && gate.bytes <= UPLINK_BYTES;
        drop(gate);
        if wake {
            self.link.room.notify_all();
        }
        message
    }
}
