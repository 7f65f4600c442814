//! How the values of flags are parsed. Called by the rows of `table`. The error of a wrong value says what was
//! expected instead.
//!
//! The C proxy reads wrong numbers as 0 or cuts them off, and knows -D without a port; `HOST:PORT` and
//! `[v6]:PORT` are as its fork teleproxy takes them.

use super::config::{DcOverride, Listen};
use crate::base::outgoing::Socks5;
use crate::door::sites::Domain;
use mtproxy::formats::allowance;
use mtproxy::formats::cidr::Network;
use mtproxy::formats::secret::{SecretEntry, parse_domain, parse_hex16};
use mtproxy::limits::{
    MAX_COUNT, MAX_DOMAINS, MAX_HOST_NAME, MAX_NAT_RULES, MAX_PORTS, MAX_SECRETS, MAX_SOCKET_PATH,
    MAX_STATS_NETS, MAX_TLS_SKEW_AHEAD, MAX_TLS_SKEW_BACK, MAX_WEB, TLS_SKEW_AHEAD,
};
use mtproxy::proto::web::Place;
use mtproxy::proto::wire::{AdTag, DcId, decimal};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::path::PathBuf;

/// Why a value was refused.
pub enum Wrong {
    /// What was expected; the value may be shown.
    Expected(String),
    /// The same, with an exit code of its own.
    Exit(u8, String),
    /// The whole sentence; the value may be a secret.
    Hidden(String),
}

/// Sets a field to a value, if there is one.
pub fn set<T, V: Into<T>>(field: &mut T, value: Result<V, Wrong>) -> Result<(), Wrong> {
    *field = value?.into();
    Ok(())
}

/// Adds a value to those of a flag that may be given `most` times.
fn add<T>(list: &mut Vec<T>, most: usize, name: &str, value: T) -> Result<(), Wrong> {
    if list.len() >= most {
        return Err(Wrong::Expected(format!("at most {most} {name}")));
    }
    list.push(value);
    Ok(())
}

/// The parsed value, or the error that `what` was expected.
fn expect<T>(parsed: Option<T>, what: &str) -> Result<T, Wrong> {
    parsed.ok_or_else(|| Wrong::Expected(what.into()))
}

/// A number in `range`.
pub fn number(text: &str, range: RangeInclusive<u32>) -> Result<u32, Wrong> {
    let value = decimal(text.as_bytes()).filter(|value| range.contains(value));
    let what = format!("a number from {} to {}", range.start(), range.end());
    expect(value, &what)
}

fn port(text: &str, least: u16) -> Option<u16> {
    decimal(text.as_bytes()).filter(|port| *port >= least)
}

/// -H
pub fn client_ports(ports: &mut Vec<u16>, text: &str) -> Result<(), Wrong> {
    for item in text.split(',') {
        let what = "ports from 1 to 65535 with commas between (0: the kernel chooses)";
        let port = expect(port(item, 0), what)?;
        if port != 0 && ports.contains(&port) {
            return Err(Wrong::Expected(format!("port {port} only once")));
        }
        add(ports, MAX_PORTS, "ports", port)?;
    }
    Ok(())
}

/// --listen
pub fn listen(places: &mut Vec<Listen>, text: &str) -> Result<(), Wrong> {
    let place = match text.starts_with('/') {
        true => (text.len() <= MAX_SOCKET_PATH).then(|| Listen::Unix(text.into())),
        false => text.parse().ok().map(Listen::Tcp),
    };
    let what = "IP:PORT, [IPV6]:PORT, or a path that begins with / and has 107 bytes at most";
    let place = expect(place, what)?;
    if places.contains(&place) {
        return Err(Wrong::Expected(format!("{text} only once")));
    }
    add(places, MAX_PORTS, "places to listen", place)
}

/// --fwmark, in C's notation.
pub fn mark(text: &str) -> Result<u32, Wrong> {
    let value = match text.strip_prefix("0x") {
        Some(digits) if !digits.starts_with('+') => u32::from_str_radix(digits, 16).ok(),
        _ => decimal(text.as_bytes()),
    };
    expect(
        value.filter(|mark| *mark > 0),
        "a number above 0, decimal or 0x",
    )
}

/// --socks5
pub fn socks5(text: &str) -> Result<Socks5, Wrong> {
    let (login, place) = match text.rsplit_once('@') {
        Some((login, place)) => (Some(login.split_once(':').unwrap_or_default()), place),
        None => (None, text),
    };
    let fits = |part: &str| (1..=255).contains(&part.len());
    let is_right = login.is_none_or(|(name, password)| fits(name) && fits(password));
    let server = host_port(place).filter(|_| is_right);
    // Part of it may be a password.
    let what = "expected [USER:PASSWORD@]HOST:PORT, user and password of 1 to 255 bytes, IPv6 \
                addresses in brackets";
    Ok(Socks5 {
        server: server.ok_or_else(|| Wrong::Hidden(what.into()))?,
        login: login.map(|(name, password)| (name.into(), password.into())),
    })
}

/// -p
pub fn stats_ports(text: &str) -> Result<RangeInclusive<u16>, Wrong> {
    let range = |first, last| Some(port(first, 1)?..=port(last, 1)?);
    let ports = match text.split_once(':') {
        None => port(text, 0).map(|port| port..=port),
        Some((first, last)) => range(first, last).filter(|ports| !ports.is_empty()),
    };
    let what = "a port up to 65535 (0: the kernel chooses), or a range FIRST:LAST";
    expect(ports, what)
}

/// -S
pub fn secret(secrets: &mut Vec<SecretEntry>, text: &str) -> Result<(), Wrong> {
    let entry = SecretEntry::parse(text).map_err(|error| Wrong::Hidden(error.to_string()))?;
    let place = |index| format!("number {}", index + 1);
    entry
        .add_to(secrets, MAX_SECRETS, place)
        .map_err(Wrong::Hidden)
}

/// -P
pub fn ad_tag(text: &str) -> Result<AdTag, Wrong> {
    let tag = parse_hex16(text.as_bytes());
    tag.map(AdTag).ok_or_else(|| {
        let length = text.chars().count();
        let text = format!("expected 32 hexadecimal digits, got {length} characters");
        Wrong::Hidden(text)
    })
}

/// A file's name, which no error repeats if it is a secret. A path isn't taken for one in base64.
pub fn file(text: &str) -> Result<PathBuf, Wrong> {
    if SecretEntry::parse(text).is_ok() && !text.contains('/') {
        let text = "expected a file's name, got a secret: that goes to -S";
        return Err(Wrong::Hidden(text.into()));
    }
    expect((!text.is_empty()).then(|| text.into()), "a file's name")
}

/// -u
pub fn user(text: &str) -> Result<String, Wrong> {
    let what = "a user's name or number";
    expect((!text.is_empty()).then(|| text.into()), what)
}

/// --address
pub fn address(text: &str) -> Result<IpAddr, Wrong> {
    ip(text).ok_or_else(|| Wrong::Exit(4, AN_ADDRESS.into())) // the C program's exit code
}

/// --source
pub fn source(text: &str) -> Result<IpAddr, Wrong> {
    expect(ip(text), AN_ADDRESS)
}

const AN_ADDRESS: &str = "an IP address without a port";

/// An IP address; IPv6 may have brackets.
fn ip(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
    let v6 = bare.map(|text| text.parse().ok().map(IpAddr::V6));
    v6.unwrap_or_else(|| text.parse().ok())
}

/// --server
pub fn server(text: &str) -> Result<String, Wrong> {
    expect(host(text), "a name or an IP address without a port")
}

/// --dc-override
pub fn dc_override(overrides: &mut Vec<DcOverride>, text: &str) -> Result<(), Wrong> {
    let parsed = text.split_once(':').and_then(|(id, address)| {
        let id = id.parse().ok().filter(|id| *id != 0 && *id != i16::MIN)?;
        Some((DcId(id), host_port(address)?))
    });
    let what = "ID:HOST:PORT with the number of a data centre, IPv6 addresses in brackets";
    overrides.push(expect(parsed, what)?);
    Ok(())
}

/// --mask
pub fn mask(text: &str) -> Result<(String, u16), Wrong> {
    expect(host_port(text), "HOST:PORT, IPv6 addresses in brackets")
}

/// -D
pub fn domain(domains: &mut Vec<Domain>, text: &str) -> Result<(), Wrong> {
    if SecretEntry::parse(text).is_ok() {
        let text = "expected a domain, got a secret: that goes to -S";
        return Err(Wrong::Hidden(text.into()));
    }
    let what = "HOST, HOST:PORT or [IPV6]:PORT with a name of 1 to 182 letters, digits, - _ or .";
    let domain = expect(site(text), what)?;
    if domains.iter().any(|known| known.name == domain.name) {
        return Err(Wrong::Expected(format!("{} only once", domain.name)));
    }
    add(domains, MAX_DOMAINS, "domains", domain)
}

/// `HOST`, `HOST:PORT`, `[v6]` or `[v6]:PORT`; the name as [`parse_domain`] takes it, and not of dots alone.
fn site(text: &str) -> Option<Domain> {
    let (name, port) = match host_port(text) {
        Some((name, port)) => (name, Some(port)),
        // An IPv6 address without brackets could have a port for its last group.
        None if text.contains(':') && !text.ends_with(']') => return None,
        None => (host(text)?, None),
    };
    if name.parse::<Ipv6Addr>().is_ok() {
        return Some(Domain { name, port });
    }
    let name = parse_domain(name.trim_end_matches('.')).ok()?;
    let Domain { name, .. } = Domain::named(&name);
    Some(Domain { name, port })
}

/// `HOST:PORT`, the host as [`host`] gives it, the port not 0.
fn host_port(text: &str) -> Option<(String, u16)> {
    let (name, digits) = text.rsplit_once(':')?;
    // Without its brackets an IPv6 address would swallow the port.
    let named = !name.contains(':') || name.starts_with('[');
    Some((host(name).filter(|_| named)?, port(digits, 1)?))
}

/// A host's name or an IP address. IPv6 may have brackets, which are taken off.
fn host(text: &str) -> Option<String> {
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
    if let Ok(address) = bare.unwrap_or(text).parse::<Ipv6Addr>() {
        return Some(address.to_string());
    }
    let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let fits = (1..=MAX_HOST_NAME).contains(&text.len()) && text.bytes().all(known);
    fits.then(|| text.into())
}

/// -T, in milliseconds; what is less is cut off. Floating point would take 40 KB of the binary.
pub fn ping_interval(text: &str) -> Result<u32, Wrong> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = [whole, fraction].concat();
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    expect(is_number.then_some(()), "seconds, a fraction allowed")?;
    let millis = format!("{whole}{fraction:0<3.3}");
    Ok(decimal(millis.as_bytes()).unwrap_or(u32::MAX))
}

/// --nice
pub fn niceness(text: &str) -> Result<i32, Wrong> {
    let sign = if text.starts_with('-') { -1 } else { 1 };
    let value = decimal::<i32>(text.strip_prefix('-').unwrap_or(text).as_bytes());
    let value = value.filter(|value| *value <= 20).map(|value| sign * value);
    let value = value.filter(|value| *value < 20);
    expect(value, "a number from -20 to 19")
}

/// -d, and other switches that may come with a number: 0 is off.
pub fn switch(field: &mut bool, text: Option<&str>) -> Result<(), Wrong> {
    *field = match text {
        Some(text) => number(text, 0..=MAX_COUNT)? > 0,
        None => true,
    };
    Ok(())
}

/// --nat-info
pub fn nat_rule(rules: &mut Vec<(Ipv4Addr, Ipv4Addr)>, text: &str) -> Result<(), Wrong> {
    let rule = text.split_once(':').and_then(|(local, global)| {
        let local = local.parse().ok()?;
        Some((local, global.parse().ok()?))
    });
    let rule = expect(rule, "two IPv4 addresses, LOCAL:GLOBAL")?;
    add(rules, MAX_NAT_RULES, "rules", rule)
}

/// --stats-allow-net, --proxy-protocol-from
pub fn network(networks: &mut Vec<Network>, text: &str) -> Result<(), Wrong> {
    let what = "an IP address or a network, as in 10.0.0.0/8";
    let network = expect(Network::parse(text), what)?;
    add(networks, MAX_STATS_NETS, "networks", network)
}

/// --web
pub fn web(places: &mut Vec<Place>, text: &str) -> Result<(), Wrong> {
    let what = "HOST or HOST/PATH: the name of a web site with a dot, and segments of letters, digits, - and _";
    let place = expect(Place::parse(text), what)?;
    if places.contains(&place) {
        return Err(Wrong::Expected("each page only once".into()));
    }
    add(places, MAX_WEB, "pages", place)
}

/// --web-listen
pub fn web_listen(text: &str) -> Result<Listen, Wrong> {
    let mut places = Vec::new();
    listen(&mut places, text)?;
    Ok(places.remove(0))
}

/// --msg-buffers-size
pub fn bytes(text: &str) -> Result<u64, Wrong> {
    let what = "bytes as a number above 0, or one with k, m, g or t behind it";
    expect(allowance::bytes(text), what)
}

/// --tls-skew
pub fn skew(back: &mut u32, ahead: &mut u32, text: &str) -> Result<(), Wrong> {
    let (first, second) = match text.split_once(',') {
        Some((first, second)) => (first, number(second, 0..=MAX_TLS_SKEW_AHEAD)),
        None => (text, Ok(TLS_SKEW_AHEAD)),
    };
    let (Ok(first), Ok(second)) = (number(first, 1..=MAX_TLS_SKEW_BACK), second) else {
        return Err(Wrong::Expected(format!(
            "BACK or BACK,AHEAD in seconds, from 1 to {MAX_TLS_SKEW_BACK} and from 0 to {MAX_TLS_SKEW_AHEAD}"
        )));
    };
    (*back, *ahead) = (first, second);
    Ok(())
}

/// --tls-hybrid
pub fn on_or_off(text: &str) -> Result<bool, Wrong> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(Wrong::Expected("on or off".into())),
    }
}

/// -v
pub fn verbosity(verbosity: &mut u32, text: Option<&str>) -> Result<(), Wrong> {
    *verbosity = match text {
        Some(text) => number(text, 0..=MAX_COUNT)?,
        None => verbosity.saturating_add(1),
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::options::{Command, Config, UsageError, parse};
    use std::ffi::OsString;

    const A: &str = "00112233445566778899aabbccddeeff";

    fn try_run(line: &str) -> Result<Config, UsageError> {
        match parse(line.split_whitespace().map(OsString::from)) {
            Ok(Command::Run(config)) => Ok(*config),
            Ok(other) => panic!("{line}: {other:?}"),
            Err(error) => Err(error),
        }
    }

    /// What the flags give to a server that has a secret.
    fn config(flags: &str) -> Config {
        try_run(&format!("-H 1 -S {A} {flags}")).unwrap_or_else(|e| panic!("{flags}: {e:?}"))
    }

    /// Asserts that the flag is refused on its own, with its value behind this text.
    fn assert_wrong(flag: &str, label: &str, what: &str, values: &[&str]) {
        for value in values {
            let error = try_run(&format!("-H 1 -S {A} {flag}={value}")).unwrap_err();
            let wanted = format!("{label}: expected {what}, got {value:?}");
            assert_eq!(error, UsageError::new(wanted));
        }
    }

    #[test]
    fn places_to_listen_and_ways_out() {
        let found = config("--listen 127.0.0.1:8443 --listen [::1]:0 --listen /run/mtproxy.sock");
        let tcp = |text: &str| Listen::Tcp(text.parse().unwrap());
        let wanted = [
            tcp("127.0.0.1:8443"),
            tcp("[::1]:0"),
            Listen::Unix("/run/mtproxy.sock".into()),
        ];
        assert_eq!(found.listen, wanted);
        let what = "IP:PORT, [IPV6]:PORT, or a path that begins with / and has 107 bytes at most";
        let long = format!("/{}", "a".repeat(107));
        let wrong = [
            "8443",
            "127.0.0.1",
            "::1:443",
            "localhost:443",
            "run/socket",
            "",
            &long,
        ];
        assert_wrong("--listen", "--listen", what, &wrong);
        let twice = "--listen /a --listen /a";
        let error = try_run(&format!("-H 1 -S {A} {twice}")).unwrap_err();
        assert!(error.text.contains("/a only once"), "{error:?}");

        for (text, server, login) in [
            ("proxy.example:1080", ("proxy.example", 1080), None),
            ("[::1]:9050", ("::1", 9050), None),
            ("me:a:b@c@h:1", ("h", 1), Some(("me", "a:b@c"))),
        ] {
            let found = config(&format!("--socks5 {text}")).socks5.unwrap();
            let bytes = |(user, password): (&str, &str)| (user.into(), password.into());
            let wanted = Socks5 {
                server: (server.0.into(), server.1),
                login: login.map(bytes),
            };
            assert_eq!(found, wanted);
            assert!(!format!("{found:?}").contains("a:b"), "{found:?}");
        }
        let long = format!("me:{}@h:1", "secret".repeat(50));
        for wrong in [
            "h",
            "h:0",
            "secret@h:1",
            ":secret@h:1",
            "me:@h:1",
            "me:secret@h",
            &long,
        ] {
            let error = try_run(&format!("-H 1 -S {A} --socks5 {wrong}")).unwrap_err();
            let start = "--socks5: expected [USER:PASSWORD@]HOST:PORT, ";
            let is_right = error.text.starts_with(start) && !error.text.contains("secret");
            assert!(is_right, "{error:?}");
        }

        assert_eq!(config("--fwmark 42").mark, config("--fwmark 0x2A").mark);
        let what = "a number above 0, decimal or 0x";
        let wrong = ["0", "0x", "0x+1", "-1", "4294967296", "0x0", "x"];
        assert_wrong("--fwmark", "--fwmark", what, &wrong);
    }

    #[test]
    fn fronts_are_near_unless_others_are_named() {
        let believes = |flags: &str, ip: &str| {
            let ip = ip.parse().unwrap();
            config(flags)
                .fronts()
                .iter()
                .any(|front| front.contains(ip))
        };
        for near in [
            "127.0.0.1",
            "::1",
            "10.1.2.3",
            "172.31.0.1",
            "192.168.1.1",
            "fd00::1",
        ] {
            assert!(believes("--proxy-protocol", near), "{near}");
            assert!(!believes("", near), "{near}");
            let flags = "--proxy-protocol --proxy-protocol-from 192.0.2.0/24";
            assert!(!believes(flags, near), "{near}");
            assert!(believes(flags, "192.0.2.9"));
        }
        for far in ["192.0.2.9", "172.32.0.1", "2001:db8::1", "100.64.0.1"] {
            assert!(!believes("--proxy-protocol", far), "{far}");
        }
        let error = try_run(&format!("-H 1 -S {A} --proxy-protocol-from ::1")).unwrap_err();
        assert_eq!(
            error.text,
            "--proxy-protocol-from: expected --proxy-protocol too"
        );
    }

    #[test]
    fn domains() {
        let domain = |name: &str, port| Domain {
            name: name.into(),
            port,
        };
        let flags = "-D Example.ORG. --domain a_b-c.example:8443 -D [2001:DB8::0:1] -Dx.:1 \
                     -D [::1]:65535 -D 192.0.2.1:80";
        let wanted = [
            domain("example.org", None),
            domain("a_b-c.example", Some(8443)),
            domain("2001:db8::1", None),
            domain("x", Some(1)),
            domain("::1", Some(65535)),
            domain("192.0.2.1", Some(80)),
        ];
        assert_eq!(config(flags).domains, wanted);
        let long = "a".repeat(182);
        assert_eq!(config(&format!("-D {long}.:1")).domains[0].name, long);
        let too_long = format!("{long}b");
        let what =
            "HOST, HOST:PORT or [IPV6]:PORT with a name of 1 to 182 letters, digits, - _ or .";
        let wrong = [
            "",
            ".",
            "..:1",
            "a/b",
            "a.b:",
            "a.b:0",
            "a.b:65536",
            "a.b:+1",
            "a.b:1:2",
            ":443",
            "é.example",
            "::1",
            "2001:db8::1",
            "[::1",
            "::1]",
            "[a.b]",
            "[a.b]:1",
            "[::1]1",
            "[]",
            "*.example",
            &too_long,
        ];
        assert_wrong("--domain", "-D/--domain", what, &wrong);
    }

    #[test]
    fn no_domain_twice_and_not_too_many() {
        let many = |count: usize| -> String { (0..count).map(|i| format!("-D d{i} ")).collect() };
        assert_eq!(config(&many(64)).domains.len(), 64);
        for (flags, wanted) in [
            (
                many(65),
                "-D/--domain: expected at most 64 domains, got \"d64\"",
            ),
            (
                "-D a.b:1 -D A.B.:2".into(),
                "-D/--domain: expected a.b only once, got \"A.B.:2\"",
            ),
            (
                "-D [::1] -D [0::1]:1".into(),
                "-D/--domain: expected ::1 only once, got \"[0::1]:1\"",
            ),
            (
                format!("-D {A}"),
                "-D/--domain: expected a domain, got a secret: that goes to -S",
            ),
        ] {
            let error = try_run(&format!("-H 1 -S {A} {flags}")).unwrap_err();
            assert_eq!(error, UsageError::new(wanted));
        }
    }

    #[test]
    fn masks() {
        for (text, host, port) in [
            ("127.0.0.1:8443", "127.0.0.1", 8443),
            ("[::1]:1", "::1", 1),
            ("nginx:443", "nginx", 443),
        ] {
            let config = config(&format!(
                "-D a.b --mask {text} --mask-proxy-protocol --mask-max 0"
            ));
            assert_eq!(config.mask, Some((host.into(), port)));
            assert_eq!(
                (config.mask_proxy_protocol, config.mask_max),
                (true, Some(0))
            );
        }
        assert_eq!(config("-D a.b --mask-max=1000").mask_max, Some(1000));
        let wrong = [
            "",
            "nginx",
            "443",
            "nginx:0",
            "nginx:",
            "::1:443",
            "[::1]",
            "http://a:1",
            "a:65536",
        ];
        assert_wrong(
            "--mask",
            "--mask",
            "HOST:PORT, IPv6 addresses in brackets",
            &wrong,
        );
        let range = "a number from 0 to 4096";
        assert_wrong(
            "--mask-max",
            "--mask-max",
            range,
            &["", "-1", "x", "2147483648"],
        );
    }

    #[test]
    fn handshake_flags() {
        for (text, wanted) in [
            ("1", (1, 3)),
            ("172800,86400", (172_800, 86_400)),
            ("60,0", (60, 0)),
        ] {
            let config = config(&format!("-D a.b --tls-skew {text}"));
            assert_eq!((config.skew_back.0, config.skew_ahead.0), wanted);
        }
        let what = "BACK or BACK,AHEAD in seconds, from 1 to 172800 and from 0 to 86400";
        let wrong = [
            "", "0", "172801", "1,86401", "1,", ",1", "1,2,3", "1,-1", "10m", "1.5",
        ];
        assert_wrong("--tls-skew", "--tls-skew", what, &wrong);
        assert!(!config("-D a.b --tls-hybrid on").no_hybrid);
        assert!(config("-D a.b --tls-hybrid off").no_hybrid);
        assert_wrong(
            "--tls-hybrid",
            "--tls-hybrid",
            "on or off",
            &["", "ON", "yes", "0"],
        );
        assert!(config("-D a.b --allow-plain").allow_plain);
    }
}
