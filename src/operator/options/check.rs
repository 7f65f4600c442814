//! The rules that involve several flags; the first that is broken is told. Called when the whole command line has been read; what
//! depends on a file's text is left to whoever reads that file.

use super::config::{Command, Config, Front, UsageError};
use mtproxy::limits::{CLIENT_PORT, LINK_PORT};

/// Flags that do nothing without a domain, by their long names.
const FAKE_TLS: &[&str] = &[
    "mask",
    "mask-proxy-protocol",
    "mask-max",
    "tls-skew",
    "tls-hybrid",
    "allow-plain",
    "any-sni",
    "mask-private",
];

/// `run`, with a port where none is needed: a secret is made up, and 443 would take privileges.
pub fn run(mut config: Config) -> Result<Command, UsageError> {
    let listens =
        config.first_port().is_some() || config.listens_elsewhere() || !config.web.is_empty();
    if !listens && config.is_direct() && !config.has_secrets() {
        config.ports.push(CLIENT_PORT);
    }
    let text = if config.qr {
        "--qr: only for mtproxy link; a start shows it with the links"
    } else if config.open && config.has_secrets() {
        "--open: goes neither with -S nor with --secret-file"
    } else if config.ad_tag.is_some() && config.is_direct() {
        "-P/--proxy-tag: only middle proxies show a sponsored channel: it needs a configuration \
         file and goes without --direct"
    } else if !listens && config.ports.is_empty() {
        "-H/--http-ports: expected at least one port for clients, for example -H 443"
    } else {
        check_both(&config)?;
        if config.no_stats {
            (config.http_stats, config.stats_ports) = (false, None);
        }
        return Ok(Command::Run(Box::new(config)));
    };
    Err(UsageError::new(text))
}

/// `link`, which shows what `run` with the same flags would serve.
pub fn link(mut config: Config) -> Result<Command, UsageError> {
    if config.first_port().is_none() && config.web.is_empty() {
        config.ports.push(LINK_PORT);
    }
    let text = if !config.has_secrets() {
        "link: expected the secret of the proxy, -S SECRET or --secret-file FILE"
    } else if config.first_port() == Some(0) {
        "link: expected the port of the proxy, got -H 0"
    } else {
        check_both(&config)?;
        return Ok(Command::Link(Box::new(config)));
    };
    Err(UsageError::new(text))
}

/// `service` of a web server in front.
pub fn front(front: Front, config: Config) -> Result<Command, UsageError> {
    match config.web.is_empty() {
        true => Err(UsageError::new("service: expected --web HOST too")),
        false => Ok(Command::Front(front, Box::new(config))),
    }
}

/// What holds for both.
fn check_both(config: &Config) -> Result<(), UsageError> {
    let text = if config.ipv6 && config.address.is_some_and(|address| address.is_ipv4()) {
        "--address: with -6 an IPv6 address is listened on: give one, or leave out -6"
    } else if !config.domains.is_empty() && config.is_open() {
        "-D/--domain: who doesn't know the secret is taken to the site of the domain: it needs -S \
         or --secret-file and goes without --open"
    } else if config.mask_proxy_protocol && config.mask.is_none() {
        "--mask-proxy-protocol: goes with --mask: only a server that is set up for this header \
         can be sent it"
    } else if !config.proxy_protocol && !config.fronts.is_empty() {
        "--proxy-protocol-from: expected --proxy-protocol too"
    } else if !config.web.is_empty() && config.is_open() {
        "--web: a page opens to those who know a secret: it needs -S or --secret-file and goes without --open"
    } else if config.web.is_empty() && (config.web_listen.is_some() || !config.web_nets.is_empty())
    {
        "--web-listen and --web-trust: expected --web too"
    } else if !config.http_stats && !config.stats_nets.is_empty() {
        "--stats-allow-net: expected --http-stats too, with -p"
    } else if config.http_stats && config.stats_ports.is_none() {
        // The C program's text and exit code.
        let text = "fatal: port isn't defined".into();
        return Err(UsageError { text, code: 1 });
    } else {
        // The secret file may still have a domain.
        let may_come = config.secret_file.is_some();
        return needs_domain(config, may_come || config.has_domain()).map_err(UsageError::new);
    };
    Err(UsageError::new(text))
}

/// Refuses flags that do nothing, unless there is a domain.
pub fn needs_domain(config: &Config, has_domain: bool) -> Result<(), String> {
    match FAKE_TLS.iter().find(|flag| config.given.contains(flag)) {
        Some(flag) if !has_domain => Err(format!(
            "--{flag}: is for fake TLS only: it needs -D DOMAIN or an ee secret"
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::options::parse;
    use std::ffi::OsString;

    const A: &str = "00112233445566778899aabbccddeeff";

    fn try_run(line: &str) -> Result<Config, UsageError> {
        match parse(line.split_whitespace().map(OsString::from)) {
            Ok(Command::Run(config)) => Ok(*config),
            Ok(other) => panic!("{line}: {other:?}"),
            Err(error) => Err(error),
        }
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
            let wanted =
                format!("--{flag}: is for fake TLS only: it needs -D DOMAIN or an ee secret");
            let wanted = UsageError::new(wanted);
            for secrets in ["", &format!("-S {A}"), &format!("-S dd{A}")] {
                let error = try_run(&format!("-H 1 {secrets} {flags}")).unwrap_err();
                assert_eq!(error, wanted, "{secrets}");
            }
            // The secret file may still have one.
            let later = try_run(&format!("-H 1 --secret-file f {flags}")).unwrap();
            assert_eq!(needs_domain(&later, false), Err(wanted.text.clone()));
            assert_eq!(needs_domain(&later, true), Ok(()));
            for secrets in [format!("-S ee{A}612e62"), format!("-S {A} -D a.b")] {
                assert!(try_run(&format!("-H 1 {secrets} {flags}")).is_ok());
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
                "{error:?}"
            );
        }
        for line in [
            "-D a.b",
            "-D a.b --direct f",
            "-H 1 --secret-file s -D a.b f",
            &format!("-H 1 -S {A} -D a.b f"),
            &format!("-H 1 -S ee{A}612e62 f"),
        ] {
            assert!(!try_run(line).unwrap().is_open(), "{line}");
        }
    }

    #[test]
    fn a_place_to_listen_is_as_good_as_a_port() {
        for (flags, ports, first) in [
            ("--listen 127.0.0.1:9", vec![], Some(9)),
            ("--listen /s", vec![], None),
            ("--listen /s --listen [::1]:9 -H 7", vec![7], Some(7)),
        ] {
            for secret in ["", &format!("-S {A}")] {
                let config = try_run(&format!("{flags} {secret}")).unwrap();
                assert_eq!((config.first_port(), config.ports), (first, ports.clone()));
            }
        }
        assert!(try_run(&format!("-S {A}")).is_err());
    }

    #[test]
    fn no_window_clamp_unless_asked_for() {
        for (flags, wanted) in [
            (format!("-S {A}"), 131_072),
            (format!("-S {A} -D a.b"), 0),
            (format!("-S {A} -D a.b -W 65536"), 65_536),
            (format!("-S ee{A}612e62"), 0),
        ] {
            let config = try_run(&format!("-H 1 {flags}")).unwrap();
            assert_eq!(config.window_clamp(), wanted, "{flags}");
        }
    }

    #[test]
    fn where_connections_to_telegram_come_from() {
        for (flags, wanted) in [
            ("", None),
            ("--address 192.0.2.1", Some("192.0.2.1")),
            ("--address 2001:db8::1", Some("2001:db8::1")),
            ("-6 --address [2001:db8::1]", Some("2001:db8::1")),
            ("--address 127.0.0.1", None),
            ("--address ::1", None),
            ("--address ::ffff:127.0.0.1", None),
            ("--address 127.0.0.1 --source 127.0.0.2", Some("127.0.0.2")),
            (
                "--address 192.0.2.1 --source 2001:db8::2",
                Some("2001:db8::2"),
            ),
        ] {
            let config = try_run(&format!("-H 1 -S {A} {flags}")).unwrap();
            let source = config.source().map(|ip| ip.to_string());
            assert_eq!(source.as_deref(), wanted, "{flags}");
        }
        for (line, code, text) in [
            ("-6 --address 192.0.2.1", 2, "--address: with -6"),
            (
                "--address 192.0.2.1:80",
                4,
                "--address: expected an IP address",
            ),
            ("--source h", 2, "--source: expected an IP address"),
        ] {
            let error = try_run(&format!("-H 1 -S {A} {line}")).unwrap_err();
            assert!(
                error.code == code && error.text.starts_with(text),
                "{error:?}"
            );
        }
    }
}
