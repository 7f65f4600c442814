//! The flags of fake TLS (protocol.md 5.6, 5.8): how their values are read, and what must be given
//! with them. Called by the rows of `table` and by `check`.
//!
//! The C proxy knows -D alone, without a port; `HOST:PORT` and `[v6]:PORT` are as its fork teleproxy
//! takes them.

use crate::door::sites::Domain;
use crate::operator::options::values::{Wrong, host, host_port, number};
use crate::operator::options::{Typed, UsageError};
use mtproxy::limits::{
    MAX_DOMAINS, MAX_MASK_MAX, MAX_TLS_SKEW_AHEAD, MAX_TLS_SKEW_BACK, TLS_SKEW_AHEAD, TLS_SKEW_BACK,
};
use mtproxy::proto::secret::{Form, SecretEntry, parse_domain};
use std::net::Ipv6Addr;

/// Parses `HOST`, `HOST:PORT`, `[v6]` or `[v6]:PORT`; the name as [`parse_domain`] takes it, and not of
/// dots alone.
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

pub fn apply_domain(typed: &mut Typed, text: &str) -> Result<(), Wrong> {
    if SecretEntry::parse(text).is_ok() {
        let text = "expected a domain, got a secret: that goes to -S";
        return Err(Wrong::Hidden(text.into()));
    }
    let what = "HOST, HOST:PORT or [IPV6]:PORT with a name of 1 to 182 letters, digits, - _ or .";
    let domain = site(text).ok_or(Wrong::Expected(what.into()))?;
    if typed.domains.iter().any(|known| known.name == domain.name) {
        return Err(Wrong::Expected(format!("{} only once", domain.name)));
    }
    if typed.domains.len() >= MAX_DOMAINS {
        return Err(Wrong::Expected(format!("at most {MAX_DOMAINS} domains")));
    }
    typed.domains.push(domain);
    Ok(())
}

pub fn apply_mask(typed: &mut Typed, text: &str) -> Result<(), Wrong> {
    let what = "HOST:PORT, IPv6 addresses in brackets";
    typed.mask = Some(host_port(text).ok_or(Wrong::Expected(what.into()))?);
    Ok(())
}

pub fn apply_mask_max(typed: &mut Typed, text: &str) -> Result<(), Wrong> {
    typed.mask_max = Some(number(text, 0..=MAX_MASK_MAX)?);
    Ok(())
}

pub fn apply_skew(typed: &mut Typed, text: &str) -> Result<(), Wrong> {
    let (back, ahead) = match text.split_once(',') {
        Some((back, ahead)) => (back, Some(ahead)),
        None => (text, None),
    };
    let back = number(back, 1..=MAX_TLS_SKEW_BACK);
    let ahead = ahead.map_or(Ok(TLS_SKEW_AHEAD), |text| {
        number(text, 0..=MAX_TLS_SKEW_AHEAD)
    });
    let (Ok(back), Ok(ahead)) = (back, ahead) else {
        return Err(Wrong::Expected(format!(
            "BACK or BACK,AHEAD in seconds, from 1 to {MAX_TLS_SKEW_BACK} and from 0 to {MAX_TLS_SKEW_AHEAD}"
        )));
    };
    typed.tls_skew = Some((back, ahead));
    Ok(())
}

pub fn apply_hybrid(typed: &mut Typed, text: &str) -> Result<(), Wrong> {
    typed.tls_hybrid = Some(match text {
        "on" => true,
        "off" => false,
        _ => return Err(Wrong::Expected("on or off".into())),
    });
    Ok(())
}

/// --tls-skew's default.
pub const SKEW: (u32, u32) = (TLS_SKEW_BACK, TLS_SKEW_AHEAD);

/// Whether the command line names a domain, by -D or by an ee secret of -S.
pub fn has_domain(typed: &Typed) -> bool {
    let is_fake_tls = |entry: &SecretEntry| matches!(entry.form, Form::FakeTls(_));
    !typed.domains.is_empty() || typed.secrets.iter().any(is_fake_tls)
}

/// What fake TLS and its flags need. The flag in the answer does nothing unless a secret of the
/// secret file has a domain.
pub fn check(typed: &Typed, direct: bool) -> Result<Option<&'static str>, UsageError> {
    let error = |text: &str| Err(UsageError::new(text.into()));
    let has_secrets = !typed.secrets.is_empty() || typed.secret_file.is_some();
    if !typed.domains.is_empty() && !has_secrets && (typed.open || !direct) {
        return error(
            "-D/--domain: who doesn't know the secret is taken to the site of the domain: it needs -S \
             or --secret-file and goes without --open",
        );
    }
    if typed.mask_proxy_protocol && typed.mask.is_none() {
        return error(
            "--mask-proxy-protocol: goes with --mask: only a server that is set up for this header \
             can be sent it",
        );
    }
    let flag = first_flag(typed).filter(|_| !has_domain(typed));
    match flag {
        Some(flag) if typed.secret_file.is_none() => error(&format!("--{flag}: {NEEDS_DOMAIN}")),
        flag => Ok(flag),
    }
}

/// The first flag given that does nothing without a domain.
fn first_flag(typed: &Typed) -> Option<&'static str> {
    let given = [
        ("mask", typed.mask.is_some()),
        ("mask-proxy-protocol", typed.mask_proxy_protocol),
        ("mask-max", typed.mask_max.is_some()),
        ("tls-skew", typed.tls_skew.is_some()),
        ("tls-hybrid", typed.tls_hybrid.is_some()),
        ("allow-plain", typed.allow_plain),
    ];
    given
        .iter()
        .find(|(_, given)| *given)
        .map(|(flag, _)| *flag)
}

/// Behind the name of such a flag, for errors.
pub const NEEDS_DOMAIN: &str = "is for fake TLS only: it needs -D DOMAIN or an ee secret";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::options::{Command, Config, parse};
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
        try_run(&format!("-H 1 -S {A} {flags}")).unwrap_or_else(|e| panic!("{flags}: {e}"))
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
            assert_eq!(error, UsageError::new(wanted.into()));
        }
    }

    #[test]
    fn domains_of_secrets() {
        assert_eq!(
            Domain::named("A.b."),
            Domain {
                name: "a.b".into(),
                port: None
            }
        );
        assert_eq!(Domain::named(".").name, ".");
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
            assert_eq!((config.mask_proxy_protocol, config.mask_max), (true, 0));
        }
        assert_eq!(config("-D a.b --mask-max=1000").mask_max, 1000);
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
            assert_eq!(
                config(&format!("-D a.b --tls-skew {text}")).tls_skew,
                wanted
            );
        }
        let what = "BACK or BACK,AHEAD in seconds, from 1 to 172800 and from 0 to 86400";
        let wrong = [
            "", "0", "172801", "1,86401", "1,", ",1", "1,2,3", "1,-1", "10m", "1.5",
        ];
        assert_wrong("--tls-skew", "--tls-skew", what, &wrong);
        assert!(config("-D a.b --tls-hybrid on").tls_hybrid);
        assert!(!config("-D a.b --tls-hybrid off").tls_hybrid);
        assert_wrong(
            "--tls-hybrid",
            "--tls-hybrid",
            "on or off",
            &["", "ON", "yes", "0"],
        );
        assert!(config("-D a.b --allow-plain").allow_plain);
    }

    #[test]
    fn without_a_domain_its_flags_are_refused() {
        let cases = [
            ("mask", "--mask h:1"),
            ("mask", "--mask-max 1 --mask h:1 --mask-proxy-protocol"),
            ("mask-max", "--allow-plain --mask-max 64"),
            ("tls-skew", "--tls-skew 600,3 --tls-hybrid on"),
            ("tls-hybrid", "--tls-hybrid on"),
            ("allow-plain", "--allow-plain"),
        ];
        for (flag, flags) in cases {
            let wanted = format!("--{flag}: {NEEDS_DOMAIN}");
            let wanted = UsageError::new(wanted);
            for secrets in ["", &format!("-S {A}"), &format!("-S dd{A}")] {
                let error = try_run(&format!("-H 1 {secrets} {flags}")).unwrap_err();
                assert_eq!(error, wanted, "{secrets}");
            }
            // The secret file may still have one.
            let later = try_run(&format!("-H 1 --secret-file f {flags}")).unwrap();
            assert_eq!(later.needs_domain, Some(flag));
            for secrets in [format!("-S ee{A}612e62"), format!("-S {A} -D a.b")] {
                let config = try_run(&format!("-H 1 {secrets} {flags}")).unwrap();
                assert_eq!(config.needs_domain, None);
            }
        }
        let error = try_run(&format!("-H 1 -S {A} -D a.b --mask-proxy-protocol")).unwrap_err();
        assert!(
            error
                .text
                .starts_with("--mask-proxy-protocol: goes with --mask")
        );
    }

    #[test]
    fn fake_tls_needs_a_secret() {
        for line in [
            "-H 1 -D a.b f",
            "-D a.b --open",
            "-H 1 -D a.b --open --direct f",
        ] {
            let error = try_run(line).unwrap_err();
            assert!(
                error.code == 2 && error.text.starts_with("-D/--domain: "),
                "{error}"
            );
        }
        for line in [
            "-D a.b",
            "-D a.b --direct f",
            "-H 1 --secret-file s -D a.b f",
            &format!("-H 1 -S {A} -D a.b f"),
            &format!("-H 1 -S ee{A}612e62 f"),
        ] {
            assert!(!try_run(line).unwrap().open, "{line}");
        }
    }

    #[test]
    fn no_window_clamp_unless_asked_for() {
        assert_eq!(config("").window_clamp, 131_072);
        assert_eq!(config("-D a.b").window_clamp, 0);
        assert_eq!(config("-D a.b -W 65536").window_clamp, 65_536);
        let ee = format!("-H 1 -S ee{A}612e62");
        assert_eq!(try_run(&ee).unwrap().window_clamp, 0);
    }
}
