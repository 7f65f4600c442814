//! A client's first bytes, up to the complete obfuscated2 header, against real deadlines: a byte a
//! second does not extend them. Where there is no secret a client may begin otherwise: see `http`, and
//! with --open it needn't obfuscate. In fake TLS (`tls`) there is more before that header. Without, bytes
//! that fit no secret are read and discarded until the deadline, so that a stranger learns nothing
//! from the answer or from its time.

use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::ops::Range;
use std::time::Instant;

use mtproxy::limits::{CLIENT_HANDSHAKE, HEADER_LEN, READ_SMALL};
use mtproxy::proto::faketls::record::Deframer;
use mtproxy::proto::http;
use mtproxy::proto::obfuscated2::{self, Accepted};
use mtproxy::proto::secret::Secret;
use mtproxy::proto::transport::Transport;

use super::Rules;
use super::tls::{self, Stranger};
use crate::stats::Close;

/// A client that is let in.
pub struct Opened {
    /// Its streams and wishes. Boxed, because it is handed on often, and each thread keeps the stack that
    /// this takes.
    pub accepted: Box<Accepted>,
    /// Where in the buffer its bytes behind the header lie, decrypted.
    pub pending: Range<usize>,
    /// In fake TLS: takes the records apart that it sends from here on.
    pub tls: Option<Deframer>,
}

/// Who is not let in.
pub enum Refused<'a> {
    /// The connection is to be closed.
    Ended(Close),
    /// The connection goes to the mask site.
    Stranger(Stranger<'a>),
    /// The bytes are no header but a request over HTTP.
    Http(Start),
}

/// How far a request over HTTP has come: its first `len` bytes are in the buffer.
pub struct Start {
    pub len: usize,
    /// Of its last byte.
    pub deadline: Instant,
}

/// Reads all that comes before a client's packets, and what comes with it into `small`.
#[inline(never)] // see `live`
pub fn run<'a>(
    socket: &TcpStream,
    rules: &'a Rules,
    small: &'a mut [u8; READ_SMALL],
) -> Result<Opened, Refused<'a>> {
    if let Some(fake_tls) = &rules.tls {
        return tls::enter(socket, rules, fake_tls, small);
    }
    let deadline = Instant::now() + CLIENT_HANDSHAKE;
    let mut len = 0;
    if rules.secrets.is_empty()
        && let Some(other) = without_header(socket, rules, small, &mut len, deadline).transpose()
    {
        return other;
    }
    match plain(socket, rules, small, &mut len, deadline) {
        Ok(Some(opened)) => Ok(opened),
        Ok(None) => {
            discard(socket, deadline, small);
            Err(Refused::Ended(Close::NoSecretFits))
        }
        Err(reason) => Err(Refused::Ended(reason)),
    }
}

/// Reads until it shows whether a header comes; None: it does.
fn without_header<'a>(
    socket: &TcpStream,
    rules: &Rules,
    small: &mut [u8; READ_SMALL],
    len: &mut usize,
    deadline: Instant,
) -> Result<Option<Opened>, Refused<'a>> {
    let ended = Refused::Ended;
    while *len < 4 {
        *len += read_until(socket, deadline, &mut small[*len..]).map_err(ended)?;
        let clear = Transport::from_start(&small[..*len]).filter(|_| rules.clear);
        if let Some((transport, start)) = clear
            && (transport == Transport::PaddedIntermediate || !rules.padded_only)
        {
            let lost = |_| ended(Close::ClientLost);
            socket.set_read_timeout(None).map_err(lost)?;
            return Ok(Some(Opened {
                accepted: Box::new(Accepted::clear(transport, rules.default_dc())),
                pending: start..*len,
                tls: None,
            }));
        }
    }
    let is_request = small.first_chunk().is_some_and(http::is_request);
    if is_request && !rules.padded_only {
        let len = *len;
        return Err(Refused::Http(Start { len, deadline }));
    }
    Ok(None)
}

/// Reads the header behind the first `len` bytes of `small`. None: it fits no secret.
pub fn plain(
    socket: &TcpStream,
    rules: &Rules,
    small: &mut [u8; READ_SMALL],
    len: &mut usize,
    deadline: Instant,
) -> Result<Option<Opened>, Close> {
    while *len < HEADER_LEN {
        *len += read_until(socket, deadline, &mut small[*len..])?;
    }
    open(socket, &rules.secrets, rules.padded_only, small, *len, None)
}

/// Opens the streams of the header at the start of `small`, of which `len` bytes are filled.
pub fn open(
    socket: &TcpStream,
    secrets: &[Secret],
    padded_only: bool,
    small: &mut [u8; READ_SMALL],
    len: usize,
    tls: Option<Deframer>,
) -> Result<Option<Opened>, Close> {
    let header = small.first_chunk::<HEADER_LEN>();
    let accepted = header.and_then(|h| obfuscated2::accept(h, secrets, padded_only));
    let Some(mut accepted) = accepted.map(Box::new) else {
        return Ok(None);
    };
    socket
        .set_read_timeout(None)
        .map_err(|_| Close::ClientLost)?;
    accepted.receive.apply(&mut small[HEADER_LEN..len]);
    Ok(Some(Opened {
        accepted,
        pending: HEADER_LEN..len,
        tls,
    }))
}

/// Reads and forgets whatever comes until the deadline.
pub fn discard(socket: &TcpStream, deadline: Instant, small: &mut [u8; READ_SMALL]) {
    while read_until(socket, deadline, small).is_ok() {}
}

/// Reads at least one byte before the deadline.
#[inline(never)]
pub fn read_until(
    mut socket: &TcpStream,
    deadline: Instant,
    buf: &mut [u8],
) -> Result<usize, Close> {
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
