//! Client secrets (-S) and Telegram's proxy-secret file: types that cannot be printed by accident.
//!
//! The daemon makes them at start from the command line and from a file; the handshakes borrow the
//! bytes. Nothing here formats what it holds: `Debug` is redacted, there is no `Display`, and errors
//! speak of lengths only. The C proxy keeps both as plain global arrays.
//!
//! | spelling of a client secret | holds |
//! |---|---|
//! | 32 hexadecimal digits | the 16 bytes; clients use the intermediate transport |
//! | `dd` and 32 hexadecimal digits | the 16 bytes; clients use the padded one (links only in C) |

use alloc::vec::Vec;
use core::fmt;
use core::hint::black_box;

/// A client secret: 16 bytes, whatever form it was spelled in. Compared in constant time.
#[derive(Clone, Copy)]
pub struct Secret([u8; 16]);

impl Secret {
    /// Parses 32 hexadecimal digits of either case, with or without `dd` in front. White space and
    /// anything else is an error; the error holds nothing of the text but its length.
    pub fn parse(text: &str) -> Result<Secret, SecretError> {
        let text = text.as_bytes();
        let digits = match text {
            [b'd' | b'D', b'd' | b'D', digits @ ..] if digits.len() == DIGITS => digits,
            _ => text,
        };
        if digits.len() != DIGITS {
            return Err(SecretError::Length(text.len()));
        }
        parse_hex16(digits)
            .map(Secret)
            .ok_or(SecretError::NotHexadecimal)
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

/// Why a text is no client secret. Never holds any of the text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SecretError {
    /// Neither 32 nor `dd` and 32 characters; the length in bytes.
    Length(usize),
    /// The length is right, but not every character is a hexadecimal digit.
    NotHexadecimal,
}

impl fmt::Display for SecretError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("expected 32 hexadecimal digits, or dd and 32 hexadecimal digits, ")?;
        match self {
            SecretError::Length(1) => f.write_str("got 1 character"),
            SecretError::Length(length) => write!(f, "got {length} characters"),
            SecretError::NotHexadecimal => f.write_str("got another character among them"),
        }
    }
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

/// 16 bytes from exactly 32 hexadecimal digits of either case: secrets here, the ad tag of -P in
/// the daemon. None for anything else.
pub fn parse_hex16(digits: &[u8]) -> Option<[u8; 16]> {
    if digits.len() != DIGITS {
        return None;
    }
    let mut bytes = [0; 16];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let [high, low] = *pair else { return None };
        *byte = (hex_value(high)? << 4) | hex_value(low)?;
    }
    Some(bytes)
}

/// The value of one hexadecimal digit, 0 to 15.
fn hex_value(digit: u8) -> Option<u8> {
    let value = char::from(digit).to_digit(16)?;
    u8::try_from(value).ok()
}

/// Hexadecimal digits of 16 bytes.
const DIGITS: usize = 32;
/// Shortest proxy-secret file, bytes (protocol.md 8.5). C: the same.
pub const PROXY_SECRET_MIN: usize = 32;
/// Longest proxy-secret file, bytes (protocol.md 8.5). C: the same.
pub const PROXY_SECRET_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::string::String;
    use alloc::vec;

    const HEX: &str = "00112233445566778899aAbBcCdDeEfF";
    const BYTES: [u8; 16] = [
        0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee,
        0xff,
    ];

    #[test]
    fn both_spellings_give_the_same_bytes() {
        assert_eq!(Secret::parse(HEX).unwrap().bytes(), &BYTES);
        for prefix in ["dd", "DD", "dD"] {
            let spelled = format!("{prefix}{HEX}");
            assert_eq!(Secret::parse(&spelled).unwrap().bytes(), &BYTES);
        }
        // 32 digits that happen to begin with dd are a plain secret.
        let plain = "dd112233445566778899aabbccddeeff";
        assert_eq!(Secret::parse(plain).unwrap().bytes()[0], 0xdd);
    }

    #[test]
    fn every_other_length_is_refused() {
        for length in (0..80).filter(|n| *n != 32 && *n != 34) {
            let text = "d".repeat(length);
            assert_eq!(Secret::parse(&text), Err(SecretError::Length(length)));
        }
        // 34 characters need the prefix; ee is the fake-TLS form, which has a name at its end.
        assert_eq!(
            Secret::parse(&format!("ee{HEX}")),
            Err(SecretError::Length(34))
        );
        assert_eq!(
            Secret::parse(&format!("d0{HEX}")),
            Err(SecretError::Length(34))
        );
    }

    #[test]
    fn every_other_character_is_refused_at_every_place() {
        for wrong in ['g', '/', ':', '@', 'G', '`', ' ', '\0', '+', '-'] {
            for place in 0..32 {
                let mut text: vec::Vec<char> = HEX.chars().collect();
                text[place] = wrong;
                let text: String = text.into_iter().collect();
                assert_eq!(Secret::parse(&text), Err(SecretError::NotHexadecimal));
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
        assert!(!format!("{error} {error:?}").contains("77"));
    }

    #[test]
    fn errors_say_what_was_expected() {
        let expected = "expected 32 hexadecimal digits, or dd and 32 hexadecimal digits, ";
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
