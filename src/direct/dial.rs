//! Connecting to a data centre: its addresses in order, within one deadline for all.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Instant;

use mtproxy::limits;

use crate::sys;

/// The first address that answers. None: none did in time.
#[inline(never)] // see `connect`
pub fn dial(addresses: &[SocketAddr], source: Option<Ipv4Addr>) -> Option<TcpStream> {
    let deadline = Instant::now() + limits::DC_CONNECT;
    for (i, address) in addresses.iter().enumerate() {
        // A silent address takes its share of the time only.
        let left = deadline.saturating_duration_since(Instant::now());
        let share = left / (addresses.len() - i) as u32;
        if share.is_zero() {
            break;
        }
        if let Ok(socket) = sys::dial(*address, source, share) {
            return prepare(&socket).ok().map(|()| socket);
        }
    }
    None
}

fn prepare(socket: &TcpStream) -> std::io::Result<()> {
    socket.set_write_timeout(None)?;
    sys::set_lifetime(socket, &sys::CLIENT_LIFETIME)
}

/// Whether the system knows where to send packets for data centres' IPv6 addresses. Sends none.
pub fn has_ipv6() -> bool {
    const SOMEWHERE: Ipv6Addr = Ipv6Addr::new(0x2001, 0x67c, 0x4e8, 0xf002, 0, 0, 0, 0xa);
    let any = (Ipv6Addr::UNSPECIFIED, 0);
    UdpSocket::bind(any)
        .and_then(|socket| socket.connect((SOMEWHERE, 443)))
        .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_refusing_address_is_passed_over() {
        let closed = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let open = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = open.local_addr().unwrap();
        let socket = dial(&[closed, address], None).unwrap();
        assert_eq!(socket.peer_addr().unwrap(), address);
        assert!(dial(&[closed], None).is_none());
        assert!(dial(&[], None).is_none());
    }
}
