//! One direction of an obfuscated2 stream: AES-256-CTR with a 128-bit big-endian counter
//! (protocol.md 3.2). The IV is the first counter block.

use aes::cipher::{KeyIvInit, StreamCipher};

/// Key and first counter block of one direction.
#[derive(Clone)]
pub struct StreamKey {
    /// AES-256 key.
    pub key: [u8; 32],
    /// First counter block.
    pub iv: [u8; 16],
}

/// A running cipher stream; encryption and decryption are the same.
pub struct Ctr(ctr::Ctr128BE<aes::Aes256>);

impl Ctr {
    /// A stream at offset 0.
    pub fn new(key: &StreamKey) -> Ctr {
        Ctr(ctr::Ctr128BE::new((&key.key).into(), (&key.iv).into()))
    }

    /// Encrypts or decrypts the next `data.len()` bytes of the stream in place.
    pub fn apply(&mut self, data: &mut [u8]) {
        self.0.apply_keystream(data);
    }
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
    fn counter_wraps_to_zero() {
        check("aes_256_ctr_carry");
    }
}
