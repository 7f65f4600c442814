//! TCP sockets: addresses as the kernel takes them, how long a connection lives without its peer, how
//! much may be in flight.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::time::Duration;

use mtproxy::limits;

use crate::base::sys::consts::*;
use crate::base::sys::set_option;

/// How long a TCP connection may stay without a sign of its peer.
pub struct Lifetime {
    /// Seconds of silence before the first keep-alive probe.
    pub idle: u32,
    /// Seconds between probes.
    pub interval: u32,
    /// Unanswered probes that end the connection.
    pub probes: u32,
    /// Unacknowledged data ends the connection after this.
    pub user_timeout: Duration,
}

/// Of connections of clients, and in direct mode to data centres.
pub const CLIENT_LIFETIME: Lifetime = Lifetime {
    idle: limits::KEEPALIVE_IDLE,
    interval: limits::KEEPALIVE_INTERVAL,
    probes: limits::KEEPALIVE_PROBES,
    user_timeout: limits::CLIENT_USER_TIMEOUT,
};

/// Sends small packets at once, and ends dead connections. What a listener is given, the sockets
/// that it accepts inherit.
pub fn set_lifetime(socket: &impl AsFd, lifetime: &Lifetime) -> io::Result<()> {
    let millis = u32::try_from(lifetime.user_timeout.as_millis()).unwrap_or(u32::MAX);
    set_option(socket, SOL_SOCKET, SO_KEEPALIVE, 1)?;
    for (name, value) in [
        (TCP_NODELAY, 1),
        (TCP_KEEPIDLE, lifetime.idle),
        (TCP_KEEPINTVL, lifetime.interval),
        (TCP_KEEPCNT, lifetime.probes),
        (TCP_USER_TIMEOUT, millis),
    ] {
        set_option(socket, IPPROTO_TCP, name, value)?;
    }
    Ok(())
}

/// Bounds the receive window, and so what a peer may have in flight. The clamp alone does not hold
/// while the kernel sizes the buffer by itself (seen with 6.18: it grew tenfold); a buffer of a set
/// size does. The kernel doubles it and gives half to its own bookkeeping.
pub fn set_window_clamp(socket: &impl AsFd, bytes: u32) -> io::Result<()> {
    set_option(socket, SOL_SOCKET, SO_RCVBUF, bytes)?;
    set_option(socket, IPPROTO_TCP, TCP_WINDOW_CLAMP, bytes)
}

/// sockaddr_in or sockaddr_in6, and its length.
pub fn socket_address(address: SocketAddr) -> ([u8; 28], u32) {
    let mut raw = [0; 28];
    let (family, len) = match address.ip() {
        IpAddr::V4(v4) => {
            raw[4..8].copy_from_slice(&v4.octets());
            (AF_INET, 16)
        }
        IpAddr::V6(v6) => {
            raw[8..24].copy_from_slice(&v6.octets());
            (AF_INET6, 28)
        }
    };
    raw[..2].copy_from_slice(&family.to_ne_bytes());
    raw[2..4].copy_from_slice(&address.port().to_be_bytes());
    (raw, len)
}
