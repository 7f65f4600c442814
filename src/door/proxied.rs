//! Connections that a load balancer in front passes on, with a PROXY protocol header that says whose they
//! are (--proxy-protocol). Called by `accept`, and by the door on the connection's own thread before it
//! reads anything else. The header of a front that is trusted is believed; everybody else is closed. Also
//! says when such a header comes where none is expected. No locks of its own.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use mtproxy::formats::cidr::Network;
use mtproxy::limits::{MAX_PROXY_HEADER, PROXY_HEADER};
use mtproxy::proto::proxy_protocol::{self, Header};

use super::admission::Newcomer;
use crate::base::clock::Rarely;
use crate::base::log;
use crate::stats::Close;
use crate::stream;

/// Who may say where connections come from; none: nobody says it, and connections begin without a header.
pub type Fronts = Vec<Network>;

/// Whether a connection is to be taken from there. Unix sockets are on this machine.
pub fn is_front(fronts: &Fronts, ip: IpAddr) -> bool {
    fronts.iter().any(|network| network.contains(ip))
}

/// Reads the header of a connection from a front: it comes from where that says.
#[inline(never)] // an idle client's thread keeps the stack of what is inlined
pub fn identify(newcomer: &mut Newcomer) -> Result<(), Close> {
    let front = newcomer.peer;
    let result = read(newcomer).and_then(|from| match from {
        Some(peer) => newcomer.comes_from(peer),
        None => Ok(()),
    });
    if let Err(Close::ProxyHeader) = result {
        static REFUSED: Rarely = Rarely::new();
        if REFUSED.is_due() {
            log::event(format_args!(
                "proxy_header_refused front={front} hint=\"with --proxy-protocol whoever connects must send \
                 a header: send-proxy-v2 in haproxy, proxy_protocol on in nginx\""
            ));
        }
    }
    result
}

fn read(newcomer: &Newcomer) -> Result<Option<SocketAddr>, Close> {
    let deadline = Instant::now() + PROXY_HEADER;
    let mut header = [0; MAX_PROXY_HEADER];
    let mut len = 0;
    loop {
        match proxy_protocol::parse(&header[..len]) {
            Header::From(from) => return Ok(from),
            Header::Malformed => return Err(Close::ProxyHeader),
            Header::Needs(more) => {
                let place = header.get_mut(len..len + more).ok_or(Close::ProxyHeader)?;
                let socket = newcomer.socket();
                len += match stream::read_before(deadline, Close::ProxyHeader, socket, place) {
                    Err(Close::ClientGone) => match newcomer.ending() {
                        Close::ClientGone if len > 0 => return Err(Close::ProxyHeader),
                        // Such as a front that looks whether somebody listens.
                        reason => return Err(reason),
                    },
                    read => read?,
                };
            }
        }
    }
}

/// Says, once a minute, when what fits no secret begins with a header.
pub fn warn_of_header(newcomer: &Newcomer, received: &[u8]) {
    static UNEXPECTED: Rarely = Rarely::new();
    if let Some(version) = proxy_protocol::version(received)
        && UNEXPECTED.is_due()
    {
        let peer = newcomer.peer;
        log::event(format_args!(
            "proxy_header_unexpected peer={peer} version={version} hint=\"a load balancer says whose connection \
             this is: give --proxy-protocol, or have it send no header\""
        ));
    }
}
