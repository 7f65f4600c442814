//! A client's stream to us: its bytes as they come from the socket, without the record layer and
//! deciphered. The door makes it, both roads read from it.

use std::io::{self, ErrorKind};
use std::net::TcpStream;
use std::ops::Range;
use std::time::{Duration, Instant};

use mtproxy::limits::{READ_SMALL, WEB_SILENCE};
use mtproxy::proto::faketls::record::{Deframer, Sizer};
use mtproxy::proto::lane::{MAX_REPLY, Up};
use mtproxy::proto::obfuscated2::Accepted;
use mtproxy::proto::websocket::Code;

use crate::base::net;
use crate::base::records::Wrap;
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

/// What a client's bytes come in.
pub enum Layer {
    /// As they are.
    Nothing,
    /// Records of fake TLS.
    Tls(Deframer),
    /// Messages of a web page's lane. Boxed: few have it.
    Lane(Box<Up>),
}

/// What is taken off a client's bytes, and what its header says.
pub struct Layers {
    /// Its streams and wishes. Boxed, because it is handed on often, and each thread keeps the stack
    /// that this takes.
    pub accepted: Box<Accepted>,
    layer: Layer,
}

impl Layers {
    /// The client's cipher, and what has begun to take off what is around it.
    pub fn new(accepted: Box<Accepted>, layer: Layer) -> Layers {
        Layers { accepted, layer }
    }

    /// What the client is to be sent in.
    pub fn wrap(&self) -> Wrap {
        match &self.layer {
            Layer::Nothing => Wrap::Nothing,
            Layer::Tls(_) => Wrap::Tls(Sizer::new()),
            Layer::Lane(up) => Wrap::Lane(up.down()),
        }
    }

    /// How long its socket waits for a byte; of a lane, before a sign of life is asked for.
    pub fn patience(&self) -> Option<Duration> {
        matches!(self.layer, Layer::Lane(_)).then_some(WEB_SILENCE)
    }

    /// Nothing has come for that long: asks for a sign of life, once.
    pub fn silent(&mut self) -> Result<(), Close> {
        match &mut self.layer {
            Layer::Lane(up) => up.ask().then_some(()).ok_or(Close::Silent),
            _ => Err(Close::ClientLost),
        }
    }

    /// What a lane's client is to be told now, if anything: gives to `send` how much more it takes, and
    /// bytes. To be called before each read that may wait.
    pub fn reply(&mut self, send: impl FnOnce(u32, &[u8])) {
        if let Layer::Lane(up) = &mut self.layer {
            reply(up, send);
        }
    }

    /// Takes the layers off bytes as they came, in place; how many are left at their front.
    pub fn strip(&mut self, bytes: &mut [u8]) -> usize {
        let len = match &mut self.layer {
            Layer::Nothing => bytes.len(),
            Layer::Tls(tls) => tls.deframe(bytes),
            Layer::Lane(up) => up.deframe(bytes),
        };
        self.accepted.receive.apply(&mut bytes[..len]);
        len
    }

    /// An error once the client has sent a wrong record, or a lane's end: nothing behind that counts.
    pub fn check(&self) -> Result<(), Close> {
        match &self.layer {
            Layer::Tls(tls) if tls.is_broken() => Err(Close::BadRecord),
            Layer::Lane(up) => match up.ended() {
                None => Ok(()),
                Some(Code::NORMAL) => Err(Close::ClientGone),
                Some(_) => Err(Close::BadLane),
            },
            _ => Ok(()),
        }
    }

    /// Reads at least one byte, without its layers; none if a lane's client is to be told something first.
    pub fn read(&mut self, socket: &TcpStream, out: &mut [u8]) -> Result<usize, Close> {
        loop {
            self.check()?;
            let received = match net::read(socket, out) {
                Ok(0) => return Err(Close::ClientGone),
                Ok(n) => n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    self.silent()?;
                    return Ok(0);
                }
                Err(_) => return Err(Close::ClientLost),
            };
            match (self.strip(&mut out[..received]), &self.layer) {
                (0, Layer::Nothing | Layer::Tls(_)) => {}
                (len, _) => return Ok(len),
            }
        }
    }
}

#[inline(never)] // not of every client
fn reply(up: &mut Up, send: impl FnOnce(u32, &[u8])) {
    let mut bytes = [0; MAX_REPLY];
    let (granted, len) = (up.granted(), up.reply(&mut bytes));
    if granted > 0 || len > 0 {
        send(granted, &bytes[..len]);
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

    /// Reads more behind what is pending; maybe nothing.
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
