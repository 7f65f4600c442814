//! Base64 (RFC 4648) in both alphabets, read strictly: bits that belong to no byte must be 0. Secrets and
//! links are written in it, and the tokens and keys of strangers' web requests.

use alloc::string::String;
use alloc::vec::Vec;

/// The last two digits of base64url.
pub const URL: [u8; 2] = *b"-_";
/// The last two digits of the older alphabet.
pub const STANDARD: [u8; 2] = *b"+/";

/// Reads base64 with these last two digits, without padding or with all of it.
pub fn decode(text: &[u8], last_two: [u8; 2]) -> Option<Vec<u8>> {
    let digits = match text {
        [digits @ .., b'=', b'='] | [digits @ .., b'='] if text.len().is_multiple_of(4) => digits,
        _ => text,
    };
    let value = |digit: &u8| {
        let place = DIGITS.iter().chain(&last_two).position(|d| d == digit)?;
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

/// Writes base64 with these last two digits, without padding.
pub fn encode(bytes: &[u8], last_two: [u8; 2]) -> String {
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let at = |place: usize| u32::from(group.get(place).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for place in 0..=group.len() {
            let shift = 18_usize.saturating_sub(place.saturating_mul(6));
            let digit = (bits >> shift) as usize & 63;
            let digit = DIGITS.iter().chain(&last_two).nth(digit);
            text.extend(digit.map(|digit| char::from(*digit)));
        }
    }
    text
}

/// The first 62 digits; the two alphabets differ in the last two.
const DIGITS: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    #[test]
    fn it_is_strict() {
        assert_eq!(decode(b"-_", URL), None);
        assert_eq!(decode(b"--8", URL), Some(vec![0xfb, 0xef]));
        assert_eq!(decode(b"//8", STANDARD), Some(vec![0xff, 0xff]));
        assert_eq!(decode(b"--8", STANDARD), None);
    }

    #[test]
    fn what_is_written_is_read() {
        for len in 0..20_usize {
            let bytes: Vec<u8> = (0..len).map(|i| (i as u8).wrapping_mul(0x4f)).collect();
            for digits in [URL, STANDARD] {
                let text = encode(&bytes, digits);
                assert_eq!(text.len(), (len * 4).div_ceil(3));
                assert_eq!(decode(text.as_bytes(), digits), Some(bytes.clone()));
            }
        }
    }
}
