//! Telegram's proxy type WEB: a page that the operator's web site serves carries obfuscated2 streams to this
//! program, each in a WebSocket of its own, a lane. Here are the names of pages and who may open one
//! (capabilities), and the tokens that the page then bears; a lane's bytes are taken apart in `lane`.
//!
//! All of it comes from strangers. How long a comparison takes tells them nothing.

use alloc::string::String;
use core::fmt::Write;
use core::hint::black_box;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::secret::Secret;
use crate::limits::WEB_PATH;

/// What a client begins a session with.
pub const HELLO: [u8; 9] = [0x10, 0, 0, 0, 0, 0, 0, 1, 1];
/// The answer.
pub const WELCOME: [u8; 8] = [0x11, 0, 0, 0, 0, 0, 0, 0];

/// Where a page is served: a name, and below which path; the path may be empty.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// As the app writes it, in small letters.
    pub host: String,
    /// Without slashes at its ends.
    pub path: String,
}

impl Place {
    /// Reads `HOST[/PATH]` as the apps take it: a name that has a dot and is no address.
    pub fn parse(text: &str) -> Option<Place> {
        let (host, path) = text.split_once('/').unwrap_or((text, ""));
        let host = host.to_ascii_lowercase();
        let label = |label: &str| {
            let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
            (1..64).contains(&label.len())
                && label.bytes().all(fits)
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        let last = host.rsplit('.').next().unwrap_or_default();
        let is_number = last.bytes().all(|byte| byte.is_ascii_digit()) || last.starts_with("0x");
        let is_name = host.len() < 254 && host.contains('.') && host.split('.').all(label);
        let segment = |segment: &str| {
            let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
            segment.bytes().all(fits) && segment.starts_with(|c: char| c.is_ascii_alphanumeric())
        };
        let has_path = text.contains('/');
        let is_path = path.len() <= WEB_PATH && path.split('/').all(segment);
        (is_name && !is_number && (is_path || !has_path)).then(|| Place {
            host,
            path: path.into(),
        })
    }

    /// What the paths of all its requests begin with: `/` or `/PATH/`.
    pub fn base(&self) -> String {
        let mut base = String::from("/");
        if !self.path.is_empty() {
            let _ = write!(base, "{}/", self.path);
        }
        base
    }

    /// What a client with this secret opens the page with; `padded`: with its dd form.
    pub fn capability(&self, secret: &Secret, padded: bool) -> [u8; 32] {
        let mut key = [0xdd; 17];
        let (_, bytes) = key.split_at_mut(1);
        bytes.copy_from_slice(secret.bytes());
        let key = key.get(usize::from(!padded)..).unwrap_or_default();
        let version: &[u8] = match self.path.as_str() {
            "" => b"tdesktop-web-proxy-bridge-v1\n",
            _ => b"tdesktop-web-proxy-bridge-v2\n",
        };
        let between: &[u8] = if self.path.is_empty() { b"" } else { b"\n" };
        hmac(
            key,
            &[version, self.host.as_bytes(), between, self.path.as_bytes()],
        )
    }

    /// Which of the secrets a capability belongs to. Takes as long whether one fits or not.
    pub fn secret_of(&self, capability: &[u8; 32], secrets: &[Secret]) -> Option<usize> {
        let mut found = None;
        for (index, secret) in secrets.iter().enumerate() {
            for padded in [false, true] {
                let fits = same(&self.capability(secret, padded), capability);
                found = black_box(if fits { Some(index) } else { found });
            }
        }
        found
    }
}

/// Whether these are the same, in a time that tells nothing.
pub fn same(a: &[u8; 32], b: &[u8; 32]) -> bool {
    let differences = a
        .iter()
        .zip(b)
        .fold(0, |all, (a, b)| black_box(all | (a ^ b)));
    differences == 0
}

/// What a token is good for.
#[derive(Clone, Copy)]
pub enum Kind {
    /// To begin the session of a page.
    Bootstrap = 1,
    /// To open lanes, and to end the session.
    Session = 2,
}

/// A token: 16 bytes, and a proof of them and of the secret that it was given for. `key` is the server's.
pub fn token(key: &[u8; 32], kind: Kind, nonce: &[u8; 16], secret: &[u8]) -> [u8; 32] {
    let proof = hmac(
        key,
        &[b"tproxy-server-token-v1\0", &[kind as u8], nonce, secret],
    );
    let mut token = [0; 32];
    let bytes = nonce.iter().chain(&proof);
    token
        .iter_mut()
        .zip(bytes)
        .for_each(|(place, byte)| *place = *byte);
    token
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut block = [0; 64];
    block
        .iter_mut()
        .zip(key)
        .for_each(|(place, byte)| *place = *byte);
    let mut mac = Hmac::<Sha256>::new(&block.into());
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::base64;
    use crate::vectors::Vectors;
    use std::format;

    fn secret(v: &Vectors) -> Secret {
        Secret::new(v.array("secret"))
    }

    #[test]
    fn vectors_of_capabilities_and_tokens() {
        let v = Vectors::load("web");
        for i in 0..v.number("capability.count") {
            let field = |name: &str| v.text(&format!("capability.{i}.{name}"));
            let (place, padded) = (
                Place::parse(field("place")).unwrap(),
                field("padded") == "1",
            );
            let capability = place.capability(&secret(&v), padded);
            assert_eq!(base64::encode(&capability, base64::URL), field("bridge"));
            let others = [Secret::new([7; 16]), secret(&v), Secret::new([8; 16])];
            assert_eq!(place.secret_of(&capability, &others), Some(1));
            assert_eq!(place.secret_of(&capability, &others[..1]), None);
            assert_eq!(place.secret_of(&[0; 32], &others), None);
        }
        let (key, nonce) = (v.array("token.key"), v.array("token.nonce"));
        for (kind, name) in [(Kind::Bootstrap, "token.1"), (Kind::Session, "token.2")] {
            let token = token(&key, kind, &nonce, b"");
            assert_eq!(base64::encode(&token, base64::URL), v.text(name));
        }
        assert_eq!(v.bytes("frames.hello"), HELLO);
        assert_eq!(v.bytes("frames.welcome"), WELCOME);
    }

    #[test]
    fn places() {
        let long = format!("a.b/{}", "x".repeat(WEB_PATH));
        for (text, base) in [
            ("Proxy.Example.com", "/"),
            ("a.b/C_d", "/C_d/"),
            ("a.b/C/d-1", "/C/d-1/"),
            ("xn--bcher-kva.example", "/"),
            (&long, &format!("{}/", &long[3..])),
        ] {
            let place = Place::parse(text).unwrap();
            assert_eq!(place.base(), base);
            assert!(!place.host.contains(char::is_uppercase));
        }
        let too_long = format!("{long}x");
        for text in [
            "",
            "localhost",
            "https://a.b",
            "a.b:443",
            "a.b/",
            "a.b//c",
            "a.b/c/",
            "a.b/-c",
            "a.b/c.d",
            "1.2.3.4",
            "127.1",
            "a.0x7f",
            "a..b",
            "-a.b",
            "a-.b",
            "a.b.",
            "[::1]",
            "user@a.b",
            "a.b?c",
            &too_long,
        ] {
            assert_eq!(Place::parse(text), None, "{text}");
        }
    }
}
