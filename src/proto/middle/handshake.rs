//! How a middle-proxy connection is opened (protocol.md 6.2 to 6.4): nonces in clear, then a handshake
//! encrypted with the derived keys. These are the payloads of the frames -2 and -1 of each direction.
//!
//! Called while a connection is dialled. The nonce may come from whatever listens at a middle proxy's
//! address, the handshake from whoever knows the proxy-secret.

use core::net::{IpAddr, SocketAddr};
use core::ops::Range;

use crate::crypto::dh;
use crate::limits::MAX_CLOCK_SKEW;
use crate::proto::wire::{Reader, Writer};

const NONCE: u32 = 0x7acb_87aa;
const HANDSHAKE: u32 = 0x7682_eef5;
const HANDSHAKE_ERROR: u32 = 0x6a27_beda;
/// AES without extra keys: what the proxy offers, unless Diffie-Hellman is asked for.
const SCHEMA_AES: u32 = 1;
/// AES with a list of further selectors.
const SCHEMA_AES_EXTRA: u32 = 2;
const MAX_EXTRA_KEYS: u32 = 8;
const FLAG_CRC32C: u32 = 0x800;
const REQUIRED_FLAGS: u32 = 0xff;

/// AES with a list of further selectors and a Diffie-Hellman value.
const SCHEMA_AES_DH: u32 = 3;

/// Bytes of our nonce payload and of our handshake payload.
pub const PAYLOAD_LEN: usize = 32;
/// Bytes of a nonce payload with Diffie-Hellman: also a count of selectors, the group and a public value.
pub const DH_PAYLOAD_LEN: usize = PAYLOAD_LEN + 8 + dh::LEN;

/// Why a middle proxy's nonce or handshake is not accepted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// Not the expected type.
    Type,
    /// Not the expected length.
    Malformed,
    /// It does not know our proxy-secret.
    Selector,
    /// It does not encrypt, or wants what was not offered.
    Schema,
    /// Its clock and ours differ by more than 30 s.
    Clock,
    /// It refused our handshake and said so.
    Refused,
    /// Its handshake names another process than ours.
    Peer,
    /// Its handshake asks for flags that we don't know.
    Flags,
    /// Its Diffie-Hellman value is of another group, or not acceptable.
    Dh,
}

impl Refusal {
    /// The code that tells the middle proxy why; None where the connection is only closed.
    pub fn code(self) -> Option<i32> {
        match self {
            Refusal::Malformed => Some(-3),
            Refusal::Peer => Some(-4),
            Refusal::Flags => Some(-7),
            _ => None,
        }
    }

    /// One word for the log.
    pub fn word(self) -> &'static str {
        match self {
            Refusal::Type => "type",
            Refusal::Malformed => "malformed",
            Refusal::Selector => "selector",
            Refusal::Schema => "schema",
            Refusal::Clock => "clock",
            Refusal::Refused => "refused",
            Refusal::Peer => "peer",
            Refusal::Flags => "flags",
            Refusal::Dh => "dh",
        }
    }
}

/// Our first payload: the key's selector, unix seconds and 16 random bytes.
pub fn nonce(selector: [u8; 4], now: u32, nonce: &[u8; 16]) -> [u8; PAYLOAD_LEN] {
    let mut out = [0; PAYLOAD_LEN];
    Writer::new(&mut out)
        .u32(NONCE)
        .put(&selector)
        .u32(SCHEMA_AES)
        .u32(now)
        .put(nonce);
    out
}

/// The same with our public value of Diffie-Hellman.
pub fn nonce_with_dh(nonce: &[u8; PAYLOAD_LEN], public: &[u8; dh::LEN]) -> [u8; DH_PAYLOAD_LEN] {
    let mut out = [0; DH_PAYLOAD_LEN];
    Writer::new(&mut out)
        .put(nonce)
        .u32(0)
        .u32(dh::GROUP)
        .put(public);
    if let Some(schema) = out.get_mut(SCHEMA) {
        schema.copy_from_slice(&SCHEMA_AES_DH.to_le_bytes());
    }
    out
}

/// Checks the answer to a nonce with Diffie-Hellman; returns the nonce that is in it, and the public value.
/// Answers of other schemas are refused.
pub fn accept_nonce_with_dh(
    payload: &[u8],
    selector: [u8; 4],
    now: u32,
) -> Result<([u8; 16], &[u8; dh::LEN]), Refusal> {
    let (rest, public) = payload.split_last_chunk().ok_or(Refusal::Schema)?;
    let (rest, group) = rest.split_last_chunk().ok_or(Refusal::Schema)?;
    // Without these two it is an answer of schema 2.
    let mut answer = rest.to_vec();
    let schema = answer.get_mut(SCHEMA).ok_or(Refusal::Schema)?;
    if *schema != SCHEMA_AES_DH.to_le_bytes() {
        return Err(Refusal::Schema);
    }
    schema.copy_from_slice(&SCHEMA_AES_EXTRA.to_le_bytes());
    let nonce = accept_nonce(&answer, selector, now)?;
    match u32::from_le_bytes(*group) {
        dh::GROUP => Ok((nonce, public)),
        _ => Err(Refusal::Dh),
    }
}

/// Where a nonce payload names the schema.
const SCHEMA: Range<usize> = 8..12;

/// What a middle proxy's clock shows, by its answer to a nonce; unix seconds.
pub fn stated_time(payload: &[u8]) -> Option<u32> {
    let mut r = Reader::new(payload);
    let (kind, _selector, _schema) = (r.u32()?, r.u32()?, r.u32()?);
    r.u32().filter(|_| kind == NONCE)
}

/// Checks the middle proxy's payload and returns its nonce.
pub fn accept_nonce(payload: &[u8], selector: [u8; 4], now: u32) -> Result<[u8; 16], Refusal> {
    let mut r = Reader::new(payload);
    let (kind, main) = (r.u32(), r.array::<4>());
    let (schema, time, nonce) = (r.u32(), r.u32(), r.array::<16>());
    let (Some(NONCE), Some(main), Some(schema), Some(time), Some(nonce)) =
        (kind, main, schema, time, nonce)
    else {
        return Err(Refusal::Malformed);
    };
    let known = match schema {
        SCHEMA_AES if r.rest().is_empty() => main == selector,
        SCHEMA_AES => return Err(Refusal::Malformed),
        SCHEMA_AES_EXTRA => extra_keys(r)?.contains(&selector) || main == selector,
        _ => return Err(Refusal::Schema),
    };
    if !known {
        return Err(Refusal::Selector);
    }
    if time.abs_diff(now) > MAX_CLOCK_SKEW {
        return Err(Refusal::Clock);
    }
    Ok(nonce)
}

/// The selectors after a nonce of schema 2: a count and as many words.
fn extra_keys(mut r: Reader<'_>) -> Result<&[[u8; 4]], Refusal> {
    let count = r
        .u32()
        .filter(|n| *n <= MAX_EXTRA_KEYS)
        .ok_or(Refusal::Malformed)?;
    let (keys, odd) = r.rest().as_chunks::<4>();
    if keys.len() != count as usize || !odd.is_empty() {
        return Err(Refusal::Malformed);
    }
    Ok(keys)
}

/// Names a process in the handshake. Zero fields are wildcards.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ProcessId {
    /// IPv4 address as a number; 0 for IPv6 and for 127.0.0.1.
    pub ip: u32,
    /// Port.
    pub port: u16,
    /// The low 16 bits of the process id.
    pub pid: u16,
    /// Start time, unix seconds.
    pub time: u32,
}

impl ProcessId {
    /// A process of which only the address is known.
    pub fn of_peer(address: SocketAddr) -> ProcessId {
        let ip = match address.ip().to_canonical() {
            IpAddr::V4(v4) if !v4.is_loopback() => v4.to_bits(),
            _ => 0,
        };
        ProcessId {
            ip,
            port: address.port(),
            pid: 0,
            time: 0,
        }
    }

    /// The form on the wire.
    fn encode(self, w: &mut Writer) {
        w.u32(self.ip)
            .put(&self.port.to_le_bytes())
            .put(&self.pid.to_le_bytes())
            .u32(self.time);
    }

    fn decode(r: &mut Reader) -> Option<ProcessId> {
        let ip = r.u32()?;
        let port = u16::from_le_bytes(r.array()?);
        let pid = u16::from_le_bytes(r.array()?);
        Some(ProcessId {
            ip,
            port,
            pid,
            time: r.u32()?,
        })
    }

    /// Whether this, as a peer wrote it, names `other`.
    fn matches(self, other: ProcessId) -> bool {
        let same = |mine: u32, theirs: u32| mine == 0 || mine == theirs;
        same(self.ip, other.ip)
            && same(self.port.into(), other.port.into())
            && same(self.pid.into(), other.pid.into())
            && same(self.time, other.time)
    }
}

/// Our second payload; it offers CRC-32C.
pub fn handshake(us: ProcessId, peer: ProcessId) -> [u8; PAYLOAD_LEN] {
    let mut out = [0; PAYLOAD_LEN];
    let mut w = Writer::new(&mut out);
    us.encode(w.u32(HANDSHAKE).u32(FLAG_CRC32C));
    peer.encode(&mut w);
    out
}

/// Checks the middle proxy's handshake; true if both sides use CRC-32C from now on.
pub fn accept_handshake(payload: &[u8], us: ProcessId) -> Result<bool, Refusal> {
    let mut r = Reader::new(payload);
    match r.u32() {
        Some(HANDSHAKE) => {}
        Some(HANDSHAKE_ERROR) => return Err(Refusal::Refused),
        _ => return Err(Refusal::Type),
    }
    let (flags, _sender, peer) = (
        r.u32(),
        ProcessId::decode(&mut r),
        ProcessId::decode(&mut r),
    );
    let (Some(flags), Some(peer), true) = (flags, peer, r.rest().is_empty()) else {
        return Err(Refusal::Malformed);
    };
    if !peer.matches(us) {
        return Err(Refusal::Peer);
    }
    if flags & REQUIRED_FLAGS != 0 {
        return Err(Refusal::Flags);
    }
    Ok(flags & FLAG_CRC32C != 0)
}

/// Tells a middle proxy that its handshake is not accepted ([`Refusal::code`]).
pub fn handshake_error(code: i32, us: ProcessId) -> [u8; 20] {
    let mut out = [0; 20];
    us.encode(Writer::new(&mut out).u32(HANDSHAKE_ERROR).u32(code as u32));
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vectors::Vectors;
    use alloc::vec::Vec;

    const US: ProcessId = ProcessId {
        ip: 0xcb00_7107,
        port: 0,
        pid: 0x1092,
        time: 0x68e7_50f0,
    };

    #[test]
    fn transcript() {
        let v = Vectors::load("rpc_transcript");
        let ours = v.bytes("steps.0.payload");
        let selector = ours[4..8].try_into().unwrap();
        let now = u32::from_le_bytes(ours[12..16].try_into().unwrap());
        assert_eq!(
            nonce(selector, now, ours[16..].try_into().unwrap()).to_vec(),
            ours
        );
        let theirs = v.bytes("steps.1.payload");
        assert_eq!(
            accept_nonce(&theirs, selector, now).unwrap().to_vec(),
            theirs[16..]
        );

        let mut r = Reader::new(&[]);
        assert_eq!(ProcessId::decode(&mut r), None);
        let pid = v.bytes("client_pid");
        let us = ProcessId::decode(&mut Reader::new(&pid)).unwrap();
        let peer = ProcessId::of_peer(v.text("server").parse().unwrap());
        assert_eq!(handshake(us, peer).to_vec(), v.bytes("steps.2.payloads.0"));
        assert_eq!(
            accept_handshake(&v.bytes("steps.3.payloads.0"), us),
            Ok(true)
        );
        // The vector is a whole frame.
        let error = v.bytes("rpc_handshake_error");
        let code = Refusal::Peer.code().unwrap();
        assert_eq!(
            handshake_error(code, us).to_vec(),
            error[8..error.len() - 4]
        );
    }

    fn reply(schema: u32, time: u32, extra: &[u8]) -> Vec<u8> {
        let mut p = nonce(*b"abcd", time, &[5; 16]).to_vec();
        p[8..12].copy_from_slice(&schema.to_le_bytes());
        p.extend(extra);
        p
    }

    #[test]
    fn nonce_edges() {
        let check = |p: &[u8]| accept_nonce(p, *b"abcd", 1000);
        assert_eq!(check(&reply(1, 1030, &[])), Ok([5; 16]));
        assert_eq!(stated_time(&reply(1, 1030, &[])), Some(1030));
        assert_eq!(stated_time(&reply(1, 1030, &[])[..15]), None);
        assert_eq!(check(&reply(1, 970, &[])), Ok([5; 16]));
        assert_eq!(check(&reply(1, 1031, &[])), Err(Refusal::Clock));
        assert_eq!(check(&reply(1, 969, &[])), Err(Refusal::Clock));
        assert_eq!(check(&reply(0, 1000, &[])), Err(Refusal::Schema));
        assert_eq!(check(&reply(3, 1000, &[])), Err(Refusal::Schema));
        assert_eq!(check(&reply(1, 1000, &[0; 4])), Err(Refusal::Malformed));
        assert_eq!(check(&reply(1, 1000, &[])[..28]), Err(Refusal::Malformed));
        assert_eq!(
            accept_nonce(&reply(1, 1000, &[]), *b"abce", 1000),
            Err(Refusal::Selector)
        );
    }

    #[test]
    fn nonce_with_extra_keys() {
        let check = |extra: &[u8]| accept_nonce(&reply(2, 1000, extra), *b"wxyz", 1000);
        assert_eq!(check(b"\x02\0\0\0abcdwxyz"), Ok([5; 16]));
        assert_eq!(check(b"\x01\0\0\0abcd"), Err(Refusal::Selector));
        assert_eq!(check(b"\x02\0\0\0abcd"), Err(Refusal::Malformed));
        assert_eq!(check(b"\x01\0\0\0abcde"), Err(Refusal::Malformed));
        assert_eq!(
            check(&[[9, 0, 0, 0].to_vec(), std::vec![0; 36]].concat()),
            Err(Refusal::Malformed)
        );
    }

    #[test]
    fn nonce_with_dh() {
        let public = [7; dh::LEN];
        let ours = super::nonce_with_dh(&nonce(*b"abcd", 1000, &[5; 16]), &public);
        let parts = [&reply(3, 1000, &[0; 4])[..], b"\x93\x0b\x62\0", &public];
        assert_eq!(ours.to_vec(), parts.concat());

        let check = |p: &[u8]| accept_nonce_with_dh(p, *b"abcd", 1000).map(|(nonce, _)| nonce);
        let (accepted, theirs) = accept_nonce_with_dh(&ours, *b"abcd", 1000).unwrap();
        assert_eq!((accepted, theirs), ([5; 16], &public));
        // A middle proxy may list selectors, too.
        let listed = [&reply(3, 1000, b"\x01\0\0\0wxyz")[..], &ours[36..]].concat();
        assert_eq!(check(&listed), Ok([5; 16]));
        assert_eq!(
            accept_nonce_with_dh(&listed, *b"wxyz", 1000).unwrap().0,
            [5; 16]
        );
        let with = |at: usize, byte: u8| {
            let mut payload = ours;
            payload[at] = byte;
            check(&payload)
        };
        for (at, byte, wanted) in [
            (0, 0, Refusal::Malformed),
            (4, 0, Refusal::Selector),
            (8, 1, Refusal::Schema),
            (8, 2, Refusal::Schema),
            (12, 0, Refusal::Clock),
            (32, 1, Refusal::Malformed),
            (36, 0, Refusal::Dh),
            (39, 1, Refusal::Dh),
        ] {
            assert_eq!(with(at, byte), Err(wanted), "{at}");
        }
        // Any other answer, whole or cut off.
        for len in (0..ours.len()).chain([ours.len() + 4]) {
            let mut payload = ours.to_vec();
            payload.resize(len, 0);
            assert!(check(&payload).is_err(), "{len}");
        }
        assert_eq!(check(&reply(1, 1000, &[])), Err(Refusal::Schema));
        // One with Diffie-Hellman that was not asked for.
        assert_eq!(accept_nonce(&ours, *b"abcd", 1000), Err(Refusal::Schema));
    }

    #[test]
    fn handshake_edges() {
        let answer = |flags: u32, peer: ProcessId, cut: usize| {
            let mut p = handshake(ProcessId::default(), peer).to_vec();
            p[4..8].copy_from_slice(&flags.to_le_bytes());
            p.truncate(cut);
            accept_handshake(&p, US)
        };
        assert_eq!(answer(0, US, 32), Ok(false));
        assert_eq!(answer(0x800, US, 32), Ok(true));
        assert_eq!(answer(0, ProcessId::default(), 32), Ok(false));
        assert_eq!(
            answer(0, ProcessId { pid: 1, ..US }, 32),
            Err(Refusal::Peer)
        );
        assert_eq!(answer(0, ProcessId { ip: 1, ..US }, 32), Err(Refusal::Peer));
        assert_eq!(answer(0x80, US, 32), Err(Refusal::Flags));
        assert_eq!(answer(0, US, 28), Err(Refusal::Malformed));
        assert_eq!(accept_handshake(&[0; 32], US), Err(Refusal::Type));
        assert_eq!(
            accept_handshake(&handshake_error(-3, US), US),
            Err(Refusal::Refused)
        );
    }

    #[test]
    fn a_local_peer_has_no_address() {
        assert_eq!(ProcessId::of_peer("127.0.0.1:8888".parse().unwrap()).ip, 0);
        assert_eq!(
            ProcessId::of_peer("[2001:db8::1]:8888".parse().unwrap()).ip,
            0
        );
        assert_eq!(
            ProcessId::of_peer("192.0.2.1:8888".parse().unwrap()).ip,
            0xc000_0201
        );
    }
}
