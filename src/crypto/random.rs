//! Random bytes for padding and record contents: an AES-256-CTR keystream, seeded by the system once
//! per thread, which saves a system call for each packet. Not for keys or nonces.

use crate::crypto::ctr::{Ctr, StreamKey};

/// Bytes of seed: a key and a first counter block.
pub const SEED_LEN: usize = 48;

/// Bytes that the cipher gets at a time: from 256 on it would take much stack (see [`Ctr`]).
const PIECE: usize = 240;

/// A generator; one per thread.
pub struct Random {
    stream: Ctr,
    block: [u8; 64],
    used: usize,
}

impl Random {
    /// Starts from `seed`, which must come from the system's generator.
    pub fn new(seed: &[u8; SEED_LEN]) -> Random {
        Random {
            stream: Ctr::new(&StreamKey::collect(seed.iter())),
            block: [0; 64],
            used: 64,
        }
    }

    /// The next 32 random bits.
    pub fn next_u32(&mut self) -> u32 {
        if self.used >= self.block.len() {
            self.block.fill(0);
            self.stream.apply(&mut self.block);
            self.used = 0;
        }
        let bytes = self
            .block
            .get(self.used..)
            .and_then(|rest| rest.first_chunk::<4>());
        self.used = self.used.saturating_add(4);
        bytes.map_or(0, |b| u32::from_le_bytes(*b))
    }

    /// Fills `out` with random bytes.
    pub fn fill(&mut self, out: &mut [u8]) {
        out.fill(0);
        out.chunks_mut(PIECE).for_each(|c| self.stream.apply(c));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vectors::Vectors;

    #[test]
    fn is_the_keystream_of_its_seed() {
        let v = Vectors::load("primitives");
        let mut seed = v.bytes("aes_256_ctr.key");
        seed.extend(v.bytes("aes_256_ctr.iv"));
        let (plain, wire) = (v.bytes("aes_256_ctr.plain"), v.bytes("aes_256_ctr.cipher"));
        let mut random = Random::new(&seed.try_into().unwrap());
        for (p, w) in plain.as_chunks::<4>().0.iter().zip(wire.as_chunks::<4>().0) {
            assert_eq!(
                random.next_u32(),
                u32::from_le_bytes(*p) ^ u32::from_le_bytes(*w)
            );
        }
        let mut later = [0; 40].map(|_: u8| random.next_u32());
        later.sort();
        assert!(
            later.windows(2).all(|w| w[0] != w[1]),
            "blocks don't repeat"
        );
    }

    #[test]
    fn fills_whatever_length_with_bytes_that_do_not_repeat() {
        let mut random = Random::new(&[1; SEED_LEN]);
        let (mut long, mut again) = ([0xaa; 5000], [0; 5000]);
        random.fill(&mut long);
        random.next_u32();
        random.fill(&mut again);
        let words = long.as_chunks::<8>().0.iter().chain(again.as_chunks().0);
        let mut words: alloc::vec::Vec<_> = words.collect();
        words.sort();
        assert!(words.windows(2).all(|w| w[0] != w[1]));
        let same = |old: u8| {
            let mut out = [old; 300];
            Random::new(&[2; SEED_LEN]).fill(&mut out);
            out
        };
        assert_eq!(same(0), same(0xaa), "whatever was there");
        for length in 0..600 {
            let mut out = [0; 601];
            random.fill(&mut out[..length]);
            let zeros = out[..length].iter().filter(|b| **b == 0).count();
            assert!(zeros <= 4 + length / 50, "{zeros} of {length}");
            assert!(out[length..].iter().all(|b| *b == 0));
        }
    }
}
