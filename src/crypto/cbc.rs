//! AES-256-CBC without a padding scheme, one chain per direction for the life of a middle-proxy
//! connection (protocol.md 6.4).

use aes::Block;
use aes::cipher::array::Array;
use aes::cipher::{
    BlockCipherDecBackend, BlockCipherDecClosure, BlockCipherDecrypt, BlockCipherEncBackend,
    BlockCipherEncClosure, BlockCipherEncrypt, BlockSizeUser, KeyInit, ParBlocks, consts::U16,
};

use crate::crypto::ctr::{Aligned, StreamKey, xor};

/// Bytes of a cipher block.
pub const BLOCK: usize = 16;

/// The sending chain.
pub struct CbcEncrypt {
    cipher: aes::Aes256Enc,
    last: Block,
}

impl CbcEncrypt {
    /// A chain at its start.
    pub fn new(key: &StreamKey) -> CbcEncrypt {
        CbcEncrypt {
            cipher: aes::Aes256Enc::new((&key.key).into()),
            last: key.iv.into(),
        }
    }

    /// Encrypts whole blocks in place. Bytes beyond the last whole block are left alone.
    pub fn apply(&mut self, data: &mut [u8]) {
        self.cipher.encrypt_with_backend(Chain {
            last: &mut self.last,
            data,
        });
    }
}

/// The whole pass in one call of the cipher: one call for each block takes a third longer.
struct Chain<'a> {
    last: &'a mut Block,
    data: &'a mut [u8],
}

impl BlockSizeUser for Chain<'_> {
    type BlockSize = U16;
}

impl BlockCipherEncClosure for Chain<'_> {
    #[inline(always)]
    fn call<B: BlockCipherEncBackend<BlockSize = U16>>(self, backend: &B) {
        // A block from one round to the next, not a u128: so it stays in the cipher's own register.
        let mut last = *self.last;
        for chunk in self.data.as_chunks_mut::<BLOCK>().0 {
            let mixed = u128::from_ne_bytes(*chunk) ^ u128::from_ne_bytes(last.0);
            last = mixed.to_ne_bytes().into();
            backend.encrypt_block((&mut last).into());
            *chunk = last.0;
        }
        *self.last = last;
    }
}

/// The receiving chain.
pub struct CbcDecrypt {
    cipher: aes::Aes256Dec,
    last: Block,
}

impl CbcDecrypt {
    /// A chain at its start.
    pub fn new(key: &StreamKey) -> CbcDecrypt {
        CbcDecrypt {
            cipher: aes::Aes256Dec::new((&key.key).into()),
            last: key.iv.into(),
        }
    }

    /// Decrypts whole blocks in place. Bytes beyond the last whole block are left alone.
    pub fn apply(&mut self, data: &mut [u8]) {
        self.cipher.decrypt_with_backend(Unchain {
            last: &mut self.last,
            blocks: Array::cast_slice_from_core_mut(data.as_chunks_mut::<BLOCK>().0),
        });
    }
}

/// As many blocks at a time as the cipher computes side by side. As the cipher's own code, the xor with
/// what came before uses the same wide registers.
struct Unchain<'a> {
    last: &'a mut Block,
    blocks: &'a mut [Block],
}

impl BlockSizeUser for Unchain<'_> {
    type BlockSize = U16;
}

impl BlockCipherDecClosure for Unchain<'_> {
    #[inline(always)]
    fn call<B: BlockCipherDecBackend<BlockSize = U16>>(self, backend: &B) {
        let mut last = *self.last;
        let (batches, tail) = Array::<Block, B::ParBlocksSize>::slice_as_chunks_mut(self.blocks);
        let mut before = Aligned(ParBlocks::<B>::default());
        for batch in batches {
            last = shift(&mut before.0, batch, last);
            backend.decrypt_par_blocks((&mut *batch).into());
            xor(batch.as_flattened_mut(), before.0.as_flattened());
        }
        for block in tail {
            let wire = *block;
            backend.decrypt_block((&mut *block).into());
            xor(block, &last);
            last = wire;
        }
        *self.last = last;
    }
}

/// Copies to `before` the ciphertext before each block, `last` before the first; returns that of the last.
#[inline(always)]
fn shift(before: &mut [Block], batch: &[Block], last: Block) -> Block {
    let (Some((first, rest)), Some((new_last, batch))) =
        (before.split_first_mut(), batch.split_last())
    else {
        return last;
    };
    *first = last;
    // In halves: so much is moved through registers, more would be a call of memcpy.
    let half = batch.len() / 2;
    let (low, high) = batch.split_at(half);
    let (to_low, to_high) = rest.split_at_mut(half);
    to_low.copy_from_slice(low);
    to_high.copy_from_slice(high);
    *new_last
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vectors::Vectors;
    use alloc::vec::Vec;

    #[test]
    fn vector_both_ways_whole_and_block_by_block() {
        let v = Vectors::load("primitives");
        let key = StreamKey {
            key: v.array("aes_256_cbc.key"),
            iv: v.array("aes_256_cbc.iv"),
        };
        let (plain, wire) = (v.bytes("aes_256_cbc.plain"), v.bytes("aes_256_cbc.cipher"));
        for step in [16, 48] {
            let mut data = plain.clone();
            let mut chain = CbcEncrypt::new(&key);
            data.chunks_mut(step).for_each(|c| chain.apply(c));
            assert_eq!(data, wire);
            let mut chain = CbcDecrypt::new(&key);
            data.chunks_mut(step).for_each(|c| chain.apply(c));
            assert_eq!(data, plain);
        }
    }

    /// The chain as it is defined, with the cipher block by block.
    fn plain_chain(key: &StreamKey, plain: &[u8]) -> Vec<u8> {
        let cipher = aes::Aes256Enc::new((&key.key).into());
        let mut last = key.iv;
        let chunks = plain.as_chunks::<BLOCK>().0.iter();
        let wire = chunks.flat_map(|chunk| {
            let mut block = Block::from(*chunk);
            block.iter_mut().zip(last).for_each(|(b, l)| *b ^= l);
            cipher.encrypt_block(&mut block);
            last = block.0;
            last
        });
        wire.collect()
    }

    /// Every number of blocks that any cipher takes at once, and around it; at every kind of address; in
    /// one piece and in pieces that end anywhere.
    #[test]
    fn any_run_equals_the_chain_block_by_block() {
        let key = StreamKey {
            key: [7; 32],
            iv: [9; 16],
        };
        let data: Vec<u8> = (0..300 * BLOCK).map(|i| (i * 31 % 251) as u8).collect();
        for blocks in 0..300 {
            let (len, from) = (blocks * BLOCK, [0, 1, 8, 13][blocks % 4]);
            let plain = &data[..len];
            let wire = plain_chain(&key, plain);
            for piece in [1, 3, 31, 64, 65, 300].map(|blocks| blocks * BLOCK) {
                let mut buf = std::vec![0xee; from + len];
                buf[from..].copy_from_slice(plain);
                let mut chain = CbcEncrypt::new(&key);
                buf[from..].chunks_mut(piece).for_each(|c| chain.apply(c));
                assert!(buf[from..] == wire, "up: {blocks} blocks by {piece}");
                let mut chain = CbcDecrypt::new(&key);
                buf[from..].chunks_mut(piece).for_each(|c| chain.apply(c));
                assert!(buf[from..] == *plain, "down: {blocks} blocks by {piece}");
                assert!(buf[..from].iter().all(|b| *b == 0xee));
            }
        }
    }

    #[test]
    fn a_partial_block_is_left_alone() {
        let key = StreamKey {
            key: [7; 32],
            iv: [9; 16],
        };
        let mut data = [1; 15];
        CbcEncrypt::new(&key).apply(&mut data);
        CbcDecrypt::new(&key).apply(&mut data);
        assert_eq!(data, [1; 15]);
    }
}
