//! Client secrets as operators write them, for -S, --secret-file and links.
//!
//! Called by the daemon at start and by `mtproxy link` and `mtproxy secret`; no stranger's byte gets here.
//! Nothing that is printed by accident holds a secret: errors speak of lengths only, and [`spell`] alone
//! writes one out.
//!
//! | bytes | meaning |
//! |---|---|
//! | 16 bytes | plain: clients use the intermediate transport |
//! | `dd` and 16 bytes | the same, padded: clients use the padded intermediate one |
//! | `ee`, 16 bytes and a domain | the same in fake TLS, which claims to be that domain |
//!
//! They are written in hexadecimal, base64url or base64, tried in this order as clients do
//! (protocol.md 5.8), the latter two with or without padding. C knows the 32 digits of a plain one.

use crate::formats::allowance::{self, Allowance};
use crate::limits::{MAX_DOMAIN, MAX_LABEL};
use crate::proto::base64;
use crate::proto::secret::Secret;
use alloc::string::String;
use alloc::vec::Vec;
use alloc::{format, str};
use core::fmt::{self, Write};

/// The form of a secret, which tells clients how to talk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Form {
    /// Intermediate transport.
    Plain,
    /// Padded intermediate transport: `dd`.
    Padded,
    /// Fake TLS with this domain, as [`parse_domain`] takes it: `ee`.
    FakeTls(String),
}

/// A client secret as an operator gives it: `SECRET[:label[:limit]] [name=value …]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SecretEntry {
    /// What clients must know.
    pub secret: Secret,
    /// The form that it was given in.
    pub form: Form,
    /// The operator's name for it: 1 to [`MAX_LABEL`] letters, digits, `-`, `_` or `.`.
    pub label: Option<String>,
    /// Clients that may use it at a time, at least 1.
    pub limit: Option<u32>,
    /// What it allows besides.
    pub allowance: Allowance,
}

impl SecretEntry {
    /// Parses `SECRET[:label[:limit]] [name=value …]`; the label may be empty if there is a limit. The words
    /// behind it are those of [`allowance`]. An error holds nothing of the text but the length of the secret.
    pub fn parse(text: &str) -> Result<SecretEntry, SecretError> {
        if text.contains("://") || text.starts_with("t.me/") {
            return Err(SecretError::Link);
        }
        let (text, words) = text.split_once([' ', '\t']).unwrap_or((text, ""));
        let mut parts = text.splitn(3, ':');
        let (secret, form) = parse_secret(parts.next().unwrap_or_default())?;
        let (label, limit) = (parts.next(), parts.next());
        let label = match label {
            None => None,
            Some("") if limit.is_some() => None,
            Some(label) if is_label(label) => Some(label.into()),
            Some(_) => return Err(SecretError::Label),
        };
        let at_least_1 = |text: &str| allowance::number(text).ok_or(SecretError::Limit);
        let mut limit = limit.map(at_least_1).transpose()?;
        let mut allowance = Allowance::default();
        for word in words.split_ascii_whitespace() {
            match word.strip_prefix("max-connections=") {
                Some(text) => limit = Some(at_least_1(text)?),
                None => allowance.take(word).map_err(SecretError::Allowance)?,
            }
        }
        if allowance.quota > 0 && label.is_none() {
            return Err(SecretError::NoLabel);
        }
        Ok(SecretEntry {
            secret,
            form,
            label,
            limit,
            allowance,
        })
    }

    /// Adds this to the secrets of a server, at most `most`, where none and no label may stand twice. `place`
    /// says where the secret with this index (from 0) was given; the error is a sentence.
    pub fn add_to(
        self,
        entries: &mut Vec<SecretEntry>,
        most: usize,
        place: impl Fn(usize) -> String,
    ) -> Result<(), String> {
        let name = |index, entry: &SecretEntry| match &entry.label {
            Some(label) => format!("{} ({label})", place(index)),
            None => place(index),
        };
        let this = name(entries.len(), &self);
        for (index, known) in entries.iter().enumerate() {
            let clash = if self.secret == known.secret {
                "is the same secret as"
            } else if self.label.is_some() && self.label == known.label {
                "has the same label as"
            } else {
                continue;
            };
            return Err(format!("{this} {clash} {}", name(index, known)));
        }
        if entries.len() >= most {
            return Err(format!("{this}: expected at most {most} secrets"));
        }
        entries.push(self);
        Ok(())
    }
}

/// Why a text is no client secret. Never holds any of the text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SecretError {
    /// Not a secret in any form; its length in characters.
    Length(usize),
    /// A whole link.
    Link,
    /// As long as the hexadecimal form, but not every character is a hexadecimal digit.
    NotHexadecimal,
    /// An ee secret whose domain is none.
    Domain,
    /// No label behind the first colon.
    Label,
    /// No limit behind the second colon.
    Limit,
    /// A word behind the secret is wrong; what was expected.
    Allowance(&'static str),
    /// A quota, but no label that its use is kept by.
    NoLabel,
}

impl fmt::Display for SecretError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let secret =
            "expected a secret of 32 hexadecimal digits, or its dd, ee or base64url form, ";
        match self {
            SecretError::Length(1) => write!(f, "{secret}got 1 character"),
            SecretError::Length(length) => write!(f, "{secret}got {length} characters"),
            SecretError::Link => f.write_str(
                "expected a secret, got a link: give only what stands behind secret= in it",
            ),
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
            SecretError::Allowance(expected) => write!(f, "expected {expected} behind the secret"),
            SecretError::NoLabel => {
                f.write_str("expected a label: what is used of a quota is kept by it")
            }
        }
    }
}

/// Writes a secret in hexadecimal, which every client reads: 32 digits, with `dd` in front, or with `ee` in
/// front and the domain behind. The result must go to the operator and nowhere else.
pub fn spell(secret: &Secret, form: &Form) -> String {
    let (prefix, domain) = match form {
        Form::Plain => ("", ""),
        Form::Padded => ("dd", ""),
        Form::FakeTls(domain) => ("ee", domain.as_str()),
    };
    let mut text = String::from(prefix);
    for byte in secret.bytes().iter().chain(domain.as_bytes()) {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// The same in a third less characters, for QR codes: base64url without padding.
pub fn spell_short(secret: &Secret, form: &Form) -> String {
    let bytes = decode_hex(spell(secret, form).as_bytes()).unwrap_or_default();
    base64::encode(&bytes, base64::URL)
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

/// 16 bytes from exactly 32 hexadecimal digits of either case: also the ad tag of -P. None for anything
/// else.
pub fn parse_hex16(digits: &[u8]) -> Option<[u8; 16]> {
    decode_hex(digits)?.try_into().ok()
}

/// The 16 bytes of a secret and its form.
fn parse_secret(text: &str) -> Result<(Secret, Form), SecretError> {
    let bytes = decode_hex(text.as_bytes())
        .or_else(|| base64::decode(text.as_bytes(), base64::URL))
        .or_else(|| base64::decode(text.as_bytes(), base64::STANDARD))
        .unwrap_or_default();
    if let Ok(plain) = bytes.as_slice().try_into() {
        return Ok((Secret::new(plain), Form::Plain));
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
        return Ok((Secret::new(*secret), form));
    }
    let has_prefix = text.starts_with(['d', 'D', 'e', 'E']);
    let is_hex = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    match text.len() {
        DIGITS if !is_hex => Err(SecretError::NotHexadecimal),
        DIGITS_WITH_PREFIX if !is_hex && has_prefix => Err(SecretError::NotHexadecimal),
        _ => Err(SecretError::Length(text.chars().count())),
    }
}

/// A label can't be 32 hexadecimal digits: labels are shown, and this would be a misplaced secret.
fn is_label(text: &str) -> bool {
    let length_is_right = (1..=MAX_LABEL).contains(&text.len());
    length_is_right && text.bytes().all(is_name_byte) && parse_hex16(text.as_bytes()).is_none()
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')
}

fn decode_hex(digits: &[u8]) -> Option<Vec<u8>> {
    let value = |digit: u8| u8::try_from(char::from(digit).to_digit(16)?).ok();
    let byte = |pair: &[u8]| match *pair {
        [high, low] => Some((value(high)? << 4) | value(low)?),
        _ => None,
    };
    digits.chunks(2).map(byte).collect()
}

/// Hexadecimal digits of 16 bytes.
const DIGITS: usize = 32;
/// The same with `dd` in front.
const DIGITS_WITH_PREFIX: usize = 34;

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

    /// What the text alone gives, without its form.
    fn parse(text: &str) -> Result<Secret, SecretError> {
        SecretEntry::parse(text).map(|entry| entry.secret)
    }

    #[test]
    fn spelled_out_and_read_again() {
        let v = Vectors::load("links");
        let secret = Secret::new(v.array("raw"));
        for (name, form) in [
            ("plain", Form::Plain),
            ("dd", Form::Padded),
            ("ee", Form::FakeTls(v.text("domain").into())),
        ] {
            let text = spell(&secret, &form);
            assert_eq!(text, v.text(&format!("{name}_hex")));
            let short = spell_short(&secret, &form);
            assert_eq!(short, v.text(&format!("{name}_base64url")));
            let back = SecretEntry::parse(&text).unwrap();
            assert_eq!((back.secret, back.form), (secret, form));
        }
    }

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
            }
        }
        // 32 digits that happen to begin with dd or ee are a plain secret.
        for prefix in ["dd", "ee"] {
            let plain = SecretEntry::parse(&format!("{prefix}{}", &HEX[2..])).unwrap();
            assert_eq!(plain.form, Form::Plain);
        }
        assert_eq!(Secret::new(BYTES), parse(HEX).unwrap());
    }

    #[test]
    fn a_link_is_no_secret_but_has_one() {
        for start in ["tg://", "https://t.me/", "http://telegram.me/", "t.me/"] {
            let link = format!("{start}proxy?server=h&port=443&secret={HEX}");
            assert_eq!(SecretEntry::parse(&link), Err(SecretError::Link), "{link}");
        }
        let text = format!("{}", SecretError::Link);
        assert!(text.contains("secret="), "{text}");
    }

    #[test]
    fn base64_is_strict() {
        let good = "kKZ93C3r4Bru03AvsqOtpg";
        assert!(parse(good).is_ok());
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
            assert!(parse(&text).is_err(), "{what}");
        }
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
        for label in ["", "é", "a/b", "a=b", &too_long, HEX] {
            assert_eq!(parse(&format!(":{label}")), Err(SecretError::Label));
        }
        for limit in ["", "0", "-1", "+1", "x", "4294967296", "1:2"] {
            assert_eq!(parse(&format!(":a:{limit}")), Err(SecretError::Limit));
        }
    }

    #[test]
    fn what_a_secret_allows_stands_behind_it() {
        let parse = |tail: &str| SecretEntry::parse(&format!("{HEX}{tail}"));
        let entry = parse(":bob:5  max-ips=2\trate=1k quota=3g quota-reset=monthly:9 ").unwrap();
        let wanted = Allowance {
            addresses: 2,
            rate: 1 << 10,
            quota: 3 << 30,
            reset_day: 9,
            expires: 0,
        };
        assert_eq!((entry.limit, entry.allowance), (Some(5), wanted));
        assert_eq!(parse(" max-connections=7").unwrap().limit, Some(7));
        let is_what = "max-ips=N with N above 0";
        for (tail, wanted) in [
            (" max-ips=x", SecretError::Allowance(is_what)),
            (" max-connections=0", SecretError::Limit),
            (" quota=1g", SecretError::NoLabel),
        ] {
            assert_eq!(parse(tail), Err(wanted), "{tail}");
        }
        let text = format!("{}", SecretError::Allowance(is_what));
        assert_eq!(text, "expected max-ips=N with N above 0 behind the secret");
    }

    #[test]
    fn no_secret_and_no_label_twice() {
        let other = "11112222333344445555666677778888";
        let add = |text: &str| {
            let mut entries = vec![SecretEntry::parse(&format!("{HEX}:bob")).unwrap()];
            let entry = SecretEntry::parse(text).unwrap();
            entry.add_to(&mut entries, 16, |index| format!("place {index}"))
        };
        for (text, wanted) in [
            (
                format!("dd{HEX}:eve"),
                "place 1 (eve) is the same secret as place 0 (bob)",
            ),
            (
                format!("ee{HEX}61"),
                "place 1 is the same secret as place 0 (bob)",
            ),
            (
                format!("{other}:bob"),
                "place 1 (bob) has the same label as place 0 (bob)",
            ),
        ] {
            assert_eq!(add(&text), Err(wanted.into()));
        }
        assert_eq!(add(&format!("{other}:bob2")), Ok(()));
        let mut entries = Vec::new();
        let results = (0..17).map(|i| {
            let entry = SecretEntry::parse(&format!("{i:032x}")).unwrap();
            entry.add_to(&mut entries, 16, |index| format!("place {index}"))
        });
        let results: Vec<_> = results.collect();
        assert!(results[..16].iter().all(Result::is_ok));
        let wanted = "place 16: expected at most 16 secrets";
        assert_eq!(results[16], Err(wanted.into()));
    }

    #[test]
    fn every_other_length_is_refused() {
        for length in (0..80).filter(|n| *n != 32 && *n != 34) {
            let text = "d".repeat(length);
            assert_eq!(parse(&text), Err(SecretError::Length(length)));
        }
        assert_eq!(parse(&format!("d0{HEX}")), Err(SecretError::Length(34)));
        assert_eq!(
            parse(&format!("ee{}", &HEX[1..])),
            Err(SecretError::Length(33))
        );
    }

    #[test]
    fn every_other_character_is_refused_at_every_place() {
        for wrong in ['g', '/', '@', 'G', '`', '\0', '+', '-'] {
            for place in 0..32 {
                let mut text: vec::Vec<char> = HEX.chars().collect();
                text[place] = wrong;
                let text: String = text.into_iter().collect();
                assert_eq!(parse(&text), Err(SecretError::NotHexadecimal));
                assert!(SecretEntry::parse(&text).is_err());
                let padded = format!("dd{text}");
                assert_eq!(parse(&padded), Err(SecretError::NotHexadecimal));
            }
        }
        // Two bytes of UTF-8 in place of two digits.
        let text = format!("é{}", &HEX[2..]);
        assert_eq!(parse(&text), Err(SecretError::NotHexadecimal));
    }

    #[test]
    fn nothing_prints_a_secret() {
        let wrong = "7777777777777777777777777777777z";
        let error = parse(wrong).unwrap_err();
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
}
