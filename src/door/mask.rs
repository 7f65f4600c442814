//! The mask: a stranger is relayed to the site whose name this server bears, with every byte that it has
//! sent so far, until either side ends (protocol.md 5.6). Only configured addresses are ever dialled.
//! Called by the door; runs on the stranger's thread and a second one.

use std::io::{ErrorKind, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;

use mtproxy::limits::{MASK_BUFFER, MASK_IDLE, MASK_LOOKUP};

use super::admission::Newcomer;
use super::header::Stranger;
use super::rules::{FakeTls, Rules};
use super::visitors::Visit;
use crate::base::buffers::{Account, Buffer};
use crate::base::{net, sys};
use crate::pair::{self, Broken, Half, Pair};
use crate::stats::{Close, STATS};

/// Relays a stranger to the site, when there is a place. Returns at the end.
#[inline(never)] // see `live`
pub fn show(rules: &Rules, newcomer: Newcomer, stranger: Stranger) -> Close {
    let peer = newcomer.peer;
    let socket = match newcomer.into_stranger() {
        Ok(socket) => socket,
        Err(reason) => return reason.counted(),
    };
    let close = Close::Masked.counted();
    if let Some(tls) = &rules.tls {
        match tls.visitors.enter(peer.ip()) {
            Some(visit) => relay(tls, &visit, (socket, peer), stranger),
            None => STATS.mask_refused_full.add(1),
        }
    }
    close
}

fn relay(
    tls: &FakeTls,
    visit: &Visit,
    (socket, peer): (TcpStream, SocketAddr),
    stranger: Stranger,
) {
    if tls.sites.is_own_probe(stranger.received.bytes()) {
        return;
    }
    let ours = net::own_address(&socket);
    let addresses = stranger.site.addresses(ours.port(), MASK_LOOKUP);
    let Some(site) = tls.sites.dial(&addresses, Some((peer, ours))) else {
        STATS.mask_unreachable.add(1);
        return;
    };
    let mut site = site.socket;
    STATS.mask_connections.add(1);
    let _ = site.set_nodelay(true);
    for socket in [&socket, &site] {
        let read = socket.set_read_timeout(Some(MASK_IDLE));
        if read.and(socket.set_write_timeout(Some(MASK_IDLE))).is_err() {
            return;
        }
    }
    // A site that no longer reads may have sent a response.
    let ended = site.write_all(stranger.received.bytes()).is_err() || stranger.received.ended;
    // Gives its buffer back before the relay begins.
    drop(stranger);
    let pair = Arc::new(Pair::new(socket, site, None));
    visit.relayed(&pair);
    let up = |pair: &Pair| match ended {
        true => shut(&pair.far),
        false => copy(pair, &pair.client, &pair.far),
    };
    let down = |pair: &Pair| copy(pair, &pair.far, &pair.client);
    pair::run(&pair, [Close::Masked; 2], up, down);
}

/// One direction, until its source ends or both are silent for too long.
fn copy(pair: &Pair, from: &TcpStream, mut to: &TcpStream) -> Half {
    const OVER: Broken = Broken::Client(Close::Masked);
    let is_up = std::ptr::eq(from, &pair.client);
    let mut buffer = Buffer::of(Account::Strangers, MASK_BUFFER).ok_or(OVER)?;
    let mut steps = pair.steps();
    let mut taken = true;
    loop {
        match net::read_soon(from, &mut buffer) {
            Ok(Some(0)) => return shut(to),
            Ok(Some(n)) => {
                match to.write_all(&buffer[..n]) {
                    Ok(()) => pair.step(),
                    Err(e) if e.kind() == ErrorKind::WouldBlock => return Err(OVER),
                    Err(_) => taken = false,
                }
                // What the site sent before it closed is still on its way to the stranger. Once that
                // has arrived, whatever the stranger sends is answered with a reset, as by a closed port.
                if !taken && (!is_up || pair.has_ended()) {
                    return Err(OVER);
                }
                steps = pair.steps();
            }
            Ok(None) if steps == pair.steps() => return Err(OVER),
            Ok(None) => steps = pair.steps(),
            Err(e) => {
                if !is_up && e.kind() == ErrorKind::ConnectionReset {
                    sys::reset(&pair.client);
                }
                return Err(OVER);
            }
        }
    }
}

fn shut(to: &TcpStream) -> Half {
    let _ = to.shutdown(Shutdown::Write);
    Ok(())
}
