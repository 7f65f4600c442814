//! Client secrets (-S, --secret-file) and Telegram's proxy-secret file: types that cannot be printed by
//! accident.
//!
//! The daemon makes them at start from the command line and from files; the handshakes borrow the
//! bytes. `Debug` is redacted, there is no `Display`, and errors speak of lengths only: what a link
//! shows is made by `link` alone. The C proxy keeps both as plain global arrays.
//!
//! | bytes of a client secret | holds |
//! |---|---|
//! | 16 bytes | plain: clients use the intermediate transport |
//! | `dd` and 16 bytes | the same, padded: clients use the padded intermediate one |
//! | `ee`, 16 bytes and a domain | the same in fake TLS, which claims to be that domain |
//!
//! They are spelled in hexadecimal, base64url or base64, tried in this order as clients do
//! (protocol.md 5.8), the latter two with or without padding. C knows the 32 digits of a plain one.

use crate::limits::{MAX_DOMAIN, MAX_LABEL};
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::hint::black_box;

/// A client secret: 16 bytes, whatever form it was spelled in. Compared in constant time.
#[derive(Clone, Copy)]
pub struct Secret([u8; 16]);

impl Secret {
    /// From its bytes, as the system's random generator gives them.
    pub fn new(bytes: [u8; 16]) -> Secret {
        Secret(bytes)
    }

    /// Parses any spelling and forgets its form. White space and anything else is an error; the error
    /// holds nothing of the text but its length.
    pub fn parse(text: &str) -> Result<Secret, SecretError> {
        parse_spelling(text).map(|(secret, _)| secret)
    }

    /// The 16 bytes that go into key derivation.
    pub fn bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

/// No early exit: how long it takes doesn't tell how many bytes are right.
impl PartialEq for Secret {
    fn eq(&self, other: &Secret) -> bool {
        let differences = self.0.iter().zip(&other.0).fold(0, |all, (a, b)| {
            // Without the box a compiler may see that it can stop at the first difference.
            black_box(all | (a ^ b))
        });
        differences == 0
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// How a secret is spelled, which tells clients how to talk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Form {
    /// Intermediate transport.
    Plain,
    /// Padded intermediate transport: `dd`.
    Padded,
    /// Fake TLS with this domain, as [`parse_domain`] takes it: `ee`.
    FakeTls(String),
}

/// A client secret as an operator gives it: `SPELLING[:label[:limit]]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SecretEntry {
    /// What clients must know.
    pub secret: Secret,
    /// How it was spelled.
    pub form: Form,
    /// The operator's name for it: 1 to [`MAX_LABEL`] letters, digits, `-`, `_` or `.`.
    pub label: Option<String>,
    /// Clients that may use it at a time, at least 1.
    pub limit: Option<u32>,
}

impl SecretEntry {
    /// Parses `SPELLING[:label[:limit]]`; the label may be empty if there is a limit. An error holds
    /// nothing of the text but the length of the spelling.
    pub fn parse(text: &str) -> Result<SecretEntry, SecretError> {
        let mut parts = text.splitn(3, ':');
        let (secret, form) = parse_spelling(parts.next().unwrap_or_default())?;
        let (label, limit) = (parts.next(), parts.next());
        let label = match label {
            None => None,
            Some("") if limit.is_some() => None,
            Some(label) if is_label(label) => Some(label.into()),
            Some(_) => return Err(SecretError::Label),
        };
        let limit = match limit {
            None => None,
            Some(text) => Some(parse_limit(text).ok_or(SecretError::Limit)?),
        };
        Ok(SecretEntry {
            secret,
            form,
            label,
            limit,
        })
    }

    /// What of this entry `other` has already: two of them could not be told apart.
    pub fn clash(&self, other: &SecretEntry) -> Option<Clash> {
        if self.secret == other.secret {
            return Some(Clash::Secret);
        }
        let labels_differ = self.label.is_none() || self.label != other.label;
        (!labels_differ).then_some(Clash::Label)
    }
}

/// What two entries may not share.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Clash {
    /// The 16 bytes, in whatever forms.
    Secret,
    /// The label.
    Label,
}

/// As in "number 2 is the same secret as number 1".
impl fmt::Display for Clash {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Clash::Secret => "is the same secret as",
            Clash::Label => "has the same label as",
        })
    }
}

/// Why a text is no client secret. Never holds any of the text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SecretError {
    /// No spelling of a secret; the length in characters.
    Length(usize),
    /// As long as the hexadecimal form, but not every character is a hexadecimal digit.
    NotHexadecimal,
    /// The domain of an ee secret is none.
    Domain,
    /// What stands behind the first colon is no label.
    Label,
    /// What stands behind the second colon is no limit.
    Limit,
}

impl fmt::Display for SecretError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let secret =
            "expected a secret of 32 hexadecimal digits, or its dd, ee or base64url form, ";
        match self {
            SecretError::Length(1) => write!(f, "{secret}got 1 character"),
            SecretError::Length(length) => write!(f, "{secret}got {length} characters"),
            SecretError::NotHexadecimal => write!(f, "{secret}got another character among them"),
            SecretError::Domain => write!(
                f,
                "expected the ee form to end with a domain of 1 to {MAX_DOMAIN} letters, digits, - _ or ."
            ),
            SecretError::Label => write!(
                f,
                "expected a label of 1 to {MAX_LABEL} letters, digits, - _ or . behind the secret"
            ),
            SecretError::Limit => f.write_str(
                "expected a number of clients from 1 to 4294967295 behind the secret's label",
            ),
        }
    }
}

/// Parses a domain for fake TLS: 1 to [`MAX_DOMAIN`] letters, digits, `-`, `_` and `.`, as clients
/// send it; names in other letters in their `xn--` form.
pub fn parse_domain(text: &str) -> Result<String, SecretError> {
    let length_is_right = (1..=MAX_DOMAIN).contains(&text.len());
    match length_is_right && text.bytes().all(is_name_byte) {
        true => Ok(text.into()),
        false => Err(SecretError::Domain),
    }
}

/// The 16 bytes of a secret and its form.
fn parse_spelling(text: &str) -> Result<(Secret, Form), SecretError> {
    let bytes = decode_hex(text.as_bytes())
        .or_else(|| decode_base64(text.as_bytes(), *b"-_"))
        .or_else(|| decode_base64(text.as_bytes(), *b"+/"))
        .unwrap_or_default();
    if let Ok(plain) = bytes.as_slice().try_into() {
        return Ok((Secret(plain), Form::Plain));
    }
    if let [prefix @ (0xdd | 0xee), rest @ ..] = bytes.as_slice()
        && let Some((secret, domain)) = rest.split_first_chunk()
        && (*prefix == 0xee || domain.is_empty())
    {
        let form = match prefix {
            0xdd => Form::Padded,
            _ => {
                let domain = str::from_utf8(domain).map_err(|_| SecretError::Domain)?;
                Form::FakeTls(parse_domain(domain)?)
            }
        };
        return Ok((Secret(*secret), form));
    }
    let has_prefix = text.starts_with(['d', 'D', 'e', 'E']);
    let is_hex = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    match text.len() {
        DIGITS if !is_hex => Err(SecretError::NotHexadecimal),
        DIGITS_WITH_PREFIX if !is_hex && has_prefix => Err(SecretError::NotHexadecimal),
        _ => Err(SecretError::Length(text.chars().count())),
    }
}

/// A label can't be 32 hexadecimal digits: it is shown, and that would be a secret in a wrong place.
fn is_label(text: &str) -> bool {
    let length_is_right = (1..=MAX_LABEL).contains(&text.len());
    length_is_right && text.bytes().all(is_name_byte) && parse_hex16(text.as_bytes()).is_none()
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')
}

fn parse_limit(text: &str) -> Option<u32> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|limit| plain && *limit > 0)
}

/// What Telegram's proxy-secret file holds: shared by all proxies of the world, 128 bytes today.
#[derive(Clone)]
pub struct ProxySecret {
    selector: [u8; 4],
    bytes: Vec<u8>,
}

impl ProxySecret {
    /// Takes the whole file, [`PROXY_SECRET_MIN`] to [`PROXY_SECRET_MAX`] bytes, a line end included.
    pub fn new(file: &[u8]) -> Result<ProxySecret, ProxySecretError> {
        let length_is_right = (PROXY_SECRET_MIN..=PROXY_SECRET_MAX).contains(&file.len());
        match file.first_chunk() {
            Some(selector) if length_is_right => Ok(ProxySecret {
                selector: *selector,
                bytes: file.to_vec(),
            }),
            _ => Err(ProxySecretError::Length(file.len())),
        }
    }

    /// The first 4 bytes, which name this secret to a middle proxy in clear.
    pub fn selector(&self) -> [u8; 4] {
        self.selector
    }

    /// The whole file, as it goes into key derivation.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl fmt::Debug for ProxySecret {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("ProxySecret(..)")
    }
}

/// Why a file is no proxy-secret.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProxySecretError {
    /// Too short or too long; the length in bytes.
    Length(usize),
}

impl fmt::Display for ProxySecretError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let ProxySecretError::Length(length) = self;
        write!(
            f,
            "expected {PROXY_SECRET_MIN} to {PROXY_SECRET_MAX} bytes, got {length}"
        )
    }
}

/// 16 bytes from exactly 32 hexadecimal digits of either case: the ad tag of -P in the daemon. None
/// for anything else.
pub fn parse_hex16(digits: &[u8]) -> Option<[u8; 16]> {
    decode_hex(digits)?.try_into().ok()
}

fn decode_hex(digits: &[u8]) -> Option<Vec<u8>> {
    let pairs = digits.chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return None;
    }
    let byte = |pair: &[u8]| {
        let [high, low] = *pair else { return None };
        Some((hex_value(high)? << 4) | hex_value(low)?)
    };
    pairs.map(byte).collect()
}

/// The value of one hexadecimal digit, 0 to 15.
fn hex_value(digit: u8) -> Option<u8> {
    let value = char::from(digit).to_digit(16)?;
    u8::try_from(value).ok()
}

/// Base64 with these last two digits, without padding or with all of it. Bits that belong to no byte
/// must be 0.
fn decode_base64(text: &[u8], last_two: [u8; 2]) -> Option<Vec<u8>> {
    let digits = match text {
        [digits @ .., b'=', b'='] | [digits @ .., b'='] if text.len().is_multiple_of(4) => digits,
        _ => text,
    };
    let value = |digit: &u8| {
        let place = BASE64.iter().chain(&last_two).position(|d| d == digit)?;
        u32::try_from(place).ok()
    };
    let mut bytes = Vec::with_capacity(digits.len());
    for group in digits.chunks(4) {
        let mut bits: u32 = 0;
        for place in 0..4 {
            bits = (bits << 6) | group.get(place).map_or(Some(0), value)?;
        }
        let [_, first, second, third] = bits.to_be_bytes();
        match (group.len(), second, third) {
            (4, _, _) => bytes.extend([first, second, third]),
            (3, _, 0) => bytes.extend([first, second]),
            (2, 0, 0) => bytes.push(first),
            _ => return None,
        }
    }
    Some(bytes)
}

/// The first 62 digits of base64; its two alphabets differ in the last two.
const BASE64: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
/// Hexadecimal digits of 16 bytes.
const DIGITS: usize = 32;
/// The same with `dd` in front.
const DIGITS_WITH_PREFIX: usize = 34;
/// Shortest proxy-secret file, bytes (protocol.md 8.5). C: the same.
pub const PROXY_SECRET_MIN: usize = 32;
/// Longest proxy-secret file, bytes (protocol.md 8.5). C: the same.
pub const PROXY_SECRET_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vectors::Vectors;
    use alloc::format;
    use alloc::string::String;
    use alloc::vec;

    const HEX: &str = "00112233445566778899aAbBcCdDeEfF";
    const BYTES: [u8; 16] = [
        0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee,
        0xff,
    ];

    #[test]
    fn every_spelling_gives_the_same_bytes() {
        let v = Vectors::load("links");
        let domain = Form::FakeTls(v.text("domain").into());
        for (name, form) in [
            ("plain", Form::Plain),
            ("dd", Form::Padded),
            ("ee", domain.clone()),
        ] {
            let hex = v.text(&format!("{name}_hex"));
            let url = v.text(&format!("{name}_base64url"));
            let padding = "=".repeat((4 - url.len() % 4) % 4);
            let standard = url.replace('-', "+").replace('_', "/");
            for text in [
                hex,
                &hex.to_uppercase(),
                url,
                &format!("{url}{padding}"),
                &standard,
                &format!("{standard}{padding}"),
            ] {
                let entry = SecretEntry::parse(text).unwrap();
                assert_eq!(entry.secret.bytes(), &v.array("raw"), "{text}");
                assert_eq!(entry.form, form, "{text}");
                assert_eq!((entry.label, entry.limit), (None, None));
                assert_eq!(Secret::parse(text).unwrap(), entry.secret);
            }
        }
        // 32 digits that happen to begin with dd or ee are a plain secret.
        for prefix in ["dd", "ee"] {
            let plain = SecretEntry::parse(&format!("{prefix}{}", &HEX[2..])).unwrap();
            assert_eq!(plain.form, Form::Plain);
        }
        assert_eq!(Secret::new(BYTES), Secret::parse(HEX).unwrap());
    }

    #[test]
    fn base64_is_strict() {
        let good = "kKZ93C3r4Bru03AvsqOtpg";
        assert!(Secret::parse(good).is_ok());
        for (what, text) in [
            ("one = of two", format!("{good}=")),
            ("three =", format!("{good}===")),
            ("= where none is due", format!("{good}=====")),
            ("loose bits", "kKZ93C3r4Bru03AvsqOtph".into()),
            ("a digit left over", "kKZ93C3r4Bru03AvsqOtpgAAA".into()),
            ("both alphabets", "3ZCmfdwt6-Aa7tNwL7Kjra+/".into()),
            ("a space", format!(" {good}")),
            ("a line end", format!("{good}\n")),
        ] {
            assert!(Secret::parse(&text).is_err(), "{what}");
        }
        assert_eq!(decode_base64(b"-_", *b"-_"), None);
        assert_eq!(decode_base64(b"--8", *b"-_"), Some(vec![0xfb, 0xef]));
        assert_eq!(decode_base64(b"//8", *b"+/"), Some(vec![0xff, 0xff]));
        assert_eq!(decode_base64(b"--8", *b"+/"), None);
    }

    #[test]
    fn domains() {
        let with = |domain: &str| {
            let digits: String = domain.bytes().map(|b| format!("{b:02x}")).collect();
            SecretEntry::parse(&format!("ee{HEX}{digits}")).map(|entry| entry.form)
        };
        let longest = "d".repeat(182);
        for domain in ["a", "example.com", "xn--e1a.xn--p1ai", "A_b-c.9", &longest] {
            assert_eq!(with(domain), Ok(Form::FakeTls(domain.into())));
            assert_eq!(parse_domain(domain), Ok(domain.into()));
        }
        let too_long = "d".repeat(183);
        for domain in ["", "a b", "a/b", "a:1", "é.com", "a\n", &too_long] {
            assert_eq!(with(domain), Err(SecretError::Domain), "{domain:?}");
            assert_eq!(parse_domain(domain), Err(SecretError::Domain));
        }
        let not_text = SecretEntry::parse(&format!("ee{HEX}ff"));
        assert_eq!(not_text, Err(SecretError::Domain));
    }

    #[test]
    fn labels_and_limits() {
        let parse = |tail: &str| {
            SecretEntry::parse(&format!("dd{HEX}{tail}")).map(|entry| (entry.label, entry.limit))
        };
        let longest = "l".repeat(32);
        for label in ["a", "Bob-2_x.y", "7", &longest] {
            let wanted = Some(label.into());
            assert_eq!(parse(&format!(":{label}")), Ok((wanted.clone(), None)));
            assert_eq!(parse(&format!(":{label}:20")), Ok((wanted, Some(20))));
        }
        assert_eq!(parse("::1"), Ok((None, Some(1))));
        assert_eq!(parse("::4294967295"), Ok((None, Some(u32::MAX))));
        let too_long = "l".repeat(33);
        for label in ["", "a b", "é", "a/b", "a=b", &too_long, HEX] {
            assert_eq!(parse(&format!(":{label}")), Err(SecretError::Label));
        }
        for limit in ["", "0", "-1", "+1", "x", "4294967296", "1:2"] {
            assert_eq!(parse(&format!(":a:{limit}")), Err(SecretError::Limit));
        }
    }

    #[test]
    fn entries_that_clash() {
        let entry = |text: &str| SecretEntry::parse(text).unwrap();
        let first = entry(&format!("{HEX}:bob"));
        let other = "11112222333344445555666677778888";
        let clash = |text: &str| entry(text).clash(&first);
        assert_eq!(clash(&format!("dd{HEX}:eve")), Some(Clash::Secret));
        assert_eq!(clash(&format!("ee{HEX}61")), Some(Clash::Secret));
        assert_eq!(clash(&format!("{other}:bob")), Some(Clash::Label));
        assert_eq!(clash(&format!("{other}:bob2")), None);
        assert_eq!(entry(other).clash(&entry(&other.replace('1', "0"))), None);
    }

    #[test]
    fn every_other_length_is_refused() {
        for length in (0..80).filter(|n| *n != 32 && *n != 34) {
            let text = "d".repeat(length);
            assert_eq!(Secret::parse(&text), Err(SecretError::Length(length)));
        }
        assert_eq!(
            Secret::parse(&format!("d0{HEX}")),
            Err(SecretError::Length(34))
        );
        assert_eq!(
            Secret::parse(&format!("ee{}", &HEX[1..])),
            Err(SecretError::Length(33))
        );
    }

    #[test]
    fn every_other_character_is_refused_at_every_place() {
        for wrong in ['g', '/', '@', 'G', '`', ' ', '\0', '+', '-'] {
            for place in 0..32 {
                let mut text: vec::Vec<char> = HEX.chars().collect();
                text[place] = wrong;
                let text: String = text.into_iter().collect();
                assert_eq!(Secret::parse(&text), Err(SecretError::NotHexadecimal));
                assert!(SecretEntry::parse(&text).is_err());
                let padded = format!("dd{text}");
                assert_eq!(Secret::parse(&padded), Err(SecretError::NotHexadecimal));
            }
        }
        // Two bytes of UTF-8 in place of two digits.
        let text = format!("é{}", &HEX[2..]);
        assert_eq!(Secret::parse(&text), Err(SecretError::NotHexadecimal));
    }

    #[test]
    fn equality_looks_at_every_bit() {
        let secret = Secret(BYTES);
        assert_eq!(secret, Secret(BYTES));
        for bit in 0..128 {
            let mut other = BYTES;
            other[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(secret, Secret(other));
        }
    }

    #[test]
    fn nothing_prints_a_secret() {
        assert_eq!(format!("{:?}", Secret(BYTES)), "Secret(..)");
        let file = ProxySecret::new(&[0x77; 32]).unwrap();
        assert_eq!(format!("{file:?}"), "ProxySecret(..)");
        let wrong = "7777777777777777777777777777777z";
        let error = Secret::parse(wrong).unwrap_err();
        let entry = SecretEntry::parse(&format!("{HEX}:bob:7")).unwrap();
        let shown = format!("{entry:?}");
        assert!(!shown.contains("22") && !shown.contains("34, 51"));
        assert!(!format!("{error} {error:?}").contains("77"));
    }

    #[test]
    fn errors_say_what_was_expected() {
        let expected =
            "expected a secret of 32 hexadecimal digits, or its dd, ee or base64url form, ";
        let text = |error| format!("{error}");
        assert_eq!(
            text(SecretError::Length(31)),
            format!("{expected}got 31 characters")
        );
        assert_eq!(
            text(SecretError::Length(1)),
            format!("{expected}got 1 character")
        );
        assert!(text(SecretError::NotHexadecimal).starts_with(expected));
    }

    #[test]
    fn proxy_secret_limits() {
        for (length, good) in [(0, false), (3, false), (31, false), (32, true), (128, true)] {
            assert_eq!(ProxySecret::new(&vec![1; length]).is_ok(), good, "{length}");
        }
        for (length, good) in [(256, true), (257, false), (1 << 20, false)] {
            assert_eq!(ProxySecret::new(&vec![1; length]).is_ok(), good, "{length}");
        }
        let error = ProxySecret::new(&[1; 31]).unwrap_err();
        assert_eq!(format!("{error}"), "expected 32 to 256 bytes, got 31");
    }

    #[test]
    fn proxy_secret_counts_whole_and_starts_with_its_selector() {
        let mut file = vec![9; 40];
        file[..4].copy_from_slice(&[0xc4, 0xf9, 0xfa, 0xca]);
        file[39] = b'\n';
        let secret = ProxySecret::new(&file).unwrap();
        assert_eq!(secret.selector(), [0xc4, 0xf9, 0xfa, 0xca]);
        assert_eq!(secret.bytes(), &file[..]);
    }
}
