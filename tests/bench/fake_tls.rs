//! Fake TLS as a client sees it (protocol.md 5): the hello, what answers it, and the records around
//! both streams. The digest of an answer isn't checked, as nothing here depends on it: its records are.

use crate::wire::{Random, Secret, filler};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::ops::Range;
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

/// What clients ask for. With a mask a proxy doesn't look it up.
pub const DOMAIN: &str = "site.example";

/// The record layer of one connection.
pub struct FakeTls {
    /// The client's stream that isn't in records yet.
    pub waiting: Vec<u8>,
    spoken: bool,
    /// Records that have begun to come; the first three are the answer to the hello.
    records: u64,
    /// The header of the next one, as far as it has come.
    header: [u8; 5],
    have: usize,
    /// Bytes of the present one that are still to come.
    left: usize,
}

impl FakeTls {
    /// Appends a fresh hello, made now, to `out`.
    pub fn start(secret: &Secret, random: &mut Random, out: &mut Vec<u8>) -> FakeTls {
        out.extend_from_slice(&hello(secret, random));
        FakeTls {
            waiting: Vec::new(),
            spoken: false,
            records: 0,
            header: [0; 5],
            have: 0,
            left: 0,
        }
    }

    /// Appends what waits to `out`, in records, as soon as the hello is answered.
    pub fn seal(&mut self, out: &mut Vec<u8>) {
        if !self.is_answered() {
            return;
        }
        if !self.spoken {
            out.extend_from_slice(&CHANGE_CIPHER_SPEC);
            self.spoken = true;
        }
        for payload in self.waiting.chunks(LONGEST_RECORD) {
            let [high, low] = (payload.len() as u16).to_be_bytes();
            out.extend_from_slice(&[0x17, 3, 3, high, low]);
            out.extend_from_slice(payload);
        }
        self.waiting.clear();
    }

    /// The next piece of the server's stream in `bytes`, which keeps what comes behind it; None when
    /// there is none.
    pub fn next_piece<'a>(&mut self, bytes: &mut &'a [u8]) -> Result<Option<&'a [u8]>, String> {
        while !bytes.is_empty() {
            if self.left == 0 {
                let count = (self.header.len() - self.have).min(bytes.len());
                self.header[self.have..self.have + count].copy_from_slice(&bytes[..count]);
                self.have += count;
                *bytes = &bytes[count..];
                if self.have == self.header.len() {
                    self.begin_record()?;
                }
                continue;
            }
            let is_stream = self.is_answered();
            let (piece, rest) = bytes.split_at(self.left.min(bytes.len()));
            self.left -= piece.len();
            *bytes = rest;
            if is_stream {
                return Ok(Some(piece));
            }
            // Some clients take whatever has come for the answer.
            if self.is_answered() && !rest.is_empty() {
                return Err("the server goes on before its client has spoken".into());
            }
        }
        Ok(None)
    }

    fn begin_record(&mut self) -> Result<(), String> {
        let [_, _, _, high, low] = self.header;
        let length = usize::from(u16::from_be_bytes([high, low]));
        let (kind, fits) = match self.records {
            0 => (0x16, SERVER_HELLOS.contains(&length)),
            1 => (0x14, length == 1),
            _ => (0x17, length > 0),
        };
        if self.header[..3] != [kind, 3, 3] || !fits {
            return Err(format!(
                "record {} begins with {:02x?}",
                self.records, self.header
            ));
        }
        self.records += 1;
        self.have = 0;
        self.left = length;
        Ok(())
    }

    fn is_answered(&self) -> bool {
        self.records > 3 || self.records == 3 && self.left == 0
    }
}

/// No two are the same: a proxy lets none in twice.
fn hello(secret: &Secret, random: &mut Random) -> Vec<u8> {
    static UNSIGNED: OnceLock<Vec<u8>> = OnceLock::new();
    let mut hello = UNSIGNED.get_or_init(unsigned).clone();
    random.fill(&mut hello[SESSION_ID]);
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("a key of any length");
    mac.update(&hello);
    hello[RANDOM].copy_from_slice(&mac.finalize().into_bytes());
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let seconds = since.map_or(0, |time| time.as_secs() as u32);
    let stamped = hello[RANDOM].iter_mut().skip(28);
    stamped
        .zip(seconds.to_le_bytes())
        .for_each(|(byte, time)| *byte ^= time);
    hello
}

/// As long as TDLib's of today, with zeros for the random and the session id. Real ones shuffle their
/// extensions. Nobody calculates with the shares, so they are filler.
fn unsigned() -> Vec<u8> {
    let body = [
        &[3, 3][..],
        &[0; 32],
        &[32],
        &[0; 32],
        &vector(&words(&CIPHERS)),
        &[1, 0],
        &vector(&extensions()),
    ]
    .concat();
    let [_, length @ ..] = (body.len() as u32).to_be_bytes();
    let message = [&[1], &length[..], &body].concat();
    [&[0x16, 3, 1], &vector(&message)[..]].concat()
}

fn extensions() -> Vec<u8> {
    let name = [&[0], &vector(DOMAIN.as_bytes())[..]].concat();
    let hybrid = extension(0x11ec, &filler()[..1216]);
    let shares = [
        &extension(GREASE, &[0])[..],
        &hybrid,
        &extension(0x001d, &filler()[..32]),
    ];
    let encrypted_hello = [
        &[0, 0, 1, 0, 1, 7],
        &vector(&filler()[..32])[..],
        &vector(&filler()[..176]),
    ];
    [
        extension(GREASE, &[]),
        extension(0x0000, &vector(&name)),
        extension(0x0005, &[1, 0, 0, 0, 0]),
        extension(
            0x000a,
            &vector(&words(&[GREASE, 0x11ec, 0x001d, 0x0017, 0x0018])),
        ),
        extension(0x000b, &[1, 0]),
        extension(0x000d, &vector(&words(&SIGNATURES))),
        extension(0x0010, &vector(b"\x02h2\x08http/1.1")),
        extension(0x0012, &[]),
        extension(0x0017, &[]),
        extension(0x001b, &[2, 0, 2]),
        extension(0x0023, &[]),
        extension(0x002b, &[6, 0x0a, 0x0a, 3, 4, 3, 3]),
        extension(0x002d, &[1, 1]),
        extension(0x0033, &vector(&shares.concat())),
        extension(0x44cd, &vector(b"\x02h2")),
        extension(0xfe0d, &encrypted_hello.concat()),
        extension(0xff01, &[0]),
        extension(0x1a1a, &[0]),
    ]
    .concat()
}

fn extension(id: u16, body: &[u8]) -> Vec<u8> {
    [&id.to_be_bytes(), &vector(body)[..]].concat()
}

/// Bytes behind their length in two bytes.
fn vector(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_be_bytes(), bytes].concat()
}

fn words(words: &[u16]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

/// Where these stand in a hello.
const RANDOM: Range<usize> = 11..43;
const SESSION_ID: Range<usize> = 44..76;
/// A value that servers must skip (RFC 8701).
const GREASE: u16 = 0x0a0a;
const CIPHERS: [u16; 16] = [
    GREASE, 0x1301, 0x1302, 0x1303, 0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8, 0xc013, 0xc014,
    0x009c, 0x009d, 0x002f, 0x0035,
];
const SIGNATURES: [u16; 8] = [
    0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0601,
];
/// The record that says nothing; the client's stream begins with it.
const CHANGE_CIPHER_SPEC: [u8; 6] = [0x14, 3, 3, 0, 1, 1];
/// Payload of the longest record that TDLib sends.
const LONGEST_RECORD: usize = 2878;
/// A ServerHello with a share of X25519, and one with X25519MLKEM768.
const SERVER_HELLOS: [usize; 2] = [122, 1210];
