//! Random padding without a system call each: AES-256-CTR keystream, seeded by the system once per
//! thread. Not for keys or nonces.

use super::ctr::{Ctr, StreamKey};

/// Bytes of seed: a key and a first counter block.
pub const SEED_LEN: usize = 48;

/// A generator; one per thread.
pub struct Random {
    stream: Ctr,
    block: [u8; 64],
    used: usize,
}

impl Random {
    /// Starts from `seed`, which must come from the system's generator.
    pub fn new(seed: &[u8; SEED_LEN]) -> Random {
        let mut key = StreamKey {
            key: [0; 32],
            iv: [0; 16],
        };
        key.key
            .iter_mut()
            .chain(key.iv.iter_mut())
            .zip(seed)
            .for_each(|(k, s)| *k = *s);
        Random {
            stream: Ctr::new(&key),
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
}
