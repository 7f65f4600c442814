//! How packets are framed between client and proxy (protocol.md 4): abridged ("compact" in the C
//! proxy), intermediate ("medium"), padded intermediate ("dd").
//!
//! Upwards the length comes from a stranger who holds the secret: it is checked before anything is
//! reserved for it. Downwards a packet is framed in place, in the buffer that it arrived in.

use core::ops::Range;

use crate::limits::MAX_CLIENT_PACKET;

/// How packets are told apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transport {
    /// One or four length bytes, counted in words.
    Abridged,
    /// Four length bytes.
    Intermediate,
    /// Four length bytes that count up to 15 bytes of padding too.
    PaddedIntermediate,
}

/// The length of a packet, as its sender declares it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Prefix {
    /// Bytes that the prefix itself takes.
    pub prefix_len: usize,
    /// Bytes that follow: the payload, and padding behind it. At most [`MAX_CLIENT_PACKET`].
    pub len: usize,
    /// The client wants to hear when Telegram has this packet.
    pub quick_ack: bool,
}

impl Prefix {
    /// Bytes of payload: without what can only be padding.
    pub fn payload_len(&self) -> usize {
        self.len & !3
    }
}

/// A length that closes the connection: zero, over the limit, not a multiple of four where it must
/// be, a long form where the short one is due, padding alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BadLength;

/// Room that [`Transport::frame_in_place`] needs before a payload, bytes.
pub const ROOM_BEFORE: usize = 4;
/// Room that [`Transport::frame_in_place`] needs behind a payload, bytes.
pub const ROOM_BEHIND: usize = 3;
/// Longest form of a quick ack, bytes.
pub const MAX_QUICK_ACK: usize = 40;

impl Transport {
    /// The framings.
    pub const ALL: [Transport; 3] = [
        Transport::Abridged,
        Transport::Intermediate,
        Transport::PaddedIntermediate,
    ];

    /// The tag in the obfuscated2 header.
    pub fn tag(self) -> u32 {
        match self {
            Transport::Abridged => 0xefef_efef,
            Transport::Intermediate => 0xeeee_eeee,
            Transport::PaddedIntermediate => 0xdddd_dddd,
        }
    }

    /// The transport that a tag names.
    pub fn from_tag(tag: u32) -> Option<Transport> {
        Transport::ALL.into_iter().find(|t| t.tag() == tag)
    }

    /// The framing of a stream that isn't obfuscated, by its first bytes, and how many of them say it. An
    /// obfuscated one never begins so (protocol.md 3.3).
    pub fn from_start(bytes: &[u8]) -> Option<(Transport, usize)> {
        match bytes {
            [0xef, ..] => Some((Transport::Abridged, 1)),
            [0xee, 0xee, 0xee, 0xee, ..] => Some((Transport::Intermediate, 4)),
            [0xdd, 0xdd, 0xdd, 0xdd, ..] => Some((Transport::PaddedIntermediate, 4)),
            _ => None,
        }
    }

    /// Reads the prefix of a client's packet. None: more bytes are needed.
    pub fn decode_prefix(self, bytes: &[u8]) -> Result<Option<Prefix>, BadLength> {
        let prefix = match self {
            Transport::Abridged => abridged_prefix(bytes)?,
            _ => bytes
                .first_chunk()
                .map(|b| intermediate_prefix(u32::from_le_bytes(*b))),
        };
        let Some(prefix) = prefix else {
            return Ok(None);
        };
        let whole_words = self == Transport::PaddedIntermediate || prefix.len % 4 == 0;
        if !whole_words || prefix.payload_len() == 0 || prefix.len > MAX_CLIENT_PACKET {
            return Err(BadLength);
        }
        Ok(Some(prefix))
    }

    /// Frames a packet for the client in the buffer where it lies, and says where the framed packet
    /// is. `payload` must be a multiple of 4 long, below 2^26, with [`ROOM_BEFORE`] and
    /// [`ROOM_BEHIND`] around it, else None. `random` chooses the padding: 0..3 bytes.
    pub fn frame_in_place(
        self,
        buf: &mut [u8],
        payload: Range<usize>,
        random: u32,
    ) -> Option<Range<usize>> {
        let len = u32::try_from(payload.end.checked_sub(payload.start)?).ok()?;
        if len % 4 != 0 || len >= 1 << 26 {
            return None;
        }
        let (padding, [_, r0, r1, r2]) = match self {
            Transport::PaddedIntermediate => ((random & 3) as usize, random.to_le_bytes()),
            _ => (0, [0; 4]),
        };
        let end = payload.end.checked_add(padding)?;
        buf.get_mut(payload.end..end)?
            .copy_from_slice([r0, r1, r2].get(..padding)?);
        let short = self == Transport::Abridged && len <= 0x7e * 4;
        let word = match self {
            Transport::Abridged if short => len >> 2 << 24,
            Transport::Abridged => len << 6 | 0x7f,
            _ => len.checked_add(padding as u32)?,
        };
        let before = payload.start.checked_sub(ROOM_BEFORE)?;
        if short {
            // The byte before the payload is the prefix; what is further ahead isn't ours.
            *buf.get_mut(payload.start.checked_sub(1)?)? = (word >> 24) as u8;
            return Some(payload.start.checked_sub(1)?..end);
        }
        buf.get_mut(before..payload.start)?
            .copy_from_slice(&word.to_le_bytes());
        Some(before..end)
    }

    /// Writes a quick ack to the front of `out` and returns its length. `confirm` has bit 31 set.
    /// In the padded transport `random` chooses between both forms (protocol.md 4.3).
    pub fn quick_ack(self, confirm: u32, random: u32, out: &mut [u8; MAX_QUICK_ACK]) -> usize {
        match self {
            Transport::Abridged => fill(out, 0, &confirm.to_be_bytes()),
            Transport::PaddedIntermediate if random & 1 == 1 => {
                let at = padded_code(out, 0, &[u32::MAX, confirm], random >> 1);
                padded_code(out, at, &[0], random >> 4)
            }
            _ => fill(out, 0, &confirm.to_le_bytes()),
        }
    }
}

/// A padded frame of a few words, with one more random word half of the time and 0..3 bytes behind.
fn padded_code(out: &mut [u8; MAX_QUICK_ACK], at: usize, words: &[u32], random: u32) -> usize {
    let extra = if random & 4 == 4 { 4 } else { 0 };
    let padding = (random & 3).saturating_add(extra);
    let len = (words.len() as u32)
        .saturating_mul(4)
        .saturating_add(padding);
    let mut end = fill(out, at, &len.to_le_bytes());
    for word in words {
        end = fill(out, end, &word.to_le_bytes());
    }
    let noise = u64::from(random)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .to_le_bytes();
    fill(out, end, noise.get(..padding as usize).unwrap_or_default())
}

fn fill(out: &mut [u8; MAX_QUICK_ACK], at: usize, bytes: &[u8]) -> usize {
    let end = at.saturating_add(bytes.len());
    if let Some(place) = out.get_mut(at..end) {
        place.copy_from_slice(bytes);
    }
    end
}

fn abridged_prefix(bytes: &[u8]) -> Result<Option<Prefix>, BadLength> {
    let Some(first) = bytes.first() else {
        return Ok(None);
    };
    let quick_ack = first & 0x80 != 0;
    let words = usize::from(first & 0x7f);
    if words != 0x7f {
        return Ok(Some(Prefix {
            prefix_len: 1,
            len: words.saturating_mul(4),
            quick_ack,
        }));
    }
    let Some([_, a, b, c]) = bytes.first_chunk::<4>() else {
        return Ok(None);
    };
    let words = u32::from_le_bytes([*a, *b, *c, 0]) as usize;
    if words < 0x7f {
        return Err(BadLength);
    }
    Ok(Some(Prefix {
        prefix_len: 4,
        len: words.saturating_mul(4),
        quick_ack,
    }))
}

fn intermediate_prefix(word: u32) -> Prefix {
    Prefix {
        prefix_len: 4,
        len: (word & 0x7fff_ffff) as usize,
        quick_ack: word >> 31 == 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vectors::Vectors;
    use alloc::vec::Vec;
    use std::{format, vec};

    fn by_name(name: &str) -> Transport {
        match name {
            "abridged" => Transport::Abridged,
            "intermediate" => Transport::Intermediate,
            _ => Transport::PaddedIntermediate,
        }
    }

    /// Fed one byte at a time, the answer comes exactly with the prefix's last byte.
    fn prefix(transport: Transport, bytes: &[u8]) -> Result<Prefix, BadLength> {
        for n in 0..bytes.len() {
            if let Some(p) = transport.decode_prefix(&bytes[..n])? {
                assert_eq!(p.prefix_len, n);
                assert_eq!(transport.decode_prefix(bytes), Ok(Some(p)));
                return Ok(p);
            }
        }
        transport
            .decode_prefix(bytes)
            .map(|p| p.expect("whole prefix given"))
    }

    fn framed(transport: Transport, payload: &[u8], random: u32) -> Vec<u8> {
        let mut buf = vec![0xaa; payload.len() + ROOM_BEFORE + ROOM_BEHIND];
        let range = ROOM_BEFORE..ROOM_BEFORE + payload.len();
        buf[range.clone()].copy_from_slice(payload);
        let out = transport.frame_in_place(&mut buf, range, random).unwrap();
        buf[out].to_vec()
    }

    #[test]
    fn vectors_of_prefixes() {
        let v = Vectors::load("framing");
        for i in 0..v.number("encode.count") {
            let key = |name: &str| format!("encode.{i}.{name}");
            let quick_ack = v.text(&key("quick_ack_bit")) == "true";
            let len = v.number(&key("payload_len")) as usize;
            for transport in [Transport::Abridged, Transport::Intermediate] {
                let name = if transport == Transport::Abridged {
                    "abridged_prefix"
                } else {
                    "intermediate_prefix"
                };
                let wire = v.bytes(&key(name));
                let wanted = Prefix {
                    prefix_len: wire.len(),
                    len,
                    quick_ack,
                };
                assert_eq!(prefix(transport, &wire), Ok(wanted));
                if !quick_ack {
                    let out = framed(transport, &vec![0x11; len], 0);
                    assert_eq!(out[..wire.len()], wire);
                    assert_eq!(out.len(), wire.len() + len);
                }
            }
        }
    }

    #[test]
    fn vectors_of_whole_packets() {
        let v = Vectors::load("framing");
        for i in 0..v.number("encode.count") {
            let key = |name: &str| format!("encode.{i}.{name}");
            if !v.has(&key("payload")) {
                continue;
            }
            let payload = v.bytes(&key("payload"));
            let up = v.bytes(&key("padded_client_to_proxy"));
            let p = prefix(Transport::PaddedIntermediate, &up).unwrap();
            assert_eq!(p.prefix_len + p.len, up.len());
            assert_eq!(
                up[4..4 + p.payload_len()],
                v.bytes(&key("padded_forwarded_to_backend"))
            );
            if v.has(&key("padded_proxy_to_client_with_2_pad_bytes")) {
                let wanted = v.bytes(&key("padded_proxy_to_client_with_2_pad_bytes"));
                let n = wanted.len();
                let random = u32::from_le_bytes([2, wanted[n - 2], wanted[n - 1], 0]);
                assert_eq!(
                    framed(Transport::PaddedIntermediate, &payload, random),
                    wanted
                );
            }
        }
    }

    #[test]
    fn vectors_of_refusals() {
        let v = Vectors::load("framing");
        for i in 0..v.number("reject.count") {
            let transport = by_name(v.text(&format!("reject.{i}.transport")));
            assert_eq!(
                prefix(transport, &v.bytes(&format!("reject.{i}.bytes"))),
                Err(BadLength),
                "{i}"
            );
        }
    }

    #[test]
    fn lengths_at_and_over_every_limit() {
        let ok = |t: Transport, word: u32| {
            t.decode_prefix(&word.to_le_bytes())
                .is_ok_and(|p| p.is_some())
        };
        let limit = MAX_CLIENT_PACKET as u32;
        for (len, plain, padded) in [
            (0, false, false),
            (1, false, false),
            (3, false, false),
            (4, true, true),
            (5, false, true),
            (limit, true, true),
            (limit + 1, false, false),
            (limit + 4, false, false),
        ] {
            assert_eq!(ok(Transport::Intermediate, len), plain, "{len}");
            assert_eq!(ok(Transport::PaddedIntermediate, len), padded, "{len}");
        }
        assert!(ok(Transport::Abridged, limit << 6 | 0x7f));
        assert!(!ok(Transport::Abridged, (limit + 4) << 6 | 0x7f));
        assert!(ok(Transport::Abridged, 0x7f << 8 | 0x7f));
        assert!(!ok(Transport::Abridged, 0x7e << 8 | 0x7f));
    }

    #[test]
    fn beginnings_of_streams_that_are_not_obfuscated() {
        let tags = [[0xef; 5], [0xee; 5], [0xdd; 5]];
        for (i, (tag, len)) in tags.iter().zip([1, 4, 4]).enumerate() {
            let wanted = Some((Transport::ALL[i], len));
            for n in 0..5 {
                let found = Transport::from_start(&tag[..n]);
                assert_eq!(found, wanted.filter(|_| n >= len), "{tag:?} {n}");
            }
        }
        for other in [*b"POST", [0xee, 0xee, 0xee, 0xef], [0xdd, 0xee, 0xdd, 0xdd]] {
            assert_eq!(Transport::from_start(&other), None);
        }
    }

    #[test]
    fn padding_takes_every_length() {
        for random in 0..4 {
            let out = framed(Transport::PaddedIntermediate, &[9; 8], random);
            assert_eq!(out.len(), 12 + random as usize);
            assert_eq!(out[..4], (8 + random).to_le_bytes());
        }
    }

    #[test]
    fn a_payload_without_room_or_of_odd_length_is_not_framed() {
        let mut buf = [0; 16];
        for t in Transport::ALL {
            assert!(t.frame_in_place(&mut buf, 4..9, 3).is_none());
            assert!(t.frame_in_place(&mut buf, 0..8, 3).is_none());
        }
        assert!(
            Transport::PaddedIntermediate
                .frame_in_place(&mut buf, 4..16, 3)
                .is_none()
        );
    }

    #[test]
    fn quick_acks_and_errors() {
        let v = Vectors::load("framing");
        let confirm = u32::from_str_radix(v.text("quick_ack_reply.confirm"), 16).unwrap();
        let ack = |t: Transport, random| {
            let mut out = [0; MAX_QUICK_ACK];
            let n = t.quick_ack(confirm, random, &mut out);
            out[..n].to_vec()
        };
        assert_eq!(
            ack(Transport::Abridged, 1),
            v.bytes("quick_ack_reply.abridged_reply")
        );
        assert_eq!(
            ack(Transport::Intermediate, 1),
            v.bytes("quick_ack_reply.intermediate_reply")
        );
        let padded = Transport::PaddedIntermediate;
        assert_eq!(
            ack(padded, 0),
            v.bytes("quick_ack_reply.padded_reply_form_a")
        );
        assert_eq!(
            ack(padded, 1),
            v.bytes("quick_ack_reply.padded_reply_form_b_without_random_tail")
        );
        for random in (1..512).step_by(2) {
            let out = ack(padded, random);
            let first = u32::from_le_bytes(out[..4].try_into().unwrap()) as usize;
            let second = u32::from_le_bytes(out[4 + first..8 + first].try_into().unwrap()) as usize;
            assert_eq!(out.len(), 8 + first + second);
            assert!((8..=15).contains(&first) && (4..=11).contains(&second));
        }
        for t in [Transport::Abridged, Transport::Intermediate] {
            let name = if t == Transport::Abridged {
                "abridged"
            } else {
                "intermediate"
            };
            let wanted = v.bytes(&format!("error_packet.{name}"));
            assert_eq!(framed(t, &v.bytes("error_packet.payload"), 0), wanted);
        }
    }
}
