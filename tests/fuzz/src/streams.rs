//! Streams that are encrypted or framed: obfuscated2, the transports in it, and middle proxies' frames.

use mtproxy::crypto::cbc::CbcEncrypt;
use mtproxy::crypto::ctr::{Ctr, StreamKey};
use mtproxy::limits::{HEADER_LEN, MAX_CLIENT_PACKET};
use mtproxy::proto::middle::frame::{
    FRAME_HEAD, FRAME_TAIL, FrameError, FrameReader, FrameWriter, SEAL_ROOM,
};
use mtproxy::proto::obfuscated2::{accept, offer, offer_mirroring};
use mtproxy::proto::secret::Secret;
use mtproxy::proto::transport::{MAX_QUICK_ACK, Prefix, ROOM_BEFORE, ROOM_BEHIND, Transport};
use mtproxy::proto::wire::DcId;

use crate::{pieces, split};

/// Any header; then one of ours, which the other side accepts, and both read what the other one writes.
pub fn obfuscated2(data: &[u8]) {
    let (bytes, cut) = split(data);
    let Some((header, rest)) = bytes.split_first_chunk::<HEADER_LEN>() else {
        return;
    };
    let secret = Secret::new([cut; 16]);
    for secrets in [&[][..], &[Secret::new([1; 16]), secret]] {
        let (any, padded) = (
            accept(header, secrets, false),
            accept(header, secrets, true),
        );
        let expected = any.filter(|any| any.transport == Transport::PaddedIntermediate);
        assert_eq!(expected.map(|any| any.dc), padded.map(|padded| padded.dc));
    }
    let transport = Transport::ALL[usize::from(cut % 3)];
    let dc = DcId(i16::from(cut as i8));
    let Some(mut ours) = offer(header, Some(&secret), transport, dc) else {
        return;
    };
    let mut accepted = accept(&ours.header, &[secret], false).expect("our own header");
    assert_eq!((accepted.transport, accepted.dc), (transport, dc));
    both_ways(&mut ours.send, &mut accepted.receive, rest, cut);
    let send = accepted.send.expect("it is obfuscated");
    both_ways(
        &mut Ctr::new(&send),
        &mut Ctr::new(&ours.receive),
        rest,
        cut,
    );

    let random = header.first_chunk().expect("64 bytes");
    if let Some(mirror) = offer_mirroring(&send, random, transport, dc) {
        both_ways(
            &mut Ctr::new(&send),
            &mut Ctr::new(&mirror.receive),
            rest,
            cut,
        );
    }
}

/// What is encrypted whole is decrypted in pieces.
fn both_ways(near: &mut Ctr, far: &mut Ctr, text: &[u8], cut: u8) {
    let mut wire = text.to_vec();
    near.apply(&mut wire);
    let mut got = Vec::new();
    for piece in pieces(&wire, cut) {
        got.extend(piece);
        let from = got.len() - piece.len();
        far.apply(&mut got[from..]);
    }
    assert!(got == text);
}

/// Packets are the same whole and in pieces, and ours are read as what they are.
pub fn transports(data: &[u8]) {
    let (bytes, cut) = split(data);
    let start = Transport::from_start(bytes);
    assert!(start.is_none_or(|(_, len)| len <= bytes.len()));
    for transport in Transport::ALL {
        let whole = packets(transport, bytes, [bytes].into_iter());
        assert_eq!(packets(transport, bytes, pieces(bytes, cut)), whole);
        round_trip(transport, bytes, cut);
    }
}

/// Where each packet begins, and whether a length is wrong behind the last one.
fn packets<'a>(
    transport: Transport,
    bytes: &[u8],
    stream: impl Iterator<Item = &'a [u8]>,
) -> (Vec<(usize, Prefix)>, bool) {
    let (mut all, mut at, mut there) = (Vec::new(), 0, 0);
    for piece in stream {
        there += piece.len();
        loop {
            let prefix = match transport.decode_prefix(&bytes[at..there]) {
                Ok(Some(prefix)) => prefix,
                Ok(None) => break,
                Err(_) => return (all, true),
            };
            assert!(prefix.len <= MAX_CLIENT_PACKET && prefix.payload_len() > 0);
            if there - at < prefix.prefix_len + prefix.len {
                break;
            }
            all.push((at, prefix));
            at += prefix.prefix_len + prefix.len;
        }
    }
    (all, false)
}

fn round_trip(transport: Transport, bytes: &[u8], cut: u8) {
    let random = u32::from_le_bytes([cut; 4]);
    let mut out = [0; MAX_QUICK_ACK];
    assert!((4..=MAX_QUICK_ACK).contains(&transport.quick_ack(1 << 31 | random, random, &mut out)));
    let payload = ROOM_BEFORE..ROOM_BEFORE + bytes.len();
    let mut buf = [&[0; ROOM_BEFORE], bytes, &[0; ROOM_BEHIND]].concat();
    let framed = transport.frame_in_place(&mut buf, payload, random);
    assert_eq!(framed.is_some(), bytes.len() % 4 == 0);
    let Some(framed) = framed.filter(|_| !bytes.is_empty()) else {
        return;
    };
    let prefix = transport
        .decode_prefix(&buf[framed.clone()])
        .expect("our own");
    let prefix = prefix.expect("a whole packet");
    assert_eq!(prefix.payload_len(), bytes.len());
    assert_eq!(prefix.prefix_len + prefix.len, framed.len());
    assert!(buf[framed.start + prefix.prefix_len..].starts_with(bytes));
}

/// A sum that any frame with zeros in that place fits, so that the fuzzer gets behind it.
fn no_checksum(_: &[u8]) -> u32 {
    0
}

type Frames = (Vec<Vec<u8>>, Option<FrameError>);

/// Frames are the same whole, in pieces, and encrypted in pieces; ours are read as what they are.
pub fn middle_frames(data: &[u8]) {
    let (bytes, cut) = split(data);
    let whole = frames(None, [bytes].into_iter());
    assert_eq!(frames(None, pieces(bytes, cut)), whole);

    let key = StreamKey {
        key: [cut; 32],
        iv: [5; 16],
    };
    let blocks = &bytes[..bytes.len() / 16 * 16];
    let mut encrypted = blocks.to_vec();
    CbcEncrypt::new(&key).apply(&mut encrypted);
    let whole = frames(None, [blocks].into_iter());
    assert_eq!(frames(Some(&key), pieces(&encrypted, cut)), whole);

    let mut writer = FrameWriter::new(no_checksum);
    writer.start_cipher(&key);
    let (mut wire, mut sent) = (Vec::new(), Vec::new());
    for payload in pieces(bytes, cut | 7) {
        let payload = [payload, &[0; 4][payload.len() % 4..]].concat();
        let payload = &payload[..payload.len() / 4 * 4];
        let place = FRAME_HEAD..FRAME_HEAD + payload.len();
        let mut buf = [&[0; FRAME_HEAD], payload, &[0; SEAL_ROOM]].concat();
        if let Some(sealed) = writer.seal(&mut buf, place) {
            wire.extend(&buf[sealed]);
            sent.push(payload.to_vec());
        }
    }
    let (got, error) = frames(Some(&key), pieces(&wire, cut));
    assert_eq!(error, None);
    let payloads: Vec<_> = got
        .iter()
        .map(|f| &f[FRAME_HEAD..f.len() - FRAME_TAIL])
        .collect();
    assert!(payloads == sent);
}

fn frames<'a>(key: Option<&StreamKey>, stream: impl Iterator<Item = &'a [u8]>) -> Frames {
    let mut reader = FrameReader::new(no_checksum);
    if let Some(key) = key {
        reader.start_cipher(key).expect("nothing has come");
    }
    let mut all = Vec::new();
    for mut piece in stream {
        while !piece.is_empty() {
            let space = reader.space();
            let len = space.len().min(piece.len());
            assert!(len > 0, "no space");
            space[..len].copy_from_slice(&piece[..len]);
            reader.received(len);
            piece = &piece[len..];
            loop {
                match reader.take() {
                    Ok(Some(frame)) => all.push(frame.to_vec()),
                    Ok(None) => break,
                    Err(error) => return (all, Some(error)),
                }
            }
        }
    }
    (all, None)
}
