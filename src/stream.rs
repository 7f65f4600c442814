//! A client's stream to us: its bytes as they come from the socket, without the record layer and
//! deciphered. The door makes it, both roads read from it.

use std::io::{self, ErrorKind};
use std::net::TcpStream;
use std::ops::Range;
use std::time::Instant;

use mtproxy::limits::READ_SMALL;
use mtproxy::proto::faketls::record::Deframer;
use mtproxy::proto::obfuscated2::Accepted;

use crate::base::net;
use crate::stats::Close;

/// Reads at least one byte before the deadline; else why the connection ends: for `late` if nothing came.
pub fn read_before(
    deadline: Instant,
    late: Close,
    socket: &TcpStream,
    buf: &mut [u8],
) -> Result<usize, Close> {
    net::read_more(deadline, socket, buf).map_err(|e| reason(&e, late))
}

/// Why a client's connection ends that could not be read from: for `late` if a deadline passed.
pub fn reason(error: &io::Error, late: Close) -> Close {
    match error.kind() {
        ErrorKind::UnexpectedEof => Close::ClientGone,
        ErrorKind::TimedOut => late,
        _ => Close::ClientLost,
    }
}

/// What is taken off a client's bytes, and what its header says.
pub struct Layers {
    /// Its streams and wishes. Boxed, because it is handed on often, and each thread keeps the stack
    /// that this takes.
    pub accepted: Box<Accepted>,
    tls: Option<Deframer>,
}

impl Layers {
    /// The client's cipher; with `tls`, which has begun to take its records apart, inside fake TLS.
    pub fn new(accepted: Box<Accepted>, tls: Option<Deframer>) -> Layers {
        Layers { accepted, tls }
    }

    /// Whether the client is inside fake TLS, and is to be sent records.
    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Takes the layers off bytes as they came, in place; how many are left at their front.
    pub fn strip(&mut self, bytes: &mut [u8]) -> usize {
        let len = match &mut self.tls {
            Some(tls) => tls.deframe(bytes),
            None => bytes.len(),
        };
        self.accepted.receive.apply(&mut bytes[..len]);
        len
    }

    /// An error once the client has sent a wrong record: nothing behind that counts.
    pub fn check(&self) -> Result<(), Close> {
        match &self.tls {
            Some(tls) if tls.is_broken() => Err(Close::BadRecord),
            _ => Ok(()),
        }
    }

    /// Reads at least one byte, without its layers.
    pub fn read(&mut self, socket: &TcpStream, out: &mut [u8]) -> Result<usize, Close> {
        loop {
            self.check()?;
            let received = match net::read(socket, out) {
                Ok(0) => return Err(Close::ClientGone),
                Ok(n) => n,
                Err(_) => return Err(Close::ClientLost),
            };
            match self.strip(&mut out[..received]) {
                0 => {}
                len => return Ok(len),
            }
        }
    }
}

/// The stream of a client whose header was accepted.
pub struct ClientStream<'a> {
    /// What comes off.
    pub layers: Layers,
    /// A buffer on the client thread's stack.
    pub small: &'a mut [u8; READ_SMALL],
    /// Where in `small` bytes lie that have come and are not passed on; without their layers.
    pub pending: Range<usize>,
}

impl ClientStream<'_> {
    /// Bytes that are not passed on yet.
    pub fn pending(&self) -> &[u8] {
        &self.small[self.pending.clone()]
    }

    /// Reads more behind what is pending.
    pub fn refill(&mut self, socket: &TcpStream) -> Result<(), Close> {
        self.small.copy_within(self.pending.clone(), 0);
        self.pending = 0..self.pending.len();
        let place = &mut self.small[self.pending.end..];
        self.pending.end += self.layers.read(socket, place)?;
        Ok(())
    }

    /// Moves pending bytes to `out`, as many as both have.
    pub fn take(&mut self, out: &mut [u8]) -> usize {
        let n = out.len().min(self.pending.len());
        out[..n].copy_from_slice(&self.pending()[..n]);
        self.pending.start += n;
        n
    }
}
