//! The three client transports as a client sees them: writes frames (protocol.md 4.1) and reads packets
//! and quick acks (4.2, 4.3) with every rule checked.

use super::crypto::as_array;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transport {
    Abridged,
    Intermediate,
    Padded,
}

pub const TRANSPORTS: [Transport; 3] = [
    Transport::Abridged,
    Transport::Intermediate,
    Transport::Padded,
];

/// Largest frame that a client may send, padding included (protocol.md 4.1).
pub const MAX_UP: usize = 1_044_480;

/// What a client gets: a packet (4-byte error codes included), or the quick ack of one that it sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Item {
    Packet(Vec<u8>),
    QuickAck { confirm: u32, framed: bool },
}

/// Gives exactly so many decrypted bytes, or None when the connection ended before the first of them.
pub type Read<'a> = &'a mut dyn FnMut(usize) -> Option<Vec<u8>>;

impl Transport {
    pub fn tag(self) -> [u8; 4] {
        match self {
            Transport::Abridged => [0xef; 4],
            Transport::Intermediate => [0xee; 4],
            Transport::Padded => [0xdd; 4],
        }
    }

    /// The frame of one packet. `pad` follows the payload in the padded transport only.
    pub fn frame(self, payload: &[u8], quick_ack: bool, pad: &[u8]) -> Vec<u8> {
        let mut frame = match self {
            Transport::Abridged => abridged_prefix(payload.len() / 4, quick_ack),
            Transport::Intermediate => length_prefix(payload.len(), quick_ack),
            Transport::Padded => length_prefix(payload.len() + pad.len(), quick_ack),
        };
        frame.extend(payload);
        if self == Transport::Padded {
            frame.extend(pad);
        }
        frame
    }

    /// The next thing from the proxy; None when the connection ended between two frames.
    pub fn read_item(self, read: Read) -> Option<Item> {
        match self {
            Transport::Abridged => read_abridged(read),
            Transport::Intermediate => read_intermediate(read),
            Transport::Padded => read_padded(read),
        }
    }
}

fn abridged_prefix(words: usize, quick_ack: bool) -> Vec<u8> {
    let bit = if quick_ack { 0x80 } else { 0 };
    let words = u32::try_from(words).expect("a short packet").to_le_bytes();
    if words[1..] == [0; 3] && words[0] < 0x7f {
        vec![words[0] | bit]
    } else {
        vec![0x7f | bit, words[0], words[1], words[2]]
    }
}

fn length_prefix(length: usize, quick_ack: bool) -> Vec<u8> {
    let bit = if quick_ack { 0x8000_0000 } else { 0 };
    (u32::try_from(length).expect("a short packet") | bit)
        .to_le_bytes()
        .to_vec()
}

fn read_abridged(read: Read) -> Option<Item> {
    let first = read(1)?[0];
    if first & 0x80 != 0 {
        let rest = must(read(3));
        let confirm = u32::from_be_bytes([first, rest[0], rest[1], rest[2]]);
        return Some(bare_ack(confirm));
    }
    let mut words = usize::from(first);
    if first == 0x7f {
        let long = must(read(3));
        words = u32::from_le_bytes([long[0], long[1], long[2], 0]) as usize;
        assert!(words >= 0x7f, "the long form for {words} words");
    }
    assert!(words > 0, "an empty packet");
    Some(Item::Packet(must(read(checked(words * 4)))))
}

fn read_intermediate(read: Read) -> Option<Item> {
    let prefix = u32::from_le_bytes(as_array(&read(4)?));
    if prefix & 0x8000_0000 != 0 {
        return Some(bare_ack(prefix));
    }
    let length = checked(prefix as usize);
    assert!(
        length > 0 && length.is_multiple_of(4),
        "an intermediate length of {length}"
    );
    Some(Item::Packet(must(read(length))))
}

fn read_padded(read: Read) -> Option<Item> {
    loop {
        let prefix = u32::from_le_bytes(as_array(&read(4)?));
        if prefix & 0x8000_0000 != 0 {
            return Some(bare_ack(prefix));
        }
        let length = checked(prefix as usize);
        assert!(length >= 4, "a padded length of {length}");
        let mut payload = must(read(length));
        payload.truncate(length & !3);
        if payload.len() >= 16 {
            return Some(Item::Packet(payload));
        }
        // As TDLib: anything short is a code. 0 says nothing, -1 is a framed quick ack, else an error.
        match i32::from_le_bytes(as_array(&payload)) {
            0 => assert!(payload.len() <= 8, "a nothing of {} bytes", payload.len()),
            -1 => return Some(framed_ack(&payload)),
            _ => return Some(Item::Packet(payload)),
        }
    }
}

fn bare_ack(confirm: u32) -> Item {
    Item::QuickAck {
        confirm,
        framed: false,
    }
}

fn framed_ack(payload: &[u8]) -> Item {
    assert!(
        payload.len() == 8 || payload.len() == 12,
        "a framed ack of {} bytes",
        payload.len()
    );
    let confirm = u32::from_le_bytes(as_array(&payload[4..]));
    assert!(
        confirm & 0x8000_0000 != 0,
        "an ack without its bit: {confirm:08x}"
    );
    Item::QuickAck {
        confirm,
        framed: true,
    }
}

fn checked(length: usize) -> usize {
    assert!(
        length <= (1 << 22) + 1_024,
        "a packet of {length} bytes, more than TDLib takes"
    );
    length
}

fn must(bytes: Option<Vec<u8>>) -> Vec<u8> {
    bytes.expect("the connection ended inside a frame")
}
