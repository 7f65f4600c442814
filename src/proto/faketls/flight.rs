//! The first flight of a real server: its ServerHello in clear, then encrypted records, of which only
//! the length can be seen (RFC 8446 4.1.3). Called by the mask thread.
//!
//! The bytes come from whatever listens at the site: anything is possible.

use core::fmt;

use crate::proto::faketls::client_hello::{
    Cipher, ClientHello, HYBRID_GROUP, KEY_SHARE, SUPPORTED_VERSIONS, X25519_GROUP,
};
use crate::proto::faketls::fields::Fields;
use crate::proto::faketls::record::HEADER;
use crate::proto::faketls::server_hello::Look;

/// What a server sent up to the point where it waits for the client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Flight {
    /// What its ServerHello chose.
    pub look: Look,
    /// Payload of the one encrypted record that would be as long as all of the server's together with
    /// their headers.
    pub encrypted: usize,
}

/// Why what a server sent can't be imitated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unusable {
    /// It sent nothing.
    Nothing,
    /// A TLS alert with this description.
    Alert(u8),
    /// HelloRetryRequest.
    RetryRequest,
    /// TLS 1.2 or before.
    OldVersion,
    /// No TLS at all.
    NotTls,
    /// It stopped within a record, or before the first encrypted one.
    Incomplete,
    /// TLS 1.3 in a form that clients of a proxy are not used to.
    Unknown,
}

/// What it means for the operator; follows the name of the site.
impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Unusable::Nothing => "can't be reached, or says nothing to a TLS hello",
            Unusable::Alert(112) => "does not know its name (TLS alert 112)",
            Unusable::Alert(number) => return write!(f, "refused a TLS hello (alert {number})"),
            Unusable::RetryRequest => "does not take X25519 keys at once",
            Unusable::OldVersion => "does not speak TLS 1.3",
            Unusable::NotTls => "does not speak TLS",
            Unusable::Incomplete => "stopped in the middle of its TLS answer",
            Unusable::Unknown => "gave a TLS answer of an unknown form",
        })
    }
}

/// Reads what a server sent after `sent`, a hello in one record. To be called when the server has fallen
/// silent: each further record makes `encrypted` longer.
pub fn read(flight: &[u8], sent: &[u8]) -> Result<Flight, Unusable> {
    if flight.is_empty() {
        return Err(Unusable::Nothing);
    }
    let mut records = Fields::new(flight);
    let look = match next_record(&mut records)? {
        Record::Handshake(body) => server_hello(body, sent)?,
        Record::Encrypted(_) | Record::ChangeCipher => return Err(Unusable::NotTls),
    };
    let mut total = 0_usize;
    while !records.is_empty() {
        match next_record(&mut records)? {
            Record::Encrypted(body) => {
                total = total.saturating_add(HEADER).saturating_add(body.len());
            }
            Record::ChangeCipher if total == 0 => {}
            _ => return Err(Unusable::Unknown),
        }
    }
    let encrypted = total.checked_sub(HEADER).ok_or(Unusable::Incomplete)?;
    Ok(Flight { look, encrypted })
}

enum Record<'a> {
    Handshake(&'a [u8]),
    ChangeCipher,
    Encrypted(&'a [u8]),
}

/// The next record; an alert in clear is an error.
fn next_record<'a>(records: &mut Fields<'a>) -> Result<Record<'a>, Unusable> {
    let kind = records.u8().ok_or(Unusable::Incomplete)?;
    if !(0x14..=0x17).contains(&kind) || records.u8().is_some_and(|major| major != 3) {
        return Err(Unusable::NotTls);
    }
    records.u8().ok_or(Unusable::Incomplete)?;
    let body = records.vector16().ok_or(Unusable::Incomplete)?;
    match (kind, body) {
        (0x14, [1]) => Ok(Record::ChangeCipher),
        (0x15, [_, description]) => Err(Unusable::Alert(*description)),
        (0x16, _) => Ok(Record::Handshake(body)),
        (0x17, _) => Ok(Record::Encrypted(body)),
        _ => Err(Unusable::NotTls),
    }
}

fn server_hello(body: &[u8], sent: &[u8]) -> Result<Look, Unusable> {
    let hello = Message::read(body).ok_or(Unusable::Unknown)?;
    if hello.kind != SERVER_HELLO {
        return Err(Unusable::NotTls);
    }
    if *hello.random == RETRY_REQUEST {
        return Err(Unusable::RetryRequest);
    }
    let extensions = Extensions::read(hello.extensions).ok_or(Unusable::Unknown)?;
    if hello.version != [3, 3] || extensions.version != Some([3, 4]) {
        return Err(Unusable::OldVersion);
    }
    hello.look(&extensions, sent).ok_or(Unusable::Unknown)
}

/// A ServerHello taken apart.
struct Message<'a> {
    kind: u8,
    version: [u8; 2],
    random: &'a [u8; 32],
    session_id: &'a [u8],
    cipher: [u8; 2],
    extensions: &'a [u8],
}

impl<'a> Message<'a> {
    fn read(body: &'a [u8]) -> Option<Message<'a>> {
        let mut outer = Fields::new(body);
        let kind = outer.u8()?;
        let mut inner = Fields::new(outer.vector24()?);
        let message = Message {
            kind,
            version: *inner.array()?,
            random: inner.array()?,
            session_id: inner.vector8()?,
            cipher: *inner.array()?,
            // After the compression; TLS 1.2 may have no extensions.
            extensions: inner.u8().and(inner.vector16()).unwrap_or_default(),
        };
        Some(message)
    }

    /// None if a client that sent `sent` would not continue after this.
    fn look(&self, extensions: &Extensions, sent: &[u8]) -> Option<Look> {
        let asked = ClientHello::parse(sent)?;
        let cipher = Cipher::from_wire(self.cipher)?;
        let hybrid = match extensions.share? {
            (X25519_GROUP, 32) => false,
            (HYBRID_GROUP, 1120) if asked.has_hybrid_share() => true,
            _ => return None,
        };
        let fits = asked.offers(cipher) && self.session_id == asked.session_id;
        fits.then_some(Look {
            cipher,
            hybrid,
            versions_first: extensions.versions_first,
        })
    }
}

/// What the extensions of a ServerHello say.
#[derive(Default)]
struct Extensions {
    /// Of supported_versions.
    version: Option<[u8; 2]>,
    /// Group and length of the key share.
    share: Option<(u16, usize)>,
    versions_first: bool,
}

impl Extensions {
    fn read(bytes: &[u8]) -> Option<Extensions> {
        let mut found = Extensions::default();
        let mut rest = Fields::new(bytes);
        while !rest.is_empty() {
            let number = rest.u16()?;
            let mut content = Fields::new(rest.vector16()?);
            match number {
                SUPPORTED_VERSIONS => {
                    found.version = Some(*content.array()?);
                    found.versions_first = found.share.is_none();
                }
                KEY_SHARE => found.share = Some((content.u16()?, content.vector16()?.len())),
                _ => {}
            }
        }
        Some(found)
    }
}

const SERVER_HELLO: u8 = 2;
/// The random that makes a ServerHello a HelloRetryRequest.
const RETRY_REQUEST: [u8; 32] = [
    0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91,
    0xc2, 0xa2, 0x11, 0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::random::{Random, SEED_LEN};
    use crate::proto::faketls::probe::{self, Kind};
    use std::string::ToString;
    use std::vec::Vec;

    fn sent(hybrid: bool, first: Cipher) -> Vec<u8> {
        let mut random = Random::new(&[8; SEED_LEN]);
        let kind = Kind { hybrid, first };
        probe::hello("example.com", kind, &mut |b| random.fill(b))
    }

    fn vector(bytes: &[u8]) -> Vec<u8> {
        [&(bytes.len() as u16).to_be_bytes(), bytes].concat()
    }

    fn record(kind: u8, payload: &[u8]) -> Vec<u8> {
        [&[kind, 3, 3], &vector(payload)[..]].concat()
    }

    const VERSIONS: &[u8] = &[0, 0x2b, 0, 2, 3, 4];
    const CHANGE_CIPHER: &[u8] = &[0x14, 3, 3, 0, 1, 1];

    fn share(group: u16, length: usize) -> Vec<u8> {
        let key = [&group.to_be_bytes()[..], &vector(&std::vec![5; length])].concat();
        [&[0, 0x33], &vector(&key)[..]].concat()
    }

    /// A ServerHello that repeats the session id of `sent`.
    fn hello(sent: &[u8], random: &[u8; 32], cipher: [u8; 2], extensions: &[&[u8]]) -> Vec<u8> {
        let start = [&[3, 3][..], random, &[32], &sent[44..76], &cipher, &[0]].concat();
        let body = [start, vector(&extensions.concat())].concat();
        record(0x16, &[&[2, 0], &vector(&body)[..]].concat())
    }

    fn modern(sent: &[u8], cipher: [u8; 2]) -> Vec<u8> {
        hello(sent, &[7; 32], cipher, &[&share(0x1d, 32), VERSIONS])
    }

    #[test]
    fn looks_and_lengths() {
        let plain = sent(false, Cipher::ChaCha20);
        let both = sent(true, Cipher::Aes128);
        let encrypted = [record(0x17, &[1; 36]), record(0x17, &[2; 2000])].concat();
        let see =
            |sent: &[u8], hello: Vec<u8>| read(&[&hello, CHANGE_CIPHER, &encrypted].concat(), sent);
        let found = |cipher, hybrid, versions_first| {
            Ok(Flight {
                look: Look {
                    cipher,
                    hybrid,
                    versions_first,
                },
                encrypted: 36 + 5 + 2000,
            })
        };
        // A client whose order is Apple's, and a server that follows it, or doesn't.
        let apple = modern(&plain, [0x13, 3]);
        assert_eq!(see(&plain, apple), found(Cipher::ChaCha20, false, false));
        let own_order = modern(&plain, [0x13, 2]);
        assert_eq!(see(&plain, own_order), found(Cipher::Aes256, false, false));
        let swapped = hello(&plain, &[7; 32], [0x13, 1], &[VERSIONS, &share(0x1d, 32)]);
        assert_eq!(see(&plain, swapped), found(Cipher::Aes128, false, true));
        let hybrid = share(0x11ec, 1120);
        let chosen = hello(&both, &[7; 32], [0x13, 1], &[VERSIONS, &hybrid]);
        assert_eq!(see(&both, chosen), found(Cipher::Aes128, true, true));
        let unasked = hello(&plain, &[7; 32], [0x13, 1], &[VERSIONS, &hybrid]);
        assert_eq!(see(&plain, unasked), Err(Unusable::Unknown));
        // Without ChangeCipherSpec, which some servers leave out.
        let short = [modern(&plain, [0x13, 1]), record(0x17, &[1; 9])].concat();
        assert_eq!(read(&short, &plain).map(|f| f.encrypted), Ok(9));
    }

    #[test]
    fn every_cut_within_a_record_is_incomplete() {
        let sent = sent(false, Cipher::Aes128);
        let start = [&modern(&sent, [0x13, 1]), CHANGE_CIPHER].concat();
        let flight = [&start, &record(0x17, &[1; 40])[..], &record(0x17, &[1; 9])].concat();
        let lengths = [(flight.len(), 40 + 5 + 9), (flight.len() - 14, 40)];
        for cut in 0..=flight.len() {
            let expected = match lengths.iter().find(|(end, _)| *end == cut) {
                Some((_, encrypted)) => Ok(*encrypted),
                None if cut == 0 => Err(Unusable::Nothing),
                None => Err(Unusable::Incomplete),
            };
            let found = read(&flight[..cut], &sent).map(|f| f.encrypted);
            assert_eq!(found, expected, "{cut} bytes");
        }
    }

    #[test]
    fn sites_that_are_no_masks() {
        let sent = sent(true, Cipher::Aes128);
        let rest = [CHANGE_CIPHER, &record(0x17, &[1; 40])].concat();
        let refused = |start: &[u8]| read(&[start, &rest].concat(), &sent).map(|f| f.encrypted);
        assert_eq!(refused(&modern(&sent, [0x13, 1])), Ok(40));
        let retry = hello(
            &sent,
            &RETRY_REQUEST,
            [0x13, 1],
            &[&[0, 0x33, 0, 2, 0, 0x17], VERSIONS],
        );
        assert_eq!(refused(&retry), Err(Unusable::RetryRequest));
        let alert = [0x15, 3, 3, 0, 2, 2, 40];
        assert_eq!(refused(&alert), Err(Unusable::Alert(40)));
        assert_eq!(read(&alert[..6], &sent), Err(Unusable::Incomplete));
        let late = [&modern(&sent, [0x13, 1])[..], &alert].concat();
        assert_eq!(refused(&late), Err(Unusable::Alert(40)));
        let old = hello(&sent, &[7; 32], [0xc0, 0x2f], &[&[0xff, 1, 0, 1, 0]]);
        assert_eq!(refused(&old), Err(Unusable::OldVersion));
        let draft = &[0, 0x2b, 0, 2, 0x7f, 0x1c];
        let draft = hello(&sent, &[7; 32], [0x13, 1], &[draft, &share(0x1d, 32)]);
        assert_eq!(refused(&draft), Err(Unusable::OldVersion));
        for start in [&b"HTTP/1.1 400 Bad Request"[..], b"\x16\x02", b"\x14"] {
            assert_eq!(refused(start), Err(Unusable::NotTls), "{start:?}");
        }
        assert_eq!(read(b"S", &sent), Err(Unusable::NotTls));
        assert_eq!(read(&rest, &sent), Err(Unusable::NotTls));
        assert_eq!(read(&rest[6..], &sent), Err(Unusable::NotTls));
        assert_eq!(refused(&sent), Err(Unusable::NotTls), "an echo");
        let mut late = rest.to_vec();
        late.extend(CHANGE_CIPHER);
        let late = [modern(&sent, [0x13, 1]), late].concat();
        assert_eq!(read(&late, &sent), Err(Unusable::Unknown));
        let mut fewer = sent.clone();
        assert_eq!(fewer[80..86], [0x13, 1, 0x13, 2, 0x13, 3]);
        fewer[83] = 9;
        let not_offered = [modern(&sent, [0x13, 2]), rest.clone()].concat();
        assert_eq!(read(&not_offered, &fewer), Err(Unusable::Unknown));
        assert!(read(&not_offered, &sent).is_ok());
        let cipher = modern(&sent, [0x13, 4]);
        assert_eq!(refused(&cipher), Err(Unusable::Unknown));
        let group = hello(&sent, &[7; 32], [0x13, 1], &[&share(0x17, 65), VERSIONS]);
        assert_eq!(refused(&group), Err(Unusable::Unknown));
        let mut other_id = sent.clone();
        other_id[50] ^= 1;
        let other_id = modern(&other_id, [0x13, 1]);
        assert_eq!(refused(&other_id), Err(Unusable::Unknown));
        let no_share = hello(&sent, &[7; 32], [0x13, 1], &[VERSIONS]);
        assert_eq!(refused(&no_share), Err(Unusable::Unknown));
    }

    #[test]
    fn an_operator_reads_what_is_wrong() {
        let all = [
            Unusable::Nothing,
            Unusable::Alert(112),
            Unusable::Alert(40),
            Unusable::RetryRequest,
            Unusable::OldVersion,
            Unusable::NotTls,
            Unusable::Incomplete,
            Unusable::Unknown,
        ];
        let mut texts: Vec<_> = all.iter().map(|u| u.to_string()).collect();
        texts.sort();
        texts.dedup();
        assert_eq!(texts.len(), all.len());
        assert!(Unusable::Alert(40).to_string().contains("40"));
    }

    #[test]
    fn anything_is_possible() {
        let mut random = Random::new(&[6; SEED_LEN]);
        let sent = sent(true, Cipher::Aes128);
        let hybrid = hello(
            &sent,
            &[7; 32],
            [0x13, 1],
            &[&share(0x11ec, 1120), VERSIONS],
        );
        let rest = [CHANGE_CIPHER, &record(0x17, &[1; 40])].concat();
        let goods = [modern(&sent, [0x13, 1]), hybrid].map(|h| [h, rest.clone()].concat());
        let (mut usable, mut unusable) = (0, 0);
        for round in 0..200_000 {
            let mut flight = goods[round % 2].clone();
            if round % 4 == 3 {
                flight.truncate(100);
                random.fill(&mut flight[5..]);
            }
            for _ in 0..1 + random.next_u32() % 3 {
                let range = [100, flight.len()][random.next_u32() as usize % 2];
                flight[random.next_u32() as usize % range] = random.next_u32() as u8;
            }
            match read(&flight, &sent) {
                Ok(found) => {
                    assert!(found.encrypted < flight.len());
                    usable += 1;
                }
                Err(_) => unusable += 1,
            }
        }
        assert!(usable > 1000 && unusable > 1000, "{usable} {unusable}");
    }
}
