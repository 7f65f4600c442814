//! Frames of a middle-proxy connection (protocol.md 6.1, 6.4): u32 length of the whole frame, i32
//! sequence number, payload, u32 checksum over all before it. Length 4 is a no-op. From the second
//! frame on each direction is one AES-256-CBC chain.
//!
//! Both directions work in place. Each frame is padded to the cipher block with no-ops, so that frames
//! are sealed one by one and sent together in one vectored write.
//!
//! Called by the threads of a middle-proxy connection. Before the cipher starts, the bytes are from
//! whatever listens at a middle proxy's address; afterwards from Telegram.

use alloc::vec::Vec;
use core::ops::Range;

use crate::crypto::cbc::{BLOCK, CbcDecrypt, CbcEncrypt};
use crate::crypto::ctr::StreamKey;
use crate::limits::{FRAME_BUFFER, FRAME_MOVED, MAX_FRAME, USUAL_FRAME};

/// Bytes of a frame before its payload.
pub const FRAME_HEAD: usize = 8;
/// Bytes of a frame after its payload: the checksum.
pub const FRAME_TAIL: usize = 4;
/// Room that [`FrameWriter::seal`] needs after a payload: checksum and no-ops.
pub const SEAL_ROOM: usize = FRAME_TAIL + BLOCK - 4;

const NO_OP: u32 = 4;
const MIN_FRAME: u32 = 16;
/// Sequence number of the nonce, the first frame of each direction.
const FIRST_SEQUENCE: i32 = -2;

/// Why a connection can't go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FrameError {
    /// Below 16, above 16 MiB or not a multiple of 4.
    Length,
    /// Wrong keys (the NAT address!) or damage.
    Checksum,
    /// Not the expected number.
    Sequence,
    /// Bytes followed a nonce before they could be encrypted.
    Pipelined,
}

/// Seals payloads for one direction.
pub struct FrameWriter {
    sequence: i32,
    checksum: fn(&[u8]) -> u32,
    cipher: Option<CbcEncrypt>,
}

impl FrameWriter {
    /// At the first frame, not encrypted yet.
    pub fn new(checksum: fn(&[u8]) -> u32) -> FrameWriter {
        FrameWriter {
            sequence: FIRST_SEQUENCE,
            checksum,
            cipher: None,
        }
    }

    /// Encrypts from the next frame on.
    pub fn start_cipher(&mut self, key: &StreamKey) {
        self.cipher = Some(CbcEncrypt::new(key));
    }

    /// Uses another checksum from the next frame on.
    pub fn set_checksum(&mut self, checksum: fn(&[u8]) -> u32) {
        self.checksum = checksum;
    }

    /// Makes the frame around `payload` in `buf` and returns where the wire bytes are. Needs
    /// [`FRAME_HEAD`] bytes before and [`SEAL_ROOM`] after it, and a payload of at least 4 bytes and a
    /// multiple of 4; otherwise None, and nothing was sealed.
    pub fn seal(&mut self, buf: &mut [u8], payload: Range<usize>) -> Option<Range<usize>> {
        let start = payload.start.checked_sub(FRAME_HEAD)?;
        let end = payload.end.checked_add(FRAME_TAIL)?;
        let len = u32::try_from(end.checked_sub(start)?).ok()?;
        let room_end = payload.end.checked_add(SEAL_ROOM)?;
        if len % 4 != 0 || len < MIN_FRAME {
            return None;
        }
        let frame = buf.get_mut(start..room_end)?;
        let (body, room) = frame.split_at_mut_checked(payload.end.checked_sub(start)?)?;
        let (tail, no_ops) = room.split_first_chunk_mut::<FRAME_TAIL>()?;
        let head = body.first_chunk_mut::<FRAME_HEAD>()?;
        *head = (u64::from(len) | u64::from(self.sequence as u32) << 32).to_le_bytes();
        *tail = (self.checksum)(body).to_le_bytes();
        no_ops.as_chunks_mut().0.fill(NO_OP.to_le_bytes());
        self.sequence = self.sequence.wrapping_add(1);
        let Some(cipher) = &mut self.cipher else {
            return Some(start..end);
        };
        let wire = start..start.checked_add((len as usize).next_multiple_of(BLOCK))?;
        cipher.apply(buf.get_mut(wire.clone())?);
        Some(wire)
    }
}

/// Splits one direction into frames. The caller reads into [`FrameReader::space`], says how much with
/// [`FrameReader::received`], and calls [`FrameReader::take`] until there is no whole frame.
pub struct FrameReader {
    buf: Vec<u8>,
    /// Where the next frame begins.
    start: usize,
    /// Up to here the bytes are decrypted.
    clear: usize,
    /// Up to here bytes were received.
    filled: usize,
    sequence: i32,
    checksum: fn(&[u8]) -> u32,
    cipher: Option<CbcDecrypt>,
}

impl FrameReader {
    /// At the first frame, not encrypted yet.
    pub fn new(checksum: fn(&[u8]) -> u32) -> FrameReader {
        let buf = alloc::vec![0; FRAME_BUFFER];
        FrameReader {
            buf,
            start: 0,
            clear: 0,
            filled: 0,
            sequence: FIRST_SEQUENCE,
            checksum,
            cipher: None,
        }
    }

    /// Decrypts from the next byte on. Nothing may have been received after the frames already taken.
    pub fn start_cipher(&mut self, key: &StreamKey) -> Result<(), FrameError> {
        if self.start != self.filled {
            return Err(FrameError::Pipelined);
        }
        self.cipher = Some(CbcDecrypt::new(key));
        Ok(())
    }

    /// Uses another checksum from the next frame on.
    pub fn set_checksum(&mut self, checksum: fn(&[u8]) -> u32) {
        self.checksum = checksum;
    }

    /// Present size of the buffer, bytes.
    pub fn capacity(&self) -> usize {
        self.buf.len()
    }

    /// Its size after the next [`FrameReader::space`].
    pub fn next_capacity(&self) -> usize {
        match self.start == 0 && self.filled == self.buf.len() {
            true => self.buf.len().saturating_mul(2),
            false => self.buf.len(),
        }
    }

    /// Where to read to; never empty. The buffer grows only when it is full of a frame's bytes, and goes
    /// back to its first size when it is empty, unless what was in it last needed more.
    pub fn space(&mut self) -> &mut [u8] {
        if self.start == self.filled {
            let keep = self.start > FRAME_BUFFER && self.buf.len() <= USUAL_FRAME;
            (self.start, self.clear, self.filled) = (0, 0, 0);
            if self.buf.len() > FRAME_BUFFER && !keep {
                self.buf = alloc::vec![0; FRAME_BUFFER];
            }
        }
        if let Some(end) = self.end_in_place() {
            return self.buf.get_mut(self.filled..end).unwrap_or_default();
        }
        // A frame is longer than the buffer; `take` has refused lengths above the limit.
        self.buf.resize(self.next_capacity(), 0);
        if self.start > 0 {
            self.buf.copy_within(self.start..self.filled, 0);
            self.filled = self.filled.saturating_sub(self.start);
            self.clear = self.clear.saturating_sub(self.start);
            self.start = 0;
        }
        self.buf.get_mut(self.filled..).unwrap_or_default()
    }

    /// Where the frame ends that has begun, with its cipher block, if it is to be read where it is: so
    /// the buffer is empty behind it, and nothing long was moved.
    fn end_in_place(&self) -> Option<usize> {
        let is_long = self.filled.saturating_sub(self.start) > FRAME_MOVED;
        let clear = self.buf.get(self.start..self.clear)?;
        let word = clear.first_chunk().filter(|_| self.start > 0 && is_long)?;
        let end = self.start.checked_add(u32::from_le_bytes(*word) as usize)?;
        let rest = end.checked_sub(self.clear)?;
        let end = self
            .clear
            .checked_add(rest.checked_next_multiple_of(BLOCK)?)?;
        (self.filled < end && end <= self.buf.len()).then_some(end)
    }

    /// `n` bytes were read to the front of [`FrameReader::space`].
    pub fn received(&mut self, n: usize) {
        self.filled = self.filled.saturating_add(n).min(self.buf.len());
        let fresh = self
            .buf
            .get_mut(self.clear..self.filled)
            .unwrap_or_default();
        match &mut self.cipher {
            Some(cipher) => {
                let blocks = fresh.as_chunks_mut::<BLOCK>().0.as_flattened_mut();
                cipher.apply(blocks);
                self.clear = self.clear.saturating_add(blocks.len());
            }
            None => self.clear = self.filled,
        }
    }

    /// The next whole frame, checked; its payload lies between [`FRAME_HEAD`] and [`FRAME_TAIL`],
    /// and all of it may be overwritten. None: more bytes are needed.
    pub fn take(&mut self) -> Result<Option<&mut [u8]>, FrameError> {
        let Some(len) = self.next_len()? else {
            return Ok(None);
        };
        let start = self.start;
        let end = start.saturating_add(len);
        if end > self.clear {
            return Ok(None);
        }
        self.start = end;
        let frame = self.buf.get_mut(start..end).ok_or(FrameError::Length)?;
        let (body, sum) = frame
            .split_last_chunk::<FRAME_TAIL>()
            .ok_or(FrameError::Length)?;
        if (self.checksum)(body) != u32::from_le_bytes(*sum) {
            return Err(FrameError::Checksum);
        }
        let head = body.first_chunk::<FRAME_HEAD>().ok_or(FrameError::Length)?;
        if (u64::from_le_bytes(*head) >> 32) as u32 != self.sequence as u32 {
            return Err(FrameError::Sequence);
        }
        self.sequence = self.sequence.wrapping_add(1);
        Ok(Some(frame))
    }

    /// Length of the next frame; no-ops before it are skipped.
    fn next_len(&mut self) -> Result<Option<usize>, FrameError> {
        loop {
            let clear = self.buf.get(self.start..self.clear).unwrap_or_default();
            let Some(word) = clear.first_chunk::<4>() else {
                return Ok(None);
            };
            let len = u32::from_le_bytes(*word);
            if len != NO_OP {
                let right = len >= MIN_FRAME && len % 4 == 0 && len as usize <= MAX_FRAME;
                return if right {
                    Ok(Some(len as usize))
                } else {
                    Err(FrameError::Length)
                };
            }
            self.start = self.start.saturating_add(4);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::crc32::PORTABLE;
    use crate::vectors::Vectors;
    use std::{format, vec};

    fn key(v: &Vectors, name: &str) -> StreamKey {
        StreamKey {
            key: v.array(&format!("{name}_key")),
            iv: v.array(&format!("{name}_iv")),
        }
    }

    fn sealed(writer: &mut FrameWriter, payload: &[u8]) -> Vec<u8> {
        let mut buf = vec![0xaa; FRAME_HEAD + payload.len() + SEAL_ROOM];
        let range = FRAME_HEAD..FRAME_HEAD + payload.len();
        buf[range.clone()].copy_from_slice(payload);
        let wire = writer.seal(&mut buf, range).unwrap();
        buf[wire].to_vec()
    }

    fn feed(reader: &mut FrameReader, bytes: &[u8]) -> Result<Vec<Vec<u8>>, FrameError> {
        let mut out = Vec::new();
        assert_eq!(feed_some(reader, bytes, &mut out)?, bytes.len());
        Ok(out)
    }

    /// As many bytes as one read takes; how many.
    fn feed_some(
        reader: &mut FrameReader,
        bytes: &[u8],
        out: &mut Vec<Vec<u8>>,
    ) -> Result<usize, FrameError> {
        let space = reader.space();
        let n = space.len().min(bytes.len());
        space[..n].copy_from_slice(&bytes[..n]);
        reader.received(n);
        while let Some(frame) = reader.take()? {
            out.push(frame[FRAME_HEAD..frame.len() - FRAME_TAIL].to_vec());
        }
        Ok(n)
    }

    /// Payloads of step `i` of the transcript.
    fn payloads(v: &Vectors, i: i64) -> Vec<Vec<u8>> {
        if v.has(&format!("steps.{i}.payload")) {
            return vec![v.bytes(&format!("steps.{i}.payload"))];
        }
        (0..v.number(&format!("steps.{i}.payloads.count")))
            .map(|p| v.bytes(&format!("steps.{i}.payloads.{p}")))
            .collect()
    }

    /// Plays one side of the transcript through a writer and both through a reader.
    fn play(from: &str, key_name: &str, chunk: usize) {
        let v = Vectors::load("rpc_transcript");
        let mut writer = FrameWriter::new(PORTABLE.crc32);
        let mut reader = FrameReader::new(PORTABLE.crc32);
        let mut n = 0;
        for i in 0..v.number("steps.count") {
            if v.text(&format!("steps.{i}.from")) != from {
                continue;
            }
            let wanted = payloads(&v, i);
            let wire = v.bytes(&format!("steps.{i}.wire"));
            if wanted.len() == 1 {
                assert_eq!(sealed(&mut writer, &wanted[0]), wire, "step {i}");
            } else {
                return; // several frames in one flush: padded once there, each here
            }
            let mut got = Vec::new();
            wire.chunks(chunk)
                .for_each(|c| got.extend(feed(&mut reader, c).unwrap()));
            assert_eq!(got, wanted, "step {i}");
            if n == 0 {
                writer.start_cipher(&key(&v, key_name));
                reader.start_cipher(&key(&v, key_name)).unwrap();
            } else if n == 1 {
                writer.set_checksum(PORTABLE.crc32c);
                reader.set_checksum(PORTABLE.crc32c);
            }
            n += 1;
        }
        assert!(n >= 4);
    }

    #[test]
    fn transcript_of_the_proxy() {
        play("proxy", "client_write", usize::MAX);
        play("proxy", "client_write", 1);
    }

    #[test]
    fn transcript_of_the_middle_proxy_is_read_whole_and_byte_by_byte() {
        let v = Vectors::load("rpc_transcript");
        for chunk in [1, 7, usize::MAX] {
            let mut reader = FrameReader::new(PORTABLE.crc32);
            let mut n = 0;
            for i in 0..v.number("steps.count") {
                if v.text(&format!("steps.{i}.from")) != "backend" {
                    continue;
                }
                let mut got = Vec::new();
                let wire = v.bytes(&format!("steps.{i}.wire"));
                wire.chunks(chunk)
                    .for_each(|c| got.extend(feed(&mut reader, c).unwrap()));
                assert_eq!(got, payloads(&v, i), "step {i}");
                n += 1;
                match n {
                    1 => reader.start_cipher(&key(&v, "client_read")).unwrap(),
                    2 => reader.set_checksum(PORTABLE.crc32c),
                    _ => {}
                }
            }
            assert_eq!(n, 5);
        }
    }

    #[test]
    fn seal_refuses_what_is_no_payload() {
        let mut w = FrameWriter::new(PORTABLE.crc32);
        let mut buf = [0; 64];
        assert!(w.seal(&mut buf, 8..8).is_none());
        assert!(w.seal(&mut buf, 8..13).is_none());
        assert!(w.seal(&mut buf, 4..12).is_none());
        assert!(w.seal(&mut buf, 8..52).is_none());
        assert_eq!(w.seal(&mut buf, 8..48), Some(0..52));
    }

    #[test]
    fn wrong_length_checksum_sequence_end_the_connection() {
        let frame = sealed(&mut FrameWriter::new(PORTABLE.crc32), &[1; 32]);
        let fed = |bytes: &[u8]| feed(&mut FrameReader::new(PORTABLE.crc32), bytes);
        assert_eq!(fed(&frame).unwrap().len(), 1);
        for len in [0, 8, 12, 17, MAX_FRAME as u32 + 4, u32::MAX] {
            assert_eq!(fed(&len.to_le_bytes()), Err(FrameError::Length), "{len}");
        }
        assert_eq!(fed(&(MAX_FRAME as u32).to_le_bytes()), Ok(vec![]));
        for i in 4..frame.len() {
            let mut bad = frame.clone();
            bad[i] ^= 0x80;
            assert_eq!(fed(&bad), Err(FrameError::Checksum), "byte {i}");
        }
        let mut reader = FrameReader::new(PORTABLE.crc32);
        feed(&mut reader, &frame).unwrap();
        assert_eq!(feed(&mut reader, &frame), Err(FrameError::Sequence));
    }

    #[test]
    fn nothing_may_follow_the_nonce() {
        let mut frame = sealed(&mut FrameWriter::new(PORTABLE.crc32), &[1; 32]);
        frame.push(0);
        let mut reader = FrameReader::new(PORTABLE.crc32);
        feed(&mut reader, &frame).unwrap();
        let key = StreamKey {
            key: [0; 32],
            iv: [0; 16],
        };
        assert_eq!(reader.start_cipher(&key), Err(FrameError::Pipelined));
    }

    #[test]
    fn frames_are_read_whole_wherever_they_begin() {
        let key = StreamKey {
            key: [3; 32],
            iv: [4; 16],
        };
        // Lengths of payloads that fit, that end at the buffer's end, and that need a larger one; with those
        // between them frames begin anywhere.
        let longest = FRAME_BUFFER - FRAME_HEAD - SEAL_ROOM;
        let lengths = [
            128 << 10,
            40,
            128 << 10,
            1004,
            longest,
            longest + 64,
            512 << 10,
        ];
        let lengths = lengths.into_iter().chain((0..40).map(|i| 4 + 4004 * i));
        let payloads: Vec<Vec<u8>> = lengths.map(|n| vec![n as u8; n]).collect();
        for piece in [usize::MAX, 300_000, 70_000, 4_001, 16] {
            let mut writer = FrameWriter::new(PORTABLE.crc32);
            writer.start_cipher(&key);
            let mut reader = FrameReader::new(PORTABLE.crc32);
            reader.start_cipher(&key).unwrap();
            let wire = payloads.iter().flat_map(|p| sealed(&mut writer, p));
            let wire: Vec<u8> = wire.collect();
            let (mut got, mut rest) = (Vec::new(), &wire[..]);
            while !rest.is_empty() {
                let n = feed_some(&mut reader, &rest[..piece.min(rest.len())], &mut got).unwrap();
                assert!(n > 0);
                rest = &rest[n..];
            }
            assert!(got == payloads, "{piece} bytes at a time");
        }
    }

    #[test]
    fn the_buffer_stays_large_for_long_frames_in_a_row() {
        let mut writer = FrameWriter::new(PORTABLE.crc32);
        let mut reader = FrameReader::new(PORTABLE.crc32);
        let mut capacity_behind = |len: usize| {
            let wire = sealed(&mut writer, &vec![1; len]);
            let mut rest = &wire[..];
            while !rest.is_empty() {
                let n = feed_some(&mut reader, rest, &mut Vec::new()).unwrap();
                rest = &rest[n..];
            }
            reader.space();
            reader.capacity()
        };
        assert_eq!(capacity_behind(512 << 10), 2 * FRAME_BUFFER);
        assert_eq!(capacity_behind(512 << 10), 2 * FRAME_BUFFER);
        assert_eq!(capacity_behind(40), FRAME_BUFFER);
        assert_eq!(capacity_behind(USUAL_FRAME + 4), FRAME_BUFFER);
    }

    #[test]
    fn a_long_frame_grows_the_buffer_with_its_bytes_and_it_shrinks_again() {
        let key = StreamKey {
            key: [3; 32],
            iv: [4; 16],
        };
        let mut writer = FrameWriter::new(PORTABLE.crc32);
        writer.start_cipher(&key);
        let mut reader = FrameReader::new(PORTABLE.crc32);
        reader.start_cipher(&key).unwrap();
        let payloads: Vec<Vec<u8>> = [100, 5 * FRAME_BUFFER, 40]
            .iter()
            .map(|n| vec![*n as u8; *n])
            .collect();
        let wire: Vec<u8> = payloads
            .iter()
            .flat_map(|p| sealed(&mut writer, p))
            .collect();
        let mut got = Vec::new();
        let mut rest = &wire[..];
        while !rest.is_empty() {
            assert!(reader.capacity() <= 2 * FRAME_BUFFER.max(wire.len() - rest.len()));
            let n = reader.space().len().min(rest.len()).min(100_001);
            got.extend(feed(&mut reader, &rest[..n]).unwrap());
            rest = &rest[n..];
        }
        assert_eq!(got, payloads);
        reader.space();
        assert_eq!(reader.capacity(), FRAME_BUFFER);
    }
}
