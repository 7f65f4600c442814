//! Links that give a client the proxy: `tg://proxy?...` and `https://t.me/proxy?...`, and for a web page
//! `webproxy?...`.
//!
//! Written by the daemon's start and by `mtproxy link`, read by `mtproxy ping`. Input comes from the operator,
//! who may have it from a stranger. A link holds a secret: it must go to the operator and nowhere else, and no
//! error repeats any of it. The C proxy leaves links to its reader.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::formats::secret::SecretEntry;
use crate::proto::base64;
use crate::proto::secret::Secret;
use crate::proto::web::Place;
use crate::proto::wire::decimal;

/// Both links of one secret: the one that a device with Telegram opens without asking anybody, and the one
/// that any browser opens. `server` is a host's name or an IP address, of letters, digits, `-`, `_`, `.` and
/// `:` only, since nothing is escaped; `port` is not 0.
pub fn links(server: &str, port: u16, secret: &str) -> [String; 2] {
    ["tg://", "https://t.me/"]
        .map(|start| format!("{start}proxy?server={server}&port={port}&secret={secret}"))
}

/// Both links of a secret for a web page; `padded`: in its dd form.
pub fn web_links(place: &Place, secret: &Secret, padded: bool) -> [String; 2] {
    let (mut bytes, mut server) = (Vec::new(), place.host.clone());
    if !place.path.is_empty() {
        // An app that knows no paths is to see that it doesn't know this.
        bytes.push(0x70);
        server.push_str("%2F");
        server.push_str(&place.path.replace('/', "%2F"));
    }
    bytes.extend(padded.then_some(0xdd));
    bytes.extend(secret.bytes());
    let secret = base64::encode(&bytes, base64::URL);
    ["tg://", "https://t.me/"]
        .map(|start| format!("{start}webproxy?server={server}&secret={secret}"))
}

/// What a link says.
pub struct Link {
    /// A name, or an IP address without brackets.
    pub server: String,
    /// Not 0.
    pub port: u16,
    /// The secret and its form; neither label nor limit.
    pub secret: SecretEntry,
}

/// Reads a link as the strictest client does. The error is a sentence.
pub fn parse(text: &str) -> Result<Link, String> {
    let (kind, query) = split(text.trim()).ok_or(EXPECTED)?;
    match kind {
        "proxy" => {}
        "webproxy" => {
            return Err(
                "this is the link of a WEB proxy: only an app or a browser can try it".into(),
            );
        }
        "socks" => return Err("this is the link of a SOCKS proxy".into()),
        _ => return Err(EXPECTED.into()),
    }
    let value = |name: &str| {
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        let (_, value) = pairs.find(|(key, _)| *key == name)?;
        decode(value)
    };
    let missing = |name: &str| format!("the link has no {name}");
    let server = value("server").ok_or_else(|| missing("server"))?;
    let server = server.trim_matches(['[', ']']);
    if server.is_empty() {
        return Err(missing("server"));
    }
    let port = value("port").ok_or_else(|| missing("port"))?;
    let port = decimal(port.as_bytes()).filter(|port| *port > 0);
    let secret = value("secret").ok_or_else(|| missing("secret"))?;
    Ok(Link {
        server: server.into(),
        port: port.ok_or("the link's port is not a number from 1 to 65535")?,
        secret: strict(&secret)?,
    })
}

/// The kind of a link and its query.
fn split(text: &str) -> Option<(&str, &str)> {
    let rest = ["tg://", "tg:"]
        .iter()
        .find_map(|start| text.strip_prefix(start));
    let rest = rest.or_else(|| {
        let web = ["https://", "http://"]
            .iter()
            .find_map(|start| text.strip_prefix(start));
        let hosts = ["t.me/", "telegram.me/", "telegram.dog/"];
        hosts
            .iter()
            .find_map(|host| web.unwrap_or(text).strip_prefix(host))
    });
    let (kind, query) = rest?.split_once('?')?;
    Some((kind.trim_end_matches('/'), query.split('#').next()?))
}

/// Some clients refuse base64 that isn't base64url without padding.
fn strict(secret: &str) -> Result<SecretEntry, String> {
    if secret.contains(['+', '/', '=', ':', ' ']) {
        return Err("some clients refuse the link's secret: expected hexadecimal digits, or base64url with \
                    - and _ and without ="
            .into());
    }
    SecretEntry::parse(secret).map_err(|e| e.to_string())
}

/// Undoes %XX.
fn decode(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut bytes = Vec::from(parts.next()?);
    for part in parts {
        let (digits, rest) = part.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        bytes.extend(rest.as_bytes());
    }
    String::from_utf8(bytes).ok()
}

/// What is said of anything else.
const EXPECTED: &str = "expected a link such as tg://proxy?server=HOST&port=443&secret=SECRET, or the same \
                        behind https://t.me/";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::secret::{Form, spell};

    const HEX: &str = "00112233445566778899aabbccddeeff";

    #[test]
    fn both_links() {
        let wanted = [
            "tg://proxy?server=2001:db8::1&port=443&secret=dd00",
            "https://t.me/proxy?server=2001:db8::1&port=443&secret=dd00",
        ];
        assert_eq!(links("2001:db8::1", 443, "dd00"), wanted);
    }

    #[test]
    fn what_is_written_is_read() {
        for secret in [HEX, &format!("dd{HEX}"), &format!("ee{HEX}612e62")] {
            for text in links("proxy.example", 8443, secret) {
                let link = parse(&text).unwrap();
                assert_eq!((link.server.as_str(), link.port), ("proxy.example", 8443));
                assert_eq!(spell(&link.secret.secret, &link.secret.form), secret);
            }
        }
    }

    #[test]
    fn what_else_is_read() {
        for (text, server) in [
            (
                "tg:proxy?server=h&port=1&secret=ABEiM0RVZneImaq7zN3u_w",
                "h",
            ),
            (
                "http://telegram.me/proxy/?port=1&x&secret=%41BEiM0RVZneImaq7zN3u_w&server=h#y",
                "h",
            ),
            (
                "t.me/proxy?server=%5b::1%5D&port=1&secret=ABEiM0RVZneImaq7zN3u_w",
                "::1",
            ),
        ] {
            let link = parse(text).unwrap();
            assert_eq!((link.server.as_str(), link.port), (server, 1), "{text}");
            assert_eq!(spell(&link.secret.secret, &Form::Plain), HEX);
        }
    }

    #[test]
    fn what_is_refused_and_why() {
        let all = |server: &str, port: &str, secret: &str| {
            format!("tg://proxy?server={server}&port={port}&secret={secret}")
        };
        for (text, wanted) in [
            ("", "expected a link"),
            (
                "https://example.org/proxy?server=h&port=1&secret=x",
                "expected a link",
            ),
            ("tg://resolve?domain=x", "expected a link"),
            ("tg://webproxy?server=h&port=1&secret=x", "WEB proxy"),
            ("https://t.me/socks?server=h&port=1", "SOCKS"),
            ("tg://proxy?port=1&secret=x", "no server"),
            ("tg://proxy?server=h&secret=x", "no port"),
            ("tg://proxy?server=h&port=1", "no secret"),
            (&all("h", "0", HEX), "from 1 to 65535"),
            (&all("h", "65536", HEX), "from 1 to 65535"),
            (&all("%", "1", HEX), "no server"),
            (&all("[]", "1", HEX), "no server"),
            (
                &all("h", "1", "ABEiM0RVZneImaq7zN3u/w"),
                "some clients refuse",
            ),
            (
                &all("h", "1", "ABEiM0RVZneImaq7zN3u_w=="),
                "some clients refuse",
            ),
            (&all("h", "1", &HEX[1..]), "got 31 characters"),
            (&all("h", "1", &format!("ee{HEX}")), "end with a domain"),
        ] {
            let error = parse(text).err().unwrap();
            assert!(
                error.contains(wanted) && !error.contains("aabb"),
                "{text}: {error}"
            );
        }
    }
}
