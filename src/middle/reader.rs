//! A client's packets on their way up: read, decrypt, unframe, filter, wrap into PROXY_REQ, and into
//! the queue of the middle-proxy connection that the client is pinned to. Runs on the client's thread.
//! The client has proven a secret, if there is one; what it sends is not trusted otherwise.
//!
//! Between packets the client holds a small buffer on this thread's stack and nothing else. A packet's
//! buffer has room around the payload for all that is put around it later, so it is encrypted and sent
//! from where it was received.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use mtproxy::crypto::ctr::Ctr;
use mtproxy::limits::FIRST_BUFFER;
use mtproxy::proto::middle::frame::FRAME_HEAD;
use mtproxy::proto::mtproto;
use mtproxy::proto::rpc::MAX_REQUEST_HEAD;
use mtproxy::proto::transport::{Prefix, Transport};

use super::dcs::Set;
use super::outbox::Outbox;
use super::registry::Client;
use super::session::{Middle, Session};
use super::{memory, registry, writer};
use crate::base::buffers::Buffer;
use crate::stats::{Close, Guest, STATS};
use crate::stream::{ClientStream, Layers};

/// Where a payload begins in its buffer: behind room for frame and request.
const PAYLOAD_AT: usize = FRAME_HEAD + MAX_REQUEST_HEAD;

impl Middle {
    /// Serves a client to its end.
    #[inline(never)] // an idle client's thread keeps the deepest stack that it ever used
    pub fn serve(
        &self,
        ends: (TcpStream, SocketAddr),
        set: Option<&Arc<Set>>,
        mut stream: ClientStream,
        guest: Guest,
    ) {
        let accepted = &stream.layers.accepted;
        let (transport, is_obfuscated) = (accepted.transport, accepted.send.is_some());
        let cipher = accepted.send.as_ref().map_or_else(Ctr::clear, Ctr::new);
        let outbox = Outbox::new(cipher, stream.layers.wrap());
        if let Some(mut session) = Session::enter(self, ends, set, (outbox, is_obfuscated), guest) {
            let reason = read_packets(&mut session, transport, &mut stream);
            session.end(reason);
        }
    }
}

/// Reads packets until the connection ends; says why.
fn read_packets(session: &mut Session, transport: Transport, stream: &mut ClientStream) -> Close {
    // Who sends large packets gets a large buffer at once.
    let mut last_len = 0;
    loop {
        let step =
            next_packet(session, transport, stream, last_len).and_then(|(prefix, packet)| {
                last_len = prefix.len;
                forward(session, &prefix, packet)
            });
        if let Err(reason) = step {
            return reason;
        }
    }
}

/// Reads a whole packet; its payload begins at `PAYLOAD_AT`.
fn next_packet(
    session: &Session,
    transport: Transport,
    stream: &mut ClientStream,
    last_len: usize,
) -> Result<(Prefix, Buffer), Close> {
    let socket = &session.client.socket;
    let prefix = loop {
        match transport.decode_prefix(stream.pending()) {
            Ok(Some(prefix)) => break prefix,
            Ok(None) => {
                heed(&session.client, &mut stream.layers);
                stream.refill(socket)?
            }
            Err(_) => return Err(Close::BadLength),
        }
    };
    stream.pending.start += prefix.prefix_len;
    let place = PAYLOAD_AT..PAYLOAD_AT + prefix.len;
    let likely = (2 * stream.pending.len()).max(last_len.min(FIRST_BUFFER));
    let account = session.client.traffic.account;
    let mut read = |out: &mut [u8]| {
        let most = account.step(out.len());
        let out = &mut out[..most];
        let n = match stream.take(out) {
            0 => {
                heed(&session.client, &mut stream.layers);
                stream.layers.read(socket, out)?
            }
            taken => taken,
        };
        account.pace(n);
        Ok(n)
    };
    let packet = session.read_packet(place, likely, &mut read)?;
    Ok((prefix, packet))
}

/// Tells a lane's client what it is to be told.
fn heed(client: &Arc<Client>, layers: &mut Layers) {
    layers.reply(|granted, bytes| {
        let delivery = client.outbox().control(&client.socket, granted, bytes);
        writer::settle(client, delivery);
    });
}

/// Sends a packet to the client's middle proxy.
fn forward(session: &mut Session, prefix: &Prefix, mut packet: Buffer) -> Result<(), Close> {
    if session.client.ending().is_some() {
        // It is closed once it has fetched what waits for it.
        memory::receiving(&session.client, 0);
        registry::ignored();
        return Ok(());
    }
    let payload = PAYLOAD_AT..PAYLOAD_AT + prefix.payload_len();
    let Some(kind) = mtproto::classify(&packet[payload.clone()]) else {
        memory::receiving(&session.client, 0);
        STATS.filtered_queries.add(1);
        return Ok(());
    };
    session.client.traffic.account.spend(payload.len())?;
    if session.link.is_none() {
        session.pin()?;
    }
    let origin = &session.origin;
    let start = PAYLOAD_AT - origin.head_len(&[]);
    origin.encode_head(kind, prefix.quick_ack, &[], &mut packet[start..PAYLOAD_AT]);
    packet.filled = start..payload.end;
    match session.send(packet, payload.len()) {
        true => Ok(()),
        // A client that is being closed may still fetch what waits for it.
        false => session
            .client
            .ending()
            .map_or(Err(Close::BackendLost), |_| Ok(())),
    }
}
