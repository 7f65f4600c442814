//! One direction of an obfuscated2 stream: AES-256-CTR with a 128-bit big-endian counter
//! (protocol.md 3.2). The IV is the first counter block. Every byte of a client passes through here.

use core::hint::black_box;

use aes::Block;
use aes::cipher::array::Array;
use aes::cipher::{
    BlockCipherEncBackend, BlockCipherEncClosure, BlockCipherEncrypt, BlockSizeUser, InnerIvInit,
    KeyInit, ParBlocks, StreamCipherCore, consts::U16,
};

use crate::crypto::wipe::wipe;

/// Bytes of a cipher block.
const BLOCK: usize = 16;

/// The value of `used` in a stream that doesn't encrypt.
const CLEAR: usize = usize::MAX;

/// From this many blocks on they are computed side by side. That is many times as fast, but takes more than
/// 1 KiB of stack, which then stay resident for the life of a client's thread; an idle client's small
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

impl Drop for StreamKey {
    fn drop(&mut self) {
        wipe(&mut self.key);
        wipe(&mut self.iv);
    }
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
    cipher: aes::Aes256Enc,
    /// The next block's.
    counter: u128,
    keystream: [u8; BLOCK],
    /// Bytes of `keystream` that have been used.
    used: usize,
}

impl Ctr {
    /// A stream at offset 0.
    pub fn new(key: &StreamKey) -> Ctr {
        Ctr {
            cipher: aes::Aes256Enc::new((&key.key).into()),
            counter: u128::from_be_bytes(key.iv),
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
        self.cipher.encrypt_with_backend(Bulk {
            counter: &mut self.counter,
            blocks: Array::cast_slice_from_core_mut(blocks),
        });
    }

    #[inline(never)]
    fn next_block(&mut self) {
        let counter = self.counter.to_be_bytes();
        let mut core = ctr::CtrCore::<_, ctr::flavors::Ctr128BE>::inner_iv_init(
            &self.cipher,
            (&counter).into(),
        );
        core.write_keystream_block((&mut self.keystream).into());
        self.counter = self.counter.wrapping_add(1);
        self.used = BLOCK;
    }
}

/// Blocks on the stack as the widest registers like them: none of those lies in two cache lines.
#[repr(align(64))]
pub struct Aligned<T>(pub T);

/// As many blocks at a time as the cipher computes side by side. The `ctr` crate counts one by one, which
/// takes as long as the cipher where that has wide registers.
struct Bulk<'a> {
    counter: &'a mut u128,
    blocks: &'a mut [Block],
}

impl BlockSizeUser for Bulk<'_> {
    type BlockSize = U16;
}

impl BlockCipherEncClosure for Bulk<'_> {
    #[inline(always)]
    fn call<B: BlockCipherEncBackend<BlockSize = U16>>(self, backend: &B) {
        let (batches, tail) = Array::<Block, B::ParBlocksSize>::slice_as_chunks_mut(self.blocks);
        let mut keystream = Aligned(ParBlocks::<B>::default());
        for batch in batches {
            count(self.counter, &mut keystream.0);
            // Through memory: else the blocks are computed one behind the other as their counters are.
            backend.encrypt_par_blocks((&mut black_box(&mut keystream).0).into());
            xor(batch.as_flattened_mut(), keystream.0.as_flattened());
        }
        for block in tail {
            let mut keystream = Block::from(self.counter.to_be_bytes());
            *self.counter = self.counter.wrapping_add(1);
            backend.encrypt_block((&mut keystream).into());
            xor(block, &keystream);
        }
    }
}

/// Fills in the next counters: in halves, several of which fit a register.
#[inline(always)]
fn count(counter: &mut u128, blocks: &mut [Block]) {
    let (high, low) = ((*counter >> 64) as u64, *counter as u64);
    *counter = counter.wrapping_add(blocks.len() as u128);
    for (block, i) in blocks.iter_mut().zip(0..) {
        let (low, carry) = low.overflowing_add(i);
        let halves = [high.wrapping_add(u64::from(carry)), low];
        for (place, half) in block.as_chunks_mut().0.iter_mut().zip(halves) {
            *place = half.to_be_bytes();
        }
    }
}

/// Xors `data` with as many bytes of `with`, which is at least as long.
#[inline(always)]
pub fn xor(data: &mut [u8], with: &[u8]) {
    let with = with.get(..data.len()).unwrap_or(with);
    let ((words, tail), (with_words, with_tail)) = (data.as_chunks_mut(), with.as_chunks());
    for (word, with) in words.iter_mut().zip(with_words) {
        *word = (u64::from_ne_bytes(*word) ^ u64::from_ne_bytes(*with)).to_ne_bytes();
    }
    tail.iter_mut().zip(with_tail).for_each(|(b, w)| *b ^= w);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vectors::Vectors;
    use aes::cipher::{KeyIvInit, StreamCipher};
    use alloc::vec::Vec;

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

    /// The stream as the `ctr` crate counts it.
    fn keystream(key: &StreamKey, blocks: usize) -> Vec<u8> {
        let mut bytes = std::vec![0; blocks * BLOCK];
        let mut cipher = ctr::Ctr128BE::<aes::Aes256>::new((&key.key).into(), (&key.iv).into());
        cipher.apply_keystream(&mut bytes);
        bytes
    }

    /// Every length up to several times what any cipher takes at once, at every kind of address; pieces
    /// that end anywhere in a block; counters that carry into each half.
    #[test]
    fn any_run_equals_the_ctr_crates() {
        let near = |bits: u32| (u128::MAX >> (128 - bits)) - 70;
        let ivs = [0, 0xff, near(32), near(64), near(96), near(128), 1 << 127];
        for iv in ivs {
            let key = StreamKey {
                key: [1; 32],
                iv: iv.to_be_bytes(),
            };
            let wanted = keystream(&key, 260);
            for len in (0..300).chain((64..260).map(|blocks| blocks * BLOCK + blocks % 19)) {
                let len = len.min(wanted.len());
                let from = len % 17;
                let mut buf = std::vec![0; from + len];
                Ctr::new(&key).apply(&mut buf[from..]);
                assert!(buf[from..] == wanted[..len], "{len} bytes, counter {iv:x}");
            }
            for piece in [1, 5, 15, 16, 17, 255, 1023, 1024, 1025, 1500] {
                let mut buf = std::vec![0; wanted.len()];
                let mut stream = Ctr::new(&key);
                buf.chunks_mut(piece).for_each(|c| stream.apply(c));
                assert!(buf == wanted, "pieces of {piece}, counter {iv:x}");
            }
        }
    }

    #[test]
    fn counter_wraps_to_zero() {
        check("aes_256_ctr_carry");
    }
}
