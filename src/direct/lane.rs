//! What a web page's lane is sent in direct mode: pieces of the data centre's stream by the thread that reads
//! that, and what its client is to be told besides by the one that reads from the client. One of them
//! writes at a time, whole messages; what the other one has to say meanwhile goes out behind.
//!
//! One lock, held for a look: nothing is written under it.

use std::io::{self, ErrorKind, IoSlice};
use std::net::TcpStream;
use std::sync::{Condvar, MutexGuard};

use mtproxy::limits::WEB_PENDING;
use mtproxy::proto::lane::{Down, MAX_HEAD};

use crate::base::lock::{self, Mutex};
use crate::base::{net, sys};

/// The way down of a lane.
pub struct Lane {
    state: Mutex<State>,
    /// Notified when there is credit, when a write has ended, and at the end.
    changed: Condvar,
}

struct State {
    down: Down,
    /// What the client is to be told as soon as nobody writes.
    pending: Vec<u8>,
    is_busy: bool,
    is_closed: bool,
}

/// Sends what goes before a piece, and the piece of that length.
type Write<'a> = dyn FnMut([&[u8]; 2], usize) -> io::Result<()> + 'a;

impl Lane {
    /// Nothing is sent yet.
    pub fn new(down: Down) -> Lane {
        let state = State {
            down,
            pending: Vec::new(),
            is_busy: false,
            is_closed: false,
        };
        Lane {
            state: Mutex::new(state),
            changed: Condvar::new(),
        }
    }

    /// Takes note of what the client takes more, and sends what it is to be told, now or soon.
    pub fn control(&self, socket: &TcpStream, granted: u32, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state.lock();
        let fits = state.pending.len() + bytes.len() <= WEB_PENDING;
        if !fits || !state.down.grant(granted) {
            return Err(ErrorKind::InvalidData.into());
        }
        state.pending.extend(bytes);
        self.changed.notify_all();
        if state.is_busy || bytes.is_empty() {
            return Ok(());
        }
        state.is_busy = true;
        self.flush(socket, state)
    }

    /// Sends bytes of the stream; `step` is called after each piece.
    #[inline(never)] // not of every client
    pub fn send(&self, socket: &TcpStream, mut bytes: &[u8], step: &dyn Fn()) -> io::Result<()> {
        self.pieces(socket, bytes.len(), &mut |[pending, head], len| {
            let (piece, rest) = bytes.split_at(len);
            bytes = rest;
            net::write_all(socket, &mut [pending, head, piece].map(IoSlice::new))?;
            step();
            Ok(())
        })
    }

    /// Cuts so many bytes of the stream into pieces, and waits while the client takes no more. `write` is given
    /// what goes before a piece, and its length.
    pub fn pieces(&self, socket: &TcpStream, mut left: usize, write: &mut Write) -> io::Result<()> {
        while left > 0 {
            let mut state = self.state.lock();
            while !state.is_closed && (state.is_busy || state.down.credit == 0) {
                state = lock::wait(&self.changed, state);
            }
            if state.is_closed {
                return Err(ErrorKind::NotConnected.into());
            }
            state.is_busy = true;
            let pending = std::mem::take(&mut state.pending);
            let len = state.down.take(left);
            let mut head = [0; MAX_HEAD];
            let at = state.down.head(len, &mut head);
            drop(state);
            write([&pending, &head[at..]], len)?;
            self.flush(socket, self.state.lock())?;
            left -= len;
        }
        Ok(())
    }

    /// Sends what has come up while this thread wrote, and lets others write.
    fn flush<'a>(&'a self, socket: &TcpStream, mut state: MutexGuard<'a, State>) -> io::Result<()> {
        while !state.pending.is_empty() {
            let pending = std::mem::take(&mut state.pending);
            drop(state);
            net::write_all(socket, &mut [IoSlice::new(&pending)])?;
            state = self.state.lock();
        }
        state.is_busy = false;
        self.changed.notify_all();
        Ok(())
    }

    /// Tells the client that nothing more comes.
    pub fn farewell(&self, socket: &TcpStream) {
        let mut state = self.state.lock();
        if !state.is_closed && !std::mem::replace(&mut state.is_busy, true) {
            let bytes = state.down.farewell();
            drop(state);
            let _ = sys::send_now(socket, &[IoSlice::new(&bytes)]);
        }
    }
}

/// Ends the waiting for a lane's client when dropped.
pub struct Closing<'a>(pub &'a Lane);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.state.lock().is_closed = true;
        self.0.changed.notify_all();
    }
}
