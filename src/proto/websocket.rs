//! WebSocket (RFC 6455), a server's side: the answer to a handshake's key, what a client's frames carry, and
//! the heads of ours. A client's bytes are a stranger's; they are unmasked in place, wherever reads cut
//! them, and nothing is kept of them but a head and a ping's payload.
//!
//! | bytes | content |
//! |---|---|
//! | 1 | last fragment of its message, three bits that are 0, opcode |
//! | 1 | masked, length, or 126 or 127 for one of 2 or 8 bytes behind |
//! | 4 | mask, from clients only |

use alloc::string::String;
use sha1::{Digest, Sha1};

use super::base64;
use super::wire::Writer;
use crate::limits::WEB_MESSAGE;

/// What the server adds to a handshake's key.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The value of Sec-WebSocket-Accept for one of Sec-WebSocket-Key; None if that is no key.
pub fn accept(key: &[u8]) -> Option<String> {
    let bytes = base64::decode(key, base64::STANDARD)?;
    if bytes.len() != 16 || key.len() != 24 {
        return None;
    }
    let hash = Sha1::new().chain_update(key).chain_update(GUID);
    let mut text = base64::encode(&hash.finalize(), base64::STANDARD);
    text.push('=');
    Some(text)
}

/// What a frame is.
pub mod opcode {
    /// The rest of a message.
    pub const CONTINUATION: u8 = 0;
    /// A message of bytes.
    pub const BINARY: u8 = 2;
    /// The connection is to end.
    pub const CLOSE: u8 = 8;
    /// To be answered by a pong with the same payload.
    pub const PING: u8 = 9;
    /// The answer.
    pub const PONG: u8 = 10;
}

/// Why a connection ends, as a close frame says it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Code(pub u16);

impl Code {
    /// In order.
    pub const NORMAL: Code = Code(1000);
    /// The other side broke the protocol.
    pub const PROTOCOL: Code = Code(1002);
    /// It sent text.
    pub const NOT_BINARY: Code = Code(1003);
    /// A message was too long.
    pub const TOO_LONG: Code = Code(1009);

    /// The close frame.
    pub fn frame(self) -> [u8; 4] {
        let [high, low] = self.0.to_be_bytes();
        [0x80 | opcode::CLOSE, 2, high, low]
    }
}

/// Bytes of the longest head of a server's frame.
pub const MAX_HEAD: usize = 10;

/// Writes the head of a server's frame, unmasked and whole; how many bytes that are.
pub fn head(opcode: u8, len: u64, out: &mut [u8; MAX_HEAD]) -> usize {
    let mut w = Writer::new(out);
    w.put(&[0x80 | opcode]);
    match len {
        0..126 => w.put(&[len as u8]),
        126..65_536 => w.put(&[126]).put(&(len as u16).to_be_bytes()),
        _ => w.put(&[127]).put(&len.to_be_bytes()),
    };
    w.finish().unwrap_or_default()
}

/// Longest payload of a control frame.
pub const MAX_CONTROL: usize = 125;

/// Takes a client's frames apart.
pub struct Deframer {
    head: [u8; 14],
    /// How much of the head has come.
    at: u8,
    /// Payload of this frame that has not come yet.
    left: u32,
    /// Of the payload's next byte on.
    mask: [u8; 4],
    /// Bytes of this message so far; None between two messages.
    message: Option<u32>,
    control: [u8; MAX_CONTROL],
    control_len: u8,
}

/// What the front of a client's bytes is.
#[derive(PartialEq, Eq, Debug)]
pub enum Found {
    /// Part of something.
    Part,
    /// So many bytes of a message's payload, unmasked; and whether the message ends there.
    Payload(usize, bool),
    /// A control frame with this opcode has ended; its payload is [`Deframer::control`].
    Control(u8),
    /// What no client may send: what to close with.
    Wrong(Code),
}

impl Default for Deframer {
    fn default() -> Deframer {
        Deframer {
            head: [0; 14],
            at: 0,
            left: 0,
            mask: [0; 4],
            message: None,
            control: [0; MAX_CONTROL],
            control_len: 0,
        }
    }
}

impl Deframer {
    /// Payload of the last control frame.
    pub fn control(&self) -> &[u8] {
        let len = usize::from(self.control_len);
        self.control.get(..len).unwrap_or_default()
    }

    /// Takes what belongs together from the front of `bytes`, which are not empty; how many those are.
    pub fn next(&mut self, bytes: &mut [u8]) -> (usize, Found) {
        if self.left == 0 {
            return self.next_head(bytes);
        }
        let len = bytes.len().min(self.left as usize);
        let payload = bytes.get_mut(..len).unwrap_or_default();
        unmask(payload, self.mask);
        self.mask.rotate_left(len % 4);
        self.left = self.left.saturating_sub(len as u32);
        if self.is_control() {
            let start = usize::from(self.control_len);
            let place = self.control.iter_mut().skip(start);
            place.zip(payload).for_each(|(place, byte)| *place = *byte);
            self.control_len = self.control_len.saturating_add(len as u8);
        }
        (len, self.progress(len))
    }

    fn next_head(&mut self, bytes: &[u8]) -> (usize, Found) {
        let mut taken = 0;
        for byte in bytes {
            if let Some(place) = self.head.get_mut(usize::from(self.at)) {
                *place = *byte;
            }
            self.at = self.at.saturating_add(1);
            taken = usize::saturating_add(taken, 1);
            // A wrong start is told at once: a client that isn't one might say no more.
            if let Err(code) = self.check(self.at) {
                return (taken, Found::Wrong(code));
            }
            if usize::from(self.at) == self.head_len() {
                self.at = 0;
                let found = self.begin().err().map(Found::Wrong);
                return (taken, found.unwrap_or_else(|| self.progress(0)));
            }
        }
        (taken, Found::Part)
    }

    /// Bytes of the head, as far as its second one tells.
    fn head_len(&self) -> usize {
        match self.head {
            [_, second, ..] if self.at >= 2 => match second & 127 {
                126 => 8,
                127 => 14,
                _ => 6,
            },
            _ => 2,
        }
    }

    /// The first two bytes, when so many have come.
    fn check(&self, at: u8) -> Result<(), Code> {
        let [first, second, ..] = self.head;
        let is_last = first & 0x80 != 0;
        match (at, first & 15) {
            (1, _) if first & 0x70 != 0 => Err(Code::PROTOCOL),
            (1, opcode::CONTINUATION) if self.message.is_some() => Ok(()),
            (1, opcode::BINARY) if self.message.is_none() => Ok(()),
            (1, opcode::CLOSE..=opcode::PONG) if is_last => Ok(()),
            (1, 1) => Err(Code::NOT_BINARY),
            (1, _) => Err(Code::PROTOCOL),
            (2, _) if second & 0x80 == 0 => Err(Code::PROTOCOL),
            (2, _) if self.is_control() && second & 127 > MAX_CONTROL as u8 => Err(Code::PROTOCOL),
            _ => Ok(()),
        }
    }

    /// A head is complete.
    fn begin(&mut self) -> Result<(), Code> {
        let [_, second, a, b, c, d, e, f, g, h, mask @ ..] = self.head;
        let (len, least) = match second & 127 {
            126 => (u64::from(u16::from_be_bytes([a, b])), 126),
            127 => (u64::from_be_bytes([a, b, c, d, e, f, g, h]), 65_536),
            short => (u64::from(short), 0),
        };
        self.mask = match second & 127 {
            126 => [c, d, e, f],
            127 => mask,
            _ => [a, b, c, d],
        };
        if len < least {
            return Err(Code::PROTOCOL); // lengths have one form
        }
        if self.is_control() {
            self.control_len = 0;
        } else {
            let before = u64::from(self.message.unwrap_or(0));
            let message = before.saturating_add(len);
            if message > WEB_MESSAGE as u64 {
                return Err(Code::TOO_LONG);
            }
            self.message = Some(message as u32);
        }
        self.left = len as u32;
        Ok(())
    }

    fn is_control(&self) -> bool {
        let [first, ..] = self.head;
        first & 8 != 0
    }

    /// What it means that `len` more bytes of a frame's payload have come.
    fn progress(&mut self, len: usize) -> Found {
        let [first, ..] = self.head;
        match (self.is_control(), self.left == 0) {
            (true, false) => Found::Part,
            (true, true) => Found::Control(first & 15),
            (false, is_whole) => {
                let ends = is_whole && first & 0x80 != 0;
                if ends {
                    self.message = None;
                }
                Found::Payload(len, ends)
            }
        }
    }
}

/// Takes a mask off, 16 bytes at a time.
fn unmask(bytes: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide = u128::from_ne_bytes([a, b, c, d, a, b, c, d, a, b, c, d, a, b, c, d]);
    let (blocks, rest) = bytes.as_chunks_mut::<16>();
    for block in blocks {
        *block = (u128::from_ne_bytes(*block) ^ wide).to_ne_bytes();
    }
    let mask = mask.iter().cycle();
    rest.iter_mut().zip(mask).for_each(|(byte, m)| *byte ^= m);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vectors::Vectors;
    use std::format;
    use std::vec::Vec;

    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

    /// A client's frame.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut head = [0; MAX_HEAD];
        let len = head_of(first, payload.len(), &mut head);
        let mut out = head[..len].to_vec();
        out[1] |= 0x80;
        out.extend(MASK);
        out.extend(payload.iter().zip(MASK.iter().cycle()).map(|(b, m)| b ^ m));
        out
    }

    fn head_of(first: u8, len: usize, out: &mut [u8; MAX_HEAD]) -> usize {
        let len = head(0, len as u64, out);
        out[0] = first;
        len
    }

    /// Messages and control frames in order, and how it ended.
    fn read(wire: &[u8], piece: usize) -> (Vec<(u8, Vec<u8>)>, Option<Code>) {
        let (mut deframer, mut found, mut message) = (Deframer::default(), Vec::new(), Vec::new());
        for piece in wire.chunks(piece) {
            let mut piece = piece.to_vec();
            let mut rest = &mut piece[..];
            while !rest.is_empty() {
                let (taken, what) = deframer.next(rest);
                let (part, behind) = rest.split_at_mut(taken);
                match what {
                    Found::Part => {}
                    Found::Payload(len, ends) => {
                        message.extend(&part[..len]);
                        if ends {
                            found.push((opcode::BINARY, std::mem::take(&mut message)));
                        }
                    }
                    Found::Control(code) => found.push((code, deframer.control().to_vec())),
                    Found::Wrong(code) => return (found, Some(code)),
                }
                rest = behind;
            }
        }
        (found, None)
    }

    #[test]
    fn vectors() {
        let v = Vectors::load("web");
        assert_eq!(
            accept(v.text("websocket.key").as_bytes()).unwrap(),
            v.text("websocket.accept")
        );
        for wrong in [
            "",
            "dGhlIHNhbXBsZSBub25jZQ",
            "dGhlIHNhbXBsZSBub25j",
            "dGhlIHNhbXBsZSBub25jZR==",
        ] {
            assert_eq!(accept(wrong.as_bytes()), None, "{wrong}");
        }
        let wire = v.bytes("websocket.client_message");
        let batch = v.bytes("frames.batch");
        for piece in [1, 2, 3, wire.len()] {
            let wanted = (Vec::from([(opcode::BINARY, batch.clone())]), None);
            assert_eq!(read(&wire, piece), wanted);
        }
        let (pongs, _) = read(&v.bytes("websocket.client_pong"), 1);
        assert_eq!(pongs, [(opcode::PONG, Vec::new())]);
        for (name, opcode, len) in [
            ("ping", opcode::PING, 0),
            ("head_12", opcode::BINARY, 12),
            ("head_65544", opcode::BINARY, 65_544),
            ("head_2mib", opcode::BINARY, 2 << 20),
        ] {
            let mut out = [0; MAX_HEAD];
            let n = head(opcode, len, &mut out);
            assert_eq!(out[..n], v.bytes(&format!("websocket.{name}")), "{name}");
        }
        for (name, code) in [("close_1000", Code::NORMAL), ("close_1002", Code::PROTOCOL)] {
            assert_eq!(code.frame()[..], v.bytes(&format!("websocket.{name}")));
        }
    }

    #[test]
    fn every_length_and_cut_gives_the_same() {
        let payload: Vec<u8> = (0..70_000_u32).map(|i| (i * 7) as u8).collect();
        let lengths = [1, 2, 15, 16, 17, 125, 126, 127, 65_535, 65_536, 70_000];
        let mut wire = Vec::new();
        let mut wanted = Vec::new();
        for len in lengths {
            let ping = &payload[..len % 126];
            let (a, b) = payload[..len].split_at(len / 3);
            wire.extend(frame(0x82, &payload[..len]));
            // A message in three fragments, the second one empty, with a ping between.
            wire.extend(frame(0x02, a));
            wire.extend(frame(0x89, ping));
            wire.extend(frame(0x00, b""));
            wire.extend(frame(0x80, b));
            wanted.push((opcode::BINARY, payload[..len].to_vec()));
            wanted.push((opcode::PING, ping.to_vec()));
            wanted.push((opcode::BINARY, payload[..len].to_vec()));
        }
        for piece in [1, 2, 3, 5, 7, 16, 1000, 4096, 65_537, wire.len()] {
            assert!(
                read(&wire, piece) == (wanted.clone(), None),
                "pieces of {piece}"
            );
        }
    }

    #[test]
    fn each_violation_has_its_code() {
        let long = frame(0x02, &[0; 1 << 20]);
        let unmasked = [0x82, 4, 1, 2, 3, 4];
        let with_length = |bytes: &[u8]| [&[0x82], bytes, &[0; 12]].concat();
        for (name, wire, code) in [
            ("text", frame(0x81, b"{}"), Code::NOT_BINARY),
            ("unmasked", unmasked.to_vec(), Code::PROTOCOL),
            ("a reserved bit", frame(0xc2, b"a"), Code::PROTOCOL),
            ("a reserved opcode", frame(0x83, b"a"), Code::PROTOCOL),
            ("a reserved control", frame(0x8b, b"a"), Code::PROTOCOL),
            ("a fragment of nothing", frame(0x80, b"a"), Code::PROTOCOL),
            (
                "a message in a message",
                [frame(0x02, b"a"), frame(0x82, b"a")].concat(),
                Code::PROTOCOL,
            ),
            ("a fragmented ping", frame(0x09, b"a"), Code::PROTOCOL),
            ("a long ping", frame(0x89, &[0; 126]), Code::PROTOCOL),
            (
                "125 in 2 bytes",
                with_length(&[0xfe, 0, 125]),
                Code::PROTOCOL,
            ),
            (
                "65535 in 8 bytes",
                with_length(&[0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff]),
                Code::PROTOCOL,
            ),
            (
                "more than memory",
                with_length(&[0xff, 0xff, 0, 0, 0, 0, 0, 0, 0]),
                Code::TOO_LONG,
            ),
            (
                "2 MiB and a byte",
                [&long[..], &frame(0, &[0; 1 << 20]), &frame(0x80, b"a")].concat(),
                Code::TOO_LONG,
            ),
        ] {
            for piece in [1, 1000, usize::MAX] {
                assert_eq!(read(&wire, piece).1, Some(code), "{name}");
            }
        }
        let most = [&long[..], &frame(0x80, &[0; 1 << 20])].concat();
        assert_eq!(read(&most, 5000).1, None);
    }
}
