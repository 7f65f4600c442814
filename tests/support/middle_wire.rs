//! Frames of the middle proxy link (protocol.md 6.1, 6.4), as the far end writes and reads them. The
//! reader forgives nothing: sequence, checksum, lengths and padding are all checked.

use super::crypto::{Cbc, Checksum, Keys, as_array};

/// How a frame may be broken on purpose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    Checksum,
    Sequence,
    /// This length instead of the right one.
    Length(u32),
    /// Text of another protocol.
    Garbage,
}

pub struct FrameWriter {
    cipher: Option<Cbc>,
    sequence: i32,
    checksum: Checksum,
}

impl FrameWriter {
    pub fn new() -> FrameWriter {
        FrameWriter {
            cipher: None,
            sequence: -2,
            checksum: Checksum::Crc32,
        }
    }

    pub fn encrypt_with(&mut self, keys: &Keys) {
        self.cipher = Some(Cbc::new(keys));
    }

    pub fn check_with(&mut self, checksum: Checksum) {
        self.checksum = checksum;
    }

    /// One flush: a frame for each payload, no-op words up to a whole block, all of it encrypted.
    pub fn flush(&mut self, payloads: &[&[u8]]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for payload in payloads {
            bytes.extend(frame(payload, self.sequence, self.checksum));
            self.sequence += 1;
        }
        self.finish(bytes)
    }

    /// One flush with a single frame that is broken in the given way.
    pub fn flush_broken(&mut self, payload: &[u8], fault: Fault) -> Vec<u8> {
        let sequence = if fault == Fault::Sequence {
            self.sequence + 1
        } else {
            self.sequence
        };
        let mut bytes = frame(payload, sequence, self.checksum);
        match fault {
            Fault::Checksum => *bytes.last_mut().expect("a frame") ^= 1,
            Fault::Sequence => {}
            Fault::Length(length) => bytes[..4].copy_from_slice(&length.to_le_bytes()),
            Fault::Garbage => bytes = b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(),
        }
        self.finish(bytes)
    }

    fn finish(&mut self, mut bytes: Vec<u8>) -> Vec<u8> {
        assert_eq!(bytes.len() % 4, 0, "frames are whole words");
        if let Some(cipher) = &mut self.cipher {
            while !bytes.len().is_multiple_of(16) {
                bytes.extend(4_u32.to_le_bytes());
            }
            cipher.encrypt(&mut bytes);
        }
        bytes
    }
}

fn frame(payload: &[u8], sequence: i32, checksum: Checksum) -> Vec<u8> {
    let mut bytes = u32::try_from(payload.len() + 12)
        .expect("a short frame")
        .to_le_bytes()
        .to_vec();
    bytes.extend(sequence.to_le_bytes());
    bytes.extend(payload);
    bytes.extend(checksum.of(&bytes).to_le_bytes());
    bytes
}

pub struct FrameReader {
    cipher: Option<Cbc>,
    sequence: i32,
    checksum: Checksum,
    encrypted: Vec<u8>,
    plain: Vec<u8>,
    taken: usize,
    no_ops: usize,
}

impl FrameReader {
    pub fn new() -> FrameReader {
        FrameReader {
            cipher: None,
            sequence: -2,
            checksum: Checksum::Crc32,
            encrypted: Vec::new(),
            plain: Vec::new(),
            taken: 0,
            no_ops: 0,
        }
    }

    /// Everything from here on is encrypted; nothing may have been sent ahead of it.
    pub fn decrypt_with(&mut self, keys: &Keys) -> Result<(), String> {
        if self.taken < self.plain.len() {
            return Err("bytes right behind the nonce".to_owned());
        }
        self.cipher = Some(Cbc::new(keys));
        Ok(())
    }

    pub fn check_with(&mut self, checksum: Checksum) {
        self.checksum = checksum;
    }

    pub fn feed(&mut self, bytes: &[u8]) {
        self.plain.drain(..self.taken);
        self.taken = 0;
        let Some(cipher) = &mut self.cipher else {
            self.plain.extend(bytes);
            return;
        };
        self.encrypted.extend(bytes);
        let rest = self.encrypted.split_off(self.encrypted.len() / 16 * 16);
        cipher.decrypt(&mut self.encrypted);
        self.plain.append(&mut self.encrypted);
        self.encrypted = rest;
    }

    /// The payload of the next whole frame, None when more bytes are needed.
    pub fn next(&mut self) -> Result<Option<Vec<u8>>, String> {
        loop {
            let bytes = &self.plain[self.taken..];
            if bytes.len() < 4 {
                return Ok(None);
            }
            let length = u32::from_le_bytes(as_array(bytes)) as usize;
            if length == 4 {
                self.skip_no_op()?;
                continue;
            }
            if !(16..=1 << 24).contains(&length) || !length.is_multiple_of(4) {
                return Err(format!("frame length {length}"));
            }
            if bytes.len() < length {
                return Ok(None);
            }
            let payload = self.checked_payload(length)?;
            self.taken += length;
            self.sequence += 1;
            self.no_ops = 0;
            return Ok(Some(payload));
        }
    }

    fn skip_no_op(&mut self) -> Result<(), String> {
        self.taken += 4;
        self.no_ops += 1;
        match (self.cipher.is_some(), self.no_ops) {
            (false, _) => Err("padding in clear".to_owned()),
            (true, 1..=3) => Ok(()),
            (true, count) => Err(format!("{count} no-op words in a row")),
        }
    }

    fn checked_payload(&self, length: usize) -> Result<Vec<u8>, String> {
        let frame = &self.plain[self.taken..self.taken + length];
        let sequence = i32::from_le_bytes(as_array(&frame[4..]));
        if sequence != self.sequence {
            return Err(format!("sequence {sequence} instead of {}", self.sequence));
        }
        let (checked, checksum) = frame.split_at(length - 4);
        if self.checksum.of(checked) != u32::from_le_bytes(as_array(checksum)) {
            return Err(format!("wrong {:?} on frame {sequence}", self.checksum));
        }
        Ok(checked[8..].to_vec())
    }
}
