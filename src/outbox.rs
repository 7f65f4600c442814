//! The way down to one client: what its middle-proxy connection has for it, in order, encrypted by
//! the client's own stream, without ever blocking the backend reader that delivers it.
//!
//! A delivery to an idle outbox encrypts in place and sends at once what the socket takes; only the
//! rest is kept and a writer thread is started for it. While a writer is busy, deliveries queue as
//! plaintext. The writer encrypts under the lock, writes without it, and leaves only under the lock
//! with an empty queue: so the order holds, and a slow client never holds the lock.

use std::collections::VecDeque;
use std::net::TcpStream;
use std::sync::OnceLock;
use std::time::Instant;

use mtproxy::crypto::ctr::Ctr;

use crate::buffers::{self, Buffer};
use crate::sys;

/// What a delivery needs the caller to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Nothing: it was sent, or is not wanted any more.
    Done,
    /// Nothing but to look at the memory: a writer will send it.
    Queued,
    /// The socket is full: a writer must be started.
    StartWriter,
    /// The client left more than its cap unread.
    Flood,
    /// The client's connection is broken.
    Broken,
}

/// What a writer has to do.
pub enum Next {
    /// Write the filled part, which is encrypted.
    Write(Buffer),
    /// Leave: nothing waits any more.
    Leave,
    /// The same, and close the connection.
    Close,
}

/// The way down to one client. Guarded by the client's lock.
pub struct Outbox {
    cipher: Ctr,
    /// There while a writer is busy.
    backlog: Option<Box<Backlog>>,
    /// Since when, in seconds of [`now`]. Not an `Instant`: each idle client has one of these, and
    /// with a few bytes less it fits a smaller size class of musl's malloc.
    closing: Option<u32>,
}

/// What waits for a writer, in order.
#[derive(Default)]
struct Backlog {
    /// Filled parts are what is to be sent, the first `sealed` of them encrypted already.
    queue: VecDeque<Buffer>,
    sealed: usize,
    bytes: usize,
}

impl Outbox {
    /// An idle outbox whose stream is at its start.
    pub fn new(cipher: Ctr) -> Outbox {
        Outbox {
            cipher,
            backlog: None,
            closing: None,
        }
    }

    /// Sends or queues a framed packet; encrypts it in place if it is sent at once.
    pub fn deliver(&mut self, socket: &TcpStream, packet: &mut [u8]) -> Outcome {
        if self.closing.is_some() {
            return Outcome::Done;
        }
        if let Some(backlog) = &mut self.backlog {
            if backlog.bytes + packet.len() > buffers::outbox_cap() {
                return Outcome::Flood;
            }
            backlog.append(packet);
            return Outcome::Queued;
        }
        self.cipher.apply(packet);
        // The one I/O under a lock: it cannot block.
        let Ok(sent) = sys::send_now(socket, packet) else {
            return Outcome::Broken;
        };
        if sent == packet.len() {
            return Outcome::Done;
        }
        let backlog = self.backlog.insert(Box::default());
        backlog.append(&packet[sent..]);
        backlog.sealed = backlog.queue.len();
        Outcome::StartWriter
    }

    /// What the writer has to do next.
    pub fn next(&mut self) -> Next {
        let front = self.backlog.as_mut().and_then(|backlog| {
            let buffer = backlog.queue.pop_front()?;
            let is_sealed = backlog.sealed > 0;
            backlog.sealed -= usize::from(is_sealed);
            Some((buffer, is_sealed))
        });
        let Some((mut buffer, is_sealed)) = front else {
            self.backlog = None;
            return if self.closing.is_some() {
                Next::Close
            } else {
                Next::Leave
            };
        };
        if !is_sealed {
            self.cipher.apply(buffer.filled_mut());
        }
        Next::Write(buffer)
    }

    /// `n` bytes of what [`Outbox::next`] gave have been written.
    pub fn written(&mut self, n: usize) {
        if let Some(backlog) = &mut self.backlog {
            // discard() may have come in between.
            backlog.bytes = backlog.bytes.saturating_sub(n);
        }
    }

    /// Takes nothing more. True if nothing waits either, so that the connection may be closed now.
    pub fn close(&mut self) -> bool {
        self.closing.get_or_insert_with(now);
        self.backlog.is_none()
    }

    /// Seconds since the outbox only drains.
    pub fn closing_for(&self) -> Option<u32> {
        self.closing.map(|since| now().saturating_sub(since))
    }

    /// Bytes that wait.
    pub fn bytes(&self) -> usize {
        self.backlog.as_ref().map_or(0, |backlog| backlog.bytes)
    }

    /// Forgets what waits; the connection is broken.
    pub fn discard(&mut self) {
        self.closing.get_or_insert_with(now);
        if let Some(backlog) = &mut self.backlog {
            **backlog = Backlog::default();
        }
    }
}

impl Backlog {
    /// Queues bytes behind what is there; small packets share a buffer.
    fn append(&mut self, mut bytes: &[u8]) {
        self.bytes += bytes.len();
        if self.queue.len() > self.sealed
            && let Some(last) = self.queue.back_mut()
        {
            bytes = fill(last, bytes);
        }
        while !bytes.is_empty() {
            let mut buffer = Buffer::new(bytes.len().min(QUEUE_BUFFER));
            bytes = fill(&mut buffer, bytes);
            self.queue.push_back(buffer);
        }
    }
}

/// Seconds since the first call.
pub fn now() -> u32 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_secs() as u32
}

/// Moves as much of `bytes` as fits behind the filled part; returns the rest.
fn fill<'a>(buffer: &mut Buffer, bytes: &'a [u8]) -> &'a [u8] {
    let at = buffer.filled.end;
    let n = bytes.len().min(buffer.len() - at);
    let (now, later) = bytes.split_at(n);
    buffer[at..at + n].copy_from_slice(now);
    buffer.filled.end = at + n;
    later
}

/// Size of queue buffers: a writer's unit of work.
const QUEUE_BUFFER: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use mtproxy::crypto::ctr::StreamKey;
    use std::io::Read;
    use std::net::TcpListener;

    fn cipher() -> Ctr {
        Ctr::new(&StreamKey {
            key: [1; 32],
            iv: [2; 16],
        })
    }

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (ours, listener.accept().unwrap().0)
    }

    #[test]
    fn an_idle_outbox_sends_at_once() {
        let (ours, mut theirs) = pair();
        let mut outbox = Outbox::new(cipher());
        assert_eq!(outbox.deliver(&ours, &mut b"hello".to_vec()), Outcome::Done);
        let mut got = [0; 5];
        theirs.read_exact(&mut got).unwrap();
        cipher().apply(&mut got);
        assert_eq!(&got, b"hello");
        assert_eq!(outbox.bytes(), 0);
        assert!(outbox.close());
    }

    #[test]
    fn a_full_socket_queues_in_order_and_the_cap_holds() {
        let (ours, mut theirs) = pair();
        let mut outbox = Outbox::new(cipher());
        let packet = |i: usize| vec![i as u8; 300_000];
        let mut delivered = 0;
        while outbox.deliver(&ours, &mut packet(delivered)) == Outcome::Done {
            delivered += 1;
        }
        delivered += 1;
        assert!(outbox.bytes() > 0);
        for _ in 0..5 {
            assert_eq!(
                outbox.deliver(&ours, &mut packet(delivered)),
                Outcome::Queued
            );
            delivered += 1;
        }
        assert!(!outbox.close());
        assert_eq!(
            outbox.deliver(&ours, &mut packet(0)),
            Outcome::Done,
            "closing: taken no more"
        );
        let writer = std::thread::spawn(move || {
            while let Next::Write(buffer) = outbox.next() {
                std::io::Write::write_all(&mut &ours, buffer.filled()).unwrap();
                outbox.written(buffer.filled().len());
            }
            assert_eq!(outbox.bytes(), 0);
        });
        let mut all = Vec::new();
        theirs.read_to_end(&mut all).unwrap();
        writer.join().unwrap();
        cipher().apply(&mut all);
        assert_eq!(all, (0..delivered).flat_map(packet).collect::<Vec<u8>>());
    }

    #[test]
    fn more_than_the_cap_is_a_flood() {
        let (ours, _theirs) = pair();
        let mut outbox = Outbox::new(cipher());
        let mut packet = vec![0; 1 << 20];
        let mut total = 0;
        let end = loop {
            match outbox.deliver(&ours, &mut packet) {
                Outcome::Flood => break outbox.bytes(),
                _ => total += packet.len(),
            }
            assert!(total < 1 << 30);
        };
        assert!(end <= buffers::outbox_cap() && end + packet.len() > buffers::outbox_cap());
    }
}
