//! ClientHellos as Telegram's clients send them, signed with a secret and a time (protocol.md 5.1 to 5.3).
//! Apart from the digest a real server finds nothing wrong with them: the shares are real ones.

use super::obfuscated2::Secret;
use super::random::random_bytes;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::time::{SystemTime, UNIX_EPOCH};

/// Where the random stands in a hello that is one record.
pub const RANDOM: std::ops::Range<usize> = 11..43;

/// Where the legacy identifier stands, which the server echoes.
pub const SESSION_ID: std::ops::Range<usize> = 44..76;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// 517 bytes in a fixed order, as until 2024.
    Old,
    /// With an X25519MLKEM768 share and a shuffled extension order: 1710..=1806 bytes and the domain.
    Today,
    /// The same with only an X25519 share.
    NoHybrid,
    /// Apple's order of ciphers: 1302, 1303, 1301.
    Apple,
    /// The same with 1303 in front.
    AppleChaCha,
}

pub const KINDS: [Kind; 5] = [
    Kind::Old,
    Kind::Today,
    Kind::NoHybrid,
    Kind::Apple,
    Kind::AppleChaCha,
];

impl Kind {
    /// The TLS 1.3 ciphers in this client's order.
    pub fn ciphers(self) -> [u16; 3] {
        match self {
            Kind::Apple => [0x1302, 0x1303, 0x1301],
            Kind::AppleChaCha => [0x1303, 0x1301, 0x1302],
            _ => [0x1301, 0x1302, 0x1303],
        }
    }

    pub fn is_hybrid(self) -> bool {
        matches!(self, Kind::Today | Kind::Apple | Kind::AppleChaCha)
    }

    /// A hello for this server, with a random of zeros.
    pub fn unsigned(self, name: &str) -> Vec<u8> {
        let name = extension(0x0000, &server_name(name));
        self.unsigned_with(&name)
    }

    /// Without the extension that names a server.
    pub fn nameless(self) -> Vec<u8> {
        self.unsigned_with(&[])
    }

    fn unsigned_with(self, name: &[u8]) -> Vec<u8> {
        let mut extensions = match self {
            Kind::Old => old_extensions(name),
            _ => todays_extensions(name, self.is_hybrid()),
        };
        let mut body = vec![3, 3];
        body.extend([0; 32]);
        body.push(32);
        body.extend(random_bytes::<32>());
        body.extend(vec16(&self.cipher_list()));
        body.extend([1, 0]);
        if self == Kind::Old {
            // Padding to 517 bytes: record and handshake headers, and the two lengths still to come.
            let room = 517 - 9 - body.len() - 2 - extensions.len() - 4;
            extensions.extend(extension(0x0015, &vec![0; room]));
        }
        body.extend(vec16(&extensions));
        record(&handshake(1, &body))
    }

    fn cipher_list(self) -> Vec<u8> {
        const OLDER: &str = "c02bc02fc02cc030cca9cca8c013c014009c009d002f0035";
        let mut list = grease().to_vec();
        list.extend(
            self.ciphers()
                .iter()
                .flat_map(|cipher| cipher.to_be_bytes()),
        );
        list.extend(super::vectors::from_hex(OLDER));
        if self == Kind::Old {
            list.extend([0x00, 0x0a]);
        }
        list
    }

    /// A hello as this kind of client sends it now.
    pub fn signed(self, name: &str, secret: &Secret) -> Vec<u8> {
        sign(self.unsigned(name), secret, now())
    }
}

/// How much of a hello that asks for this name has come with the name's last byte.
pub fn end_of_name(hello: &[u8], name: &str) -> usize {
    let mut parts = hello.windows(name.len());
    let start = parts.position(|part| part == name.as_bytes());
    start.expect("the name") + name.len()
}

/// Fills in the random of a hello that is one record: the digest, with the time in its last four bytes.
pub fn sign(mut hello: Vec<u8>, secret: &Secret, time: u32) -> Vec<u8> {
    hello[RANDOM].fill(0);
    let mut digest = hmac(secret, &[&hello]);
    for (byte, time) in digest[28..].iter_mut().zip(time.to_le_bytes()) {
        *byte ^= time;
    }
    hello[RANDOM].copy_from_slice(&digest);
    hello
}

/// Seconds since 1970, as clients put them into a hello.
pub fn now() -> u32 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970");
    u32::try_from(since.as_secs()).expect("before 2106")
}

pub fn hmac(key: &[u8], pieces: &[&[u8]]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of any length");
    pieces.iter().for_each(|piece| mac.update(piece));
    mac.finalize().into_bytes().into()
}

/// The same hello in so many records, of lengths at random. Signed before: the digest is over one record.
pub fn in_records(hello: &[u8], count: usize) -> Vec<u8> {
    let mut rest = &hello[5..];
    let mut wire = Vec::new();
    for left in (1..=count).rev() {
        let most = rest.len() - (left - 1);
        let random = usize::from(u16::from_le_bytes(random_bytes()));
        let length = if left == 1 {
            rest.len()
        } else {
            1 + random % (2 * most / left).clamp(1, most)
        };
        let (body, after) = rest.split_at(length);
        wire.extend(record(body));
        rest = after;
    }
    wire
}

/// One record of a client that doesn't know the server's version yet.
fn record(body: &[u8]) -> Vec<u8> {
    [&[0x16, 3, 1], &vec16(body)[..]].concat()
}

/// A handshake message.
pub fn handshake(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len())
        .expect("a short message")
        .to_be_bytes();
    [&[kind], &length[1..], body].concat()
}

pub fn extension(id: u16, body: &[u8]) -> Vec<u8> {
    [&id.to_be_bytes(), &vec16(body)[..]].concat()
}

/// Bytes behind their length in two bytes.
pub fn vec16(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).expect("a short vector");
    [&length.to_be_bytes(), bytes].concat()
}

fn server_name(name: &str) -> Vec<u8> {
    vec16(&[&[0], &vec16(name.as_bytes())[..]].concat())
}

fn old_extensions(name: &[u8]) -> Vec<u8> {
    let versions = [&[6], &grease()[..], &[3, 4, 3, 3]].concat();
    let (first, last) = grease_ids();
    let group = grease();
    let groups = [&group[..], &[0x00, 0x1d, 0x00, 0x17, 0x00, 0x18]].concat();
    [
        extension(first, &[]),
        name.to_vec(),
        extension(0x0017, &[]),
        extension(0xff01, &[0]),
        extension(0x000a, &vec16(&groups)),
        extension(0x000b, &[1, 0]),
        extension(0x0023, &[]),
        extension(0x0010, &vec16(b"\x02h2\x08http/1.1")),
        extension(0x000d, &signature_algorithms()),
        extension(0x0033, &key_shares(group, false)),
        extension(0x002d, &[1, 1]),
        extension(0x002b, &versions),
        extension(last, &[0]),
    ]
    .concat()
}

/// 1566 bytes of hello and 144, 176, 208 or 240 more, the name apart, when there is a hybrid share.
fn todays_extensions(name: &[u8], hybrid: bool) -> Vec<u8> {
    let versions = [&[6], &grease()[..], &[3, 4, 3, 3]].concat();
    let (first, last) = grease_ids();
    let group = grease();
    let mut groups = group.to_vec();
    groups.extend(if hybrid { &[0x11, 0xec][..] } else { &[] });
    groups.extend([0x00, 0x1d, 0x00, 0x17, 0x00, 0x18]);
    let mut shuffled = vec![
        name.to_vec(),
        extension(0x0005, &[1, 0, 0, 0, 0]),
        extension(0x000a, &vec16(&groups)),
        extension(0x000b, &[1, 0]),
        extension(0x000d, &signature_algorithms()),
        extension(0x0010, &vec16(b"\x02h2\x08http/1.1")),
        extension(0x0012, &[]),
        extension(0x0017, &[]),
        extension(0x001b, &[2, 0, 2]),
        extension(0x0023, &[]),
        extension(0x002b, &versions),
        extension(0x002d, &[1, 1]),
        extension(0x0033, &key_shares(group, hybrid)),
        extension(0x44cd, &vec16(b"\x02h2")),
        extension(0xfe0d, &encrypted_hello()),
        extension(0xff01, &[0]),
    ];
    let mut ordered = extension(first, &[]);
    while !shuffled.is_empty() {
        let [random] = random_bytes();
        ordered.extend(shuffled.swap_remove(usize::from(random) % shuffled.len()));
    }
    ordered.extend(extension(last, &[0]));
    ordered
}

fn signature_algorithms() -> Vec<u8> {
    vec16(&super::vectors::from_hex(
        "04030804040105030805050108060601",
    ))
}

/// An encrypted ClientHello that is none, as clients without a key for one send it.
fn encrypted_hello() -> Vec<u8> {
    let [id, length] = random_bytes();
    let payload = vec![random_bytes::<16>(); 9 + 2 * usize::from(length % 4)].concat();
    [
        &[0, 0, 1, 0, 1, id],
        &vec16(&random_bytes::<32>())[..],
        &vec16(&payload),
    ]
    .concat()
}

/// A share for a group that the list of groups doesn't have would be refused, so both have the same reserved one.
fn key_shares(group: [u8; 2], hybrid: bool) -> Vec<u8> {
    let mut shares = [&group[..], &[0, 1, 0]].concat();
    if hybrid {
        shares.extend(extension(
            0x11ec,
            &[&encapsulation_key()[..], &x25519_key()].concat(),
        ));
    }
    shares.extend(extension(0x001d, &x25519_key()));
    vec16(&shares)
}

fn x25519_key() -> [u8; 32] {
    x25519_dalek::x25519(random_bytes(), x25519_dalek::X25519_BASEPOINT_BYTES)
}

/// 768 coefficients below 3329 in 12 bits each and 32 bytes: what a server takes for an ML-KEM-768 key.
fn encapsulation_key() -> Vec<u8> {
    let mut key = Vec::new();
    for _ in 0..384 {
        let [low, high] = [(); 2].map(|()| u16::from_le_bytes(random_bytes()) % 3_329);
        let pair = u32::from(low) | u32::from(high) << 12;
        key.extend(&pair.to_le_bytes()[..3]);
    }
    key.extend(random_bytes::<32>());
    key
}

/// A reserved value that servers must skip (RFC 8701).
fn grease() -> [u8; 2] {
    let [random] = random_bytes();
    [random & 0xf0 | 0x0a; 2]
}

/// The reserved extensions in front and at the end: no id may come twice.
fn grease_ids() -> (u16, u16) {
    let first = u16::from_be_bytes(grease());
    (first, first ^ 0x1010)
}
