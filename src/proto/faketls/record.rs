//! The record layer after the handshake (protocol.md 5.7): removed from what the client sends, and how
//! long our own records are.

use crate::limits::{HEADER_LEN, RECORD_PAUSE, RECORD_START};

/// Bytes of a record's header.
pub const HEADER: usize = 5;

/// Payload of a full record as web servers send it: 16384 bytes, type and tag.
pub const MAX_RECORD: usize = 16_401;

/// The header of an encrypted record with `len` bytes of payload, at most 65535.
pub fn header(len: usize) -> [u8; HEADER] {
    let [high, low] = u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes();
    [0x17, 3, 3, high, low]
}

/// Removes the record layer from what a client sends after our first flight: ChangeCipherSpec once, then
/// encrypted records of any length. Reads may cut the bytes anywhere.
#[derive(Default)]
pub struct Deframer {
    /// Bytes of the current record that have not come yet.
    left: u16,
    /// Upper byte of its length.
    high: u8,
    /// How much of [`OPENING`] and the length has come.
    at: u8,
    /// A record has begun.
    begun: bool,
    broken: bool,
}

impl Deframer {
    /// For a stream at its start.
    pub fn new() -> Deframer {
        Deframer::default()
    }

    /// For a server's stream behind its first flight, as a client reads it: encrypted records alone.
    pub fn of_server() -> Deframer {
        Deframer {
            at: RECORD_AT,
            begun: true,
            ..Deframer::default()
        }
    }

    /// Whether a record has come that doesn't belong in a client's stream: an alert, a handshake, another
    /// version, a first record too short for the header of obfuscated2. Bytes before it are still valid,
    /// all after it are dropped.
    pub fn is_broken(&self) -> bool {
        self.broken
    }

    /// Moves the payload in `bytes` to their front and returns its length.
    pub fn deframe(&mut self, bytes: &mut [u8]) -> usize {
        let (mut read, mut written) = (0, 0);
        while let Some(byte) = bytes.get(read).filter(|_| !self.broken) {
            if self.left == 0 {
                self.header_byte(*byte);
                read = read.saturating_add(1);
                continue;
            }
            let there = bytes.len().saturating_sub(read);
            let part = there.min(usize::from(self.left));
            let end = read.saturating_add(part);
            bytes.copy_within(read..end, written);
            read = end;
            written = written.saturating_add(part);
            self.left = self.left.saturating_sub(part as u16);
        }
        written
    }

    fn header_byte(&mut self, byte: u8) {
        match OPENING.get(usize::from(self.at)) {
            Some(expected) if *expected == byte => self.at = self.at.saturating_add(1),
            Some(_) => self.broken = true,
            None if usize::from(self.at) == OPENING.len() => {
                self.high = byte;
                self.at = self.at.saturating_add(1);
            }
            None => {
                self.left = u16::from_be_bytes([self.high, byte]);
                self.broken = !self.begun && usize::from(self.left) < HEADER_LEN;
                self.begun = true;
                self.at = RECORD_AT;
            }
        }
    }
}

/// What comes before the first record's length; each later record starts at [`RECORD_AT`].
const OPENING: [u8; 9] = [0x14, 3, 3, 0, 1, 1, 0x17, 3, 3];
const RECORD_AT: u8 = 6;

/// Sizes of our records, as web servers choose them: from about one segment, so that a browser can
/// decrypt the start of a page early, up to [`MAX_RECORD`] on a busy stream; small again after a pause.
#[derive(Default)]
pub struct Sizer {
    /// When the last record was made, milliseconds.
    last: u32,
    /// Payload of the last record.
    size: u16,
}

impl Sizer {
    /// For a stream at its start.
    pub fn new() -> Sizer {
        Sizer::default()
    }

    /// The most payload of the next record, bytes. `now` counts milliseconds from any moment and may
    /// wrap.
    pub fn next(&mut self, now: u32) -> usize {
        if now.wrapping_sub(self.last) >= RECORD_PAUSE {
            self.size = 0;
        }
        self.last = now;
        let size = usize::from(self.size).saturating_add(RECORD_START);
        let size = size.min(MAX_RECORD);
        self.size = size as u16;
        size
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::random::{Random, SEED_LEN};
    use crate::proto::obfuscated2;
    use crate::proto::secret::Secret;
    use crate::vectors::Vectors;
    use std::format;
    use std::vec::Vec;

    const CHANGE_CIPHER: [u8; 6] = [0x14, 3, 3, 0, 1, 1];

    fn record(payload: &[u8]) -> Vec<u8> {
        [&header(payload.len()), payload].concat()
    }

    /// What comes out when `wire` arrives in pieces of the lengths that `next` gives; the error is what
    /// came before a wrong record.
    fn deframed(wire: &[u8], mut next: impl FnMut() -> usize) -> Result<Vec<u8>, Vec<u8>> {
        let mut deframer = Deframer::new();
        let mut rest = wire;
        let mut payload = Vec::new();
        while !rest.is_empty() {
            let (piece, next) = rest.split_at(next().min(rest.len()));
            let start = payload.len();
            payload.extend(piece);
            let length = deframer.deframe(&mut payload[start..]);
            payload.truncate(start + length);
            rest = next;
        }
        match deframer.is_broken() {
            true => Err(payload),
            false => Ok(payload),
        }
    }

    #[test]
    fn vector_of_a_clients_first_bytes() {
        let v = Vectors::load("fake_tls");
        let mut flight = v.bytes("after_handshake.client_flight");
        let length = Deframer::new().deframe(&mut flight);
        let (head, packet) = flight[..length].split_first_chunk_mut().unwrap();
        let wire_header = v.bytes("after_handshake.obf2_wire_header");
        assert_eq!(head[..], wire_header);
        let secret = Secret::new(v.array("after_handshake.secret"));
        let mut accepted = obfuscated2::accept(head, &[secret], false).unwrap();
        accepted.receive.apply(packet);
        assert_eq!(packet, v.bytes("after_handshake.client_plain_after_header"));
    }

    #[test]
    fn vector_of_our_headers() {
        let v = Vectors::load("fake_tls");
        let wire = v.bytes("after_handshake.proxy_records_max_1425");
        let mut rest = &wire[..];
        for i in 0..v.number("after_handshake.record_payload_sizes.count") {
            let size = v.number(&format!("after_handshake.record_payload_sizes.{i}")) as usize;
            assert_eq!(rest[..HEADER], header(size));
            rest = &rest[HEADER + size..];
        }
        assert_eq!(rest, []);
    }

    #[test]
    fn any_cut_gives_the_same_payload() {
        assert!(size_of::<Deframer>() <= 12);
        let mut random = Random::new(&[4; SEED_LEN]);
        let mut wire = CHANGE_CIPHER.to_vec();
        let mut payload = Vec::new();
        for size in [64, 0, 1, 65_535, 0, 0, 2878, 255, 256, 17] {
            let mut bytes = std::vec![0; size];
            random.fill(&mut bytes);
            wire.extend(record(&bytes));
            payload.extend(bytes);
        }
        let same = |found: Result<Vec<u8>, _>| found == Ok(payload.clone());
        assert!(same(deframed(&wire, || usize::MAX)));
        assert!(same(deframed(&wire, || 1)));
        for round in 0..50 {
            let range = [2, 10, 100, 5000, 70_000][round % 5];
            let next = || 1 + random.next_u32() as usize % range;
            assert!(same(deframed(&wire, next)), "pieces below {range}");
        }
        for cut in 0..100 {
            let both = [cut, usize::MAX];
            let mut lengths = both.iter().filter(|l| **l > 0).cycle();
            let next = || *lengths.next().unwrap();
            assert!(same(deframed(&wire, next)), "cut after {cut}");
        }
    }

    #[test]
    fn other_records_end_it() {
        let first = record(&[1; 64]);
        let good = [&CHANGE_CIPHER[..], &first].concat();
        let whole = |wire: &[u8]| deframed(wire, || usize::MAX);
        assert_eq!(whole(&good), Ok([1; 64].to_vec()));
        for wrong in [
            &[0x15][..],
            &[0x16],
            &[0x14],
            &[0x17, 2],
            &[0x17, 3, 1],
            &[0x17, 3, 4],
        ] {
            let wire = [&good[..], wrong, &first].concat();
            let before = Err([1; 64].to_vec());
            assert_eq!(whole(&wire), before, "{wrong:x?}");
            assert_eq!(deframed(&wire, || 1), before, "{wrong:x?}");
            let last = good.len() + wrong.len() - 1;
            assert_eq!(whole(&wire[..last]), Ok([1; 64].to_vec()), "{wrong:x?}");
        }
        for short in [0, 1, 63] {
            let wire = [&CHANGE_CIPHER[..], &record(&[1; 63][..short])].concat();
            assert_eq!(whole(&wire), Err(Vec::new()));
        }
        assert_eq!(whole(&first), Err(Vec::new()), "no ChangeCipherSpec");
        for at in 0..CHANGE_CIPHER.len() {
            let mut wire = good.clone();
            wire[at] ^= 1;
            assert_eq!(whole(&wire), Err(Vec::new()), "byte {at}");
        }
    }

    #[test]
    fn random_bytes_never_make_it_longer() {
        let mut random = Random::new(&[5; SEED_LEN]);
        let mut refused = 0;
        for _ in 0..50_000 {
            let mut wire = [0; 120];
            random.fill(&mut wire);
            wire[..9].copy_from_slice(&OPENING);
            wire[9] = 0;
            for start in (6..100).step_by(5 + random.next_u32() as usize % 20) {
                wire[start..start + 4].copy_from_slice(&[0x17, 3, 3, 0]);
            }
            let mut deframer = Deframer::new();
            assert!(deframer.deframe(&mut wire) <= wire.len() - 11);
            refused += u32::from(deframer.is_broken());
        }
        assert!((1000..49_000).contains(&refused), "{refused}");
    }

    #[test]
    fn records_grow_while_the_stream_is_busy() {
        assert!(size_of::<Sizer>() <= 8);
        let mut sizer = Sizer::new();
        let mut now = u32::MAX - 5000; // wraps on the way
        let sizes: Vec<_> = (0..20)
            .map(|_| {
                now = now.wrapping_add(RECORD_PAUSE - 1);
                sizer.next(now)
            })
            .collect();
        assert_eq!(sizes[..3], [1369, 2738, 4107]);
        assert_eq!(sizes[10], 15_059);
        assert_eq!(sizes[11..], [MAX_RECORD; 9]);
        assert_eq!(sizer.next(now.wrapping_add(RECORD_PAUSE)), 1369);
        assert_eq!(sizer.next(now.wrapping_add(RECORD_PAUSE)), 2738);
    }
}
