//! SOCKS version 5, the client's side: what is said to the server, and what it may answer (RFC 1928; user
//! name and password, RFC 1929). `base::outgoing` carries it over a connection. The server is the
//! operator's own, but its bytes are taken like a stranger's.
//!
//! ```text
//! us: 05 count methods                     it: 05 method          00 none, 02 user name and password
//! us: 01 length name length password       it: 01 00              only with method 02
//! us: 05 01 00 type address port           it: 05 reply 00 type address port
//! ```

use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A user name and its password, 1 to 255 bytes each.
pub type Login = (Vec<u8>, Vec<u8>);

/// Why the server doesn't connect us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// For the log.
    pub what: &'static str,
    /// It is the target that can't be reached, and not the server's fault.
    pub of_target: bool,
}

/// What a server's answer to a request is so far.
#[derive(Debug, PartialEq, Eq)]
pub enum Reply {
    /// The beginning of one, which has so many bytes more.
    Needs(usize),
    /// We are connected. The address that the server does it from; None if it doesn't tell.
    Connected(Option<SocketAddr>),
}

/// The first bytes to the server: which methods there are to show who we are.
pub fn greeting(login: Option<&Login>) -> &'static [u8] {
    match login {
        None => &[VERSION, 1, NO_LOGIN],
        Some(_) => &[VERSION, 2, NO_LOGIN, LOGIN],
    }
}

/// What is to be said to the method that the server chooses: a user name and password, or nothing.
pub fn accept_method(answer: [u8; 2], login: Option<&Login>) -> Result<Option<Vec<u8>>, Refusal> {
    match (answer, login) {
        ([VERSION, NO_LOGIN], _) => Ok(None),
        ([VERSION, LOGIN], Some((name, password))) => {
            let mut out = Vec::from([LOGIN_VERSION]);
            for part in [name, password] {
                // Longer ones are refused with the flag.
                out.push(u8::try_from(part.len()).unwrap_or(u8::MAX));
                out.extend(part.iter().take(255));
            }
            Ok(Some(out))
        }
        ([VERSION, _], None) => Err(refusal("it wants a user name and password")),
        ([VERSION, _], Some(_)) => Err(refusal("it takes no user name and password")),
        _ => Err(NOT_SOCKS5),
    }
}

/// Whether the server takes the user name and password.
pub fn accept_login(answer: [u8; 2]) -> Result<(), Refusal> {
    match answer {
        [LOGIN_VERSION, 0] => Ok(()),
        _ => Err(refusal("it refuses the user name and password")),
    }
}

/// The request to connect to a target.
pub fn request(target: SocketAddr) -> Vec<u8> {
    let mut out = Vec::from([VERSION, CONNECT, 0]);
    match target.ip().to_canonical() {
        IpAddr::V4(v4) => {
            out.push(IPV4);
            out.extend(v4.octets());
        }
        IpAddr::V6(v6) => {
            out.push(IPV6);
            out.extend(v6.octets());
        }
    }
    out.extend(target.port().to_be_bytes());
    out
}

/// Reads the answer to a request. To be called with what has come, and again with as many bytes more as it
/// asks for: so nothing is read that stands behind the answer.
pub fn accept_reply(bytes: &[u8]) -> Result<Reply, Refusal> {
    let Some((&[version, code, _, kind, first], rest)) = bytes.split_first_chunk() else {
        // With the first byte of the address, which may be its length.
        return Ok(Reply::Needs(REPLY_START.saturating_sub(bytes.len())));
    };
    if version != VERSION {
        return Err(NOT_SOCKS5);
    }
    if code != 0 {
        return Err(refused(code));
    }
    let len: usize = match kind {
        IPV4 => 3,
        IPV6 => 15,
        NAME => first.into(),
        _ => return Err(NOT_SOCKS5),
    };
    match len.saturating_add(2).saturating_sub(rest.len()) {
        0 => Ok(Reply::Connected(bound(kind, first, rest))),
        needs => Ok(Reply::Needs(needs)),
    }
}

/// The address in a whole answer.
fn bound(kind: u8, first: u8, rest: &[u8]) -> Option<SocketAddr> {
    let (ip, port): (IpAddr, [u8; 2]) = match kind {
        IPV4 => {
            let (&[b, c, d], port) = rest.split_first_chunk()?;
            (Ipv4Addr::new(first, b, c, d).into(), port.try_into().ok()?)
        }
        IPV6 => {
            let (later, port) = rest.split_first_chunk::<15>()?;
            let mut octets = [first; 16];
            octets.last_chunk_mut::<15>()?.copy_from_slice(later);
            (Ipv6Addr::from(octets).into(), port.try_into().ok()?)
        }
        _ => return None,
    };
    let port = u16::from_be_bytes(port);
    let is_known = !ip.to_canonical().is_unspecified() && port > 0;
    is_known.then_some(SocketAddr::new(ip, port))
}

fn refused(code: u8) -> Refusal {
    let (of_target, what) = match code {
        1 => (false, "it fails"),
        2 => (false, "its rules forbid it"),
        3 => (true, "network unreachable from there"),
        4 => (true, "host unreachable from there"),
        5 => (true, "connection refused"),
        6 => (true, "no answer in time"),
        8 => (true, "it takes no addresses of this family"),
        _ => (false, "it can't connect"),
    };
    Refusal { what, of_target }
}

const fn refusal(what: &'static str) -> Refusal {
    let of_target = false;
    Refusal { what, of_target }
}

const NOT_SOCKS5: Refusal = refusal("it doesn't speak SOCKS5");
const VERSION: u8 = 5;
const NO_LOGIN: u8 = 0;
const LOGIN: u8 = 2;
const LOGIN_VERSION: u8 = 1;
const CONNECT: u8 = 1;
const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;
const REPLY_START: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn what_is_said() {
        let login = (b"me".to_vec(), b"pw".to_vec());
        assert_eq!(greeting(None), [5, 1, 0]);
        assert_eq!(greeting(Some(&login)), [5, 2, 0, 2]);
        assert_eq!(accept_method([5, 0], None), Ok(None));
        assert_eq!(accept_method([5, 0], Some(&login)), Ok(None));
        let said = accept_method([5, 2], Some(&login)).unwrap().unwrap();
        assert_eq!(said, b"\x01\x02me\x02pw");
        for (answer, login) in [
            ([5, 2], None),
            ([5, 0xff], None),
            ([5, 0xff], Some(&login)),
            ([5, 1], Some(&login)),
            ([4, 0], None),
            (*b"HT", None),
        ] {
            assert!(accept_method(answer, login).is_err(), "{answer:?}");
        }
        assert_eq!(accept_login([1, 0]), Ok(()));
        for answer in [[1, 1], [5, 0], [0, 0]] {
            assert!(accept_login(answer).is_err(), "{answer:?}");
        }
        let v4 = [5, 1, 0, 1, 192, 0, 2, 7, 1, 0xbb];
        assert_eq!(request(at("192.0.2.7:443")), v4);
        assert_eq!(request(at("[::ffff:192.0.2.7]:443")), v4);
        let v6 = request(at("[2001:db8::1]:443"));
        assert_eq!(v6[..8], [5, 1, 0, 4, 0x20, 1, 0x0d, 0xb8]);
        assert_eq!((v6.len(), v6[19], v6[21]), (22, 1, 0xbb));
    }

    /// As a connection gives it, in pieces of `step` bytes at most.
    fn fed(bytes: &[u8], step: usize) -> (Result<Reply, Refusal>, usize) {
        let mut len = 0;
        loop {
            match accept_reply(&bytes[..len]) {
                Ok(Reply::Needs(more)) if len + more <= bytes.len() => len += more.min(step),
                result => return (result, len),
            }
        }
    }

    #[test]
    fn replies() {
        let v6 = [
            &[5, 0, 0, 4, 0x20, 1, 0x0d, 0xb8][..],
            &[0; 11],
            &[1, 0x12, 0x34],
        ]
        .concat();
        for (reply, bound) in [
            (
                &[5, 0, 0, 1, 192, 0, 2, 7, 0x12, 0x34][..],
                Some("192.0.2.7:4660"),
            ),
            (&v6, Some("[2001:db8::1]:4660")),
            (b"\x05\0\0\x03\x01a\x12\x34", None),
            (b"\x05\0\0\x03\0\x12\x34", None),
            (&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0], None),
            (&[5, 0, 0, 1, 0, 0, 0, 0, 0x12, 0x34], None),
            (&[5, 0, 0, 1, 192, 0, 2, 7, 0, 0], None),
        ] {
            let stream = [reply, b"and more"].concat();
            for step in [1, 3, usize::MAX] {
                let wanted = Ok(Reply::Connected(bound.map(at)));
                assert_eq!(fed(&stream, step), (wanted, reply.len()));
            }
            for cut in 0..reply.len() {
                let (found, _) = fed(&reply[..cut], 1);
                assert!(matches!(found, Ok(Reply::Needs(1..))), "{cut} of {reply:?}");
            }
        }
        for (code, of_target) in [
            (1, false),
            (2, false),
            (3, true),
            (4, true),
            (5, true),
            (6, true),
            (7, false),
            (8, true),
            (9, false),
            (255, false),
        ] {
            let found = accept_reply(&[5, code, 0, 1, 0, 0, 0, 0, 0, 0]);
            assert_eq!(found.unwrap_err().of_target, of_target, "{code}");
        }
        for wrong in [[4, 0, 0, 1, 0], [5, 0, 0, 2, 0], *b"HTTP/"] {
            assert_eq!(accept_reply(&wrong), Err(NOT_SOCKS5));
        }
    }
}
