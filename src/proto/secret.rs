//! Client secrets and Telegram's proxy-secret file: what handshakes derive keys from, in types that cannot
//! be printed by accident.
//!
//! The daemon makes them at start; the handshakes borrow the bytes. What a stranger sends is compared with
//! keys that come from here, so comparisons take constant time, `Debug` is redacted and there is no
//! `Display`. How operators write secrets is `formats::secret`. The C proxy keeps both as plain global
//! arrays.

use crate::crypto::wipe::wipe;
use crate::limits::{PROXY_SECRET_LEN, PROXY_SECRET_MAX, PROXY_SECRET_MIN};
use alloc::{format, string::String, vec::Vec};
use core::fmt;
use core::hint::black_box;

/// A client secret: 16 bytes, however it was spelled. Compared in constant time.
#[derive(Clone, Copy)]
pub struct Secret([u8; 16]);

impl Secret {
    /// From its bytes.
    pub const fn new(bytes: [u8; 16]) -> Secret {
        Secret(bytes)
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

/// What Telegram's proxy-secret file holds: shared by all proxies of the world, 128 bytes today.
#[derive(Clone)]
pub struct ProxySecret {
    selector: [u8; 4],
    bytes: Vec<u8>,
}

impl ProxySecret {
    /// Takes the whole file, [`PROXY_SECRET_MIN`] to [`PROXY_SECRET_MAX`] bytes, a line end included.
    pub fn new(file: Vec<u8>) -> Result<ProxySecret, WrongFile> {
        let length_is_right = (PROXY_SECRET_MIN..=PROXY_SECRET_MAX).contains(&file.len());
        match file.first_chunk() {
            Some(selector) if length_is_right => Ok(ProxySecret {
                selector: *selector,
                bytes: file,
            }),
            _ => Err(WrongFile {
                length: file.len(),
                kind: kind_of_text(&file),
            }),
        }
    }

    /// Why it is hardly the file that Telegram publishes, if that shows. The C program takes it all the
    /// same, and no middle proxy answers.
    pub fn doubt(&self) -> Option<String> {
        match (kind_of_text(&self.bytes), self.bytes.len()) {
            (Some(kind), _) => Some(format!("it is {kind}")),
            (None, PROXY_SECRET_LEN) => None,
            (None, length) => Some(format!(
                "it has {length} bytes instead of {PROXY_SECRET_LEN}"
            )),
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

impl Drop for ProxySecret {
    fn drop(&mut self) {
        wipe(&mut self.bytes);
    }
}

/// Why a file is no proxy-secret: its length, and what it is instead if that shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WrongFile {
    length: usize,
    kind: Option<&'static str>,
}

impl fmt::Display for WrongFile {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let WrongFile { length, kind } = self;
        write!(
            f,
            "expected {PROXY_SECRET_MIN} to {PROXY_SECRET_MAX} bytes, got {length}"
        )?;
        match kind {
            Some(kind) => write!(f, ": it is {kind}"),
            None => Ok(()),
        }
    }
}

/// What a text is that was saved in place of Telegram's file, which is binary.
fn kind_of_text(file: &[u8]) -> Option<&'static str> {
    let text = core::str::from_utf8(file).ok()?;
    let text = text.trim_start_matches('\u{feff}').trim();
    if text.starts_with('<') {
        return Some("an HTML page");
    }
    let is_digit = |c: char| c.is_ascii_hexdigit() || c.is_ascii_whitespace();
    (!text.is_empty() && text.chars().all(is_digit)).then_some("hexadecimal text")
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn equality_looks_at_every_bit() {
        let bytes: [u8; 16] = core::array::from_fn(|i| i as u8 * 0x11);
        assert_eq!(Secret(bytes), Secret(bytes));
        for bit in 0..128 {
            let mut other = bytes;
            other[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(Secret(bytes), Secret(other));
        }
    }

    #[test]
    fn nothing_prints_a_secret() {
        assert_eq!(format!("{:?}", Secret([0x22; 16])), "Secret(..)");
        let file = ProxySecret::new(vec![0x77; 32]).unwrap();
        assert_eq!(format!("{file:?}"), "ProxySecret(..)");
    }

    #[test]
    fn proxy_secret_limits() {
        let is_taken = |length| ProxySecret::new(vec![1; length]).is_ok();
        assert!([32, 128, 256].into_iter().all(is_taken));
        assert!(![0, 3, 31, 257, 1 << 20].into_iter().any(is_taken));
        let error = ProxySecret::new(vec![1; 31]).unwrap_err();
        assert_eq!(format!("{error}"), "expected 32 to 256 bytes, got 31");
    }

    #[test]
    fn proxy_secret_counts_whole_and_starts_with_its_selector() {
        let mut file = vec![9; 40];
        file[..4].copy_from_slice(&[0xc4, 0xf9, 0xfa, 0xca]);
        file[39] = b'\n';
        let secret = ProxySecret::new(file.clone()).unwrap();
        assert_eq!(secret.selector(), [0xc4, 0xf9, 0xfa, 0xca]);
        assert_eq!(secret.bytes(), &file[..]);
    }

    #[test]
    fn what_was_saved_in_place_of_the_proxy_secret_is_named() {
        let page = b"\xef\xbb\xbf\n<!DOCTYPE html><html>".repeat(4);
        let digits = b"c4f9 faca\n".repeat(20);
        for (file, wanted) in [
            (vec![0x81; 128], None),
            (vec![0x81; 127], Some("it has 127 bytes instead of 128")),
            (b"<".repeat(128), Some("it is an HTML page")),
            (page.to_vec(), Some("it is an HTML page")),
            (digits.to_vec(), Some("it is hexadecimal text")),
        ] {
            let doubt = ProxySecret::new(file).unwrap().doubt();
            assert_eq!(doubt.as_deref(), wanted);
        }
        let error = ProxySecret::new(b"0123456789abcdef".repeat(17)).unwrap_err();
        let wanted = "expected 32 to 256 bytes, got 272: it is hexadecimal text";
        assert_eq!(format!("{error}"), wanted);
    }
}
