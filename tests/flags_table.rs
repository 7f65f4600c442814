//! Every flag that the help shows, one row each: its spellings are accepted with a good value, a bad one is an
//! error that names the flag, and one without effect says so. The C program's flags are all there, with the
//! letters and the kinds of value that its command line has.

use crate::support::proxy::run_to_end;
use std::collections::BTreeSet;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// Long name, a good value, a bad one, and flags that it needs beside it. A flag without a value has none of
/// these; one that may go without it has them behind `=`.
const ROWS: &[(&str, &str, &str, &str)] = &[
    ("ipv6", "", "", ""),
    ("max-special-connections", "5", "0", ""),
    ("domain", "example.org", "a/b", ""),
    ("http-ports", "1,65535", "70000", ""),
    ("slaves", "256", "257", ""),
    ("proxy-tag", SECRET, "00", ""),
    ("random-padding-only", "", "", ""),
    (
        "mtproto-secret",
        "fedcba9876543210fedcba9876543210",
        "0123",
        "",
    ),
    ("ping-interval", "0.5", "soon", ""),
    ("window-clamp", "0", "wide", ""),
    ("backlog", "1", "0", ""),
    ("connections", "7", "-1", ""),
    ("daemonize", "0", "x", ""),
    ("log", "file", "", ""),
    ("port", "1:2", "2:1", ""),
    ("user", "nobody", "", ""),
    ("verbosity", "2", "x", ""),
    ("address", "192.0.2.1", "192.0.2.1:80", ""),
    ("aes-pwd", "file", "", ""),
    ("allow-plain", "", "", "-D a.b"),
    ("allow-skip-dh", "", "", ""),
    ("any-sni", "", "", "-D a.b"),
    ("cpu-threads", "8", "all", ""),
    ("chroot", "/", "", ""),
    ("config", "/dev/null", "", ""),
    ("crc32c", "", "", ""),
    ("dc-override", "2:h:1", "2:h", ""),
    ("dc-probe-interval", "30", "often", ""),
    ("direct", "", "", ""),
    ("disable-tcp", "", "", ""),
    ("drain", "0", "soon", ""),
    ("force-dh", "", "", ""),
    ("fwmark", "0x2a", "0", ""),
    ("http-stats", "", "", "-p 1"),
    ("io-threads", "16", "1.5", ""),
    ("ip-allowlist", "file", "", ""),
    ("ip-blocklist", "file", "", ""),
    ("listen", "[::1]:8443", "h:1", ""),
    ("mask", "h:1", "h", "-D a.b"),
    ("mask-max", "1", "many", "-D a.b"),
    ("mask-private", "", "", "-D a.b"),
    ("mask-proxy-protocol", "", "", "-D a.b --mask h:1"),
    ("max-accept-rate", "100", "fast", ""),
    ("max-dh-accept-rate", "100", "-1", ""),
    ("max-unauthenticated", "2", "1", ""),
    ("msg-buffers-size", "1g", "1x", ""),
    ("multithread", "1", "many", ""),
    ("nat-info", "10.0.0.1:192.0.2.1", "10.0.0.1", ""),
    ("nice", "-20", "20", ""),
    ("no-fallback", "", "", ""),
    ("no-sandbox", "", "", ""),
    ("open", "", "", ""),
    ("prefer-ipv6", "", "", ""),
    ("print-links", "", "", ""),
    ("proxy-config", "file", "", ""),
    ("proxy-protocol", "", "", ""),
    (
        "proxy-protocol-from",
        "10.0.0.0/8",
        "10.0.0.1/8",
        "--proxy-protocol",
    ),
    ("qr", "", "", "--server h"),
    ("reuse-port", "", "", ""),
    ("secret-file", "/dev/null", "", ""),
    ("server", "example.org", "h:1", ""),
    ("socks5", "me:password@h:1", "h", ""),
    ("source", "192.0.2.1", "h", ""),
    ("state", "file", "", ""),
    (
        "stats-allow-net",
        "10.0.0.0/8",
        "10.0.0.0/33",
        "-p 1 --http-stats",
    ),
    ("tcp-cpu-threads", "1", "", ""),
    ("tcp-iothreads", "1", "one", ""),
    ("tls-hybrid", "off", "maybe", "-D a.b"),
    ("tls-skew", "600,3", "600,soon", "-D a.b"),
    ("web", "a.b/c", "localhost", ""),
    ("web-listen", "[::1]:81", "h:1", "--web a.b"),
    ("web-trust", "10.0.0.0/8", "10.1.0.0/8", "--web a.b"),
];

/// These end the command line.
const INSTEAD: [&str; 2] = ["help", "version"];

const WITHOUT_EFFECT: &str = "allow-skip-dh cpu-threads crc32c dc-probe-interval io-threads max-dh-accept-rate \
                              multithread tcp-cpu-threads tcp-iothreads";

/// The C program's flags (protocol.md 9), with `=` where a value is needed and `?` where it may be left out.
const OF_C: &str = "-6 ipv6 -C max-special-connections= -D domain= -H http-ports= -M slaves= -P proxy-tag= \
                    -S mtproto-secret= -T ping-interval= -W window-clamp= -b backlog= -c connections= \
                    -d daemonize? -h help -l log= -p port= -u user= -v verbosity? aes-pwd= nice= \
                    msg-buffers-size= disable-tcp crc32c cpu-threads= io-threads= multithread? \
                    tcp-cpu-threads= tcp-iothreads= allow-skip-dh force-dh max-accept-rate= \
                    max-dh-accept-rate= nat-info= address= http-stats";

#[derive(Clone, Copy, PartialEq, Debug)]
enum Kind {
    Alone,
    Optional,
    Value,
}

/// A flag as the help shows it.
struct Shown {
    letter: Option<char>,
    long: String,
    kind: Kind,
    help: String,
}

#[test]
fn every_flag_has_a_row_here_and_every_row_a_flag() {
    let shown = shown();
    let in_help: BTreeSet<&str> = shown.iter().map(|flag| flag.long.as_str()).collect();
    let here = ROWS.iter().map(|row| row.0).chain(INSTEAD).collect();
    assert_eq!(in_help, here);
    for flag in &shown {
        let says_so = flag.help.starts_with("no effect: ");
        let has_none = WITHOUT_EFFECT.split(' ').any(|long| long == flag.long);
        assert_eq!(says_so, has_none, "--{}: {}", flag.long, flag.help);
    }
}

#[test]
fn the_flags_of_the_c_program_are_all_there() {
    let shown = shown();
    let mut letter = None;
    for word in OF_C.split(' ') {
        if let Some(short) = word.strip_prefix('-') {
            letter = short.chars().next();
            continue;
        }
        let kind = match word.chars().last() {
            Some('=') => Kind::Value,
            Some('?') => Kind::Optional,
            _ => Kind::Alone,
        };
        let long = word.trim_end_matches(['=', '?']);
        let flag = shown.iter().find(|flag| flag.long == long);
        let flag = flag.unwrap_or_else(|| panic!("no --{long}"));
        assert_eq!((flag.letter, flag.kind), (letter.take(), kind), "--{long}");
    }
}

#[test]
fn every_spelling_is_accepted() {
    let shown = shown();
    for (long, good, _, beside) in ROWS {
        let flag = find(&shown, long);
        let short = shortest(&shown, long);
        let mut spellings = match flag.kind {
            Kind::Alone => vec![format!("--{long}"), format!("--{short}")],
            Kind::Optional => vec![
                format!("--{long}"),
                format!("--{long}={good}"),
                format!("--{short}={good}"),
            ],
            Kind::Value => vec![
                format!("--{long} {good}"),
                format!("--{long}={good}"),
                format!("--{short}={good}"),
            ],
        };
        if let Some(letter) = flag.letter {
            spellings.extend(match flag.kind {
                Kind::Value => vec![format!("-{letter} {good}"), format!("-6{letter}{good}")],
                _ => vec![format!("-{letter}"), format!("-6{letter}")],
            });
        }
        for spelling in spellings {
            // An IPv4 address doesn't go with -6, nor -R twice; all is parsed before that.
            let line = format!("link -S {SECRET} {beside} {spelling}");
            let refusal = run(&line);
            let is_fine = refusal.code == Some(0)
                || (spelling.starts_with("-6") && refusal.text.contains("with -6"));
            // A secret file that holds none is found empty, after all flags.
            let is_read = *long == "secret-file" && refusal.code == Some(1);
            assert!(is_fine || is_read, "{line}: {}", refusal.text);
        }
    }
    for (line, code) in [
        ("-h", 2),
        ("--help", 2),
        ("--he", 2),
        ("--version", 0),
        ("--vers", 0),
    ] {
        assert_eq!(run(line).code, Some(code), "{line}");
    }
}

#[test]
fn every_bad_value_is_an_error_that_names_the_flag() {
    let shown = shown();
    for (long, _, bad, beside) in ROWS {
        let flag = find(&shown, long);
        let (value, what) = match flag.kind {
            Kind::Alone => ("x", "takes no value"),
            // A secret is not repeated, and a file's name that is one isn't either.
            _ => (*bad, "expected "),
        };
        let line = format!("link -S {SECRET} {beside} --{long}={value}");
        let refusal = run(&line);
        let code = if *long == "address" { 4 } else { 2 };
        assert_eq!(refusal.code, Some(code), "{line}: {}", refusal.text);
        let label = match flag.letter {
            Some(letter) => format!("mtproxy: -{letter}/--{long}: {what}"),
            None => format!("mtproxy: --{long}: {what}"),
        };
        assert!(refusal.text.contains(&label), "{label}: {}", refusal.text);
    }
    for flag in shown.iter().filter(|flag| flag.kind == Kind::Value) {
        let line = format!("link -S {SECRET} --{}", flag.long);
        let wanted = format!("--{}: expected a value", flag.long);
        let refusal = run(&line);
        assert_eq!(refusal.code, Some(2), "{line}");
        assert!(refusal.text.contains(&wanted), "{line}: {}", refusal.text);
    }
}

fn run(line: &str) -> crate::support::proxy::Refusal {
    run_to_end(&line.split_whitespace().collect::<Vec<_>>())
}

/// The entries of the help: a line `  -x, --long VALUE`, and behind it the text, eight columns in.
fn shown() -> Vec<Shown> {
    let help = run("--help").text;
    let mut all: Vec<Shown> = Vec::new();
    for line in help.lines() {
        let indent = line.len() - line.trim_start().len();
        let text = line.trim_start();
        if (indent == 2 || indent == 6) && text.starts_with('-') {
            let (letter, spelling) = match text.split_once(", ") {
                Some((letter, spelling)) => (letter.chars().nth(1), spelling),
                None => (None, text),
            };
            let end = spelling.find([' ', '[']).unwrap_or(spelling.len());
            let kind = match spelling.as_bytes().get(end) {
                None => Kind::Alone,
                Some(b'[') => Kind::Optional,
                Some(_) => Kind::Value,
            };
            all.push(Shown {
                letter,
                long: spelling[2..end].to_owned(),
                kind,
                help: String::new(),
            });
        } else if let Some(flag) = all.last_mut() {
            flag.help += text;
            flag.help.push(' ');
        }
    }
    assert!(all.len() > 50, "{help}");
    all
}

fn find<'a>(shown: &'a [Shown], long: &str) -> &'a Shown {
    let flag = shown.iter().find(|flag| flag.long == long);
    flag.unwrap_or_else(|| panic!("no --{long} in the help"))
}

/// The shortest beginning of a name that means only it.
fn shortest<'a>(shown: &[Shown], long: &'a str) -> &'a str {
    let is_unique = |short: &str| {
        let meant = shown.iter().filter(|flag| flag.long.starts_with(short));
        meant.count() == 1
    };
    let lengths = (1..long.len()).map(|length| &long[..length]);
    lengths
        .into_iter()
        .find(|short| is_unique(short))
        .unwrap_or(long)
}
