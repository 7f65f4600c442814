//! Connecting to a middle proxy: TCP, nonces, derived keys, handshake (protocol.md 6.2 to 6.4, and 6.7 with
//! --force-dh). The
//! connect and the handshake have a deadline each. Runs on a slot's thread. What comes back is
//! untrusted until the handshake's checksum, made with the derived keys, has proven that the other
//! side knows Telegram's proxy-secret.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mtproxy::crypto::crc32::Checksums;
use mtproxy::crypto::dh::{self, Exponent};
use mtproxy::crypto::middle_key::{self, KeyInputs};
use mtproxy::limits;
use mtproxy::proto::middle::frame::{
    FRAME_HEAD, FRAME_TAIL, FrameError, FrameReader, FrameWriter, SEAL_ROOM,
};
use mtproxy::proto::middle::handshake::{self, DH_PAYLOAD_LEN, ProcessId, Refusal};
use mtproxy::proto::secret::ProxySecret;

use super::nat::NatRules;
use crate::base::lock::Mutex;
use crate::base::outgoing::{self, Dialled};
use crate::base::{clock, log, net, sys};
use crate::stats::{Dials, MIDDLE_SKEW};

/// What every connection to a middle proxy is dialled with.
pub struct Dialer {
    /// Telegram's proxy-secret.
    pub secret: Mutex<ProxySecret>,
    /// Where connections come from, if not from where the system chooses.
    pub source: Option<IpAddr>,
    /// --nat-info
    pub nat: NatRules,
    /// --force-dh
    pub force_dh: bool,
    /// Between pings.
    pub ping_interval: Duration,
    /// The machine's checksums.
    pub checksums: Checksums,
    /// When the process started, unix seconds.
    pub start_time: u32,
}

/// A connection whose handshake is done.
pub struct Connected {
    pub socket: TcpStream,
    pub reader: FrameReader,
    pub writer: FrameWriter,
    pub target: SocketAddr,
    /// Our end as we, or the SOCKS5 server, see it.
    pub local: SocketAddr,
}

/// One word for the log: why a dial failed.
type Failure = &'static str;

/// One word for the log: why a connection ends at a frame.
pub fn frame_word(error: FrameError) -> &'static str {
    match error {
        FrameError::Length => "length",
        FrameError::Checksum => "checksum",
        FrameError::Sequence => "sequence",
        FrameError::Pipelined => "pipelined",
    }
}

fn connect_failure(error: io::Error) -> Failure {
    match error.kind() {
        ErrorKind::ConnectionRefused => "connection_refused",
        ErrorKind::TimedOut => "connect_timeout",
        ErrorKind::Other => "socks",
        _ => "connect",
    }
}

fn handshake_failure(error: io::Error) -> Failure {
    match error.kind() {
        ErrorKind::TimedOut => "handshake_timeout",
        _ => "handshake_closed",
    }
}

fn frame_failure(error: FrameError) -> Failure {
    match error {
        FrameError::Checksum => "checksum_wrong_secret_or_nat",
        _ => frame_word(error),
    }
}

impl Dialer {
    /// Dials `target`; `times` takes how long what succeeded took. On success the socket has the
    /// deadlines of a ready connection.
    pub fn dial(&self, target: SocketAddr, times: &Dials) -> Result<Connected, Failure> {
        let offer = self.force_dh.then(Offer::draw).transpose();
        let offer = offer.map_err(handshake_failure)?;
        let begun = Instant::now();
        let dialled = self.connect(target).map_err(connect_failure)?;
        let connected = Instant::now();
        times.connect.add(connected - begun);
        // Keys depend on it.
        let local = dialled.local.ok_or("socks_tells_no_address")?;
        self.warn_of_nat(local, target);
        let mut handshake = Handshake {
            dialer: self,
            deadline: connected + limits::BACKEND_HANDSHAKE,
            connection: Connected {
                socket: dialled.socket,
                reader: FrameReader::new(self.checksums.crc32),
                writer: FrameWriter::new(self.checksums.crc32),
                target,
                local,
            },
        };
        handshake.exchange_nonces(offer)?;
        handshake.exchange_ids()?;
        times.handshake.add(connected.elapsed());
        let connection = handshake.connection;
        let silence = self.ping_interval + limits::BACKEND_PING_GRACE;
        let set = connection.socket.set_read_timeout(Some(silence));
        let step = Some(limits::BACKEND_SEND_STEP);
        set.and_then(|()| connection.socket.set_write_timeout(step))
            .map_err(handshake_failure)?;
        Ok(connection)
    }

    fn connect(&self, target: SocketAddr) -> io::Result<Dialled> {
        let dialled = outgoing::dial_any(&[target], self.source, limits::BACKEND_CONNECT)?;
        let lifetime = sys::Lifetime {
            idle: limits::BACKEND_KEEPALIVE,
            interval: limits::BACKEND_KEEPALIVE,
            probes: limits::BACKEND_KEEPALIVE_PROBES,
            user_timeout: limits::BACKEND_USER_TIMEOUT,
        };
        sys::set_lifetime(&dialled.socket, &lifetime)?;
        Ok(dialled)
    }

    /// Once: a private address here is nearly always translated on the way, and then no handshake
    /// works.
    fn warn_of_nat(&self, local: SocketAddr, target: SocketAddr) {
        static WARNED: AtomicBool = AtomicBool::new(false);
        let behind_nat = self.nat.is_missing_for(local) && !self.nat.is_missing_for(target);
        if behind_nat && !WARNED.swap(true, Ordering::Relaxed) {
            log::event(format_args!(
                "nat_warning local={} hint=\"private address; if the outside sees another one, set --nat-info {0}:PUBLIC\"",
                local.ip().to_canonical()
            ));
        }
    }
}

/// Our side of a Diffie-Hellman exchange: the exponent, and what the middle proxy is sent. Boxed and made
/// before the connection, because it takes its time.
struct Offer(Exponent, [u8; dh::LEN]);

impl Offer {
    #[inline(never)] // small, not fast
    fn draw() -> io::Result<Box<Offer>> {
        let exponent = Exponent::new(sys::random_array()?);
        let public = exponent.public();
        Ok(Box::new(Offer(exponent, public)))
    }
}

/// A connection before it is ready.
struct Handshake<'a> {
    dialer: &'a Dialer,
    deadline: Instant,
    connection: Connected,
}

impl Handshake<'_> {
    /// Frames -2 of both directions; from then on both are encrypted.
    fn exchange_nonces(&mut self, offer: Option<Box<Offer>>) -> Result<(), Failure> {
        let nonce = sys::random_array().map_err(handshake_failure)?;
        let now = clock::unix() as u32;
        let Dialer { secret, nat, .. } = self.dialer;
        let secret = secret.lock().clone();
        let selector = secret.selector();
        let ours = handshake::nonce(selector, now, &nonce);
        let (server_nonce, shared) = match offer {
            None => {
                self.send(&ours)?;
                let theirs = handshake::accept_nonce(&self.receive_nonce(now)?, selector, now);
                (theirs.map_err(Refusal::word)?, None)
            }
            Some(offer) => {
                self.send(&handshake::nonce_with_dh(&ours, &offer.1))?;
                let theirs = self.receive_nonce(now)?;
                let accepted = handshake::accept_nonce_with_dh(&theirs, selector, now);
                let (theirs, public) = accepted.map_err(Refusal::word)?;
                let shared = offer.0.shared(public).ok_or(Refusal::Dh.word())?;
                (theirs, Some(shared))
            }
        };
        let keys = middle_key::derive(&KeyInputs {
            server_nonce,
            client_nonce: nonce,
            client_time: now,
            server: nat.translate(self.connection.target),
            client: nat.translate(self.connection.local),
            secret: secret.bytes(),
            shared: shared.as_ref(),
        });
        let Connected { reader, writer, .. } = &mut self.connection;
        writer.start_cipher(&keys.write);
        reader.start_cipher(&keys.read).map_err(frame_failure)
    }

    /// Frames -1 of both directions.
    fn exchange_ids(&mut self) -> Result<(), Failure> {
        let us = process_id(self.connection.local, self.dialer.start_time);
        self.send(&handshake::handshake(
            us,
            ProcessId::of_peer(self.connection.target),
        ))?;
        match handshake::accept_handshake(&self.receive()?, us) {
            Ok(is_crc32c) => {
                let crc32c = self.dialer.checksums.crc32c;
                if is_crc32c {
                    self.connection.reader.set_checksum(crc32c);
                    self.connection.writer.set_checksum(crc32c);
                }
                Ok(())
            }
            Err(refusal) => {
                if let Some(code) = refusal.code() {
                    self.send(&handshake::handshake_error(code, us))?;
                }
                Err(refusal.word())
            }
        }
    }

    #[inline(never)] // small, not fast
    fn send(&mut self, payload: &[u8]) -> Result<(), Failure> {
        let mut buf = [0; FRAME_HEAD + DH_PAYLOAD_LEN + SEAL_ROOM];
        let place = FRAME_HEAD..FRAME_HEAD + payload.len();
        buf[place.clone()].copy_from_slice(payload);
        let end = place.end + SEAL_ROOM;
        let Connected { socket, writer, .. } = &mut self.connection;
        let wire = writer.seal(&mut buf[..end], place);
        let wire = &buf[wire.ok_or(frame_word(FrameError::Length))?];
        net::write_before(self.deadline, socket, wire).map_err(handshake_failure)
    }

    /// Also notes how far its clock is from ours: if it is too far, this is how an operator learns of it.
    fn receive_nonce(&mut self, now: u32) -> Result<Vec<u8>, Failure> {
        let theirs = self.receive()?;
        if let Some(time) = handshake::stated_time(&theirs) {
            MIDDLE_SKEW.note(time, now);
        }
        Ok(theirs)
    }

    #[inline(never)]
    fn receive(&mut self) -> Result<Vec<u8>, Failure> {
        let Connected { socket, reader, .. } = &mut self.connection;
        loop {
            if let Some(frame) = reader.take().map_err(frame_failure)? {
                return Ok(frame[FRAME_HEAD..frame.len() - FRAME_TAIL].to_vec());
            }
            let read = net::read_more(self.deadline, socket, reader.space());
            reader.received(read.map_err(handshake_failure)?);
        }
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
