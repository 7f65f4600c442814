//! A lane of Telegram's proxy type WEB: one stream in a WebSocket of its own (`web` has the rest). Its messages
//! are frames, big-endian, all with the lane's number:
//!
//! | bytes | content |
//! |---|---|
//! | 1 | kind: [`OPEN`], [`DATA`], [`CLOSE`], [`WINDOW`] |
//! | 3 | the lane |
//! | 4 | length of the payload behind |
//!
//! A client's bytes are a stranger's until the stream inside has proven a secret. They are taken apart in
//! place, and nothing is kept of them but a head.

use alloc::vec::Vec;
use core::ops::Range;

use super::websocket::{self, Code, Deframer, Found, MAX_CONTROL, opcode};
use crate::limits::{WEB_BATCH, WEB_DATA, WEB_PIECE, WEB_WINDOW};

/// The first frame of a lane, without payload.
pub const OPEN: u8 = 1;
/// Bytes of the stream, at least one.
pub const DATA: u8 = 2;
/// The stream ends, both ways, without payload.
pub const CLOSE: u8 = 3;
/// So many bytes more may be sent to whoever sends this: 4 bytes, not 0.
pub const WINDOW: u8 = 4;
/// Bytes of a frame's head.
const HEAD: usize = 8;
/// The highest number of a lane.
pub const MAX_LANE: u32 = 0xff_ffff;

/// A lane's way down: how much its client takes, and the heads of what it is sent.
#[derive(Clone, Copy)]
pub struct Down {
    lane: u32,
    /// Bytes that may be sent.
    pub credit: u32,
}

/// Bytes of the longest head in front of a piece: of a message, and of its one frame.
pub const MAX_HEAD: usize = 4 + HEAD;

impl Down {
    /// Of the lane with that number.
    pub fn new(lane: u32) -> Down {
        Down {
            lane,
            credit: WEB_WINDOW,
        }
    }

    /// The client takes more; false if that is more than can be counted.
    pub fn grant(&mut self, bytes: u32) -> bool {
        let sum = self.credit.checked_add(bytes);
        self.credit = sum.unwrap_or(self.credit);
        sum.is_some()
    }

    /// Takes credit for at most so many bytes: those of the next piece.
    pub fn take(&mut self, bytes: usize) -> usize {
        let len = bytes.min(WEB_PIECE).min(self.credit as usize);
        self.credit = self.credit.saturating_sub(len as u32);
        len
    }

    /// The head of a piece of `len` bytes, at most [`WEB_PIECE`]: `out` from the place that is returned on.
    pub fn head(&self, len: usize, out: &mut [u8; MAX_HEAD]) -> usize {
        let mut start = [0; websocket::MAX_HEAD];
        let total = (HEAD as u64).saturating_add(len as u64);
        let start_len = websocket::head(opcode::BINARY, total, &mut start);
        let at = MAX_HEAD.saturating_sub(HEAD.saturating_add(start_len));
        let head = head(DATA, self.lane, len as u32);
        let bytes = start.iter().take(start_len).chain(&head);
        out.iter_mut()
            .skip(at)
            .zip(bytes)
            .for_each(|(place, byte)| *place = *byte);
        at
    }

    /// What a lane ends with: the stream's end, and the connection's.
    pub fn farewell(&self) -> [u8; 14] {
        let mut out = [0; 14];
        let close = head(CLOSE, self.lane, 0);
        let bytes = [0x80 | opcode::BINARY, HEAD as u8].into_iter().chain(close);
        let bytes = bytes.chain(Code::NORMAL.frame());
        out.iter_mut()
            .zip(bytes)
            .for_each(|(place, byte)| *place = byte);
        out
    }
}

fn head(kind: u8, lane: u32, len: u32) -> [u8; HEAD] {
    let [_, a, b, c] = lane.to_be_bytes();
    let [d, e, f, g] = len.to_be_bytes();
    [kind, a, b, c, d, e, f, g]
}

/// Bytes that [`Up::reply`] writes at most.
pub const MAX_REPLY: usize = 2 + HEAD + 4 + 2 + MAX_CONTROL + 2 + 4;

/// A lane's way up: takes the layers off what its client sends.
pub struct Up {
    lane: u32,
    socket: Deframer,
    head: [u8; HEAD],
    /// How much of the head has come.
    at: u8,
    /// Payload of this frame that has not come yet.
    left: u32,
    /// OPEN has come.
    is_open: bool,
    /// Frames of this message.
    frames: u32,
    /// Bytes of data that the client may still send.
    room: u32,
    /// Of these, how many have come since it was told that it may send more.
    owed: u32,
    /// What the client takes more.
    granted: u32,
    is_asked: bool,
    ping: bool,
    /// Payload of a ping that has not been answered.
    pong: Option<Vec<u8>>,
    /// How it ended.
    end: Option<Code>,
    is_told: bool,
}

impl Up {
    /// Of the lane with that number.
    pub fn new(lane: u32) -> Up {
        Up {
            lane,
            socket: Deframer::default(),
            head: [0; HEAD],
            at: 0,
            left: 0,
            is_open: false,
            frames: 0,
            room: WEB_WINDOW,
            owed: 0,
            granted: 0,
            is_asked: false,
            ping: false,
            pong: None,
            end: None,
            is_told: false,
        }
    }

    /// The way down that belongs to it.
    pub fn down(&self) -> Down {
        Down::new(self.lane)
    }

    /// How the lane has ended, if it has: nothing behind that counts.
    pub fn ended(&self) -> Option<Code> {
        self.end
    }

    /// The client has been silent for long: it is asked for a sign of life. False if it was asked already, and
    /// has said nothing since.
    pub fn ask(&mut self) -> bool {
        self.ping = !self.is_asked;
        !core::mem::replace(&mut self.is_asked, true)
    }

    /// What the client takes more since this was called last.
    pub fn granted(&mut self) -> u32 {
        core::mem::take(&mut self.granted)
    }

    /// Writes what the client is to be told now besides its data, whole messages; how many bytes that are.
    pub fn reply(&mut self, out: &mut [u8; MAX_REPLY]) -> usize {
        let mut w = super::wire::Writer::new(out);
        if self.owed > 0 && self.end.is_none() {
            w.put(&[0x80 | opcode::BINARY, 12]);
            w.put(&head(WINDOW, self.lane, 4))
                .put(&self.owed.to_be_bytes());
            self.room = self.room.saturating_add(self.owed);
            self.owed = 0;
        }
        if let Some(payload) = self.pong.take() {
            w.put(&[0x80 | opcode::PONG, payload.len() as u8])
                .put(&payload);
        }
        if core::mem::take(&mut self.ping) {
            w.put(&[0x80 | opcode::PING, 0]);
        }
        if let Some(code) = self.end.filter(|_| !self.is_told) {
            self.is_told = true;
            w.put(&code.frame());
        }
        w.finish().unwrap_or_default()
    }

    /// Moves the data in `bytes` to their front and returns its length.
    pub fn deframe(&mut self, bytes: &mut [u8]) -> usize {
        self.is_asked = false;
        let (mut read, mut written) = (0, 0);
        while self.end.is_none() {
            let rest = bytes.get_mut(read..).filter(|rest| !rest.is_empty());
            let Some(rest) = rest else { break };
            let (taken, found) = self.socket.next(rest);
            match found {
                Found::Part | Found::Control(opcode::PONG) => {}
                Found::Payload(len, ends) => {
                    let payload = read..usize::saturating_add(read, len);
                    written = self.payload(bytes, payload, written);
                    if ends {
                        self.message_ends();
                    }
                }
                Found::Control(opcode::PING) => self.pong = Some(self.socket.control().to_vec()),
                Found::Control(_) => self.end = Some(Code::NORMAL),
                Found::Wrong(code) => self.end = Some(code),
            }
            read = usize::saturating_add(read, taken);
        }
        written
    }

    /// Takes payload of messages: moves its data behind the first `written` bytes; how many these are then.
    fn payload(&mut self, bytes: &mut [u8], payload: Range<usize>, mut written: usize) -> usize {
        let Range { mut start, end } = payload;
        while start < end && self.end.is_none() {
            let there = end.saturating_sub(start);
            let [kind, ..] = self.head;
            if self.left == 0 || kind == WINDOW {
                if let (Some(place), Some(byte)) =
                    (self.head.get_mut(usize::from(self.at)), bytes.get(start))
                {
                    *place = *byte;
                }
                start = start.saturating_add(1);
                self.at = self.at.saturating_add(1);
                self.end = self.head_byte().err();
                continue;
            }
            let part = there.min(self.left as usize);
            let part_end = start.saturating_add(part);
            bytes.copy_within(start..part_end, written);
            start = part_end;
            written = written.saturating_add(part);
            self.left = self.left.saturating_sub(part as u32);
            self.owed = self.owed.saturating_add(part as u32);
        }
        written
    }

    /// A byte of a head has come, or of the number in WINDOW, which is kept behind the kind.
    fn head_byte(&mut self) -> Result<(), Code> {
        let wrong = Err(Code::PROTOCOL);
        let [kind, a, b, c, d, e, f, g] = self.head;
        if self.left > 0 {
            self.left = self.left.saturating_sub(1);
            if self.left == 0 {
                let more = u32::from_be_bytes([a, b, c, d]);
                self.head = [0; HEAD];
                self.at = 0;
                self.granted = match self.granted.checked_add(more) {
                    Some(sum) if more > 0 => sum,
                    _ => return wrong,
                };
            }
            return Ok(());
        }
        if usize::from(self.at) < HEAD {
            return Ok(());
        }
        self.at = 0;
        self.frames = self.frames.saturating_add(1);
        let (lane, len) = (
            u32::from_be_bytes([0, a, b, c]),
            u32::from_be_bytes([d, e, f, g]),
        );
        if lane != self.lane || self.is_open == (kind == OPEN) || self.frames > WEB_BATCH {
            return wrong;
        }
        match (kind, len) {
            (OPEN, 0) => self.is_open = true,
            (DATA, 1..=WEB_DATA) => {
                self.room = self.room.checked_sub(len).ok_or(Code::PROTOCOL)?;
            }
            (WINDOW, 4) => self.at = 1,
            (CLOSE, 0) => return Err(Code::NORMAL),
            _ => return wrong,
        }
        self.left = len;
        Ok(())
    }

    /// A message holds whole frames, and at least one.
    fn message_ends(&mut self) {
        if self.at > 0 || self.left > 0 || self.frames == 0 {
            self.end = self.end.or(Some(Code::PROTOCOL));
        }
        self.frames = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vectors::Vectors;
    use std::vec::Vec;

    const LANE: u32 = 0x01_2345;

    fn frame(kind: u8, lane: u32, payload: &[u8]) -> Vec<u8> {
        [&head(kind, lane, payload.len() as u32), payload].concat()
    }

    /// A client's message, whose mask is 0.
    fn message(payload: &[u8]) -> Vec<u8> {
        let mut start = [0; websocket::MAX_HEAD];
        let len = websocket::head(opcode::BINARY, payload.len() as u64, &mut start);
        start[1] |= 0x80;
        [&start[..len], &[0; 4], payload].concat()
    }

    /// The data in what a client sends in pieces; then the lane.
    fn deframed(wire: &[u8], piece: usize) -> (Vec<u8>, Up) {
        let (mut up, mut data) = (Up::new(LANE), Vec::new());
        for piece in wire.chunks(piece) {
            let mut bytes = piece.to_vec();
            let len = up.deframe(&mut bytes);
            data.extend(&bytes[..len]);
        }
        (data, up)
    }

    fn reply(up: &mut Up) -> Vec<u8> {
        let mut out = [0; MAX_REPLY];
        let len = up.reply(&mut out);
        out[..len].to_vec()
    }

    #[test]
    fn any_cut_gives_the_same_data_and_credit() {
        let payload: Vec<u8> = (0..100_000_u32).map(|i| (i * 11) as u8).collect();
        let mut wire =
            message(&[frame(OPEN, LANE, b""), frame(DATA, LANE, &payload[..70])].concat());
        wire.extend(message(&frame(DATA, LANE, &payload[70..80_000])));
        let more = [
            frame(WINDOW, LANE, &[0, 1, 0, 0]),
            frame(DATA, LANE, &payload[80_000..80_001]),
            frame(WINDOW, LANE, &[0, 0, 0, 9]),
            frame(DATA, LANE, &payload[80_001..]),
        ];
        wire.extend(message(&more.concat()));
        wire.extend([0x89, 0x83, 0, 0, 0, 0, b'a', b'b', b'c']);
        for piece in [1, 2, 3, 7, 8, 1000, 65_536, wire.len()] {
            let (data, mut up) = deframed(&wire, piece);
            assert!(data == payload && up.ended().is_none(), "pieces of {piece}");
            assert_eq!(up.granted(), 65_545);
            let window = [
                &[0x82, 12][..],
                &frame(WINDOW, LANE, &100_000_u32.to_be_bytes()),
            ]
            .concat();
            assert_eq!(reply(&mut up), [&window[..], b"\x8a\x03abc"].concat());
            assert_eq!((up.granted(), reply(&mut up)), (0, Vec::new()));
            assert!(up.ask() && reply(&mut up) == [0x89, 0]);
            assert!(!up.ask(), "it was asked before");
            up.deframe(&mut message(&frame(DATA, LANE, b"a")));
            assert!(up.ask(), "it has said something");
        }
    }

    #[test]
    fn a_pong_has_the_payload_of_its_ping() {
        let mut up = Up::new(LANE);
        let ping = [0x89, 0x83, 0, 0, 0, 0, b'a', b'b', b'c'];
        let pong = [0x8a, 0x82, 0, 0, 0, 0, b'x', b'y'];
        let part_of_a_ping = [0x89, 0x82, 0, 0, 0, 0, b'z'];
        up.deframe(&mut [&ping[..], &pong, &part_of_a_ping].concat());
        assert_eq!(reply(&mut up), b"\x8a\x03abc");
        assert_eq!(reply(&mut up), b"");
        up.deframe(&mut [b'!']);
        assert_eq!(reply(&mut up), b"\x8a\x02z!");
    }

    #[test]
    fn each_violation_ends_it() {
        let (open, data) = (frame(OPEN, LANE, b""), frame(DATA, LANE, b"abc"));
        let window = |bytes: &[u8]| frame(WINDOW, LANE, bytes);
        let small = frame(DATA, LANE, &[7; 1 << 19]);
        let much: Vec<Vec<u8>> = (0..8).map(|_| message(&small)).collect();
        let begun =
            |behind: &[u8]| [message(&[&open[..], &data].concat()), message(behind)].concat();
        let wrong = Some(Code::PROTOCOL);
        for (name, wire, end) in [
            ("data first", message(&data), wrong),
            ("another lane", message(&frame(OPEN, 1, b"")), wrong),
            (
                "a payload of OPEN",
                message(&frame(OPEN, LANE, b"a")),
                wrong,
            ),
            ("a second OPEN", begun(&open), wrong),
            ("data of another lane", begun(&frame(DATA, 2, b"a")), wrong),
            ("no data", begun(&frame(DATA, LANE, b"")), wrong),
            (
                "a payload of CLOSE",
                begun(&frame(CLOSE, LANE, b"a")),
                wrong,
            ),
            ("credit of 0", begun(&window(&[0; 4])), wrong),
            ("credit of 3 bytes", begun(&window(&[1; 3])), wrong),
            (
                "too much credit",
                begun(&[window(&[255; 4]), window(&[0, 0, 0, 1])].concat()),
                wrong,
            ),
            ("a relay's frame", begun(&frame(0x11, 0, b"")), wrong),
            ("an unknown frame", begun(&frame(7, LANE, b"")), wrong),
            ("half a frame", begun(&data[..9]), wrong),
            ("half a head", begun(&data[..5]), wrong),
            ("an empty message", begun(b""), wrong),
            (
                "more than a batch",
                begun(&frame(DATA, LANE, b"a").repeat(WEB_BATCH as usize + 1)),
                wrong,
            ),
            (
                "a long frame",
                begun(&head(DATA, LANE, WEB_DATA + 1)),
                wrong,
            ),
            (
                "more than its window",
                [message(&[&open[..], &data].concat()), much.concat()].concat(),
                wrong,
            ),
            ("text", [0x81, 0x80].to_vec(), Some(Code::NOT_BINARY)),
            (
                "its end",
                begun(&frame(CLOSE, LANE, b"")),
                Some(Code::NORMAL),
            ),
            (
                "the connection's end",
                [0x88, 0x80, 0, 0, 0, 0].to_vec(),
                Some(Code::NORMAL),
            ),
        ] {
            for piece in [1, 1000, wire.len()] {
                let (_, mut up) = deframed(&wire, piece);
                assert_eq!(up.ended(), end, "{name}");
                assert_eq!(reply(&mut up), end.unwrap().frame(), "{name}");
                assert_eq!(reply(&mut up), [], "{name}: once");
                assert_eq!(up.deframe(&mut message(&data)), 0, "{name}: nothing counts");
            }
        }
    }

    #[test]
    fn pieces_have_their_heads_and_keep_to_their_credit() {
        let v = Vectors::load("web");
        let mut up = Up::new(1);
        up.owed = 68;
        assert_eq!(reply(&mut up), v.bytes("websocket.server_window_68"));
        let mut down = Down::new(LANE);
        assert_eq!(down.take(usize::MAX), WEB_PIECE);
        for (len, at) in [(1, 2), (117, 2), (118, 0), (WEB_PIECE, 0)] {
            let mut out = [0; MAX_HEAD];
            assert_eq!(down.head(len, &mut out), at);
            let mut wanted = [0; websocket::MAX_HEAD];
            let start = websocket::head(opcode::BINARY, len as u64 + 8, &mut wanted);
            assert_eq!(
                out[at..],
                [&wanted[..start], &head(DATA, LANE, len as u32)].concat()
            );
        }
        assert_eq!(
            head(DATA, LANE, 65_536)[..],
            v.bytes("frames.data_head_64k")
        );
        assert_eq!(head(OPEN, MAX_LANE, 0)[..], v.bytes("frames.open_last"));
        let sum: usize = core::iter::from_fn(|| Some(down.take(60_000)).filter(|n| *n > 0)).sum();
        assert_eq!(sum + WEB_PIECE, WEB_WINDOW as usize);
        assert!(down.grant(5) && down.take(9) == 5 && down.take(9) == 0);
        assert!(down.grant(u32::MAX) && !down.grant(1));
        assert_eq!(
            Down::new(1).farewell()[..],
            [
                &[0x82, 8],
                &v.bytes("frames.close_1")[..],
                &v.bytes("websocket.close_1000")
            ]
            .concat()
        );
    }
}
