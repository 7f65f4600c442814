//! The ClientHello: whether it is complete, what it asks for, and whether it proves a secret
//! (protocol.md 5.1, 5.2; RFC 8446 4.1.2). Called by the door.
//!
//! The bytes come from strangers, browsers and scanners among them: anything is possible.

use alloc::borrow::Cow;
use alloc::vec::Vec;
use core::hint::black_box;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::limits::{MAX_HELLO, MAX_HELLO_RECORDS};
use crate::proto::faketls::fields::Fields;
use crate::proto::faketls::record::HEADER;
use crate::proto::secret::Secret;

/// What the bytes received so far are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    /// No ClientHello.
    NotAHello,
    /// The beginning of what may be one.
    Incomplete,
    /// A ClientHello of so many bytes: all its records with their headers.
    Complete(usize),
}

/// Judges all bytes received so far (there may be none) as early as a byte decides it. A hello ends with
/// the record that holds the last byte of the handshake message, whatever else that record holds.
pub fn progress(bytes: &[u8]) -> Progress {
    let mut rest = bytes;
    let mut message = MessageStart::default();
    let mut announced = 0_usize;
    for number in 1..=MAX_HELLO_RECORDS {
        if !may_be_header(rest) {
            return Progress::NotAHello;
        }
        let Some((&[_, _, _, high, low], after)) = rest.split_first_chunk::<HEADER>() else {
            return Progress::Incomplete;
        };
        let length = usize::from(u16::from_be_bytes([high, low]));
        announced = announced.saturating_add(length);
        let (body, next) = after.split_at_checked(length).unwrap_or((after, &[]));
        message.add(body);
        let least = message.least_length();
        let is_last = number == MAX_HELLO_RECORDS;
        if !message.may_be_hello() || announced.max(least) > MAX_HELLO {
            return Progress::NotAHello;
        }
        if is_last && announced < least {
            return Progress::NotAHello;
        }
        if body.len() < length {
            return Progress::Incomplete;
        }
        if announced >= least {
            return Progress::Complete(bytes.len().saturating_sub(next.len()));
        }
        rest = next;
    }
    Progress::NotAHello
}

/// Whether these bytes may begin a record of a hello. Telegram clients write version `03 01` in the
/// first record, OpenSSL and others `03 03` in all later ones, Java in the first too.
fn may_be_header(bytes: &[u8]) -> bool {
    let mut all = bytes.iter().copied();
    let mut next_is = |fits: fn(u8) -> bool| all.next().is_none_or(fits);
    next_is(|kind| kind == HANDSHAKE)
        && next_is(|major| major == 3)
        && next_is(|minor| (1..=3).contains(&minor))
        && match bytes.get(3..HEADER) {
            Some(&[high, low]) => {
                (1..=MAX_HELLO).contains(&usize::from(u16::from_be_bytes([high, low])))
            }
            _ => next_is(|high| usize::from(high) <= MAX_HELLO >> 8),
        }
}

/// The first 4 bytes of the handshake message: its type and length, in as many records as it takes.
#[derive(Default)]
struct MessageStart {
    bytes: [u8; 4],
    there: usize,
}

impl MessageStart {
    fn add(&mut self, body: &[u8]) {
        let places = self.bytes.iter_mut().skip(self.there);
        places.zip(body).for_each(|(place, byte)| *place = *byte);
        self.there = self.there.saturating_add(body.len()).min(4);
    }

    fn may_be_hello(&self) -> bool {
        let [kind, ..] = self.bytes;
        self.there == 0 || kind == CLIENT_HELLO
    }

    /// Length of the message with its header; bytes that have not come yet count as zero.
    fn least_length(&self) -> usize {
        let [_, a, b, c] = self.bytes;
        (u32::from_be_bytes([0, a, b, c]) as usize).saturating_add(4)
    }
}

/// A complete hello as one record, which is what the digest is made over: borrowed if it came as one,
/// otherwise rebuilt as `16 03 01`, the sum of the lengths, and all bodies. None if [`progress`] doesn't
/// call `wire` complete.
pub fn as_one_record(wire: &[u8]) -> Option<Cow<'_, [u8]>> {
    if progress(wire) != Progress::Complete(wire.len()) {
        return None;
    }
    let mut records = Fields::new(wire);
    let mut joined = Vec::new();
    while !records.is_empty() {
        records.bytes(3)?;
        let body = records.vector16()?;
        if records.is_empty() && joined.is_empty() {
            return Some(Cow::Borrowed(wire));
        }
        if joined.is_empty() {
            joined.reserve_exact(wire.len());
            joined.extend([HANDSHAKE, 3, 1, 0, 0]);
        }
        joined.extend_from_slice(body);
    }
    let length = u16::try_from(joined.len().checked_sub(HEADER)?).ok()?;
    let place = joined.get_mut(3..HEADER)?;
    place.copy_from_slice(&length.to_be_bytes());
    Some(Cow::Owned(joined))
}

/// Ciphers of TLS 1.3 that clients offer, by the second byte of their number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Cipher {
    /// TLS_AES_128_GCM_SHA256, `13 01`.
    Aes128 = 1,
    /// TLS_AES_256_GCM_SHA384, `13 02`.
    Aes256 = 2,
    /// TLS_CHACHA20_POLY1305_SHA256, `13 03`.
    ChaCha20 = 3,
}

impl Cipher {
    /// By its number on the wire; None for any other.
    pub fn from_wire(number: [u8; 2]) -> Option<Cipher> {
        match number {
            [0x13, 1] => Some(Cipher::Aes128),
            [0x13, 2] => Some(Cipher::Aes256),
            [0x13, 3] => Some(Cipher::ChaCha20),
            _ => None,
        }
    }

    /// Its number on the wire.
    pub fn to_wire(self) -> [u8; 2] {
        [0x13, self as u8]
    }
}

/// Whether a name that was asked for is `domain`: case and a dot at the end make no difference.
pub fn is_same_name(name: &[u8], domain: &str) -> bool {
    fn no_dot(name: &[u8]) -> &[u8] {
        name.strip_suffix(b".").unwrap_or(name)
    }
    no_dot(name).eq_ignore_ascii_case(no_dot(domain.as_bytes()))
}

/// The host that a hello in one record asks for; None if none is, if its name is empty or has a zero
/// byte. Works for any hello, even one that is cut off after the name: a visitor is shown the site that
/// it asks for.
pub fn server_name(record: &[u8]) -> Option<&[u8]> {
    let mut fields = Fields::new(record.get(RANDOM_END..)?);
    fields.vector8()?; // session id
    fields.vector16()?; // ciphers
    fields.vector8()?; // compression
    fields.u16()?; // length of all extensions, which needn't have come
    loop {
        let kind = fields.u16()?;
        let mut content = Fields::new(fields.vector16()?);
        if kind == SERVER_NAME {
            return content.vector16().and_then(host_name);
        }
    }
}

/// A hello that might be a Telegram client's.
pub struct ClientHello<'a> {
    record: &'a [u8],
    /// The digest, by which a client proves its secret.
    pub random: &'a [u8; 32],
    /// What the ServerHello repeats.
    pub session_id: &'a [u8; 32],
    ciphers: &'a [[u8; 2]],
    /// The cipher of TLS 1.3 that the client prefers: all others and GREASE are passed over.
    pub first_cipher: Cipher,
    key_shares: &'a [u8],
}

impl<'a> ClientHello<'a> {
    /// Reads a hello in one record ([`as_one_record`]). None if it isn't what Telegram clients send: a
    /// session id of 32 bytes, a cipher of TLS 1.3, no compression, extensions that hold together.
    pub fn parse(record: &'a [u8]) -> Option<ClientHello<'a>> {
        let mut outer = Fields::new(record);
        if outer.array()? != &[HANDSHAKE, 3, 1] {
            return None;
        }
        let mut inner = Fields::new(outer.vector16()?);
        if !outer.is_empty() || inner.u8()? != CLIENT_HELLO {
            return None;
        }
        let mut message = Fields::new(inner.vector24()?);
        if message.array()? != &[3, 3] {
            return None;
        }
        let random = message.array()?;
        let session_id = message.vector8()?.try_into().ok()?;
        let (ciphers, odd) = message.vector16()?.as_chunks();
        let first_cipher = ciphers.iter().find_map(|c| Cipher::from_wire(*c))?;
        if !odd.is_empty() || message.array()? != &[1, 0] {
            return None;
        }
        let mut hello = ClientHello {
            record,
            random,
            session_id,
            ciphers,
            first_cipher,
            key_shares: &[],
        };
        let mut extensions = Fields::new(message.vector16()?);
        while !extensions.is_empty() {
            let kind = extensions.u16()?;
            let mut content = Fields::new(extensions.vector16()?);
            if kind == KEY_SHARE {
                hello.key_shares = content.vector16().unwrap_or_default();
            }
        }
        Some(hello)
    }

    /// Whether `cipher` is in the client's list.
    pub fn offers(&self, cipher: Cipher) -> bool {
        self.ciphers.contains(&cipher.to_wire())
    }

    /// Whether there is a key share of X25519MLKEM768.
    pub fn has_hybrid_share(&self) -> bool {
        self.has_share(HYBRID_GROUP, HYBRID_SHARE)
    }

    /// Whether there is a key share of X25519.
    pub fn has_x25519_share(&self) -> bool {
        self.has_share(X25519_GROUP, X25519_SHARE)
    }

    fn has_share(&self, group: u16, length: usize) -> bool {
        let mut rest = Fields::new(self.key_shares);
        while let (Some(number), Some(share)) = (rest.u16(), rest.vector16()) {
            if number == group && share.len() == length {
                return true;
            }
        }
        false
    }

    /// The time that the client claims, unix seconds, if the digest is right for `secret`. The running
    /// time doesn't tell how many bytes of it are. The last 4 bytes of the digest are XORed with the
    /// time: changed on the way, they stay right, for another time.
    #[inline(never)] // the hash's stack is not the caller's
    pub fn verify(&self, secret: &Secret) -> Option<u32> {
        let (before, after) = (
            self.record.get(..RANDOM_AT)?,
            self.record.get(RANDOM_END..)?,
        );
        let digest = hmac(secret, &[before, &[0; 32], after]);
        let mut differences = [0; 32];
        let pairs = digest.iter().zip(self.random);
        let places = differences.iter_mut();
        places.zip(pairs).for_each(|(d, (a, b))| *d = a ^ b);
        let (wrong, stamp) = differences.split_last_chunk()?;
        // Without the box a compiler may see that it can stop at the first difference.
        let wrong = wrong.iter().fold(0, |all, d| black_box(all | d));
        (wrong == 0).then_some(u32::from_le_bytes(*stamp))
    }
}

/// Makes a hello in one record that of a client who knows the secret: its random becomes the digest, with
/// the time, unix seconds, in it. None if it is no hello.
pub fn sign(record: &mut [u8], secret: &Secret, now: u32) -> Option<()> {
    record.get_mut(RANDOM_AT..RANDOM_END)?.fill(0);
    let mut digest = hmac(secret, &[record]);
    let stamp = digest.last_chunk_mut::<4>()?;
    *stamp = (u32::from_le_bytes(*stamp) ^ now).to_le_bytes();
    record
        .get_mut(RANDOM_AT..RANDOM_END)?
        .copy_from_slice(&digest);
    Some(())
}

/// The first host name of a list of server names (RFC 6066 3).
fn host_name(list: &[u8]) -> Option<&[u8]> {
    let mut rest = Fields::new(list);
    loop {
        let kind = rest.u8()?;
        let name = rest.vector16()?;
        if kind == 0 {
            return Some(name).filter(|n| !n.is_empty() && !n.contains(&0));
        }
    }
}

/// HMAC-SHA256 of the `parts` one after the other, with the 16 bytes of the secret as key.
pub(super) fn hmac(secret: &Secret, parts: &[&[u8]]) -> [u8; 32] {
    // A key is padded with zeros to the hash's block (RFC 2104).
    let mut key = [0; 64];
    let places = key.iter_mut().zip(secret.bytes());
    places.for_each(|(place, byte)| *place = *byte);
    let mut mac = Hmac::<Sha256>::new(&key.into());
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

/// Where the random begins in a hello of one record.
pub const RANDOM_AT: usize = 11;
/// And where it ends.
pub const RANDOM_END: usize = 43;
/// Extension numbers.
pub(super) const SERVER_NAME: u16 = 0x0000;
pub(super) const SUPPORTED_VERSIONS: u16 = 0x002b;
pub(super) const KEY_SHARE: u16 = 0x0033;
/// Groups of key shares, and the bytes of a client's.
pub(super) const X25519_GROUP: u16 = 0x001d;
pub(super) const X25519_SHARE: usize = 32;
pub(super) const HYBRID_GROUP: u16 = 0x11ec;
pub(super) const HYBRID_SHARE: usize = 1216;
/// Record type and message type.
pub(super) const HANDSHAKE: u8 = 0x16;
pub(super) const CLIENT_HELLO: u8 = 1;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::random::{Random, SEED_LEN};
    use crate::proto::faketls::probe::{self, Kind};
    use crate::vectors::Vectors;
    use Progress::{Complete, Incomplete, NotAHello};
    use std::{format, vec};

    const HELLOS: [&str; 2] = ["hello_517", "hello_mlkem768"];

    fn vector(v: &Vectors, name: &str, field: &str) -> Vec<u8> {
        v.bytes(&format!("client_hellos.{name}.{field}"))
    }

    fn secret(v: &Vectors, key: &str) -> Secret {
        Secret::new(v.array(key))
    }

    /// All checks that a stranger has to pass but the clock's.
    fn stamp(wire: &[u8], secret: &Secret) -> Option<u32> {
        let Complete(length) = progress(wire) else {
            return None;
        };
        let record = as_one_record(&wire[..length])?;
        ClientHello::parse(&record)?.verify(secret)
    }

    /// The bodies of `record` in as many records as `cuts` leaves.
    fn split(record: &[u8], cuts: &[usize]) -> Vec<u8> {
        let body = &record[HEADER..];
        let ends = cuts.iter().copied().chain([body.len()]);
        let mut wire = Vec::new();
        let mut start = 0;
        for end in ends {
            wire.extend([0x16, 3, if start == 0 { 1 } else { 3 }]);
            wire.extend(((end - start) as u16).to_be_bytes());
            wire.extend(&body[start..end]);
            start = end;
        }
        wire
    }

    fn even_cuts(record: &[u8], records: usize) -> Vec<usize> {
        let length = record.len() - HEADER;
        (1..records).map(|i| i * length / records).collect()
    }

    /// Puts the right digest in place.
    fn sign(record: &mut [u8], secret: &Secret, stamp: u32) {
        record[RANDOM_AT..RANDOM_END].fill(0);
        let mut digest = hmac(secret, &[record]);
        let places = digest[28..].iter_mut().zip(stamp.to_le_bytes());
        places.for_each(|(place, byte)| *place ^= byte);
        record[RANDOM_AT..RANDOM_END].copy_from_slice(&digest);
    }

    #[test]
    fn what_we_sign_is_a_clients() {
        let mut random = Random::new(&[3; SEED_LEN]);
        let mut wire = probe::hello("a.b", Kind::ALL[3], &mut |place| random.fill(place));
        let (ours, other) = (Secret::new([7; 16]), Secret::new([8; 16]));
        super::sign(&mut wire, &ours, 1_800_000_000).unwrap();
        assert_eq!(stamp(&wire, &ours), Some(1_800_000_000));
        assert_eq!(stamp(&wire, &other), None);
        assert!(super::sign(&mut wire[..42], &ours, 1).is_none());
    }

    /// A hello with these ciphers and extensions.
    fn made(ciphers: &[u8], extensions: &[u8]) -> Vec<u8> {
        let vector = |bytes: &[u8]| [&(bytes.len() as u16).to_be_bytes(), bytes].concat();
        let start = [&[3, 3][..], &[7; 32], &[32], &[9; 32]].concat();
        let body = [start, vector(ciphers), [1, 0].into(), vector(extensions)].concat();
        let message = [vec![1, 0], vector(&body)].concat();
        [vec![0x16, 3, 1], vector(&message)].concat()
    }

    #[test]
    fn vectors_say_what_they_are() {
        let v = Vectors::load("fake_tls");
        for name in HELLOS {
            let wire = vector(&v, name, "client_hello");
            let number = |field: &str| v.number(&format!("client_hellos.{name}.{field}"));
            assert_eq!(wire.len() as i64, number("len"));
            assert_eq!(progress(&wire), Complete(wire.len()));
            let record = as_one_record(&wire).unwrap();
            assert!(matches!(record, Cow::Borrowed(_)));
            let hello = ClientHello::parse(&record).unwrap();
            assert_eq!(hello.random[..], vector(&v, name, "client_random"));
            assert_eq!(hello.session_id[..], vector(&v, name, "sid"));
            assert_eq!(server_name(&record), Some(&b"example.com"[..]));
            let chosen = vector(&v, name, "chosen_cipher_suite");
            assert_eq!(hello.first_cipher.to_wire()[..], chosen);
            assert!(hello.offers(Cipher::ChaCha20) && hello.has_x25519_share());
            assert_eq!(hello.has_hybrid_share(), name == "hello_mlkem768");
            let right = secret(&v, &format!("client_hellos.{name}.secret"));
            let time = hello.verify(&right).map(i64::from);
            assert_eq!(time, Some(number("timestamp")));
            assert_eq!(hello.verify(&secret(&v, "wrong_secret")), None);
        }
    }

    #[test]
    fn vectors_of_time_stamps() {
        let v = Vectors::load("fake_tls");
        let right = secret(&v, "client_hellos.hello_517.secret");
        let mut wire = vector(&v, "hello_517", "client_hello");
        for i in 0..v.number("timestamps.count") {
            let random: [u8; 32] = v.array(&format!("timestamps.{i}.client_random"));
            wire[RANDOM_AT..RANDOM_END].copy_from_slice(&random);
            let expected = v.number(&format!("timestamps.{i}.timestamp"));
            assert_eq!(stamp(&wire, &right).map(i64::from), Some(expected));
        }
    }

    #[test]
    fn every_cut_is_incomplete_and_more_is_not_part_of_it() {
        let v = Vectors::load("fake_tls");
        for name in HELLOS {
            let one = vector(&v, name, "client_hello");
            for mut wire in [one.clone(), split(&one, &[1, 2, 3, 4, 700 % one.len()])] {
                let length = wire.len();
                for cut in 0..length {
                    assert_eq!(progress(&wire[..cut]), Incomplete, "{name}, {cut} bytes");
                    assert!(as_one_record(&wire[..cut]).is_none());
                    assert!(ClientHello::parse(&wire[..cut]).is_none());
                }
                wire.push(0x14);
                assert_eq!(progress(&wire), Complete(length));
                assert!(as_one_record(&wire).is_none());
                assert!(ClientHello::parse(&wire).is_none());
            }
        }
    }

    #[test]
    fn a_split_hello_is_the_same_hello() {
        let v = Vectors::load("fake_tls");
        for name in HELLOS {
            let one = vector(&v, name, "client_hello");
            let right = secret(&v, &format!("client_hellos.{name}.secret"));
            for records in 2..=MAX_HELLO_RECORDS {
                let wire = split(&one, &even_cuts(&one, records));
                assert_eq!(progress(&wire), Complete(wire.len()));
                assert_eq!(as_one_record(&wire).unwrap(), one);
                assert_eq!(stamp(&wire, &right), Some(1_760_000_000), "{records}");
            }
            for end in 1..6 {
                let wire = split(&one, &[end]);
                assert_eq!(stamp(&wire, &right), Some(1_760_000_000), "{end}");
            }
            let too_many = split(&one, &even_cuts(&one, MAX_HELLO_RECORDS + 1));
            assert_eq!(progress(&too_many), NotAHello);
            let ninth = too_many.len() * 9 / 11;
            assert_eq!(progress(&too_many[..ninth]), Incomplete);
        }
    }

    #[test]
    fn what_stands_behind_the_message_in_its_record_belongs_to_the_hello() {
        let right = Secret::new([5; 16]);
        let mut wire = made(&[0x13, 1], &[]);
        wire.extend([0x77; 20]);
        let length = wire.len() as u16 - 5;
        wire[3..5].copy_from_slice(&length.to_be_bytes());
        sign(&mut wire, &right, 99);
        assert_eq!(progress(&wire), Complete(wire.len()));
        assert_eq!(stamp(&wire, &right), Some(99));
        *wire.last_mut().unwrap() ^= 1;
        assert_eq!(stamp(&wire, &right), None);
    }

    #[test]
    fn no_flipped_bit_goes_unnoticed() {
        let v = Vectors::load("fake_tls");
        for name in HELLOS {
            let mut wire = vector(&v, name, "client_hello");
            let right = secret(&v, &format!("client_hellos.{name}.secret"));
            let good = stamp(&wire, &right).unwrap();
            for at in 0..wire.len() {
                for bit in 0..8 {
                    wire[at] ^= 1 << bit;
                    // The digest's last 4 bytes carry the time: another one, and no longer this.
                    let expected = match at.checked_sub(RANDOM_END - 4) {
                        Some(byte @ 0..4) => Some(good ^ 1 << (8 * byte + bit)),
                        _ => None,
                    };
                    assert_eq!(stamp(&wire, &right), expected, "{name}, byte {at}");
                    wire[at] ^= 1 << bit;
                }
            }
        }
    }

    #[test]
    fn the_first_byte_that_tells_decides() {
        let cases: &[&[u8]] = &[
            b"G",
            &[0x15],
            &[0x17],
            &[0xef],
            &[0x16, 2],
            &[0x16, 3, 0],
            &[0x16, 3, 4],
            &[0x16, 3, 1, 0x41],
            &[0x16, 3, 1, 0x40, 1],
            &[0x16, 3, 1, 0, 0],
            &[0x16, 3, 1, 1, 0, 2],
            &[0x16, 3, 1, 1, 0, 1, 1],
            &[0x16, 3, 1, 1, 0, 1, 0, 0x40],
            &[0x16, 3, 1, 1, 0, 1, 0, 0x3f, 0xfd],
            &[0x16, 3, 1, 0, 1, 1, 0x17],
            &[0x16, 3, 1, 0, 1, 1, 0x16, 3, 4],
            &[0x16, 3, 1, 0, 1, 1, 0x16, 3, 3, 0x40, 0],
            &[0x16, 3, 1, 0, 1, 1, 0x16, 3, 3, 0, 1, 2],
        ];
        for case in &cases[..cases.len() - 1] {
            assert_eq!(progress(case), NotAHello, "{case:x?}");
            let before = &case[..case.len() - 1];
            assert_eq!(progress(before), Incomplete, "{before:x?}");
        }
        let last = cases[cases.len() - 1];
        assert_eq!(progress(last), NotAHello);
        // Ten records announce less than the message takes.
        let mut wire = vec![0x16, 3, 1, 0, 4, 1, 0, 0, 30];
        for _ in 0..8 {
            wire.extend([0x16, 3, 1, 0, 3, 0, 0, 0]);
        }
        assert_eq!(progress(&wire), Incomplete);
        let mut enough = wire.clone();
        enough.extend([0x16, 3, 1, 0, 6]);
        assert_eq!(progress(&enough), Incomplete);
        enough.extend([0; 6]);
        assert_eq!(progress(&enough), Complete(enough.len()));
        wire.extend([0x16, 3, 1, 0, 5]);
        assert_eq!(progress(&wire), NotAHello);
    }

    #[test]
    fn names_regardless_of_case_and_final_dot() {
        let named = |name: &[u8]| {
            let length = name.len() as u8;
            let head = [0, 0, 0, length + 5, 0, length + 3, 0, 0, length];
            made(&[0x13, 1], &[&head, name].concat())
        };
        let asks = |name: &str, domain: &str| {
            server_name(&named(name.as_bytes())).is_some_and(|name| is_same_name(name, domain))
        };
        assert!(asks("example.com", "example.com"));
        assert!(asks("ExAmple.COM", "exaMple.com"));
        assert!(asks("example.com.", "example.com"));
        assert!(asks("example.com", "example.com."));
        assert!(!asks("example.com..", "example.com"));
        assert!(!asks("example.org", "example.com"));
        assert!(!asks("xexample.com", "example.com"));
        assert!(!asks("", ""));
        let name = |wire: &[u8]| server_name(wire).map(|n| n.to_vec());
        assert_eq!(name(&named(b"a.b")), Some(b"a.b".to_vec()));
        assert_eq!(name(&named(b"")), None);
        assert_eq!(name(&named(b"a\0b")), None);
        assert_eq!(name(&made(&[0x13, 1], &[])), None);
        let other_type_first = [0, 0, 0, 10, 0, 8, 1, 0, 1, b'x', 0, 0, 1, b'y'];
        assert_eq!(
            name(&made(&[0x13, 1], &other_type_first)),
            Some(b"y".to_vec())
        );
        let cut_inside = [0, 0, 0, 6, 0, 4, 0, 0, 2, b'x'];
        assert_eq!(name(&made(&[0x13, 1], &cut_inside)), None);
    }

    #[test]
    fn ciphers_in_the_clients_order() {
        let first =
            |ciphers: &[u8]| ClientHello::parse(&made(ciphers, &[])).map(|h| h.first_cipher);
        let apple = [0xaa, 0xaa, 0x13, 3, 0x13, 1, 0x13, 2, 0xc0, 0x2c];
        assert_eq!(first(&apple), Some(Cipher::ChaCha20));
        assert_eq!(first(&[0x1a, 0x1a, 0x13, 2]), Some(Cipher::Aes256));
        assert_eq!(first(&[0xc0, 0x2b, 0x13, 1]), Some(Cipher::Aes128));
        assert_eq!(first(&[0xc0, 0x2b, 0x13, 4, 0x13, 0]), None);
        assert_eq!(first(&[0x13, 1, 0x13]), None);
        assert_eq!(first(&[]), None);
        let wire = made(&[0x1a, 0x1a, 0x13, 2, 0x13, 3], &[]);
        let hello = ClientHello::parse(&wire).unwrap();
        let offered =
            [Cipher::Aes128, Cipher::Aes256, Cipher::ChaCha20].map(|cipher| hello.offers(cipher));
        assert_eq!(offered, [false, true, true]);
    }

    #[test]
    fn key_shares_count_with_the_right_length_only() {
        let shares = |list: &[u8]| {
            let length = list.len() as u16;
            let mut extension = vec![0, 0x33];
            extension.extend((length + 2).to_be_bytes());
            extension.extend(length.to_be_bytes());
            extension.extend(list);
            let wire = made(&[0x13, 1], &extension);
            let hello = ClientHello::parse(&wire).unwrap();
            (hello.has_hybrid_share(), hello.has_x25519_share())
        };
        let x25519 = [&[0, 0x1d, 0, 32][..], &[1; 32]].concat();
        let hybrid = [&[0x11, 0xec, 4, 0xc0][..], &[1; 1216]].concat();
        assert_eq!(shares(&x25519), (false, true));
        assert_eq!(shares(&hybrid), (true, false));
        assert_eq!(shares(&[hybrid, x25519].concat()), (true, true));
        let short = [&[0, 0x1d, 0, 31][..], &[1; 31]].concat();
        assert_eq!(shares(&short), (false, false));
        assert_eq!(shares(&[0, 0x1d, 0, 32, 1]), (false, false));
    }

    #[test]
    fn other_forms_are_no_clients() {
        let good = made(&[0x13, 1], &[0, 0x17, 0, 0]);
        assert!(ClientHello::parse(&good).is_some());
        let broken = |at: usize, value: u8| {
            let mut wire = good.clone();
            assert_ne!(wire[at], value);
            wire[at] = value;
            ClientHello::parse(&wire).is_none()
        };
        assert!(broken(2, 3), "record version");
        assert!(broken(4, 86), "record length");
        assert!(broken(5, 2), "message type");
        assert!(broken(8, 200), "message length");
        assert!(broken(10, 1), "version");
        assert!(broken(43, 31), "session id");
        assert!(broken(80, 2), "number of compressions");
        assert!(broken(81, 1), "compression");
        assert!(broken(83, 5), "extensions' length");
        assert!(broken(87, 1), "an extension's length");
        assert!(ClientHello::parse(&good[..82]).is_none());
    }

    #[test]
    fn a_name_is_found_in_hellos_that_are_no_clients() {
        let extension = [0, 0, 0, 8, 0, 6, 0, 0, 3, b'a', b'.', b'b'];
        let old = {
            // TLS 1.2, no session id, two compressions.
            let start = [&[3, 3][..], &[7; 32], &[0, 0, 2, 0xc0, 0x2f, 2, 1, 0]].concat();
            let body = [&start[..], &[0, 12], &extension].concat();
            let length = body.len() as u8;
            [&[0x16, 3, 3, 0, length + 4, 1, 0, 0, length], &body[..]].concat()
        };
        assert_eq!(progress(&old), Complete(old.len()));
        assert!(ClientHello::parse(&old).is_none());
        assert_eq!(server_name(&old), Some(&b"a.b"[..]));
        for cut in 0..old.len() {
            assert_eq!(server_name(&old[..cut]), None);
        }
        assert_eq!(server_name(&made(&[], &extension)), Some(&b"a.b"[..]));
    }

    #[test]
    fn anything_is_possible() {
        let mut random = Random::new(&[1; SEED_LEN]);
        let hello = |kind| probe::hello("example.com", kind, &mut |b| b.fill(7));
        let goods = Kind::ALL.map(hello);
        let mut complete = 0;
        for round in 0..200_000 {
            let good = &goods[round % goods.len()];
            let mut wire = good.clone();
            if round % 50 == 0 {
                let mut cuts: Vec<_> = (0..random.next_u32() % 9)
                    .map(|_| 1 + random.next_u32() as usize % (good.len() - 6))
                    .collect();
                cuts.sort();
                cuts.dedup();
                wire = split(good, &cuts);
            }
            for _ in 0..1 + random.next_u32() % 3 {
                // Where lengths stand, mostly.
                let range = [100, wire.len()][random.next_u32() as usize % 2];
                let at = random.next_u32() as usize % range;
                wire[at] = random.next_u32() as u8;
            }
            if let Complete(length) = progress(&wire) {
                let record = as_one_record(&wire[..length]).unwrap();
                assert_eq!(progress(&record), Complete(record.len()));
                let parsed = ClientHello::parse(&record);
                complete += usize::from(parsed.is_some_and(|h| !h.has_x25519_share()));
            }
            _ = ClientHello::parse(&wire);
        }
        assert!(complete > 100, "mutations reach what is inside: {complete}");
    }
}
