//! Which client messages may be forwarded to a middle proxy (protocol.md 7.4). Only the first 28 bytes
//! of a message are looked at; any holder of the secret may have chosen them.

use crate::limits::{MIN_ENCRYPTED_MESSAGE, MIN_MESSAGE};
use crate::proto::wire::Reader;

/// A message that may be forwarded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// It begins with an auth_key_id.
    Encrypted,
    /// auth_key_id 0: a step of the key exchange.
    Unencrypted,
}

/// req_pq, req_pq_multi, req_DH_params, set_client_DH_params.
const KEY_EXCHANGE: [u32; 4] = [0x6046_9778, 0xbe7e_8ef1, 0xd712_e4be, 0xf504_5f1f];

/// What a whole message is; None if it must be dropped (silently: the connection stays).
pub fn classify(message: &[u8]) -> Option<Kind> {
    if message.len() < MIN_MESSAGE || !message.len().is_multiple_of(4) {
        return None;
    }
    let mut r = Reader::new(message);
    if r.u64()? != 0 {
        return (message.len() >= MIN_ENCRYPTED_MESSAGE).then_some(Kind::Encrypted);
    }
    let _message_id = r.u64()?;
    let body_len = r.u32()? as usize;
    let room = message.len().checked_sub(20)?;
    let constructor = r.u32()?;
    (body_len >= 20 && body_len <= room && KEY_EXCHANGE.contains(&constructor))
        .then_some(Kind::Unencrypted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn unencrypted(total: usize, body_len: u32, constructor: u32) -> Vec<u8> {
        let mut m = std::vec![0; total];
        m[8..16].fill(7);
        m[16..20].copy_from_slice(&body_len.to_le_bytes());
        m[20..24].copy_from_slice(&constructor.to_le_bytes());
        m
    }

    #[test]
    fn encrypted_from_56_bytes_on() {
        for (len, wanted) in [
            (52, None),
            (56, Some(Kind::Encrypted)),
            (57, None),
            (60, Some(Kind::Encrypted)),
        ] {
            assert_eq!(classify(&std::vec![1; len]), wanted, "{len}");
        }
        let mut last_byte_set = [0; 56];
        last_byte_set[7] = 1;
        assert_eq!(classify(&last_byte_set), Some(Kind::Encrypted));
    }

    #[test]
    fn unencrypted_only_the_key_exchange() {
        for constructor in KEY_EXCHANGE {
            assert_eq!(
                classify(&unencrypted(40, 20, constructor)),
                Some(Kind::Unencrypted)
            );
        }
        assert_eq!(classify(&unencrypted(40, 20, 0xbe7e_8ef0)), None);
        assert_eq!(classify(&unencrypted(40, 19, KEY_EXCHANGE[0])), None);
        assert_eq!(classify(&unencrypted(40, 21, KEY_EXCHANGE[0])), None);
        assert_eq!(
            classify(&unencrypted(44, 21, KEY_EXCHANGE[0])),
            Some(Kind::Unencrypted)
        );
        assert_eq!(classify(&unencrypted(44, u32::MAX, KEY_EXCHANGE[0])), None);
        assert_eq!(classify(&unencrypted(36, 16, KEY_EXCHANGE[0])), None);
    }

    #[test]
    fn nothing_short_or_odd() {
        let good = unencrypted(40, 20, KEY_EXCHANGE[1]);
        for len in 0..40 {
            assert_eq!(classify(&good[..len]), None, "{len}");
        }
    }
}
