//! The direct road: each client has its own connection to its data centre (protocol.md 12). Called by the
//! door with a client that has proven a secret. The framing is never parsed; two threads move bytes until
//! both directions have ended ([`relay`]).
//!
//! The header that opens the connection to the data centre is chosen so that the data centre's stream
//! already is what the client expects (`obfuscated2::offer_mirroring`): downwards nothing is deciphered.
//! The price: the same ciphertext runs on both legs. A client that doesn't obfuscate has no such stream:
//! for it bytes are deciphered downwards, too.

mod lane;
mod relay;
pub mod table;

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::atomic::Ordering;
use std::time::Instant;

use mtproxy::crypto::ctr::Ctr;
use mtproxy::limits::{DC_CONNECT, SUMMARY_INTERVAL};
use mtproxy::proto::obfuscated2::{self, Offer};

use crate::base::gauge::Gauge;
use crate::base::{clock, log, net, outgoing, sys};
use crate::stats::{self, Close, DIRECT, Dials, Guest, STATS};
use crate::stream::ClientStream;
use table::Table;

/// The road straight to data centres.
pub struct Direct {
    /// Where data centres are.
    pub table: Table,
    /// Where connections come from, if not from where the system chooses.
    pub source: Option<IpAddr>,
}

impl Direct {
    /// Serves a client to its end.
    pub fn serve(&self, socket: TcpStream, mut stream: ClientStream, mut guest: Guest) {
        let connected = connect(self, &mut stream, &guest);
        match connected {
            Ok(Connected { dc, offer, down }) => {
                let _place = Gauge::enter(&DIRECT);
                let up = relay::Up {
                    stream,
                    send: offer.send,
                };
                let (_, _listed) = relay::run(socket, dc, up, down, &mut guest);
            }
            Err(reason) => {
                stream.layers.wrap().farewell(&socket);
                guest.ended(reason, Some(&socket));
            }
        }
    }
}

/// A client's connection to its data centre.
struct Connected {
    dc: TcpStream,
    /// The header that opened it, and our stream.
    offer: Box<Offer>,
    /// The data centre's stream, if the client expects another one.
    down: Option<Box<Ctr>>,
}

/// Connects to the client's data centre and sends what the client has sent so far. Not inlined: an idle
/// client's thread would keep the stack that only this needs.
#[inline(never)]
fn connect(road: &Direct, stream: &mut ClientStream, guest: &Guest) -> Result<Connected, Close> {
    let accepted = &stream.layers.accepted;
    let (addresses, known) = road.table.addresses(accepted.dc, table::has_ipv6);
    if !known {
        STATS.direct_unknown_dcs.add(1);
    }
    let begun = Instant::now();
    let dials = stats::dials(guest.traffic.dc);
    let dc = dial(&addresses, road.source).map_err(|e| failed(dials, &e))?;
    if dials.warned.swap(0, Ordering::Relaxed) > 0 {
        log::event(format_args!("dc_reachable dc={}", dials.dc.0));
    }
    dials.connect.add(begun.elapsed());
    STATS.direct_connects.add(1);
    let mut offer = draw(stream).ok_or(Close::DcLost)?;
    let down = match stream.layers.accepted.send {
        Some(_) => None,
        None => Some(Box::new(Ctr::new(&offer.receive))),
    };
    let pending = &mut stream.small[stream.pending.clone()];
    offer.send.apply(pending);
    guest.traffic.account.spend(pending.len())?;
    let mut parts = [IoSlice::new(&offer.header), IoSlice::new(pending)];
    net::write_all(&dc, &mut parts).map_err(|_| Close::DcLost)?;
    guest.traffic.direct_up_bytes.add(pending.len() as u64);
    Ok(Connected { dc, offer, down })
}

#[inline(never)] // see `connect`
fn dial(addresses: &[SocketAddr], source: Option<IpAddr>) -> io::Result<TcpStream> {
    let dc = outgoing::dial_any(addresses, source, DC_CONNECT)?.socket;
    dc.set_write_timeout(None)?;
    sys::set_lifetime(&dc, &sys::CLIENT_LIFETIME)?;
    Ok(dc)
}

/// Counts a data centre that can't be reached, and says so: at first, and then once a minute.
#[inline(never)] // see `connect`
fn failed(dials: &Dials, error: &io::Error) -> Close {
    dials.failures.add(1);
    let now = clock::seconds() + 1;
    let last = dials.warned.load(Ordering::Relaxed);
    if last == 0 || u64::from(now - last) >= SUMMARY_INTERVAL.as_secs() {
        dials.warned.store(now, Ordering::Relaxed);
        let (dc, failures) = (dials.dc.0, dials.failures.value());
        log::event(format_args!(
            "dc_unreachable dc={dc} error=\"{error}\" failures={failures}"
        ));
    }
    Close::DcUnreachable
}

/// Our header; drawn again while it begins as another protocol would.
#[inline(never)] // see `connect`
fn draw(stream: &ClientStream) -> Option<Box<Offer>> {
    let accepted = &stream.layers.accepted;
    let (transport, dc) = (accepted.transport, accepted.dc);
    loop {
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
