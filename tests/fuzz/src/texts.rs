//! Texts: of Telegram, of operators, and links, which an operator may have from a stranger.

use std::net::SocketAddr;

use mtproxy::formats::cidr::List;
use mtproxy::formats::date::{self, HttpDate};
use mtproxy::formats::secret::{SecretEntry, parse_domain, spell, spell_short};
use mtproxy::formats::settings::parse_line;
use mtproxy::formats::{config_file, link, qr, toml};
use mtproxy::proto::base64;
use mtproxy::proto::secret::ProxySecret;
use mtproxy::proto::web::Place;

fn resolve(_: &str, port: u16) -> Option<SocketAddr> {
    Some(SocketAddr::from(([192, 0, 2, 1], port)))
}

/// What was read and is written again is read as the same; errors show nothing that a terminal obeys.
pub fn config(bytes: &[u8]) {
    match config_file::parse("name", bytes, &mut resolve) {
        Ok(file) => {
            assert!(!file.clusters.is_empty());
            let mut text = format!("default {};\n", file.default_dc.0);
            for cluster in &file.clusters {
                assert!(!cluster.targets.is_empty());
                for target in &cluster.targets {
                    text += &format!("proxy_for {} {target};\n", cluster.dc.0);
                }
            }
            let again = config_file::parse("name", text.as_bytes(), &mut resolve);
            assert_eq!(again.as_ref(), Ok(&file), "{text}");
        }
        Err(error) => {
            let is_plain = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
            assert!(error.bytes().all(is_plain), "{error:?}");
        }
    }
    if let Err(wrong) = ProxySecret::new(bytes.to_vec()) {
        assert!(!wrong.to_string().is_empty());
    }
}

/// A secret that is spelled is read as the same, in both spellings.
pub fn secret(bytes: &[u8]) {
    for last_two in [base64::URL, base64::STANDARD] {
        let text = base64::encode(bytes, last_two);
        assert_eq!(
            base64::decode(text.as_bytes(), last_two).as_deref(),
            Some(bytes)
        );
        if let Some(decoded) = base64::decode(bytes, last_two) {
            let again = base64::encode(&decoded, last_two);
            let unpadded = bytes.split(|byte| *byte == b'=').next();
            assert_eq!(Some(again.as_bytes()), unpadded);
        }
    }
    let Ok(text) = str::from_utf8(bytes) else {
        return;
    };
    let _ = parse_domain(text);
    match SecretEntry::parse(text) {
        Ok(entry) => {
            let same = |text: &str| {
                let again = SecretEntry::parse(text).expect("a secret that was spelled");
                assert!(again.secret == entry.secret && again.form == entry.form);
            };
            same(&spell(&entry.secret, &entry.form));
            let short = spell_short(&entry.secret, &entry.form);
            // Digits alone are hexadecimal ones to every client.
            if !short.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                same(&short);
            }
            let end = entry.allowance.period_end(1_800_000_000);
            assert!(end == 0 || end > 1_800_000_000);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// Files and command lines of operators.
pub fn settings(bytes: &[u8]) {
    if let Some(unix) = bytes
        .first_chunk()
        .map(|b| u64::from(u32::from_le_bytes(*b)))
    {
        assert_eq!(date::parse(&HttpDate(unix).to_string()), Some(unix));
    }
    let Ok(text) = str::from_utf8(bytes) else {
        return;
    };
    for line in text.lines() {
        if let Ok(Some((name, _))) = parse_line(line) {
            assert!(!name.is_empty() && !name.contains(char::is_whitespace));
            let again = format!("  {name} \"value # it\" # comment");
            assert_eq!(parse_line(&again), Ok(Some((name, Some("value # it")))));
        }
        let _ = date::parse(line);
    }
    let _ = toml::parse_toml(text);
    let _ = toml::words(text);
    if let Err(error) = List::parse(text, "file") {
        assert!(error.contains("file"), "{error}");
    }
}

/// A link that is read is one again when it is written.
pub fn link(bytes: &[u8]) {
    if bytes.len().is_multiple_of(16) {
        let _ = qr::draw(bytes); // slow
    }
    let Ok(text) = str::from_utf8(bytes) else {
        return;
    };
    if let Some(place) = Place::parse(text) {
        assert!(place.base().starts_with('/') && place.base().ends_with('/'));
        let again = Place::parse(text.trim_end_matches('/'));
        assert_eq!(again.as_ref(), Some(&place));
    }
    let Ok(read) = link::parse(text) else {
        return;
    };
    assert!(!read.server.is_empty() && read.port > 0);
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
    if !read.server.bytes().all(is_plain) {
        return;
    }
    let secret = spell(&read.secret.secret, &read.secret.form);
    for text in link::links(&read.server, read.port, &secret) {
        let again = link::parse(&text).expect("our own link");
        assert_eq!((&again.server, again.port), (&read.server, read.port));
        assert!(again.secret == read.secret);
    }
}
