//! The 64-byte header that opens an obfuscated2 stream (protocol.md 3), in both roles: accepting a
//! client's (the door) and making our own for a data centre (direct mode).
//!
//! | offset | size | content |
//! |---|---|---|
//! | 0 | 8 | random, restricted |
//! | 8 | 32 | key material |
//! | 40 | 16 | IV material |
//! | 56 | 4 | transport tag, encrypted |
//! | 60 | 2 | data-centre id, signed, encrypted |
//! | 62 | 2 | random, encrypted |
//!
//! A client's header may be any 64 bytes: it comes from strangers, and only one that decrypts to the
//! tag of a transport proves a secret.

use sha2::{Digest, Sha256};

use crate::crypto::ctr::{Ctr, StreamKey};
use crate::limits::HEADER_LEN;
use crate::proto::secret::Secret;
use crate::proto::transport::Transport;
use crate::proto::wire::{DcId, Reader};

/// A client that is let in: its header fits a secret, or it needs none.
pub struct Accepted {
    /// Which secret, by position; 0 when none is set.
    pub secret_index: usize,
    /// The framing that the tag names.
    pub transport: Transport,
    /// Where the client wants to go.
    pub dc: DcId,
    /// Client to proxy, already past the header.
    pub receive: Ctr,
    /// Proxy to client, from the start of the stream; None if it isn't obfuscated.
    pub send: Option<StreamKey>,
}

impl Accepted {
    /// A client whose streams aren't obfuscated.
    pub fn clear(transport: Transport, dc: DcId) -> Accepted {
        Accepted {
            secret_index: 0,
            transport,
            dc,
            receive: Ctr::clear(),
            send: None,
        }
    }
}

/// Tries every secret in order; the first whose decrypted tag is a transport's wins. Without
/// secrets the raw keys are tried once. None: no secret fits, or `padded_only` excludes the tag.
pub fn accept(
    header: &[u8; HEADER_LEN],
    secrets: &[Secret],
    padded_only: bool,
) -> Option<Accepted> {
    if secrets.is_empty() {
        return try_secret(header, None, 0, padded_only);
    }
    let mut tries = secrets.iter().enumerate();
    tries.find_map(|(i, secret)| try_secret(header, Some(secret), i, padded_only))
}

fn try_secret(
    header: &[u8; HEADER_LEN],
    secret: Option<&Secret>,
    secret_index: usize,
    padded_only: bool,
) -> Option<Accepted> {
    let mut receive = Ctr::new(&forward_key(header, secret));
    let mut plain = *header;
    receive.apply(&mut plain);
    let (transport, dc) = tag_and_dc(&plain)?;
    if padded_only && transport != Transport::PaddedIntermediate {
        return None;
    }
    Some(Accepted {
        secret_index,
        transport,
        dc,
        receive,
        send: Some(backward_key(header, secret)),
    })
}

fn tag_and_dc(plain: &[u8; HEADER_LEN]) -> Option<(Transport, DcId)> {
    let (_, end) = plain.split_last_chunk::<8>()?;
    let mut r = Reader::new(end);
    let transport = Transport::from_tag(r.u32()?)?;
    Some((transport, DcId(i16::from_le_bytes(r.array()?))))
}

/// Our own header as a client, and its two streams.
pub struct Offer {
    /// What goes on the wire.
    pub header: [u8; HEADER_LEN],
    /// Us to the peer, already past the header.
    pub send: Ctr,
    /// The peer to us, from the start of the stream.
    pub receive: StreamKey,
}

/// Makes a header from 64 random bytes. None if it would be taken for another protocol: draw again.
pub fn offer(
    random: &[u8; HEADER_LEN],
    secret: Option<&Secret>,
    transport: Transport,
    dc: DcId,
) -> Option<Offer> {
    if is_forbidden(random) {
        return None;
    }
    let mut header = *random;
    let (_, end) = header.split_last_chunk_mut::<8>()?;
    let [t0, t1, t2, t3] = transport.tag().to_le_bytes();
    let [d0, d1] = dc.0.to_le_bytes();
    let [.., r0, r1] = *end;
    *end = [t0, t1, t2, t3, d0, d1, r0, r1];
    let mut send = Ctr::new(&forward_key(&header, secret));
    let receive = backward_key(&header, secret);
    let mut wire = header;
    send.apply(&mut wire);
    *header.last_chunk_mut::<8>()? = *wire.last_chunk::<8>()?;
    Some(Offer {
        header,
        send,
        receive,
    })
}

/// As [`offer`] without a secret, with key bytes chosen so that the peer encrypts its stream to us with
/// `mirrored`: what it sends can be passed on unchanged to a client that expects that stream.
/// `random` gives the bytes that are left: 8 at the start, 2 at the end.
pub fn offer_mirroring(
    mirrored: &StreamKey,
    random: &[u8; 10],
    transport: Transport,
    dc: DcId,
) -> Option<Offer> {
    let mut header = [0; HEADER_LEN];
    let (start, end) = random.split_at_checked(8)?;
    let material = mirrored.iv.iter().rev().chain(mirrored.key.iter().rev());
    let tag_and_dc = [0; 6];
    let bytes = start.iter().chain(material).chain(&tag_and_dc).chain(end);
    header.iter_mut().zip(bytes).for_each(|(h, b)| *h = *b);
    offer(&header, None, transport, dc)
}

/// Whether a header would be taken for another protocol by its first bytes (protocol.md 3.3).
fn is_forbidden(header: &[u8; HEADER_LEN]) -> bool {
    let mut r = Reader::new(header);
    let (first, second) = (r.u32().unwrap_or(0), r.u32().unwrap_or(0));
    header.first() == Some(&0xef) || FORBIDDEN.contains(&first) || second == 0
}

/// HEAD, POST, GET, OPTI, the plain intermediate tags, TLS.
const FORBIDDEN: [u32; 7] = [
    0x4441_4548,
    0x5453_4f50,
    0x2054_4547,
    0x4954_504f,
    0xeeee_eeee,
    0xdddd_dddd,
    0x0201_0316,
];

/// The direction of the header's sender: key and IV are bytes 8 to 56.
fn forward_key(header: &[u8; HEADER_LEN], secret: Option<&Secret>) -> StreamKey {
    with_secret(StreamKey::collect(header.iter().skip(8)), secret)
}

/// The other direction: the same bytes in reverse order.
fn backward_key(header: &[u8; HEADER_LEN], secret: Option<&Secret>) -> StreamKey {
    with_secret(StreamKey::collect(header.iter().rev().skip(8)), secret)
}

fn with_secret(mut raw: StreamKey, secret: Option<&Secret>) -> StreamKey {
    if let Some(secret) = secret {
        let hash = Sha256::new().chain_update(raw.key);
        raw.key = hash.chain_update(secret.bytes()).finalize().into();
    }
    raw
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vectors::Vectors;
    use alloc::vec::Vec;
    use std::format;

    fn secret(v: &Vectors, key: &str) -> Vec<Secret> {
        if v.has(key) && !v.text(key).is_empty() {
            std::vec![Secret::new(v.array(key))]
        } else {
            Vec::new()
        }
    }

    fn transport(name: &str) -> Transport {
        match name {
            "abridged" => Transport::Abridged,
            "intermediate" => Transport::Intermediate,
            "padded" => Transport::PaddedIntermediate,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn headers_both_roles() {
        let v = Vectors::load("obfuscated2");
        for i in 0..v.number("headers.count") {
            let key = |name: &str| format!("headers.{i}.{name}");
            let secrets = secret(&v, &key("secret"));
            let wire: [u8; 64] = v.array(&key("wire_header"));
            let mut a = accept(&wire, &secrets, false).unwrap();
            assert_eq!(a.transport, transport(v.text(&key("transport"))));
            assert_eq!(i64::from(a.dc.0), v.number(&key("decrypted_dc")));
            let plain = v.bytes(&key("after_header.client_plain"));
            let mut up = v.bytes(&key("after_header.client_wire"));
            up.chunks_mut(7).for_each(|c| a.receive.apply(c));
            assert_eq!(up, plain);
            let mut down = v.bytes(&key("after_header.proxy_plain"));
            Ctr::new(&a.send.unwrap()).apply(&mut down);
            assert_eq!(down, v.bytes(&key("after_header.proxy_wire")));

            let random: [u8; 64] = v.array(&key("client_plain_header"));
            let mut o = offer(&random, secrets.first(), a.transport, a.dc).unwrap();
            assert_eq!(o.header, wire);
            o.send.apply(&mut up);
            assert_eq!(up, v.bytes(&key("after_header.client_wire")));
            Ctr::new(&o.receive).apply(&mut down);
            assert_eq!(down, v.bytes(&key("after_header.proxy_plain")));
        }
    }

    #[test]
    fn outbound_header() {
        let v = Vectors::load("obfuscated2");
        let plain: [u8; 64] = v.array("outbound_direct_mode.plain_header");
        let (transport, dc) = tag_and_dc(&plain).unwrap();
        let mut o = offer(&plain, None, transport, dc).unwrap();
        assert_eq!(
            o.header.to_vec(),
            v.bytes("outbound_direct_mode.wire_header")
        );
        let mut data = v.bytes("outbound_direct_mode.send_plain");
        o.send.apply(&mut data);
        assert_eq!(data, v.bytes("outbound_direct_mode.send_wire"));
        let mut data = v.bytes("outbound_direct_mode.recv_wire");
        Ctr::new(&o.receive).apply(&mut data);
        assert_eq!(data, v.bytes("outbound_direct_mode.recv_plain"));
    }

    #[test]
    fn a_mirroring_header_makes_the_peer_speak_the_clients_stream() {
        let client = StreamKey {
            key: [0x31; 32].map(|b| b),
            iv: core::array::from_fn(|i| i as u8),
        };
        let random = [7, 1, 2, 3, 4, 5, 6, 7, 8, 9];
        let made = offer_mirroring(&client, &random, Transport::Abridged, DcId(-4)).unwrap();
        assert_eq!(made.header[..8], random[..8]);
        let mut key_and_iv = [client.key.to_vec(), client.iv.to_vec()].concat();
        key_and_iv.reverse();
        assert_eq!(made.header[8..56], key_and_iv);
        let peer = accept(&made.header, &[], false).unwrap();
        assert_eq!((peer.transport, peer.dc), (Transport::Abridged, DcId(-4)));
        let send = peer.send.unwrap();
        assert_eq!((send.key, send.iv), (client.key, client.iv));
        let forbidden = [0xef; 10];
        assert!(offer_mirroring(&client, &forbidden, Transport::Abridged, DcId(2)).is_none());
    }

    #[test]
    fn the_second_secret_fits() {
        let v = Vectors::load("obfuscated2");
        let secrets = [0, 1].map(|i| Secret::new(v.array(&format!("secret_search.secrets.{i}"))));
        let wire: [u8; 64] = v.array("secret_search.wire_header");
        let found = accept(&wire, &secrets, false).unwrap();
        assert_eq!(
            found.secret_index as i64,
            v.number("secret_search.matching_index")
        );
        assert!(accept(&wire, &secrets[..1], false).is_none());
        assert!(accept(&wire, &[], false).is_none());
    }

    #[test]
    fn padded_only_refuses_the_other_tags() {
        let random = [0x55; 64];
        for transport in Transport::ALL {
            let wire = offer(&random, None, transport, DcId(2)).unwrap().header;
            let allowed = accept(&wire, &[], true).is_some();
            assert_eq!(allowed, transport == Transport::PaddedIntermediate);
            assert!(accept(&wire, &[], false).is_some());
        }
    }

    #[test]
    fn a_changed_key_byte_fits_no_more() {
        let wire = offer(&[0x55; 64], None, Transport::Abridged, DcId(2))
            .unwrap()
            .header;
        for i in 8..60 {
            let mut bad = wire;
            bad[i] ^= 1;
            assert!(accept(&bad, &[], false).is_none(), "byte {i}");
        }
    }

    #[test]
    fn forbidden_beginnings_are_refused_one_by_one() {
        let v = Vectors::load("obfuscated2");
        for i in 0..v.number("forbidden_first_u32_le.count") {
            let mut header = [0x55; 64];
            let number =
                u32::from_str_radix(v.text(&format!("forbidden_first_u32_le.{i}")), 16).unwrap();
            header[..4].copy_from_slice(&number.to_le_bytes());
            assert!(is_forbidden(&header), "{number:08x}");
        }
        let mut header = [0x55; 64];
        assert!(!is_forbidden(&header));
        header[4..8].fill(0);
        assert!(is_forbidden(&header));
        header[4..8].fill(0x55);
        header[0] = 0xef;
        assert!(is_forbidden(&header));
    }
}
