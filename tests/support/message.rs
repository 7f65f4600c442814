//! What test clients say and the test service understands. To the proxy each message looks like an
//! encrypted MTProto message: a key id that isn't 0, at least 56 bytes, a multiple of 4.
//!
//! | Offset | Size | Content |
//! |---|---|---|
//! | 0 | 8 | KEY_ID |
//! | 8 | 4 | command |
//! | 12 | 4 | tag: tells one message of a test from another |
//! | 16 | 8 | two arguments |
//! | 24 | 4 | length of the body |
//! | 28 | | body, then zeros; whatever padding the transport leaves follows |

use super::crypto::as_array;
use super::random::random_bytes;
use std::time::{SystemTime, UNIX_EPOCH};

pub const KEY_ID: [u8; 8] = *b"test key";

/// What the service does with a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Command {
    /// Answers with the same message.
    Echo = 1,
    /// Answers with the first `a` bytes of the stream seeded with `tag`, in packets of `b` bytes.
    Stream = 2,
    /// Adds the body to this client's hash, without an answer.
    Upload = 3,
    /// Adds the body, answers with the hash of all bodies (32 bytes) and their length (8 bytes).
    UploadEnd = 4,
    /// Answers with CLOSE_EXT.
    Close = 5,
    /// No answer.
    Swallow = 6,
    /// Answers with the 4-byte code `a`, as the real service reports an error.
    Error = 7,
}

const COMMANDS: [Command; 7] = [
    Command::Echo,
    Command::Stream,
    Command::Upload,
    Command::UploadEnd,
    Command::Close,
    Command::Swallow,
    Command::Error,
];

#[derive(Clone, Debug)]
pub struct Message {
    pub command: Command,
    pub tag: u32,
    pub a: u32,
    pub b: u32,
    pub body: Vec<u8>,
}

impl Message {
    pub fn new(command: Command, tag: u32) -> Message {
        let (a, b, body) = (0, 0, Vec::new());
        Message {
            command,
            tag,
            a,
            b,
            body,
        }
    }

    /// An echo with a random tag and a body that no other message has.
    pub fn echo(body_length: usize) -> Message {
        let tag = u32::from_le_bytes(random_bytes());
        let body = super::random::Stream::new(tag).take(body_length);
        Message {
            body,
            ..Message::new(Command::Echo, tag)
        }
    }

    pub fn stream(tag: u32, total: usize, packet: usize) -> Message {
        let as_u32 = |size| u32::try_from(size).expect("a size of a test");
        Message {
            a: as_u32(total),
            b: as_u32(packet),
            ..Message::new(Command::Stream, tag)
        }
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = KEY_ID.to_vec();
        let length = u32::try_from(self.body.len()).expect("a short body");
        for word in [self.command as u32, self.tag, self.a, self.b, length] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(&self.body);
        bytes.resize(bytes.len().max(56).next_multiple_of(4), 0);
        bytes
    }

    /// None for bytes that are none of these messages.
    pub fn decode(bytes: &[u8]) -> Option<Message> {
        if bytes.len() < 56 || bytes[..8] != KEY_ID {
            return None;
        }
        let word = |at: usize| u32::from_le_bytes(as_array(&bytes[at..]));
        let body = bytes[28..].get(..word(24) as usize)?.to_vec();
        let command = *COMMANDS
            .iter()
            .find(|command| **command as u32 == word(8))?;
        Some(Message {
            command,
            tag: word(12),
            a: word(16),
            b: word(20),
            body,
        })
    }
}

/// A well-formed unencrypted req_pq_multi, 40 bytes, with its own nonce (protocol.md 7.4).
pub fn unencrypted() -> Vec<u8> {
    let mut bytes = vec![0; 8];
    bytes.extend(random_bytes::<8>());
    bytes.extend(20_u32.to_le_bytes());
    bytes.extend(0xbe7e_8ef1_u32.to_le_bytes());
    bytes.extend(random_bytes::<16>());
    bytes
}

/// What Telegram answers to that, a resPQ, by a clock that is so many seconds ahead. None for any other message.
pub fn res_pq(question: &[u8], ahead: i64) -> Option<Vec<u8>> {
    let is_it = question.len() >= 40
        && question[..8] == [0; 8]
        && question[20..24] == 0xbe7e_8ef1_u32.to_le_bytes();
    if !is_it {
        return None;
    }
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a clock after 1970");
    let time = now
        .as_secs()
        .checked_add_signed(ahead)
        .expect("a time after 1970");
    let mut bytes = vec![0; 8];
    bytes.extend((time << 32 | 1).to_le_bytes());
    bytes.extend(64_u32.to_le_bytes());
    bytes.extend(0x0516_2463_u32.to_le_bytes());
    bytes.extend(&question[24..40]);
    bytes.extend(random_bytes::<16>());
    // The number to factorise, as a string; a vector of one fingerprint.
    bytes.extend(b"\x08\x17\xed\x48\x94\x1a\x08\xf9\x81\0\0\0");
    bytes.extend(b"\x15\xc4\xb5\x1c\x01\0\0\0");
    bytes.extend(random_bytes::<8>());
    Some(bytes)
}
