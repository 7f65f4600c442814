//! What the mask thread sends to a site, and what it learns: ClientHellos as today's clients send them
//! (protocol.md 5.1, 5.5), for real servers.
//!
//! The server's flight is read by `flight` and remembered by `model`.

use alloc::vec;
use alloc::vec::Vec;

use crate::proto::faketls::client_hello::{
    CLIENT_HELLO, Cipher, ClientHello, HANDSHAKE, HYBRID_GROUP, KEY_SHARE, SERVER_NAME,
    SUPPORTED_VERSIONS, X25519_GROUP,
};
use crate::proto::faketls::server_hello::public_key;

pub use crate::proto::faketls::flight::{Flight, Unusable, read};
pub use crate::proto::faketls::model::{Choice, Model};

/// Kinds of hello that servers respond to differently.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Kind {
    /// Whether it has a key share of X25519MLKEM768.
    pub hybrid: bool,
    /// Which cipher of TLS 1.3 comes first.
    pub first: Cipher,
}

impl Kind {
    /// All there are, by [`Kind::index`].
    pub const ALL: [Kind; 6] = [
        kind(false, Cipher::Aes128),
        kind(false, Cipher::Aes256),
        kind(false, Cipher::ChaCha20),
        kind(true, Cipher::Aes128),
        kind(true, Cipher::Aes256),
        kind(true, Cipher::ChaCha20),
    ];

    /// The kind of a client's hello.
    pub fn of(hello: &ClientHello) -> Kind {
        kind(hello.has_hybrid_share(), hello.first_cipher)
    }

    /// Its place in [`Kind::ALL`].
    pub fn index(self) -> usize {
        let place = Kind::ALL.iter().position(|other| *other == self);
        place.unwrap_or(0)
    }
}

const fn kind(hybrid: bool, first: Cipher) -> Kind {
    Kind { hybrid, first }
}

/// A source of random bytes: fills what it is given.
type Fill<'a> = &'a mut dyn FnMut(&mut [u8]);

/// A hello that asks for `domain`, in one record: with a hybrid key share 1710 to 1806 bytes and the
/// domain's, like a phone's; without one 517 bytes, like those before 2024. `random` gives random bytes.
pub fn hello(domain: &str, kind: Kind, random: Fill) -> Vec<u8> {
    let digest: [u8; 32] = random_array(random);
    let session_id: [u8; 32] = random_array(random);
    let ciphers = vector(&ciphers(kind.first, random));
    let start = [&[3, 3][..], &digest, &[32], &session_id, &ciphers, &[1, 0]].concat();
    let mut extensions = extensions(domain, kind, random);
    if !kind.hybrid {
        let rest = OLD_LEN.saturating_sub(start.len().saturating_add(extensions.len()));
        extensions.extend(extension(PADDING, &vec![0; rest]));
    }
    let body = vector(&[start, vector(&extensions)].concat());
    let message = vector(&[&[CLIENT_HELLO, 0][..], &body].concat());
    [&[HANDSHAKE, 3, 1][..], &message].concat()
}

/// GREASE (RFC 8701), those of TLS 1.3, then those of TLS 1.2.
fn ciphers(first: Cipher, random: Fill) -> Vec<u8> {
    let modern = match first {
        Cipher::Aes128 => [Cipher::Aes128, Cipher::Aes256, Cipher::ChaCha20],
        Cipher::Aes256 => [Cipher::Aes256, Cipher::ChaCha20, Cipher::Aes128],
        Cipher::ChaCha20 => [Cipher::ChaCha20, Cipher::Aes128, Cipher::Aes256],
    };
    let mut out = Vec::from(grease(random));
    modern.iter().for_each(|c| out.extend(c.to_wire()));
    out.extend(OLD_CIPHERS);
    out
}

/// In random order, between two GREASE extensions.
fn extensions(domain: &str, kind: Kind, random: Fill) -> Vec<u8> {
    let mut all = Vec::from_iter(ALWAYS.iter().map(|extension| extension.to_vec()));
    all.push(name_extension(domain));
    all.push(versions(random));
    let group = grease(random);
    all.push(groups(kind, group));
    all.push(key_shares(kind, group, random));
    if kind.hybrid {
        all.push(APPLICATION_SETTINGS.to_vec());
        all.push(encrypted_hello(random));
    }
    for last in (1..all.len()).rev() {
        let drawn = u32::from_le_bytes(random_array(random)) as usize;
        let place = drawn.checked_rem(last.saturating_add(1));
        all.swap(last, place.unwrap_or(0));
    }
    let first = grease(random);
    let mut last = grease(random);
    if last == first {
        last = last.map(|byte| byte ^ 0x10);
    }
    let mut out = Vec::from(first);
    out.extend([0, 0]);
    out.extend(all.iter().flatten());
    out.extend(last);
    out.extend([0, 1, 0]);
    out
}

/// RFC 6066 3; a dot at the end is not sent.
fn name_extension(domain: &str) -> Vec<u8> {
    let name = domain.strip_suffix('.').unwrap_or(domain);
    let host = [&[0][..], &vector(name.as_bytes())].concat();
    extension(SERVER_NAME, &vector(&host))
}

/// TLS 1.3 and 1.2.
fn versions(random: Fill) -> Vec<u8> {
    let [high, low] = grease(random);
    extension(SUPPORTED_VERSIONS, &[6, high, low, 3, 4, 3, 3])
}

fn groups(kind: Kind, grease: [u8; 2]) -> Vec<u8> {
    let hybrid = HYBRID_GROUP.to_be_bytes();
    let hybrid = if kind.hybrid { &hybrid[..] } else { &[] };
    let others = [&X25519_GROUP.to_be_bytes()[..], &[0, 0x17, 0, 0x18]].concat();
    extension(
        SUPPORTED_GROUPS,
        &vector(&[&grease, hybrid, &others].concat()),
    )
}

/// A byte of GREASE, then real keys: servers compute with them.
fn key_shares(kind: Kind, grease: [u8; 2], random: Fill) -> Vec<u8> {
    let mut list = [&grease[..], &vector(&[0])].concat();
    if kind.hybrid {
        list.extend(HYBRID_GROUP.to_be_bytes());
        list.extend(vector(&hybrid_share(random)));
    }
    list.extend(X25519_GROUP.to_be_bytes());
    list.extend(vector(&public_key(random_array(random))));
    extension(KEY_SHARE, &vector(&list))
}

/// A key of ML-KEM-768 (FIPS 203: 768 coefficients of 12 bits, which servers check to be below 3329,
/// and a seed of 32 bytes), then one of X25519.
fn hybrid_share(random: Fill) -> Vec<u8> {
    let mut share = Vec::new();
    for _ in 0..768 / 2 {
        let [a0, a1, b0, b1] = random_array(random);
        let coefficient = |bytes| u32::from(u16::from_le_bytes(bytes) % 3329);
        let pair = coefficient([a0, a1]) | coefficient([b0, b1]) << 12;
        let [low, middle, high, _] = pair.to_le_bytes();
        share.extend([low, middle, high]);
    }
    share.extend(random_array::<32>(random));
    share.extend(public_key(random_array(random)));
    share
}

/// Encrypted ClientHello as those send it who know no key of the site: random bytes, 144 to 240 of
/// them, after HKDF-SHA256, AES-128-GCM and an X25519 key.
fn encrypted_hello(random: Fill) -> Vec<u8> {
    let [id, steps] = random_array(random);
    let key = vector(&public_key(random_array(random)));
    let length = usize::from(steps & 3)
        .saturating_mul(32)
        .saturating_add(144);
    let mut sealed = vec![0; length];
    random(&mut sealed);
    let content = [&[0, 0, 1, 0, 1, id][..], &key, &vector(&sealed)].concat();
    extension(ENCRYPTED_HELLO, &content)
}

/// A value that servers must ignore.
fn grease(random: Fill) -> [u8; 2] {
    let [byte] = random_array(random);
    [byte & 0xf0 | 0x0a; 2]
}

fn random_array<const N: usize>(random: Fill) -> [u8; N] {
    let mut out = [0; N];
    random(&mut out);
    out
}

fn extension(number: u16, content: &[u8]) -> Vec<u8> {
    [&number.to_be_bytes()[..], &vector(content)].concat()
}

/// The bytes with their length before them.
fn vector(content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap_or(u16::MAX);
    [&length.to_be_bytes()[..], content].concat()
}

/// Body of a hello of 517 bytes without its extensions' length and the padding's header.
const OLD_LEN: usize = 517 - 5 - 4 - 2 - 4;

const OLD_CIPHERS: [u8; 24] = [
    0xc0, 0x2b, 0xc0, 0x2f, 0xc0, 0x2c, 0xc0, 0x30, 0xcc, 0xa9, 0xcc, 0xa8, 0xc0, 0x13, 0xc0, 0x14,
    0, 0x9c, 0, 0x9d, 0, 0x2f, 0, 0x35,
];

/// What every hello has, whole: extended master secret, renegotiation info, point formats, session
/// ticket, ALPN, status request, signature algorithms, certificate timestamps, PSK modes, compressed
/// certificates.
const ALWAYS: [&[u8]; 10] = [
    &[0, 0x17, 0, 0],
    &[0xff, 1, 0, 1, 0],
    &[0, 0x0b, 0, 2, 1, 0],
    &[0, 0x23, 0, 0],
    b"\0\x10\0\x0e\0\x0c\x02h2\x08http/1.1",
    &[0, 5, 0, 5, 1, 0, 0, 0, 0],
    &[
        0, 0x0d, 0, 18, 0, 16, 4, 3, 8, 4, 4, 1, 5, 3, 8, 5, 5, 1, 8, 6, 6, 1,
    ],
    &[0, 0x12, 0, 0],
    &[0, 0x2d, 0, 2, 1, 1],
    &[0, 0x1b, 0, 3, 2, 0, 2],
];
/// Application settings for HTTP/2.
const APPLICATION_SETTINGS: [u8; 9] = *b"\x44\xcd\0\x05\0\x03\x02h2";

const SUPPORTED_GROUPS: u16 = 0x000a;
const PADDING: u16 = 0x0015;
const ENCRYPTED_HELLO: u16 = 0xfe0d;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::random::SEED_LEN;
    use crate::proto::faketls::client_hello::{HYBRID_SHARE, Progress, progress, server_name};
    use crate::proto::faketls::fields::Fields;
    use std::collections::BTreeSet;

    fn made(domain: &str, kind: Kind, seed: u8) -> Vec<u8> {
        let mut random = crate::crypto::random::Random::new(&[seed; SEED_LEN]);
        hello(domain, kind, &mut |b| random.fill(b))
    }

    /// Number and content of each extension, in order.
    fn extensions(wire: &[u8]) -> Vec<(u16, &[u8])> {
        let mut fields = Fields::new(&wire[76..]);
        fields.vector16().unwrap();
        fields.vector8().unwrap();
        let mut list = Fields::new(fields.vector16().unwrap());
        assert!(fields.is_empty());
        let mut found = Vec::new();
        while !list.is_empty() {
            found.push((list.u16().unwrap(), list.vector16().unwrap()));
        }
        found
    }

    #[test]
    fn our_own_parser_takes_them() {
        for kind in Kind::ALL {
            let wire = made("Example.com.", kind, 1);
            assert_eq!(progress(&wire), Progress::Complete(wire.len()));
            let hello = ClientHello::parse(&wire).unwrap();
            assert_eq!(server_name(&wire), Some(&b"Example.com"[..]));
            assert_eq!(Kind::of(&hello), kind);
            assert!(hello.has_x25519_share());
            let all = [Cipher::Aes128, Cipher::Aes256, Cipher::ChaCha20];
            assert!(all.iter().all(|c| hello.offers(*c)));
        }
    }

    #[test]
    fn as_long_as_clients() {
        let longest = "a".repeat(crate::limits::MAX_DOMAIN);
        for domain in ["a.b", "example.com", &longest] {
            let old = made(domain, Kind::ALL[0], 1);
            assert_eq!(old.len(), 517);
            let lengths: BTreeSet<_> = (0..30)
                .map(|seed| made(domain, Kind::ALL[3], seed).len() - domain.len())
                .collect();
            assert_eq!(lengths, BTreeSet::from([1710, 1742, 1774, 1806]));
        }
    }

    #[test]
    fn hybrid_keys_are_ones_that_servers_accept() {
        for seed in 0..8 {
            let wire = made("example.com", Kind::ALL[5], seed);
            let all = extensions(&wire);
            let (_, shares) = all.iter().find(|(n, _)| *n == KEY_SHARE).unwrap();
            let mut list = Fields::new(&shares[2..]);
            list.u16().unwrap();
            assert_eq!(list.vector16(), Some(&[0][..]), "GREASE");
            assert_eq!(list.u16(), Some(HYBRID_GROUP));
            let share = list.vector16().unwrap();
            assert_eq!(share.len(), HYBRID_SHARE);
            let (triples, _) = share[..1152].as_chunks::<3>();
            let coefficients: Vec<_> = triples
                .iter()
                .flat_map(|[a, b, c]| {
                    let (a, b, c) = (u16::from(*a), u16::from(*b), u16::from(*c));
                    [a | (b & 15) << 8, b >> 4 | c << 4]
                })
                .collect();
            assert_eq!(coefficients.len(), 768);
            assert!(coefficients.iter().all(|c| *c < 3329));
            assert!(coefficients.iter().any(|c| *c > 3000));
            let distinct: BTreeSet<_> = coefficients.iter().collect();
            assert!(distinct.len() > 600, "{}", distinct.len());
        }
    }

    #[test]
    fn extensions_are_those_of_clients_in_any_order() {
        let mut orders = BTreeSet::new();
        for seed in 0..20 {
            for kind in Kind::ALL {
                let wire = made("example.com", kind, seed);
                let all = extensions(&wire);
                let mut numbers: Vec<_> = all.iter().map(|(n, _)| *n).collect();
                if !kind.hybrid {
                    assert_eq!(numbers.pop(), Some(PADDING));
                }
                let (first, last) = (numbers.remove(0), numbers.pop().unwrap());
                let is_grease = |n: u16| n & 0x0f0f == 0x0a0a && n >> 8 == n & 0xff;
                assert!(is_grease(first) && is_grease(last) && first != last);
                orders.insert(numbers.clone());
                numbers.sort();
                let mut expected = std::vec![
                    0, 5, 10, 11, 13, 16, 18, 0x17, 0x1b, 0x23, 0x2b, 0x2d, 0x33, 0xff01,
                ];
                if kind.hybrid {
                    expected.extend([0x44cd, 0xfe0d]);
                    expected.sort();
                }
                assert_eq!(numbers, expected);
            }
        }
        assert!(orders.len() > 30, "{}", orders.len());
    }

    #[test]
    fn a_group_is_named_before_its_key_is_sent() {
        for kind in Kind::ALL {
            let wire = made("example.com", kind, 4);
            let all = extensions(&wire);
            let content = |number| all.iter().find(|(n, _)| *n == number).unwrap().1;
            let (groups, _) = content(SUPPORTED_GROUPS)[2..].as_chunks::<2>();
            let mut shares = Fields::new(&content(KEY_SHARE)[2..]);
            let mut sent = Vec::new();
            while let Some(group) = shares.array::<2>() {
                shares.vector16().unwrap();
                sent.push(*group);
            }
            assert_eq!(sent, groups[..sent.len()]);
            assert_eq!(sent.len(), if kind.hybrid { 3 } else { 2 });
        }
    }
}
