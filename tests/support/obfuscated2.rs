//! The 64-byte header of a client and the two ciphers that follow from it (protocol.md 3.1 to 3.3).

use super::crypto::{Ctr, as_array, sha256};
use super::framing::Transport;
use super::random::random_bytes;

pub type Secret = [u8; 16];

/// A header ready to be sent, with both ciphers where they stand after it.
pub struct Header {
    pub wire: [u8; 64],
    pub send: Ctr,
    pub receive: Ctr,
}

impl Header {
    /// A random header as a client makes it; without a secret the keys are used raw.
    pub fn random(transport: Transport, dc: i16, secret: Option<&Secret>) -> Header {
        loop {
            let mut plain = random_bytes::<64>();
            plain[56..60].copy_from_slice(&transport.tag());
            plain[60..62].copy_from_slice(&dc.to_le_bytes());
            if !is_forbidden(&plain) {
                return Header::from_plain(plain, secret);
            }
        }
    }

    /// The header whose 64 bytes before encryption are given.
    pub fn from_plain(plain: [u8; 64], secret: Option<&Secret>) -> Header {
        let mut reversed: [u8; 48] = as_array(&plain[8..56]);
        reversed.reverse();
        let mut send = cipher(&plain[8..56], secret);
        let mut encrypted = plain;
        send.apply(&mut encrypted);
        let mut wire = plain;
        wire[56..].copy_from_slice(&encrypted[56..]);
        let receive = cipher(&reversed, secret);
        Header {
            wire,
            send,
            receive,
        }
    }
}

/// A header that starts like this would be taken for another protocol.
pub fn is_forbidden(header: &[u8; 64]) -> bool {
    let first = u32::from_le_bytes(as_array(header));
    let second = u32::from_le_bytes(as_array(&header[4..]));
    header[0] == 0xef || FORBIDDEN_FIRST.contains(&first) || second == 0
}

/// HEAD, POST, GET, OPTI, the two plain transports, TLS.
pub const FORBIDDEN_FIRST: [u32; 7] = [
    0x4441_4548,
    0x5453_4f50,
    0x2054_4547,
    0x4954_504f,
    0xeeee_eeee,
    0xdddd_dddd,
    0x0201_0316,
];

fn cipher(key_and_iv: &[u8], secret: Option<&Secret>) -> Ctr {
    let material: [u8; 32] = as_array(key_and_iv);
    let key = match secret {
        Some(secret) => sha256(&[material.as_slice(), secret].concat()),
        None => material,
    };
    Ctr::new(key, as_array(&key_and_iv[32..]))
}
