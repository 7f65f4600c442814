//! Ciphers of the link to a middle proxy, the proxy's peer side (protocol.md 6.3, 6.4): the keys, the
//! two CBC chains, and the cheap way of sending a long answer.
//!
//! CBC encryption is serial and slow, and a generator with one core to itself must be cheaper than the
//! server it measures. So the middle of a long answer is ciphertext that was chosen beforehand. What
//! it decrypts to is payload like any other, the same each time except for its first block, which
//! also depends on the block before it; the effect on the frame's checksum is computed once a key.

use crate::crc::{Crc, Run};
use crate::wire::{array, filler};
use aes::cipher::{BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};
use aes::{Aes256, Aes256Dec, Aes256Enc, Block};
use md5::Md5;
use sha1::{Digest, Sha1};
use std::net::{Ipv4Addr, SocketAddr};

/// What both ends put into the derivation of keys. `proxy` and `telegram` are the two ends' addresses.
pub struct Derivation<'a> {
    pub telegram_nonce: [u8; 16],
    pub proxy_nonce: [u8; 16],
    pub proxy_time: [u8; 4],
    pub telegram: SocketAddr,
    pub proxy: SocketAddr,
    pub secret: &'a [u8],
}

impl Derivation<'_> {
    pub fn chains(&self) -> (Receiving, Sending) {
        let (key, iv) = self.derive(b"CLIENT");
        let receiving = Receiving {
            cipher: Aes256Dec::new(&key.into()),
            chain: iv,
        };
        let (key, iv) = self.derive(b"SERVER");
        let sending = Sending {
            cipher: Aes256::new(&key.into()),
            encryptor: Aes256Enc::new(&key.into()),
            chain: iv,
            middles: Vec::new(),
        };
        (receiving, sending)
    }

    fn derive(&self, purpose: &[u8; 6]) -> ([u8; 32], [u8; 16]) {
        let mut string = Vec::new();
        string.extend_from_slice(&self.telegram_nonce);
        string.extend_from_slice(&self.proxy_nonce);
        string.extend_from_slice(&self.proxy_time);
        string.extend_from_slice(&reversed(self.telegram));
        string.extend_from_slice(&self.proxy.port().to_le_bytes());
        string.extend_from_slice(purpose);
        string.extend_from_slice(&reversed(self.proxy));
        string.extend_from_slice(&self.telegram.port().to_le_bytes());
        string.extend_from_slice(self.secret);
        string.extend_from_slice(&self.telegram_nonce);
        string.extend_from_slice(&self.proxy_nonce);
        let mut key = [0; 32];
        key[..12].copy_from_slice(&Md5::digest(&string[1..])[..12]);
        key[12..].copy_from_slice(&Sha1::digest(&string));
        (key, Md5::digest(&string[2..]).into())
    }
}

fn reversed(address: SocketAddr) -> [u8; 4] {
    match address {
        SocketAddr::V4(v4) => u32::from(*v4.ip()).to_le_bytes(),
        SocketAddr::V6(_) => u32::from(Ipv4Addr::UNSPECIFIED).to_le_bytes(),
    }
}

/// What the proxy sends. Blocks may be left out: CBC decryption needs the ciphertext before a block only.
pub struct Receiving {
    cipher: Aes256Dec,
    chain: [u8; 16],
}

impl Receiving {
    /// Appends the plaintext of whole blocks.
    pub fn decrypt(&mut self, blocks: &[u8], plain: &mut Vec<u8>) {
        let start = plain.len();
        plain.extend_from_slice(blocks);
        decrypt_blocks(&self.cipher, &mut plain[start..]);
        xor(&mut plain[start..start + 16], &self.chain);
        xor(&mut plain[start + 16..], &blocks[..blocks.len() - 16]);
        self.skip(blocks);
    }

    /// Passes over whole blocks, at least one.
    pub fn skip(&mut self, blocks: &[u8]) {
        self.chain = array(&blocks[blocks.len() - 16..]);
    }
}

/// What Telegram sends. A flush always ends on a block, so each begins on one.
pub struct Sending {
    cipher: Aes256,
    encryptor: Aes256Enc,
    chain: [u8; 16],
    middles: Vec<Middle>,
}

/// Fixed ciphertext of one length: the first `len` bytes of the filler.
struct Middle {
    len: usize,
    /// The first block decrypted, before the XOR with the ciphertext in front of it.
    first: [u8; 16],
    rest: Run,
}

impl Sending {
    /// Enciphers whole frames and no-ops from `start` to the end of `out`, in place, after adding no-ops
    /// up to a whole block.
    pub fn seal(&mut self, out: &mut Vec<u8>, start: usize) {
        while !(out.len() - start).is_multiple_of(16) {
            out.extend_from_slice(&NO_OP);
        }
        for chunk in out[start..].chunks_exact_mut(16) {
            xor(chunk, &self.chain);
            let mut block: Block = array::<16>(chunk).into();
            self.encryptor.encrypt_block(&mut block);
            chunk.copy_from_slice(&block);
            self.chain = block.into();
        }
    }

    /// Appends one frame of `lead`, a fixed middle of `middle` bytes and `tail` bytes of filler; the
    /// checksum is added here. `lead` and `middle` are whole blocks, `tail` is a multiple of 4.
    pub fn put_long(&mut self, out: &mut Vec<u8>, lead: &[u8], middle: usize, tail: usize) {
        let mut crc = Crc::new();
        crc.update(lead);
        let start = out.len();
        out.extend_from_slice(lead);
        self.seal(out, start);

        let mut first = self.middle(middle).first;
        xor(&mut first, &self.chain);
        crc.update(&first);
        crc.pass(&self.middle(middle).rest);
        out.extend_from_slice(&filler()[..middle]);
        self.chain = array(&filler()[middle - 16..]);

        let start = out.len();
        out.extend_from_slice(&filler()[..tail]);
        crc.update(&filler()[..tail]);
        out.extend_from_slice(&crc.finish().to_le_bytes());
        self.seal(out, start);
    }

    fn middle(&mut self, len: usize) -> &Middle {
        let known = self.middles.iter().position(|middle| middle.len == len);
        let index = known.unwrap_or_else(|| {
            let ciphertext = &filler()[..len];
            let mut plain = ciphertext.to_vec();
            decrypt_blocks(&self.cipher, &mut plain);
            xor(&mut plain[16..], &ciphertext[..len - 16]);
            self.middles.push(Middle {
                len,
                first: array(&plain),
                rest: Run::new(&plain[16..]),
            });
            self.middles.len() - 1
        });
        &self.middles[index]
    }
}

fn decrypt_blocks(
    cipher: &impl BlockCipherDecrypt<BlockSize = aes::cipher::consts::U16>,
    bytes: &mut [u8],
) {
    let (blocks, _) = Block::slice_as_chunks_mut(bytes);
    cipher.decrypt_blocks(blocks);
}

fn xor(bytes: &mut [u8], with: &[u8]) {
    for (byte, mask) in bytes.iter_mut().zip(with) {
        *byte ^= mask;
    }
}

/// A frame of length 4, the only way to fill a block (protocol.md 6.1).
pub const NO_OP: [u8; 4] = [4, 0, 0, 0];
