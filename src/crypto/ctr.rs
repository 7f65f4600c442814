//! One direction of an obfuscated2 stream: AES-256-CTR with a 128-bit big-endian counter
//! (protocol.md 3.2). The IV is the first counter block. Every byte of a client passes through here.

use aes::cipher::{Block, InnerIvInit, KeyInit, StreamCipherCore};

/// Bytes of a cipher block.
const BLOCK: usize = 16;

/// The value of `used` in a stream that doesn't encrypt.
const CLEAR: usize = usize::MAX;

/// From this many blocks on they are computed side by side. That is many times as fast, but takes
/// 7 KiB of stack, which then stay resident for the life of a client's thread; an idle client's small
/// packets go block by block.
const BULK: usize = 16;

/// Key and first counter block of one direction.
#[derive(Clone)]
pub struct StreamKey {
    /// AES-256 key.
    pub key: [u8; 32],
    /// First counter block.
    pub iv: [u8; 16],
}

impl StreamKey {
    /// Key and first counter block from 48 bytes in this order; bytes that are missing are zero.
    pub fn collect<'a>(material: impl Iterator<Item = &'a u8>) -> StreamKey {
        let (mut key, mut iv) = ([0; 32], [0; 16]);
        let places = key.iter_mut().chain(&mut iv);
        places
            .zip(material)
            .for_each(|(place, byte)| *place = *byte);
        StreamKey { key, iv }
    }
}

/// A running cipher stream; encryption and decryption are the same.
pub struct Ctr {
    core: ctr::CtrCore<aes::Aes256Enc, ctr::flavors::Ctr128BE>,
    keystream: [u8; BLOCK],
    /// Bytes of `keystream` that have been used.
    used: usize,
}

impl Ctr {
    /// A stream at offset 0.
    pub fn new(key: &StreamKey) -> Ctr {
        let cipher = aes::Aes256Enc::new((&key.key).into());
        let core = ctr::CtrCore::inner_iv_init(cipher, (&key.iv).into());
        Ctr {
            core,
            keystream: [0; BLOCK],
            used: BLOCK,
        }
    }

    /// A stream that leaves bytes as they are, for transports without obfuscation.
    pub fn clear() -> Ctr {
        Ctr {
            used: CLEAR,
            ..Ctr::new(&StreamKey::collect([].iter()))
        }
    }

    /// Encrypts or decrypts the next `data.len()` bytes of the stream in place.
    pub fn apply(&mut self, data: &mut [u8]) {
        if self.used == CLEAR {
            return;
        }
        let left = self.keystream.get(self.used..).unwrap_or_default();
        let started = left.len().min(data.len());
        let (head, rest) = data.split_at_mut_checked(started).unwrap_or_default();
        xor(head, left);
        self.used = self.used.saturating_add(started);
        let (blocks, tail) = rest.as_chunks_mut::<BLOCK>();
        if blocks.len() >= BULK {
            self.apply_bulk(blocks);
        } else {
            for block in blocks {
                self.next_block();
                xor(block, &self.keystream);
            }
        }
        if !tail.is_empty() {
            self.next_block();
            xor(tail, &self.keystream);
            self.used = tail.len();
        }
    }

    #[inline(never)]
    fn apply_bulk(&mut self, blocks: &mut [[u8; BLOCK]]) {
        self.core
            .apply_keystream_blocks(Block::<aes::Aes256Enc>::cast_slice_from_core_mut(blocks));
    }

    #[inline(never)]
    fn next_block(&mut self) {
        self.core
            .write_keystream_block((&mut self.keystream).into());
        self.used = BLOCK;
    }
}

fn xor(data: &mut [u8], keystream: &[u8]) {
    data.iter_mut().zip(keystream).for_each(|(d, k)| *d ^= k);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vectors::Vectors;

    fn check(name: &str) {
        let v = Vectors::load("primitives");
        let field = |f: &str| std::format!("{name}.{f}");
        let key = StreamKey {
            key: v.array(&field("key")),
            iv: v.array(&field("iv")),
        };
        let (plain, wire) = (v.bytes(&field("plain")), v.bytes(&field("cipher")));
        let mut whole = plain.clone();
        Ctr::new(&key).apply(&mut whole);
        assert_eq!(whole, wire);
        let mut bytewise = plain;
        let mut stream = Ctr::new(&key);
        bytewise.chunks_mut(1).for_each(|b| stream.apply(b));
        assert_eq!(bytewise, wire);
    }

    #[test]
    fn vectors_whole_and_byte_by_byte() {
        check("aes_256_ctr");
    }

    #[test]
    fn bulk_equals_block_by_block_at_any_offset() {
        let key = StreamKey {
            key: [1; 32],
            iv: [0xff; 16],
        };
        let mut whole = [0; 3000];
        Ctr::new(&key).apply(&mut whole);
        for step in [1, 5, 16, 17, 255, 256, 257, 1024, 1500] {
            let mut parts = [0; 3000];
            let mut stream = Ctr::new(&key);
            parts.chunks_mut(step).for_each(|c| stream.apply(c));
            assert!(parts == whole, "step {step}");
        }
    }

    #[test]
    fn counter_wraps_to_zero() {
        check("aes_256_ctr_carry");
    }
}
