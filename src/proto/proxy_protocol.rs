//! The PROXY protocol, version 2: tells the mask site whose connection it gets. Source: HAProxy's "The
//! PROXY protocol", section 2.2. The addresses are the sockets' own.

use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};

/// The header for a connection that `client` made to `ours`: 28 bytes with IPv4, 52 with IPv6. A
/// v4-mapped address counts as IPv4; if only one end is IPv4, both go as IPv6.
pub fn v2_header(client: SocketAddr, ours: SocketAddr) -> Vec<u8> {
    let mut out = Vec::from(SIGNATURE);
    match (client.ip().to_canonical(), ours.ip().to_canonical()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            out.extend([PROXY, TCP_OVER_IPV4, 0, 12]);
            out.extend(from.octets().into_iter().chain(to.octets()));
        }
        (from, to) => {
            out.extend([PROXY, TCP_OVER_IPV6, 0, 36]);
            out.extend(as_v6(from).into_iter().chain(as_v6(to)));
        }
    }
    out.extend(client.port().to_be_bytes());
    out.extend(ours.port().to_be_bytes());
    out
}

/// The bytes after such a header; all of them if they don't begin with one. They may be a stranger's.
pub fn behind_header(bytes: &[u8]) -> &[u8] {
    let behind = || {
        let (&[_, _, high, low], rest) = bytes.strip_prefix(&SIGNATURE)?.split_first_chunk()?;
        rest.get(usize::from(u16::from_be_bytes([high, low]))..)
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
            let header = v2_header(client, client);
            let whole = [&header[..], b"hello"].concat();
            assert_eq!(behind_header(&whole), b"hello");
            for cut in 0..header.len() {
                assert_eq!(behind_header(&whole[..cut]), &whole[..cut]);
            }
        }
        assert_eq!(behind_header(b"hello"), b"hello");
    }

    fn header(client: &str, ours: &str) -> Vec<u8> {
        v2_header(client.parse().unwrap(), ours.parse().unwrap())
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
        assert_eq!(expected.len(), 52);
        let both = header("[2001:db8::1]:80", "[2001:db8::2]:443");
        assert_eq!(both[16..32], expected[16..32]);
        assert_eq!((both[32], both[47], both.len()), (0x20, 2, 52));
    }
}
