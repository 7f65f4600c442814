//! A client's packets on their way up: read, decrypt, unframe, filter, wrap into PROXY_REQ, and into
//! the channel of the middle-proxy connection that the client is pinned to.
//!
//! While nothing is under way the client holds a small buffer on this thread's stack and nothing
//! else. A packet's buffer has room around the payload for all that is put around it later, so it is
//! encrypted and sent from where it was received.

use std::sync::Arc;

use mtproxy::limits::READY_WAIT;
use mtproxy::proto::middle::frame::{FRAME_HEAD, SEAL_ROOM};
use mtproxy::proto::mtproto;
use mtproxy::proto::rpc::MAX_REQUEST_HEAD;
use mtproxy::proto::transport::Prefix;
use mtproxy::proto::wire::ConnId;

use super::dcs::Set;
use super::link::Link;
use super::registry::{self, Client};
use super::session::Session;
use crate::base::buffers::Buffer;
use crate::stats::{Close, STATS};
use crate::stream::ClientStream;

/// Where a payload begins in its buffer: behind room for frame and request.
const PAYLOAD_AT: usize = FRAME_HEAD + MAX_REQUEST_HEAD;

/// Most that is reserved for a packet before its bytes have come.
const FIRST_BUFFER: usize = 64 << 10;

/// Reads packets until the connection ends; says why.
pub fn run(session: &mut Session, stream: ClientStream) -> Close {
    let mut inbound = Inbound {
        stream,
        last_len: 0,
    };
    loop {
        let step = next_packet(session, &mut inbound)
            .and_then(|(prefix, packet)| forward(session, &prefix, packet));
        if let Err(reason) = step {
            return reason;
        }
    }
}

struct Inbound<'a> {
    stream: ClientStream<'a>,
    /// Length of the last packet: who sends large ones gets a large buffer at once.
    last_len: usize,
}

/// Reads a whole packet; its payload begins at `PAYLOAD_AT`.
fn next_packet(session: &Session, inbound: &mut Inbound) -> Result<(Prefix, Buffer), Close> {
    let socket = &session.client.socket;
    let Inbound { stream, last_len } = inbound;
    let prefix = loop {
        match session.origin.transport.decode_prefix(stream.pending()) {
            Ok(Some(prefix)) => break prefix,
            Ok(None) => stream.refill(socket)?,
            Err(_) => return Err(Close::BadLength),
        }
    };
    stream.pending.start += prefix.prefix_len;
    let end = PAYLOAD_AT + prefix.len;
    // Not what the packet declares but what has come decides, or for a start what came last time.
    let likely = (2 * stream.pending.len()).max((*last_len).min(FIRST_BUFFER));
    let mut packet = Buffer::new((end + SEAL_ROOM).min(PAYLOAD_AT + likely + SEAL_ROOM));
    session.client.receiving(packet.len());
    let mut at = PAYLOAD_AT;
    loop {
        let room = end.min(packet.len() - SEAL_ROOM);
        at += stream.take(&mut packet[at..room]);
        if at == end {
            break;
        }
        if at == room {
            packet = grown(&packet, at, end + SEAL_ROOM);
            session.client.receiving(packet.len());
            continue;
        }
        at += stream.layers.read(socket, &mut packet[at..room])?;
    }
    *last_len = prefix.len;
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
