//! The first flight of the server, for a client that has proven its secret: ServerHello,
//! ChangeCipherSpec and one record in place of the encrypted rest (protocol.md 5.4). Written by the door.
//!
//! Only the client can tell it from a real one, by the digest: the rest is encrypted with keys that
//! nobody has.

use x25519_dalek::{PublicKey, StaticSecret};

use crate::limits::MAX_FLIGHT;
use crate::proto::faketls::client_hello::{
    Cipher, ClientHello, HYBRID_GROUP, KEY_SHARE, RANDOM_AT, RANDOM_END, X25519_GROUP, hmac,
};
use crate::proto::faketls::fields::Fields;
use crate::proto::faketls::record;
use crate::proto::secret::Secret;
use crate::proto::wire::Writer;

/// How the first flight of a server looks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Look {
    /// Which cipher it chose.
    pub cipher: Cipher,
    /// Whether it chose X25519MLKEM768, not X25519.
    pub hybrid: bool,
    /// Whether supported_versions comes before the key share.
    pub versions_first: bool,
}

/// Bytes of a first flight whose one encrypted record has `flight` bytes of payload: 138 more, 1226 more
/// with a hybrid key share.
pub fn first_flight_len(look: &Look, flight: usize) -> usize {
    let longer = usize::from(hybrid_part(look));
    PLAIN_LEN.saturating_add(longer).saturating_add(flight)
}

/// Fills `out` with the first flight that follows `hello`; the length of `out` decides how long the
/// encrypted record is ([`first_flight_len`]). `key` is a public value ([`public_key`]) for this flight
/// only; `fill` makes random bytes. None if `out` is too short, or longer than a record may be.
#[inline(never)] // the hash's stack is not the caller's
pub fn put_first_flight(
    out: &mut [u8],
    hello: &ClientHello,
    secret: &Secret,
    look: &Look,
    key: &[u8; 32],
    fill: &mut dyn FnMut(&mut [u8]),
) -> Option<()> {
    let flight = out.len().checked_sub(first_flight_len(look, 0))?;
    if flight > MAX_FLIGHT {
        return None;
    }
    fill(out);
    let longer = hybrid_part(look);
    let start = put_start(out, hello, look, longer)?;
    let end = start.checked_add(usize::from(longer))?;
    let mut rest = Writer::new(out.get_mut(end..)?);
    rest.put(key);
    if !look.versions_first {
        rest.put(&VERSIONS);
    }
    rest.put(&CHANGE_CIPHER).put(&record::header(flight));
    rest.finish()?;
    let random = hmac(secret, &[hello.random, out]);
    out.get_mut(RANDOM_AT..RANDOM_END)?.copy_from_slice(&random);
    Some(())
}

/// What a client makes of the bytes that came after its hello.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Judgement {
    /// More must come.
    Incomplete,
    /// A first flight of so many bytes, by somebody who knows the secret.
    Proven(usize),
    /// Somebody else's.
    Foreign,
}

/// Judges all bytes received so far, as Telegram's clients do. `random` is the hello's.
pub fn judge(received: &[u8], random: &[u8], secret: &Secret) -> Judgement {
    let mut rest = Fields::new(received);
    let mut len = 0_usize;
    for start in [&[0x16, 3, 3][..], &[0x14, 3, 3, 0, 1, 1, 0x17, 3, 3]] {
        match rest.bytes(start.len()) {
            None => return Judgement::Incomplete,
            Some(bytes) if bytes != start => return Judgement::Foreign,
            Some(_) => {}
        }
        let Some(body) = rest.vector16() else {
            return Judgement::Incomplete;
        };
        len = len
            .saturating_add(start.len())
            .saturating_add(2)
            .saturating_add(body.len());
    }
    let part = |from, to| received.get(from..to).unwrap_or_default();
    let digest = hmac(
        secret,
        &[random, part(0, RANDOM_AT), &[0; 32], part(RANDOM_END, len)],
    );
    match part(RANDOM_AT, RANDOM_END) == digest {
        true => Judgement::Proven(len),
        false => Judgement::Foreign,
    }
}

/// Writes everything up to the key share itself, with zeros for the random; returns how long it is.
fn put_start(out: &mut [u8], hello: &ClientHello, look: &Look, longer: u16) -> Option<usize> {
    let plus = |length: u16| length.saturating_add(longer).to_be_bytes();
    let group = if look.hybrid {
        HYBRID_GROUP
    } else {
        X25519_GROUP
    };
    let mut start = Writer::new(out);
    start.put(&[0x16, 3, 3]).put(&plus(122));
    start.put(&[2, 0]).put(&plus(118)).put(&[3, 3]);
    start.put(&[0; 32]).put(&[32]).put(hello.session_id);
    start.put(&look.cipher.to_wire()).put(&[0]).put(&plus(46));
    if look.versions_first {
        start.put(&VERSIONS);
    }
    start.put(&KEY_SHARE.to_be_bytes()).put(&plus(36));
    start.put(&group.to_be_bytes()).put(&plus(32));
    start.finish()
}

/// Bytes of a hybrid key share before its X25519 part: a ciphertext of ML-KEM-768, which looks random.
fn hybrid_part(look: &Look) -> u16 {
    if look.hybrid { 1088 } else { 0 }
}

/// The public X25519 value of 32 random bytes: a key share like any other.
#[inline(never)] // its stack is not the caller's
pub fn public_key(secret: [u8; 32]) -> [u8; 32] {
    PublicKey::from(&StaticSecret::from(secret)).to_bytes()
}

/// supported_versions: TLS 1.3.
const VERSIONS: [u8; 6] = [0, 0x2b, 0, 2, 3, 4];
/// The record that TLS 1.3 keeps for old middleboxes.
pub(super) const CHANGE_CIPHER: [u8; 6] = [0x14, 3, 3, 0, 1, 1];
/// ServerHello with an X25519 key share, ChangeCipherSpec, and the header of the encrypted record.
const PLAIN_LEN: usize = 138;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::random::{Random, SEED_LEN};
    use crate::proto::faketls::probe::{self, Kind};
    use crate::vectors::Vectors;
    use std::vec::Vec;
    use std::{format, vec};

    #[test]
    fn vectors_in_both_orders() {
        let v = Vectors::load("fake_tls");
        for name in ["hello_517", "hello_mlkem768"] {
            let key = |field: &str| format!("client_hellos.{name}.{field}");
            let wire = v.bytes(&key("client_hello"));
            let hello = ClientHello::parse(&wire).unwrap();
            let secret = Secret::new(v.array(&key("secret")));
            let data = v.bytes(&key("fake_app_data"));
            let share = public_key(v.array(&key("server_x25519_scalar")));
            assert_eq!(share, v.array(&key("server_key_share")));
            for (order, versions_first) in [("key_share_first", false), ("versions_first", true)] {
                let look = Look {
                    cipher: hello.first_cipher,
                    hybrid: false,
                    versions_first,
                };
                let mut out = vec![0; first_flight_len(&look, data.len())];
                let fill = &mut |place: &mut [u8]| {
                    let start = place.len() - data.len();
                    place[start..].copy_from_slice(&data);
                };
                put_first_flight(&mut out, &hello, &secret, &look, &share, fill).unwrap();
                assert_eq!(out, v.bytes(&key(&format!("server.{order}.response"))));
                let random = v.bytes(&key(&format!("server.{order}.server_random")));
                assert_eq!(out[RANDOM_AT..RANDOM_END], random);
                let judged = |bytes: &[u8]| judge(bytes, hello.random, &secret);
                for len in 0..out.len() {
                    assert_eq!(judged(&out[..len]), Judgement::Incomplete, "{len}");
                }
                let len = out.len();
                assert_eq!(
                    judged(&[&out[..], b"more"].concat()),
                    Judgement::Proven(len)
                );
                // Where the lengths stand nothing may be judged yet.
                for at in [0, 2, 11, 42, 43, 80, 127, 132, 138, len - 1] {
                    out[at] ^= 1;
                    assert_eq!(judged(&out), Judgement::Foreign, "{at}");
                    out[at] ^= 1;
                }
            }
        }
    }

    /// What the strictest client checks (protocol.md 5.4): prefixes, lengths, the digest over all.
    fn accepted(answer: &[u8], hello: &ClientHello, secret: &Secret) -> bool {
        let length = |at: usize| usize::from(u16::from_be_bytes([answer[at], answer[at + 1]]));
        let next = 5 + length(3);
        let mut zeroed = answer.to_vec();
        zeroed[RANDOM_AT..RANDOM_END].fill(0);
        answer.starts_with(&[0x16, 3, 3])
            && answer[next..].starts_with(&[0x14, 3, 3, 0, 1, 1, 0x17, 3, 3])
            && answer.len() == next + 11 + length(next + 9)
            && answer[RANDOM_AT..RANDOM_END] == hmac(secret, &[hello.random, &zeroed])
    }

    #[test]
    fn every_look_is_accepted_by_clients_and_read_as_itself() {
        let secret = Secret::new([9; 16]);
        let key = public_key([1; 32]);
        let mut random = Random::new(&[2; SEED_LEN]);
        for kind in Kind::ALL {
            let sent = probe::hello("example.com", kind, &mut |b| random.fill(b));
            let hello = ClientHello::parse(&sent).unwrap();
            for (hybrid, versions_first) in [(false, false), (false, true), (true, false)] {
                let look = Look {
                    cipher: kind.first,
                    hybrid: hybrid && kind.hybrid,
                    versions_first,
                };
                let mut out = vec![0; first_flight_len(&look, 2500)];
                let plain = if look.hybrid { 1226 } else { 138 };
                assert_eq!(out.len(), plain + 2500);
                put_first_flight(&mut out, &hello, &secret, &look, &key, &mut |b| {
                    random.fill(b)
                })
                .unwrap();
                assert!(accepted(&out, &hello, &secret), "{look:?}");
                let flight = probe::Flight {
                    look,
                    encrypted: 2500,
                };
                assert_eq!(probe::read(&out, &sent), Ok(flight));
                let at = out.windows(32).position(|w| *w == key);
                assert!(at.is_some(), "the key is there");
                let share = &out[at.unwrap() - if look.hybrid { 1088 } else { 0 }..at.unwrap()];
                assert!(!look.hybrid || share.iter().filter(|b| **b == 0).count() < 50);
            }
        }
    }

    #[test]
    fn lengths_that_no_record_has() {
        let sent = probe::hello("a.b", Kind::ALL[0], &mut |b| b.fill(1));
        let hello = ClientHello::parse(&sent).unwrap();
        let look = Look {
            cipher: Cipher::Aes256,
            hybrid: false,
            versions_first: false,
        };
        let make = |length: usize| {
            let mut out: Vec<u8> = vec![0; length];
            let secret = Secret::new([9; 16]);
            put_first_flight(&mut out, &hello, &secret, &look, &[1; 32], &mut |_| ())
        };
        assert_eq!(make(0), None);
        assert_eq!(make(137), None);
        assert_eq!(make(138), Some(()));
        assert_eq!(make(138 + 16_640), Some(()));
        assert_eq!(make(138 + 16_641), None);
    }
}
