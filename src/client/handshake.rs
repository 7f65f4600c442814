//! A client's first bytes, up to the complete obfuscated2 header, against one real deadline: a byte
//! a second does not extend it. Bytes that fit no secret are read and discarded until the deadline,
//! so that a stranger learns nothing from the answer or from its time.

use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::ops::Range;
use std::time::Instant;

use mtproxy::limits::{CLIENT_HANDSHAKE, HEADER_LEN, READ_SMALL};
use mtproxy::proto::obfuscated2::{self, Accepted};

use super::Rules;
use crate::stats::Close;

/// A client that is let in.
pub struct Opened {
    /// Its streams and wishes.
    pub accepted: Accepted,
    /// Where in the buffer its bytes behind the header lie, decrypted.
    pub pending: Range<usize>,
}

/// Reads the header into `buf`, and what comes with it.
#[inline(never)] // see `live`
pub fn run(socket: &TcpStream, rules: &Rules, buf: &mut [u8; READ_SMALL]) -> Result<Opened, Close> {
    let deadline = Instant::now() + CLIENT_HANDSHAKE;
    let mut have = 0;
    while have < HEADER_LEN {
        have += read_until(socket, deadline, &mut buf[have..])?;
    }
    let header = buf.first_chunk::<HEADER_LEN>();
    match header.and_then(|h| obfuscated2::accept(h, &rules.secrets, rules.padded_only)) {
        Some(mut accepted) => {
            socket
                .set_read_timeout(None)
                .map_err(|_| Close::ClientLost)?;
            accepted.receive.apply(&mut buf[HEADER_LEN..have]);
            Ok(Opened {
                accepted,
                pending: HEADER_LEN..have,
            })
        }
        None => {
            while read_until(socket, deadline, buf).is_ok() {}
            Err(Close::NoSecretFits)
        }
    }
}

/// Reads at least one byte before the deadline.
fn read_until(mut socket: &TcpStream, deadline: Instant, buf: &mut [u8]) -> Result<usize, Close> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(Close::HandshakeTimeout);
    }
    socket
        .set_read_timeout(Some(left))
        .map_err(|_| Close::ClientLost)?;
    match socket.read(buf) {
        Ok(0) => Err(Close::ClientGone),
        Ok(n) => Ok(n),
        // The process was stopped and continued.
        Err(e) if e.kind() == ErrorKind::Interrupted => read_until(socket, deadline, buf),
        Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            Err(Close::HandshakeTimeout)
        }
        Err(_) => Err(Close::ClientLost),
    }
}
