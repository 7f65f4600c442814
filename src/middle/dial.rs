//! Connecting to a middle proxy: TCP, nonces, derived keys, handshake (protocol.md 6.2 to 6.4). Each
//! half has a deadline of its own. What comes back is untrusted until the handshake's checksum, made
//! with the derived keys, has proven that the other side knows Telegram's proxy-secret.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use mtproxy::crypto::middle_key::{self, KeyInputs};
use mtproxy::limits;
use mtproxy::proto::middle::frame::{
    FRAME_HEAD, FRAME_TAIL, FrameError, FrameReader, FrameWriter, SEAL_ROOM,
};
use mtproxy::proto::middle::handshake::{self, PAYLOAD_LEN, ProcessId, Refusal};

use crate::base::{clock, log, sys};
use crate::middle::slot::Setup;
use crate::stats::Dials;

/// A connection whose handshake is done.
pub struct Ready {
    pub socket: Arc<TcpStream>,
    pub reader: FrameReader,
    pub writer: FrameWriter,
    /// Our end as we see it.
    pub local: SocketAddr,
}

/// Why a dial failed.
#[derive(Clone, Copy, Debug)]
pub enum DialError {
    Connect(ErrorKind),
    Io(ErrorKind),
    Frame(FrameError),
    Refusal(Refusal),
}

impl DialError {
    /// One word for the log.
    pub fn word(self) -> &'static str {
        match self {
            DialError::Connect(ErrorKind::ConnectionRefused) => "connection_refused",
            DialError::Connect(ErrorKind::TimedOut) => "connect_timeout",
            DialError::Connect(_) => "connect",
            DialError::Io(ErrorKind::WouldBlock | ErrorKind::TimedOut) => "handshake_timeout",
            DialError::Io(_) => "handshake_closed",
            DialError::Frame(FrameError::Checksum) => "checksum_wrong_secret_or_nat",
            DialError::Frame(error) => frame_word(error),
            DialError::Refusal(refusal) => refusal.word(),
        }
    }
}

/// One word for the log.
pub fn frame_word(error: FrameError) -> &'static str {
    match error {
        FrameError::Length => "length",
        FrameError::Checksum => "checksum",
        FrameError::Sequence => "sequence",
        FrameError::Pipelined => "pipelined",
    }
}

impl From<std::io::Error> for DialError {
    fn from(error: std::io::Error) -> DialError {
        DialError::Io(error.kind())
    }
}

/// Dials `target`; `times` takes how long what succeeded took. On success the socket has the
/// deadlines of a ready connection.
pub fn dial(target: SocketAddr, setup: &Setup, times: &Dials) -> Result<Ready, DialError> {
    let begun = Instant::now();
    let socket = sys::dial(target, setup.source, limits::BACKEND_CONNECT)
        .map_err(|e| DialError::Connect(e.kind()))?;
    let connected = Instant::now();
    times.connect.add(connected - begun);
    let lifetime = sys::Lifetime {
        idle: limits::BACKEND_KEEPALIVE,
        interval: limits::BACKEND_KEEPALIVE,
        probes: limits::BACKEND_KEEPALIVE_PROBES,
        user_timeout: limits::BACKEND_USER_TIMEOUT,
    };
    sys::set_lifetime(&socket, &lifetime)?;
    let local = socket.local_addr()?;
    warn_of_nat(local, target, setup);
    let mut opening = Opening {
        reader: FrameReader::new(setup.checksums.crc32),
        writer: FrameWriter::new(setup.checksums.crc32),
        deadline: Instant::now() + limits::BACKEND_HANDSHAKE,
        socket,
    };
    opening.exchange_nonces(local, target, setup)?;
    opening.shake_hands(process_id(local, setup.start_time), target, setup)?;
    times.handshake.add(connected.elapsed());
    let Opening {
        socket,
        reader,
        writer,
        ..
    } = opening;
    socket.set_read_timeout(Some(setup.ping_interval + limits::BACKEND_PING_GRACE))?;
    socket.set_write_timeout(Some(limits::BACKEND_SEND_STEP))?;
    Ok(Ready {
        socket: Arc::new(socket),
        reader,
        writer,
        local,
    })
}

/// A connection before it is ready.
struct Opening {
    socket: TcpStream,
    reader: FrameReader,
    writer: FrameWriter,
    deadline: Instant,
}

impl Opening {
    /// Frames -2 of both directions; from then on both are encrypted.
    fn exchange_nonces(
        &mut self,
        local: SocketAddr,
        target: SocketAddr,
        setup: &Setup,
    ) -> Result<(), DialError> {
        let nonce = sys::random_array()?;
        let now = clock::unix() as u32;
        let selector = setup.secret.selector();
        self.send(&handshake::nonce(selector, now, &nonce))?;
        let answer = self.receive()?;
        let keys = middle_key::derive(&KeyInputs {
            server_nonce: handshake::accept_nonce(&answer, selector, now)
                .map_err(DialError::Refusal)?,
            client_nonce: nonce,
            client_time: now,
            server: setup.nat.translate(target),
            client: setup.nat.translate(local),
            secret: setup.secret.bytes(),
        });
        self.reader
            .start_cipher(&keys.read)
            .map_err(DialError::Frame)?;
        self.writer.start_cipher(&keys.write);
        Ok(())
    }

    /// Frames -1 of both directions.
    fn shake_hands(
        &mut self,
        us: ProcessId,
        target: SocketAddr,
        setup: &Setup,
    ) -> Result<(), DialError> {
        self.send(&handshake::handshake(us, ProcessId::of_peer(target)))?;
        let answer = self.receive()?;
        match handshake::accept_handshake(&answer, us) {
            Ok(true) => {
                self.reader.set_checksum(setup.checksums.crc32c);
                self.writer.set_checksum(setup.checksums.crc32c);
                Ok(())
            }
            Ok(false) => Ok(()),
            Err(refusal) => {
                if let Some(code) = refusal.code() {
                    self.send(&handshake::handshake_error(code, us))?;
                }
                Err(DialError::Refusal(refusal))
            }
        }
    }

    fn send(&mut self, payload: &[u8]) -> Result<(), DialError> {
        let mut buf = [0; FRAME_HEAD + PAYLOAD_LEN + SEAL_ROOM];
        let place = FRAME_HEAD..FRAME_HEAD + payload.len();
        buf[place.clone()].copy_from_slice(payload);
        let end = place.end + SEAL_ROOM;
        let wire = self
            .writer
            .seal(&mut buf[..end], place)
            .ok_or(DialError::Frame(FrameError::Length))?;
        Ok(self.socket.write_all(&buf[wire])?)
    }

    fn receive(&mut self) -> Result<Vec<u8>, DialError> {
        loop {
            if let Some(frame) = self.reader.take().map_err(DialError::Frame)? {
                return Ok(frame[FRAME_HEAD..frame.len() - FRAME_TAIL].to_vec());
            }
            let left = self.deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(DialError::Io(ErrorKind::TimedOut));
            }
            self.socket.set_read_timeout(Some(left))?;
            match self.socket.read(self.reader.space()) {
                Ok(0) => return Err(DialError::Io(ErrorKind::UnexpectedEof)),
                Ok(n) => self.reader.received(n),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
}

/// Once: a private address here is nearly always translated on the way, and then no handshake works.
fn warn_of_nat(local: SocketAddr, target: SocketAddr, setup: &Setup) {
    static WARNED: AtomicBool = AtomicBool::new(false);
    let behind_nat = setup.nat.is_missing_for(local) && !setup.nat.is_missing_for(target);
    if behind_nat && !WARNED.swap(true, Ordering::Relaxed) {
        log::event(format_args!(
            "nat_warning local={} hint=\"private address; if the outside sees another one, set --nat-info {0}:PUBLIC\"",
            local.ip().to_canonical()
        ));
    }
}

fn process_id(local: SocketAddr, start_time: u32) -> ProcessId {
    let ip = match local.ip().to_canonical() {
        IpAddr::V4(v4) => v4.to_bits(),
        IpAddr::V6(_) => 0,
    };
    // The low 16 bits: process ids are larger today.
    ProcessId {
        ip,
        port: u16::MAX,
        pid: std::process::id() as u16,
        time: start_time,
    }
}
