//! Direct mode: each client has its own connection to its data centre (protocol.md 12). The framing
//! is never parsed; two threads move bytes until both halves have ended ([`relay`]).
//!
//! The header that opens the connection to the data centre is chosen so that the data centre's
//! stream already is what the client expects (`obfuscated2::offer_mirroring`): downwards nothing is
//! deciphered. The price: the same ciphertext runs on both legs. A client that doesn't obfuscate has no
//! such stream: for it bytes are deciphered downwards, too.

mod dial;
mod relay;
pub mod table;

use std::io::{IoSlice, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Instant;

use mtproxy::crypto::ctr::Ctr;
use mtproxy::limits::HEADER_LEN;
use mtproxy::proto::obfuscated2::{self, Offer};

use crate::handover::Handover;
use crate::stats::{self, Close, DIRECT, STATS};
use crate::sys;
pub use dial::has_ipv6;
use table::Table;

/// What is the same for every client.
pub struct Setup {
    /// Where data centres are.
    pub table: Table,
    /// --address: where connections come from.
    pub source: Option<Ipv4Addr>,
}

/// Serves a client to its end, and counts it.
pub fn serve(setup: &Setup, mut client: Handover) -> Close {
    match connect(setup, &mut client) {
        Ok(Connected { dc, offer, down }) => {
            let layers = relay::Layers {
                receive: client.accepted.receive,
                send: offer.send,
                down,
                tls: client.tls,
                traffic: client.guest.0,
            };
            let _present = DIRECT.enter();
            relay::run(client.socket, dc, layers, client.small)
        }
        Err(reason) => reason.counted(),
    }
}

/// A connection to a data centre.
struct Connected {
    dc: TcpStream,
    /// Ours, with our stream.
    offer: Box<Offer>,
    /// The data centre's stream, if the client expects another.
    down: Option<Box<Ctr>>,
}

/// The connection to the client's data centre, with what the client has sent so far, our stream to it,
/// and its own stream if that isn't the client's. Not inlined: an idle client's thread would keep the
/// stack that only this needs.
#[inline(never)]
fn connect(setup: &Setup, client: &mut Handover) -> Result<Connected, Close> {
    let (addresses, known) = setup.table.addresses(client.accepted.dc);
    if !known {
        STATS.direct_unknown_dcs.add(1);
    }
    let begun = Instant::now();
    let dc = dial::dial(&addresses, setup.source).ok_or(Close::DcUnreachable)?;
    let times = stats::dials(client.guest.0.dc);
    times.connect.add(begun.elapsed());
    STATS.direct_connects.add(1);
    let mut offer = draw(client).ok_or(Close::DcLost)?;
    let pending = &mut client.small[client.pending.clone()];
    offer.send.apply(pending);
    open(&dc, &offer.header, pending).map_err(|_| Close::DcLost)?;
    let traffic = client.guest.0;
    traffic.direct_up_bytes.add(pending.len() as u64);
    let down = match client.accepted.send {
        Some(_) => None,
        None => Some(Box::new(Ctr::new(&offer.receive))),
    };
    Ok(Connected { dc, offer, down })
}

/// Our header; drawn again while it would begin as something else does.
#[inline(never)] // see `connect`
fn draw(client: &Handover) -> Option<Box<Offer>> {
    let accepted = &client.accepted;
    loop {
        let (transport, dc) = (accepted.transport, accepted.dc);
        let offer = match &accepted.send {
            Some(mirrored) => {
                let random = sys::random_array().ok()?;
                obfuscated2::offer_mirroring(mirrored, &random, transport, dc)
            }
            None => obfuscated2::offer(&sys::random_array().ok()?, None, transport, dc),
        };
        if offer.is_some() {
            return offer.map(Box::new);
        }
    }
}

/// Header and what the client has sent behind its own, in one segment.
#[inline(never)] // see `connect`
fn open(mut dc: &TcpStream, header: &[u8; HEADER_LEN], pending: &[u8]) -> std::io::Result<()> {
    let sent = dc.write_vectored(&[IoSlice::new(header), IoSlice::new(pending)])?;
    let header_left = header.get(sent..).unwrap_or_default();
    let pending_left = pending
        .get(sent.saturating_sub(HEADER_LEN)..)
        .unwrap_or_default();
    dc.write_all(header_left)?;
    dc.write_all(pending_left)
}
