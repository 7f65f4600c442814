//! A client's packets on their way up: read, decrypt, unframe, filter, wrap into PROXY_REQ, and into
//! the channel of the middle-proxy connection that the client is pinned to.
//!
//! While nothing is under way the client holds a small buffer on this thread's stack and nothing
//! else. A packet's buffer has room around the payload for all that is put around it later, so it is
//! encrypted and sent from where it was received.

use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::ops::Range;
use std::sync::Arc;

use mtproxy::crypto::ctr::Ctr;
use mtproxy::limits::{READ_SMALL, READY_WAIT};
use mtproxy::proto::faketls::record::Deframer;
use mtproxy::proto::middle::frame::{FRAME_HEAD, SEAL_ROOM};
use mtproxy::proto::mtproto;
use mtproxy::proto::rpc::MAX_REQUEST_HEAD;
use mtproxy::proto::transport::Prefix;
use mtproxy::proto::wire::ConnId;

use super::Session;
use crate::buffers::Buffer;
use crate::dcs::Set;
use crate::registry::{self, Client};
use crate::stats::{Close, STATS};
use crate::uplink::Link;

/// Where a payload begins in its buffer: behind room for frame and request.
const PAYLOAD_AT: usize = FRAME_HEAD + MAX_REQUEST_HEAD;

/// Most that is reserved for a packet before its bytes have come.
const FIRST_BUFFER: usize = 64 << 10;

/// Reads packets until the connection ends; says why. Gives the session back so that it ends with
/// nothing else alive.
pub fn run(mut session: Session, mut inbound: Inbound) -> (Session, Close) {
    loop {
        let step = next_packet(&session, &mut inbound)
            .and_then(|(prefix, packet)| forward(&mut session, &prefix, packet));
        if let Err(reason) = step {
            return (session, reason);
        }
    }
}

/// The client's bytes, decrypted.
pub struct Inbound<'a> {
    cipher: Ctr,
    /// In fake TLS: takes its records apart.
    tls: Option<Deframer>,
    small: &'a mut [u8; READ_SMALL],
    pending: Range<usize>,
    /// Length of the last packet: who sends large ones gets a large buffer at once.
    last_len: usize,
}

impl Inbound<'_> {
    /// `pending` is what of `small` was received and decrypted already.
    pub fn new(
        cipher: Ctr,
        tls: Option<Deframer>,
        small: &mut [u8; READ_SMALL],
        pending: Range<usize>,
    ) -> Inbound<'_> {
        Inbound {
            cipher,
            tls,
            small,
            pending,
            last_len: 0,
        }
    }

    fn pending(&self) -> &[u8] {
        &self.small[self.pending.clone()]
    }

    /// Reads more behind what is pending.
    fn refill(&mut self, socket: &TcpStream) -> Result<(), Close> {
        self.small.copy_within(self.pending.clone(), 0);
        self.pending = 0..self.pending.len();
        let place = &mut self.small[self.pending.end..];
        self.pending.end += read(socket, &mut self.cipher, &mut self.tls, place)?;
        Ok(())
    }

    /// Moves pending bytes to `out`, as many as both have.
    fn take(&mut self, out: &mut [u8]) -> usize {
        let n = out.len().min(self.pending.len());
        out[..n].copy_from_slice(&self.pending()[..n]);
        self.pending.start += n;
        n
    }
}

/// Reads and decrypts at least one byte.
fn read(
    mut socket: &TcpStream,
    cipher: &mut Ctr,
    tls: &mut Option<Deframer>,
    out: &mut [u8],
) -> Result<usize, Close> {
    loop {
        if tls.as_ref().is_some_and(Deframer::is_broken) {
            return Err(Close::BadRecord);
        }
        let mut n = match socket.read(out) {
            Ok(0) => return Err(Close::ClientGone),
            Ok(n) => n,
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            Err(_) => return Err(Close::ClientLost),
        };
        if let Some(tls) = tls {
            n = tls.deframe(&mut out[..n]);
        }
        if n > 0 {
            cipher.apply(&mut out[..n]);
            return Ok(n);
        }
    }
}

/// Reads a whole packet; its payload begins at `PAYLOAD_AT`.
fn next_packet(session: &Session, inbound: &mut Inbound) -> Result<(Prefix, Buffer), Close> {
    let socket = &session.client.socket;
    let prefix = loop {
        match session.origin.transport.decode_prefix(inbound.pending()) {
            Ok(Some(prefix)) => break prefix,
            Ok(None) => inbound.refill(socket)?,
            Err(_) => return Err(Close::BadLength),
        }
    };
    inbound.pending.start += prefix.prefix_len;
    let end = PAYLOAD_AT + prefix.len;
    // Not what the packet declares but what has come decides, or for a start what came last time.
    let likely = (2 * inbound.pending.len()).max(inbound.last_len.min(FIRST_BUFFER));
    let mut packet = Buffer::new((end + SEAL_ROOM).min(PAYLOAD_AT + likely + SEAL_ROOM));
    session.client.receiving(packet.len());
    let mut at = PAYLOAD_AT;
    loop {
        let room = end.min(packet.len() - SEAL_ROOM);
        at += inbound.take(&mut packet[at..room]);
        if at == end {
            break;
        }
        if at == room {
            packet = grown(&packet, at, end + SEAL_ROOM);
            session.client.receiving(packet.len());
            continue;
        }
        let place = &mut packet[at..room];
        at += read(socket, &mut inbound.cipher, &mut inbound.tls, place)?;
    }
    inbound.last_len = prefix.len;
    Ok((prefix, packet))
}

/// A larger buffer with the same first `len` bytes.
pub fn grown(packet: &Buffer, len: usize, enough: usize) -> Buffer {
    let mut larger = Buffer::new(enough.min(packet.len() * 4));
    larger[..len].copy_from_slice(&packet[..len]);
    larger
}

/// Sends a packet to the client's middle proxy; waits while that one's channel is full.
fn forward(session: &mut Session, prefix: &Prefix, mut packet: Buffer) -> Result<(), Close> {
    if session.client.ending().is_some() {
        // The client is being closed once it has fetched what waits for it.
        session.client.receiving(0);
        return Ok(());
    }
    let payload = PAYLOAD_AT..PAYLOAD_AT + prefix.payload_len();
    let Some(kind) = mtproto::classify(&packet[payload.clone()]) else {
        session.client.receiving(0);
        STATS.filtered_queries.add(1);
        return Ok(());
    };
    let start = PAYLOAD_AT - session.origin.head_len();
    session
        .origin
        .encode_head(kind, prefix.quick_ack, &mut packet[start..PAYLOAD_AT]);
    packet.filled = start..payload.end;
    let link = match &session.link {
        Some(link) => link,
        None => session
            .link
            .insert(choose(session.set.as_ref(), &session.client)?.0),
    };
    let client = &session.client;
    let sent = link.send(packet, &|| client.ending().is_some());
    client.receiving(0);
    if sent.is_err() {
        // A client that is being closed may still fetch what waits for it.
        return client.ending().map_or(Err(Close::BackendLost), |_| Ok(()));
    }
    client.traffic.queries.add(1);
    client.traffic.query_bytes.add(payload.len() as u64);
    session.client.touch();
    Ok(())
}

/// Pins the client to a connection of its data centre's set (protocol.md 7.5); says its id there.
pub fn choose(set: Option<&Arc<Set>>, client: &Client) -> Result<(Arc<Link>, ConnId), Close> {
    let found = match set {
        Some(set) => set.acquire(READY_WAIT).map_err(|_| Close::NoBackend),
        None => Err(Close::UnknownDc),
    };
    if found.is_err() {
        STATS.dropped_queries.add(1);
    }
    let link = found?;
    let id = registry::pin(client, &link);
    Ok((link, id))
}
