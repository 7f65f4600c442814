//! Reads requests over HTTP from a socket, against deadlines: `middle::http` those of clients,
//! `operator::pages` those for statistics. All of it is strangers' bytes; no more than a head and what
//! comes with its last piece is kept. No locks and no threads of its own.

use std::io;
use std::net::{Shutdown, TcpStream};
use std::time::Instant;

use mtproxy::limits::READ_SMALL;
use mtproxy::proto::http::{self, Status};

use super::buffers::Buffer;
use super::net;

/// What has come on a connection and is not dealt with yet.
pub struct Input<'a> {
    /// Where bytes are read to first, on the thread's stack: a silent connection holds no buffer.
    small: &'a mut [u8; READ_SMALL],
    /// The bytes.
    pub bytes: Buffer,
}

/// Why there is no head.
pub enum NoHead {
    /// The request is to be refused with this status.
    Refused(Status),
    /// The bytes are no request.
    NotHttp,
    /// The connection ended or the deadline passed.
    Io(io::Error),
}

impl Input<'_> {
    /// Of a connection whose first `len` bytes are in `small`.
    pub fn new(small: &mut [u8; READ_SMALL], len: usize) -> Input<'_> {
        let bytes = match len {
            0 => Buffer::default(),
            _ => Buffer::with_bytes(0, &small[..len]),
        };
        Input { small, bytes }
    }

    /// Reads until there is a whole head; returns its length.
    pub fn head(&mut self, deadline: Instant, socket: &TcpStream) -> Result<usize, NoHead> {
        let mut searched = 0;
        loop {
            let bytes = self.bytes.filled();
            if let Some(first) = bytes.first_chunk() {
                if !http::is_request(first) {
                    return Err(NoHead::NotHttp);
                }
                let found = http::head_len(bytes, searched).map_err(NoHead::Refused)?;
                if let Some(len) = found {
                    return Ok(len);
                }
                searched = bytes.len();
            }
            self.read(deadline, socket).map_err(NoHead::Io)?;
        }
    }

    /// Reads more; `UnexpectedEof` at the end, `TimedOut` if nothing comes before the deadline.
    #[inline(never)] // an idle client's thread waits here
    pub fn read(&mut self, deadline: Instant, socket: &TcpStream) -> io::Result<()> {
        let len = net::read_more(deadline, socket, self.small)?;
        self.bytes.append(&self.small[..len])
    }

    /// Says that nothing more is sent, and discards what comes until the deadline: closing with bytes
    /// unread would make the kernel drop a response that is on its way.
    pub fn finish(self, deadline: Instant, socket: &TcpStream) {
        let _ = socket.shutdown(Shutdown::Write);
        while net::read_more(deadline, socket, self.small).is_ok() {}
    }
}
