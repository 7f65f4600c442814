//! Links that give a client the proxy: `tg://proxy?...` and `https://t.me/proxy?...`.
//!
//! Called at start and by `mtproxy link`. Input comes from the operator. This is the only place that
//! writes a secret in clear: its results go to the operator and nowhere else. The C proxy prints no links.

use crate::proto::secret::{Form, Secret};
use alloc::format;
use alloc::string::String;
use core::fmt::Write;

/// Where clients find the proxy.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    /// A host's name or an IP address, of letters, digits, `-`, `_`, `.` and `:` only: nothing is escaped.
    pub server: &'a str,
    /// The port, not 0.
    pub port: u16,
}

/// The link that a device with Telegram opens by itself.
pub fn app_link(place: Place, secret: &str) -> String {
    format!("tg://proxy?{}", query(place, secret))
}

/// The link that any browser opens; it leads to the same place.
pub fn web_link(place: Place, secret: &str) -> String {
    format!("https://t.me/proxy?{}", query(place, secret))
}

fn query(place: Place, secret: &str) -> String {
    let Place { server, port } = place;
    format!("server={server}&port={port}&secret={secret}")
}

/// Spells a secret in hexadecimal, which every client reads: 32 digits, or `dd` and these, or `ee`,
/// these and the domain.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::secret::SecretEntry;
    use crate::vectors::Vectors;

    #[test]
    fn spellings() {
        let v = Vectors::load("links");
        let secret = Secret::new(v.array("raw"));
        for (name, form) in [
            ("plain", Form::Plain),
            ("dd", Form::Padded),
            ("ee", Form::FakeTls(v.text("domain").into())),
        ] {
            let text = spell(&secret, &form);
            assert_eq!(text, v.text(&format!("{name}_hex")));
            let back = SecretEntry::parse(&text).unwrap();
            assert_eq!((back.secret, back.form), (secret, form));
        }
    }

    #[test]
    fn links() {
        let place = |server| Place { server, port: 443 };
        assert_eq!(
            app_link(place("192.0.2.1"), "dd00"),
            "tg://proxy?server=192.0.2.1&port=443&secret=dd00"
        );
        assert_eq!(
            web_link(place("2001:db8::1"), "00"),
            "https://t.me/proxy?server=2001:db8::1&port=443&secret=00"
        );
    }
}
