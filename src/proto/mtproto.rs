//! Which client messages may be forwarded to a middle proxy (protocol.md 7.4). Only the first 28 bytes
//! of a message are looked at; any holder of the secret may have chosen them. And the one message that
//! `ping` and `doctor` send as clients, with what may come back.

use crate::limits::{MIN_ENCRYPTED_MESSAGE, MIN_MESSAGE};
use crate::proto::wire::{Reader, Writer};

/// A message that may be forwarded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// It begins with an auth_key_id.
    Encrypted,
    /// auth_key_id 0: a step of the key exchange.
    Unencrypted,
}

/// req_pq, req_pq_multi, req_DH_params, set_client_DH_params.
const KEY_EXCHANGE: [u32; 4] = [0x6046_9778, REQ_PQ_MULTI, 0xd712_e4be, 0xf504_5f1f];

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

/// The first question of a client, an unencrypted message: req_pq_multi with this nonce. `id` is the
/// message's.
pub fn req_pq(id: u64, nonce: &[u8; 16]) -> [u8; REQ_PQ_LEN] {
    let mut message = [0; REQ_PQ_LEN];
    let mut out = Writer::new(&mut message);
    out.u64(0).u64(id).u32(20).u32(REQ_PQ_MULTI).put(nonce);
    message
}

/// What came in answer to [`req_pq`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reply {
    /// resPQ with the nonce; Telegram's clock, unix seconds, from the message's id.
    ResPq(u32),
    /// An error packet's code.
    Error(i32),
    /// Anything else.
    Other,
}

/// Reads the answer to a question with this nonce.
pub fn reply(message: &[u8], nonce: &[u8; 16]) -> Reply {
    let res_pq = |mut r: Reader| {
        let (key, id, _len) = (r.u64()?, r.u64()?, r.u32()?);
        let is_it =
            key == 0 && r.u32()? == RES_PQ && r.array()? == *nonce && r.array::<16>().is_some();
        is_it.then_some(Reply::ResPq((id >> 32) as u32))
    };
    match <&[u8; 4]>::try_from(message) {
        Ok(code) => Reply::Error(i32::from_le_bytes(*code)),
        Err(_) => res_pq(Reader::new(message)).unwrap_or(Reply::Other),
    }
}

const REQ_PQ_MULTI: u32 = 0xbe7e_8ef1;
const RES_PQ: u32 = 0x0516_2463;
/// Key id, message id, length, constructor, nonce.
const REQ_PQ_LEN: usize = 40;

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

    #[test]
    fn our_question_may_be_forwarded_and_its_answer_is_known() {
        let nonce = [7; 16];
        let question = req_pq(4 << 32, &nonce);
        assert_eq!(classify(&question), Some(Kind::Unencrypted));
        let answer = [
            &[0; 12][..],
            &1_800_000_000_u32.to_le_bytes(),
            &[64, 0, 0, 0],
            &[0x63, 0x24, 0x16, 5],
            &nonce,
            &[9; 40],
        ]
        .concat();
        assert_eq!(reply(&answer, &nonce), Reply::ResPq(1_800_000_000));
        assert_eq!(reply(&answer, &[8; 16]), Reply::Other);
        for len in [0, 3, 8, 20, 24, 40, 55] {
            assert_eq!(reply(&answer[..len], &nonce), Reply::Other, "{len}");
        }
        assert_eq!(reply(&(-404_i32).to_le_bytes(), &nonce), Reply::Error(-404));
    }
}
