//! The PROXY protocol: a header in front of a connection that says whose it is. Version 2 tells the mask
//! site who its visitor is; versions 1 and 2 tell us, from a load balancer in front. What is parsed is a
//! stranger's, unless its connection comes from such a front. Source: HAProxy's "The PROXY protocol",
//! section 2.
//!
//! ```text
//! version 1: "PROXY" ("TCP4" | "TCP6") source destination source-port destination-port CR LF
//!            "PROXY UNKNOWN" anything CR LF
//! version 2: 12 bytes signature, 1 version and command, 1 family and transport, 2 length of the rest:
//!            addresses, then TLVs (1 type, 2 length, value)
//! ```

use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::wire::decimal;
use crate::crypto::crc32::PORTABLE;
use crate::limits::MAX_PROXY_HEADER;

/// What the first bytes of a connection are.
#[derive(Debug, PartialEq, Eq)]
pub enum Header {
    /// The beginning of a header, which has at least so many bytes more.
    Needs(usize),
    /// A header and nothing behind it. None: it doesn't say where the connection comes from, because the
    /// front made it itself (LOCAL, a check of its own) or doesn't know.
    From(Option<SocketAddr>),
    /// No header, or a malformed one, or one of something else than a TCP or unix stream.
    Malformed,
}

/// Reads a header of either version. To be called with what has come, and again with as many bytes more
/// as it asks for: so nothing is read that stands behind the header.
pub fn parse(bytes: &[u8]) -> Header {
    let parsed = match bytes.first() {
        None => return Header::Needs(SHORTEST),
        Some(b'P') => parse_v1(bytes),
        Some(_) => parse_v2(bytes),
    };
    parsed.unwrap_or(Header::Malformed)
}

/// Whether bytes begin with a header of either version: its number, as far as can be seen.
pub fn version(bytes: &[u8]) -> Option<u8> {
    match bytes {
        _ if bytes.starts_with(b"PROXY ") => Some(1),
        _ if bytes.starts_with(&SIGNATURE) => Some(2),
        _ => None,
    }
}

/// None: malformed.
fn parse_v1(bytes: &[u8]) -> Option<Header> {
    let known = bytes.len().min(V1_START.len());
    if bytes.get(..known) != V1_START.get(..known) {
        return None;
    }
    let Some(line) = bytes.strip_suffix(b"\r\n") else {
        let needs = match bytes.last() {
            Some(b'\r') => 1,
            _ => 2,
        };
        // At first what the shortest header has.
        let needs = SHORTEST.saturating_sub(bytes.len()).max(needs);
        let fits = bytes.len().saturating_add(needs) <= V1_LONGEST;
        return fits.then_some(Header::Needs(needs));
    };
    let text = core::str::from_utf8(line.strip_prefix(V1_START)?).ok()?;
    let mut words = text.split(' ');
    let family = words.next()?;
    if family == "UNKNOWN" {
        return Some(Header::From(None));
    }
    let (from, to): (IpAddr, IpAddr) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let mut port = || decimal::<u16>(words.next()?.as_bytes());
    let (from_port, _) = (port()?, port()?);
    let fits = match family {
        "TCP4" => from.is_ipv4() && to.is_ipv4(),
        "TCP6" => from.is_ipv6() && to.is_ipv6(),
        _ => false,
    };
    let whole = fits && words.next().is_none();
    whole.then_some(Header::From(Some(SocketAddr::new(from, from_port))))
}

/// None: malformed.
fn parse_v2(bytes: &[u8]) -> Option<Header> {
    let known = bytes.len().min(SIGNATURE.len());
    if bytes.get(..known) != SIGNATURE.get(..known) {
        return None;
    }
    let Some((&[command, family, high, low], rest)) = bytes
        .get(SIGNATURE.len()..)
        .and_then(|rest| rest.split_first_chunk())
    else {
        return Some(Header::Needs(V2_START.saturating_sub(bytes.len())));
    };
    let len = usize::from(u16::from_be_bytes([high, low]));
    if len > MAX_PROXY_HEADER.saturating_sub(V2_START) || !matches!(command, LOCAL | PROXY) {
        return None;
    }
    match len.checked_sub(rest.len())? {
        0 => {}
        needs => return Some(Header::Needs(needs)),
    }
    // The rest of a LOCAL one is to be skipped whatever it is.
    if command == LOCAL {
        return Some(Header::From(None));
    }
    let (from, tlvs) = addresses(family, rest)?;
    tlvs_are_right(bytes, tlvs)?;
    Some(Header::From(from))
}

/// Where a connection comes from, and what stands behind the addresses.
fn addresses(family: u8, rest: &[u8]) -> Option<(Option<SocketAddr>, &[u8])> {
    match family {
        UNSPECIFIED => Some((None, rest)),
        TCP_OVER_IPV4 => {
            let (all, tlvs) = rest.split_first_chunk::<12>()?;
            let [a, b, c, d, _, _, _, _, high, low, ..] = *all;
            let port = u16::from_be_bytes([high, low]);
            let from = SocketAddr::from((Ipv4Addr::new(a, b, c, d), port));
            Some((Some(from), tlvs))
        }
        TCP_OVER_IPV6 => {
            let (from, rest) = rest.split_first_chunk::<16>()?;
            let (_to, rest) = rest.split_first_chunk::<16>()?;
            let (&[high, low, _, _], tlvs) = rest.split_first_chunk()?;
            let port = u16::from_be_bytes([high, low]);
            Some((Some(SocketAddr::from((Ipv6Addr::from(*from), port))), tlvs))
        }
        UNIX_STREAM => Some((None, rest.get(2 * 108..)?)),
        _ => None,
    }
}

/// Whether the TLVs of a whole header fill their place, and a checksum among them is right.
fn tlvs_are_right(header: &[u8], mut tlvs: &[u8]) -> Option<()> {
    while !tlvs.is_empty() {
        let (&[kind, high, low], rest) = tlvs.split_first_chunk()?;
        let (value, behind) = rest.split_at_checked(u16::from_be_bytes([high, low]).into())?;
        if kind == CRC32C {
            let sum = u32::from_be_bytes(value.try_into().ok()?);
            // It is that of the header with zeros in its own place.
            let mut header = header.to_vec();
            let place = header.len().checked_sub(rest.len())?;
            header.get_mut(place..)?.first_chunk_mut::<4>()?.fill(0);
            if (PORTABLE.crc32c)(&header) != sum {
                return None;
            }
        }
        tlvs = behind;
    }
    Some(())
}

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

const V1_START: &[u8] = b"PROXY ";
/// `PROXY UNKNOWN` and the line's end; version 2 has more.
const SHORTEST: usize = 15;
/// With its line's end.
const V1_LONGEST: usize = 107;

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// With command, family and length.
const V2_START: usize = 16;
/// Version 2, command LOCAL.
const LOCAL: u8 = 0x20;
/// Version 2, command PROXY.
const PROXY: u8 = 0x21;
const UNSPECIFIED: u8 = 0;
const TCP_OVER_IPV4: u8 = 0x11;
const TCP_OVER_IPV6: u8 = 0x21;
const UNIX_STREAM: u8 = 0x31;
/// The TLV that is a checksum.
const CRC32C: u8 = 3;

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

    /// As a connection gives it, in pieces of `step` bytes at most.
    fn fed(bytes: &[u8], step: usize) -> (Header, usize) {
        let mut len = 0;
        loop {
            match parse(&bytes[..len]) {
                Header::Needs(more) => {
                    assert!(more > 0);
                    if len + more > bytes.len() {
                        return (Header::Needs(more), len);
                    }
                    len += more.min(step);
                }
                whole => return (whole, len),
            }
        }
    }

    /// The same result whole and in small pieces, and nothing taken that stands behind it.
    fn assert_parsed(header: &[u8], wanted: Option<&str>) {
        let wanted = Header::From(wanted.map(|text| text.parse().unwrap()));
        let stream = [header, b"PROXY TCP4 or anything else\r\n"].concat();
        for step in [1, 2, 7, usize::MAX] {
            assert_eq!(fed(&stream, step), (wanted_copy(&wanted), header.len()));
        }
        for cut in 0..header.len() {
            let is_part = matches!(fed(&header[..cut], 1).0, Header::Needs(_));
            assert!(is_part, "{cut} bytes");
        }
    }

    fn wanted_copy(header: &Header) -> Header {
        match header {
            Header::From(from) => Header::From(*from),
            _ => Header::Malformed,
        }
    }

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let len = (rest.len() as u16).to_be_bytes();
        [&SIGNATURE[..], &[command, family], &len, rest].concat()
    }

    const V4: &[u8] = &[192, 0, 2, 1, 198, 51, 100, 7, 0xd4, 0x31, 1, 0xbb];

    /// Lines of the specification, section 2.1, and more of their kinds.
    #[test]
    fn version_1() {
        for (line, from) in [
            (
                "PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535",
                Some("255.255.255.255:65535"),
            ),
            (
                "PROXY TCP6 ffff:f...f:ffff ffff:f...f:ffff 65535 65535",
                None,
            ),
            (
                "PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff \
                 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535",
                Some("[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535"),
            ),
            (
                "PROXY TCP4 192.168.0.1 192.168.0.11 56324 443",
                Some("192.168.0.1:56324"),
            ),
            ("PROXY TCP6 ::1 ::2 0 443", Some("[::1]:0")),
        ] {
            let bytes = [line.as_bytes(), b"\r\n"].concat();
            match from {
                Some(_) => assert_parsed(&bytes, from),
                None => assert_eq!(fed(&bytes, 1).0, Header::Malformed),
            }
        }
        for line in [
            "PROXY UNKNOWN",
            "PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535",
            // The worst case, 107 bytes with the line's end.
            "PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff \
             ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535",
        ] {
            assert_parsed(&[line.as_bytes(), b"\r\n"].concat(), None);
        }
        for line in [
            "PROXY TCP4 192.168.0.1 192.168.0.11 56324",
            "PROXY TCP4 192.168.0.1 192.168.0.11 56324 443 ",
            "PROXY TCP4 192.168.0.1 192.168.0.11 56324 443 1",
            "PROXY TCP4  192.168.0.1 192.168.0.11 56324 443",
            "PROXY TCP4 192.168.0.1 192.168.0.11 65536 443",
            "PROXY TCP4 192.168.0.1 192.168.0.11 +1 443",
            "PROXY TCP4 ::1 ::1 1 443",
            "PROXY TCP4 ::1 192.168.0.1 1 443",
            "PROXY TCP6 192.168.0.1 192.168.0.11 1 443",
            "PROXY UDP4 192.168.0.1 192.168.0.11 1 443",
            "PROXY 12345678901",
            "proxy TCP4 192.168.0.1 192.168.0.11 1 443",
            "PROXY TCP4\n192.168.0.1 192.168.0.11 1 443",
            "PROXY \u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}",
        ] {
            let bytes = [line.as_bytes(), b"\r\n"].concat();
            assert_eq!(fed(&bytes, 1).0, Header::Malformed, "{line}");
            assert_eq!(fed(&bytes, usize::MAX).0, Header::Malformed, "{line}");
        }
        let endless = [b"PROXY UNKNOWN ", &[b'x'; 200][..]].concat();
        let (found, taken) = fed(&endless, 1);
        assert_eq!(found, Header::Malformed);
        assert!(taken <= V1_LONGEST, "{taken}");
    }

    #[test]
    fn version_2() {
        assert_parsed(&v2(0x21, 0x11, V4), Some("192.0.2.1:54321"));
        let ends = ("[2001:db8::1]:5", "[2001:db8::2]:6");
        assert_parsed(&header(ends.0, ends.1), Some(ends.0));
        assert_parsed(&v2(0x21, 0x31, &[b'/'; 216]), None);
        assert_parsed(&v2(0x21, 0, b""), None);
        assert_parsed(&v2(0x20, 0, b""), None);
        assert_parsed(&v2(0x20, 0x11, V4), None);
        assert_parsed(&v2(0x20, 0xff, b"anything"), None);
        // Type 4 is there to be skipped.
        let padded = [V4, &[4, 0, 3, 1, 2, 3, 0xe0, 0, 0]].concat();
        assert_parsed(&v2(0x21, 0x11, &padded), Some("192.0.2.1:54321"));
        let longest = [V4, &[4, 3, 225], &[0; 993][..]].concat();
        assert_parsed(&v2(0x21, 0x11, &longest), Some("192.0.2.1:54321"));
        for wrong in [
            v2(0x22, 0x11, V4),
            v2(0x11, 0x11, V4),
            v2(0x21, 0x12, V4),
            v2(0x21, 0x22, &[0; 36]),
            v2(0x21, 0x32, &[0; 216]),
            v2(0x21, 0x41, &[0; 36]),
            v2(0x21, 0x11, &V4[..11]),
            v2(0x21, 0x21, &[0; 35]),
            v2(0x21, 0x31, &[0; 215]),
            v2(0x21, 0x11, &[V4, &[4, 0]].concat()),
            v2(0x21, 0x11, &[V4, &[4, 0, 2, 1]].concat()),
            v2(0x21, 0x11, &[0; 1009]),
            b"\r\n\r\n\0\r\nQUIT\r\x21\x11\0\x0c".to_vec(),
            b"GET / HTTP/1.1\r\n\r\n".to_vec(),
            b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03whatever".to_vec(),
        ] {
            assert_eq!(fed(&wrong, 1).0, Header::Malformed, "{wrong:?}");
            assert_eq!(fed(&wrong, usize::MAX).0, Header::Malformed, "{wrong:?}");
        }
    }

    /// The checksum was made by a bitwise CRC-32C of its own, in Python.
    #[test]
    fn the_checksum_is_checked() {
        let tlvs = |sum: u32| {
            let sum = sum.to_be_bytes();
            [V4, &[0xee, 0, 1, 9, 3, 0, 4], &sum, &[4, 0, 1, 0]].concat()
        };
        const RIGHT: u32 = 0x84aa_2a4a;
        assert_parsed(&v2(0x21, 0x11, &tlvs(RIGHT)), Some("192.0.2.1:54321"));
        for wrong in [
            v2(0x21, 0x11, &tlvs(RIGHT ^ 1)),
            v2(0x21, 0x11, &[V4, &[3, 0, 0]].concat()),
        ] {
            assert_eq!(fed(&wrong, 1).0, Header::Malformed);
        }
        // A front's own connection says nothing that could be wrong.
        assert_parsed(&v2(0x20, 0x11, &tlvs(0)), None);
    }

    #[test]
    fn a_header_is_told_from_other_bytes() {
        for (bytes, wanted) in [
            (&b"PROXY TCP4 1.2.3.4"[..], Some(1)),
            (&v2(0x21, 0x11, V4), Some(2)),
            (b"PROXY", None),
            (b"\r\n\r\n\0\r\nQUIT", None),
            (b"GET /", None),
        ] {
            assert_eq!(version(bytes), wanted);
        }
    }
}
