//! The PROXY protocol, version 2: what a web server behind us is told about whose connection it is.
//! Source: HAProxy's "The PROXY protocol", section 2.2.

use core::net::{IpAddr, SocketAddr};

use crate::proto::wire::Writer;

/// Longest header, bytes: IPv6.
pub const MAX_LEN: usize = 52;

/// The header for a connection that `client` made to `ours`, and how many of its bytes count: 28 with
/// IPv4, 52 with IPv6. A v4-mapped address counts as IPv4; if only one end is IPv4, both go as IPv6.
pub fn v2_header(client: SocketAddr, ours: SocketAddr) -> ([u8; MAX_LEN], usize) {
    let mut header = [0; MAX_LEN];
    let mut out = Writer::new(&mut header);
    out.put(&SIGNATURE).put(&[PROXY]);
    match (client.ip().to_canonical(), ours.ip().to_canonical()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            out.put(&[TCP_OVER_IPV4, 0, 12]);
            out.put(&from.octets()).put(&to.octets());
        }
        (from, to) => {
            out.put(&[TCP_OVER_IPV6, 0, 36]);
            out.put(&as_v6(from)).put(&as_v6(to));
        }
    }
    out.put(&client.port().to_be_bytes());
    out.put(&ours.port().to_be_bytes());
    let length = out.finish().unwrap_or(0);
    (header, length)
}

/// What stands behind such a header, or all of it if there is none.
pub fn behind_header(bytes: &[u8]) -> &[u8] {
    let length = |rest: &[u8]| {
        Some(usize::from(u16::from_be_bytes([
            *rest.get(2)?,
            *rest.get(3)?,
        ])))
    };
    let behind = || {
        let rest = bytes.strip_prefix(&SIGNATURE)?;
        rest.get(length(rest)?.checked_add(4)?..)
    };
    behind().unwrap_or(bytes)
}

fn as_v6(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, command PROXY.
const PROXY: u8 = 0x21;
const TCP_OVER_IPV4: u8 = 0x11;
const TCP_OVER_IPV6: u8 = 0x21;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_behind_a_header() {
        for client in ["192.0.2.1:5", "[2001:db8::1]:5"] {
            let client = client.parse().unwrap();
            let (header, len) = v2_header(client, client);
            let whole = [&header[..len], b"hello"].concat();
            assert_eq!(behind_header(&whole), b"hello");
            for cut in 0..len {
                assert_eq!(behind_header(&whole[..cut]), &whole[..cut]);
            }
        }
        assert_eq!(behind_header(b"hello"), b"hello");
    }

    fn header(client: &str, ours: &str) -> std::vec::Vec<u8> {
        let (bytes, length) = v2_header(client.parse().unwrap(), ours.parse().unwrap());
        bytes[..length].to_vec()
    }

    const START: &[u8] = b"\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a\x21";

    #[test]
    fn ipv4_and_mapped_addresses() {
        let rest = b"\x11\x00\x0c\xc0\x00\x02\x01\xc6\x33\x64\x07\xd4\x31\x01\xbb";
        let expected = [START, rest].concat();
        assert_eq!(header("192.0.2.1:54321", "198.51.100.7:443"), expected);
        let mapped = header("[::ffff:192.0.2.1]:54321", "[::ffff:198.51.100.7]:443");
        assert_eq!(mapped, expected);
    }

    #[test]
    fn ipv6_and_mixed_families() {
        let mut expected = [START, b"\x21\x00\x24\x20\x01\x0d\xb8"].concat();
        expected.extend([0; 11]);
        expected.push(1);
        expected.extend([0; 10]);
        expected.extend(b"\xff\xff\xc6\x33\x64\x07\x00\x50\x01\xbb");
        assert_eq!(header("[2001:db8::1]:80", "198.51.100.7:443"), expected);
        assert_eq!(expected.len(), MAX_LEN);
        let both = header("[2001:db8::1]:80", "[2001:db8::2]:443");
        assert_eq!(both[16..32], expected[16..32]);
        assert_eq!((both[32], both[47], both.len()), (0x20, 2, 52));
    }
}
