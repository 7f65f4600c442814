//! The clients' side of the wire (obfuscated2 with padded intermediate framing, protocol.md 3 and 4)
//! and the bench's own message, which stands where MTProto ciphertext would be.
//!
//! A server sees opaque payload, so only the beginning of a message is really enciphered and
//! deciphered here: 4 bytes of length and HEAD bytes. What follows is filler that goes out as it
//! stands. An echo is enciphered, deciphered and compared to the last byte.

use crate::sys;
use aes::Aes256;
use ctr::cipher::{KeyIvInit, StreamCipher, StreamCipherSeek};
use sha2::{Digest, Sha256};
use std::sync::OnceLock;

pub type Secret = [u8; 16];

/// Bytes of a message that carry meaning; also the shortest message.
pub const HEAD: usize = 48;

/// The longest message that a client may send (protocol.md 4.1).
pub const LONGEST: usize = 1_044_480;

/// Clients append 0..=15 bytes to each padded frame.
pub const LONGEST_PAD: usize = 15;

/// What a client asks for: the length of the request, and that of its answer, 0 for the request itself.
#[derive(Clone, Copy)]
pub struct Ask {
    pub request: usize,
    pub answer: usize,
}

/// The first HEAD bytes of a request, and of the answer, which repeats them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Head(pub [u8; HEAD]);

impl Head {
    /// The head of a client's request number `serial`, sent now.
    pub fn new(client: u32, serial: u32, ask: Ask) -> Head {
        let mut bytes = [0x55; HEAD];
        // The first eight bytes are auth_key_id: anything but zero is an encrypted message.
        bytes[0..8].copy_from_slice(&MARK.to_le_bytes());
        bytes[8..16].copy_from_slice(&sys::now().to_le_bytes());
        bytes[16..20].copy_from_slice(&client.to_le_bytes());
        bytes[20..24].copy_from_slice(&serial.to_le_bytes());
        bytes[24..28].copy_from_slice(&(ask.answer as u32).to_le_bytes());
        bytes[28..32].copy_from_slice(&(ask.request as u32).to_le_bytes());
        Head(bytes)
    }

    pub fn is_ours(&self) -> bool {
        self.0[0..8] == MARK.to_le_bytes()
    }

    /// When the request left, in nanoseconds of `sys::now`.
    pub fn time(&self) -> u64 {
        u64::from(word(&self.0, 12)) << 32 | u64::from(word(&self.0, 8))
    }

    pub fn client(&self) -> u32 {
        word(&self.0, 16)
    }

    pub fn serial(&self) -> u32 {
        word(&self.0, 20)
    }

    pub fn answer(&self) -> usize {
        word(&self.0, 24) as usize
    }

    /// Whether a request that arrived with `len` bytes has lost and gained nothing but padding.
    pub fn fits(&self, len: usize) -> bool {
        let request = word(&self.0, 28) as usize;
        (request..=request + LONGEST_PAD).contains(&len)
    }

    pub fn is_echo(&self) -> bool {
        self.answer() == 0
    }
}

/// One direction of an obfuscated2 stream, able to leave bytes out.
pub struct Keystream {
    cipher: ctr::Ctr128BE<Aes256>,
    at: u64,
}

impl Keystream {
    /// Key material and IV material as they stand in the header, or reversed.
    fn new(material: &[u8; 48], secret: Option<&Secret>) -> Keystream {
        let mut key: [u8; 32] = array(material);
        if let Some(secret) = secret {
            key = Sha256::new()
                .chain_update(key)
                .chain_update(secret)
                .finalize()
                .into();
        }
        let iv: [u8; 16] = array(&material[32..]);
        Keystream {
            cipher: ctr::Ctr128BE::<Aes256>::new(&key.into(), &iv.into()),
            at: 0,
        }
    }

    fn apply(&mut self, bytes: &mut [u8]) {
        self.apply_at(self.at, bytes);
        self.at += bytes.len() as u64;
    }

    fn apply_at(&mut self, at: u64, bytes: &mut [u8]) {
        self.cipher.seek(at);
        self.cipher.apply_keystream(bytes);
    }
}

/// Both directions of one connection.
pub struct Keys {
    pub sending: Keystream,
    pub receiving: Keystream,
}

/// A client's 64-byte header for the padded transport.
pub fn client_header(
    secret: Option<&Secret>,
    centre: i16,
    random: &mut Random,
) -> ([u8; 64], Keys) {
    let mut header = [0; 64];
    loop {
        random.fill(&mut header);
        let first = word(&header, 0);
        let taken = header[0] == 0xef || FORBIDDEN.contains(&first) || word(&header, 4) == 0;
        if !taken {
            break;
        }
    }
    header[56..60].copy_from_slice(&PADDED_TAG);
    header[60..62].copy_from_slice(&centre.to_le_bytes());
    let (forward, backward) = materials(&header);
    let mut keys = Keys {
        sending: Keystream::new(&forward, secret),
        receiving: Keystream::new(&backward, secret),
    };
    let mut enciphered = header;
    keys.sending.apply(&mut enciphered);
    header[56..].copy_from_slice(&enciphered[56..]);
    (header, keys)
}

/// The data centre's view of a header that was made without a secret; None for another transport.
pub fn accept_header(header: &[u8; 64]) -> Option<Keys> {
    let (forward, backward) = materials(header);
    let mut keys = Keys {
        sending: Keystream::new(&backward, None),
        receiving: Keystream::new(&forward, None),
    };
    let mut clear = *header;
    keys.receiving.apply(&mut clear);
    (clear[56..60] == PADDED_TAG).then_some(keys)
}

fn materials(header: &[u8; 64]) -> ([u8; 48], [u8; 48]) {
    let forward: [u8; 48] = array(&header[8..]);
    let mut backward = forward;
    backward.reverse();
    (forward, backward)
}

impl Keystream {
    /// Appends one frame: `head`, then `rest` with any padding.
    pub fn put_frame(&mut self, out: &mut Vec<u8>, head: &Head, rest: &[u8]) {
        let start = out.len();
        out.extend_from_slice(&((HEAD + rest.len()) as u32).to_le_bytes());
        out.extend_from_slice(&head.0);
        let meaning = out.len();
        out.extend_from_slice(rest);
        let clear = if head.is_echo() { out.len() } else { meaning };
        self.apply(&mut out[start..clear]);
        self.at += (out.len() - clear) as u64;
    }
}

/// A frame that has arrived. `body` is the whole message for an echo, else empty.
pub struct Frame {
    pub len: usize,
    pub head: Head,
    pub body: Vec<u8>,
}

/// Finds frames in a stream and deciphers their heads.
pub struct FrameReader {
    stream: Keystream,
    beginning: [u8; 4 + HEAD],
    have: usize,
    left: usize,
    frame: Option<Frame>,
}

impl FrameReader {
    pub fn new(stream: Keystream) -> FrameReader {
        FrameReader {
            stream,
            beginning: [0; 4 + HEAD],
            have: 0,
            left: 0,
            frame: None,
        }
    }

    /// Takes what a read brought and appends the frames that became complete.
    pub fn receive(&mut self, mut bytes: &[u8], frames: &mut Vec<Frame>) -> Result<(), String> {
        while !bytes.is_empty() {
            if self.frame.is_none() {
                bytes = self.begin(bytes)?;
            }
            let Some(frame) = &mut self.frame else {
                return Ok(());
            };
            let count = self.left.min(bytes.len());
            if frame.head.is_echo() {
                let start = frame.body.len();
                frame.body.extend_from_slice(&bytes[..count]);
                self.stream
                    .apply_at(self.stream.at, &mut frame.body[start..]);
            }
            self.stream.at += count as u64;
            self.left -= count;
            bytes = &bytes[count..];
            if self.left == 0 {
                frames.extend(self.frame.take());
            }
        }
        Ok(())
    }

    /// Collects the beginning of a frame; what is left of `bytes` belongs to the rest of it.
    fn begin<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], String> {
        let count = (self.beginning.len() - self.have).min(bytes.len());
        self.beginning[self.have..self.have + count].copy_from_slice(&bytes[..count]);
        self.have += count;
        if self.have < self.beginning.len() {
            return Ok(&[]);
        }
        self.have = 0;
        self.stream.apply(&mut self.beginning);
        let len = word(&self.beginning, 0) as usize;
        let head = Head(array(&self.beginning[4..]));
        if !(HEAD..=LONGEST + LONGEST_PAD).contains(&len) || !head.is_ours() {
            return Err(format!(
                "a frame of {len} bytes without the bench's mark: the stream is broken"
            ));
        }
        self.left = len - HEAD;
        let body = if head.is_echo() {
            head.0.to_vec()
        } else {
            Vec::new()
        };
        self.frame = Some(Frame { len, head, body });
        Ok(&bytes[count..])
    }
}

/// The same random bytes at each call, as many as any message needs.
pub fn filler() -> &'static [u8] {
    static FILLER: OnceLock<Vec<u8>> = OnceLock::new();
    FILLER.get_or_init(|| {
        let mut bytes = vec![0; LONGEST + LONGEST_PAD];
        Random(7).fill(&mut bytes);
        bytes
    })
}

/// SplitMix64: quick, and good enough for bytes that only have to differ.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let word = self.next().to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }
}

/// The little-endian word at `at`; panics outside of `bytes`.
pub fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array(&bytes[at..]))
}

/// The first N bytes; panics when there are fewer.
pub fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes[..N].try_into().expect("N bytes make an array of N")
}

const MARK: u64 = 0x5f68_636e_6562_5f31;
const PADDED_TAG: [u8; 4] = [0xdd; 4];
/// HEAD, POST, GET, OPTIONS, intermediate, padded, TLS.
const FORBIDDEN: [u32; 7] = [
    0x4441_4548,
    0x5453_4f50,
    0x2054_4547,
    0x4954_504f,
    0xeeee_eeee,
    0xdddd_dddd,
    0x0201_0316,
];
