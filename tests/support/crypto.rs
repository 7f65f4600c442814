//! The ciphers and checksums of both links, written from protocol.md 3.2, 6.1, 6.3 and 6.4 over the
//! dependency crates. Speed doesn't matter here, so the CRC goes by a table and CBC by single blocks.

use aes::Aes256;
use aes::cipher::{BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};
use ctr::cipher::{KeyIvInit, StreamCipher};
use md5::Md5;
use sha1::Sha1;
use sha2::{Digest, Sha256};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// One direction of an obfuscated2 stream; without a cipher where nothing is obfuscated.
pub struct Ctr(Option<ctr::Ctr128BE<Aes256>>);

impl Ctr {
    pub fn new(key: [u8; 32], iv: [u8; 16]) -> Ctr {
        Ctr(Some(ctr::Ctr128BE::<Aes256>::new(&key.into(), &iv.into())))
    }

    pub fn clear() -> Ctr {
        Ctr(None)
    }

    pub fn apply(&mut self, bytes: &mut [u8]) {
        if let Some(cipher) = &mut self.0 {
            cipher.apply_keystream(bytes);
        }
    }
}

/// One direction of a middle proxy link: a single CBC chain for the whole connection.
pub struct Cbc {
    cipher: Aes256,
    chain: [u8; 16],
}

impl Cbc {
    pub fn new(keys: &Keys) -> Cbc {
        Cbc {
            cipher: Aes256::new(&keys.key.into()),
            chain: keys.iv,
        }
    }

    /// Encrypts in place; the length is a multiple of 16.
    pub fn encrypt(&mut self, bytes: &mut [u8]) {
        assert_eq!(bytes.len() % 16, 0, "CBC takes whole blocks");
        for block in bytes.chunks_exact_mut(16) {
            xor(block, &self.chain);
            let mut work: [u8; 16] = as_array(block);
            self.cipher.encrypt_block((&mut work).into());
            block.copy_from_slice(&work);
            self.chain = work;
        }
    }

    /// Decrypts in place; the length is a multiple of 16.
    pub fn decrypt(&mut self, bytes: &mut [u8]) {
        assert_eq!(bytes.len() % 16, 0, "CBC takes whole blocks");
        for block in bytes.chunks_exact_mut(16) {
            let cipher_text: [u8; 16] = as_array(block);
            let mut work = cipher_text;
            self.cipher.decrypt_block((&mut work).into());
            xor(&mut work, &self.chain);
            block.copy_from_slice(&work);
            self.chain = cipher_text;
        }
    }
}

/// Key and IV of one direction of a middle proxy link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Keys {
    pub key: [u8; 32],
    pub iv: [u8; 16],
}

/// What both ends of a middle proxy link put into the key derivation. "Client" is the proxy.
pub struct Derivation<'a> {
    pub nonce_server: [u8; 16],
    pub nonce_client: [u8; 16],
    pub client_timestamp: [u8; 4],
    pub server: SocketAddr,
    pub client: SocketAddr,
    pub proxy_secret: &'a [u8],
    /// With Diffie-Hellman: what both computed.
    pub shared: Option<[u8; 256]>,
}

impl Derivation<'_> {
    /// Keys with which the client writes and the server reads.
    pub fn client_writes(&self) -> Keys {
        keys_of(&self.string(b"CLIENT"))
    }

    /// Keys with which the server writes and the client reads.
    pub fn server_writes(&self) -> Keys {
        keys_of(&self.string(b"SERVER"))
    }

    /// The string that is hashed, 86 bytes and the secret, 32 more over IPv6.
    pub fn string(&self, role: &[u8; 6]) -> Vec<u8> {
        let mut string = Vec::new();
        string.extend(self.nonce_server);
        string.extend(self.nonce_client);
        string.extend(self.client_timestamp);
        string.extend(reversed_ipv4(self.server.ip()));
        string.extend(self.client.port().to_le_bytes());
        string.extend(role);
        string.extend(reversed_ipv4(self.client.ip()));
        string.extend(self.server.port().to_le_bytes());
        string.extend(self.proxy_secret);
        string.extend(self.nonce_server);
        if let (IpAddr::V6(client), IpAddr::V6(server)) = (self.client.ip(), self.server.ip()) {
            string.extend(client.octets());
            string.extend(server.octets());
        }
        string.extend(self.nonce_client);
        if let Some(shared) = self.shared {
            string.resize(string.len().max(shared.len()), 0);
            for (byte, mask) in string.iter_mut().zip(shared) {
                *byte ^= mask;
            }
        }
        string
    }
}

fn keys_of(string: &[u8]) -> Keys {
    let mut key = [0; 32];
    key[..12].copy_from_slice(&Md5::digest(&string[1..])[..12]);
    key[12..].copy_from_slice(&Sha1::digest(string));
    Keys {
        key,
        iv: Md5::digest(&string[2..]).into(),
    }
}

fn reversed_ipv4(address: IpAddr) -> [u8; 4] {
    match address {
        IpAddr::V4(v4) => u32::from(v4).to_le_bytes(),
        IpAddr::V6(_) => u32::from(Ipv4Addr::UNSPECIFIED).to_le_bytes(),
    }
}

/// The two checksums of middle proxy frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Checksum {
    Crc32,
    Crc32c,
}

impl Checksum {
    pub fn of(self, bytes: &[u8]) -> u32 {
        let table = match self {
            Checksum::Crc32 => &CRC32,
            Checksum::Crc32c => &CRC32C,
        };
        let step =
            |crc: u32, byte: &u8| (crc >> 8) ^ table[((crc ^ u32::from(*byte)) & 0xff) as usize];
        !bytes.iter().fold(0xffff_ffff, step)
    }
}

const fn crc_table(polynomial: u32) -> [u32; 256] {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut value = index as u32;
        let mut bit = 0;
        while bit < 8 {
            value = if value & 1 == 1 {
                (value >> 1) ^ polynomial
            } else {
                value >> 1
            };
            bit += 1;
        }
        table[index] = value;
        index += 1;
    }
    table
}

static CRC32: [u32; 256] = crc_table(0xedb8_8320);
static CRC32C: [u32; 256] = crc_table(0x82f6_3b78);

pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// A SHA-256 fed in pieces.
#[derive(Clone, Default)]
pub struct RunningHash(Sha256);

impl RunningHash {
    pub fn add(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub fn finish(self) -> [u8; 32] {
        self.0.finalize().into()
    }
}

/// The first N bytes as an array; panics when there are fewer.
pub fn as_array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes[..N].try_into().expect("enough bytes")
}

fn xor(bytes: &mut [u8], with: &[u8; 16]) {
    for (byte, mask) in bytes.iter_mut().zip(with) {
        *byte ^= mask;
    }
}
