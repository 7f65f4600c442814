//! Random bytes for headers, padding and nonces, and the deterministic streams of bulk tests.

use std::fs::File;
use std::io::Read;

/// Unpredictable bytes, so that every run tries other headers.
pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .expect("random bytes");
    bytes
}

/// A stream that both ends of a test can make from the same seed (xorshift64).
#[derive(Clone)]
pub struct Stream(u64);

impl Stream {
    pub fn new(seed: u32) -> Stream {
        Stream(u64::from(seed) << 1 | 1)
    }

    /// The next `length` bytes; a multiple of 8 keeps pieces and the whole alike.
    pub fn take(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length + 8);
        while bytes.len() < length {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            bytes.extend(self.0.to_le_bytes());
        }
        bytes.truncate(length);
        bytes
    }
}
