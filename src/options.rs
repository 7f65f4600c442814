//! The command line: one table of flags, and the two stages from what was typed to a checked
//! [`Config`].
//!
//! `main` calls [`parse`] and, for `Help`, [`help`]; nothing here looks at files or the system. A
//! flag is one row of the table in `flags`; its value is judged in `values` and kept in [`Typed`].
//! What involves several flags is checked once, in [`check`].
//!
//! Answers to the C proxy's `server-functions.c` and `f_parse_option`, with getopt_long's rules:
//! long names may be shortened while unique, values are `--x=v`, `--x v`, `-x v` or `-xv`, short
//! flags may be glued, an optional value is only `--x=v`. C reads wrong numbers as 0 or cuts them
//! off; here they are errors. Values of -S are never repeated in an error, nor those of -P, where a
//! secret may land by mistake.

mod flags;
mod values;

pub use flags::help;

use flags::{Apply, find_long, find_short};
use lexopt::Arg;
use mtproxy::limits;
use mtproxy::proto::secret::Secret;
use mtproxy::proto::wire::AdTag;
use std::ffi::OsString;
use std::fmt;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

/// What the command line asks for.
#[derive(Debug)]
pub enum Command {
    /// Serve.
    Run(Box<Config>),
    /// Print [`help`] on stderr, exit 2 as C does.
    Help,
    /// Print `mtproxy VERSION` on stdout, exit 0.
    Version,
}

/// A wrong command line.
#[derive(Debug, PartialEq, Eq)]
pub struct UsageError {
    /// What is wrong, naming flag, value and what was expected; never a secret.
    pub text: String,
    /// The exit code: 2, with the C proxy's exceptions.
    pub code: u8,
}

impl UsageError {
    fn new(text: String) -> UsageError {
        UsageError { text, code: 2 }
    }
}

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A checked command line.
#[derive(Debug, PartialEq)]
pub struct Config {
    /// -H: 1 to 128 ports for clients, none twice but 0, for which the kernel chooses.
    pub ports: Vec<u16>,
    /// -6: listen on IPv6 and mapped IPv4.
    pub ipv6: bool,
    /// --address: listen here (without -6), and dial middle proxies from here.
    pub address: Option<Ipv4Addr>,
    /// -S: at most 16, none twice, in the order given. Empty: open to everybody, raw keys.
    pub secrets: Vec<Secret>,
    /// -R: only the padded intermediate transport.
    pub padded_only: bool,
    /// -P
    pub ad_tag: Option<AdTag>,
    /// The positional argument.
    pub config_file: PathBuf,
    /// --aes-pwd, or `secret`.
    pub aes_pwd: PathBuf,
    /// Whether --aes-pwd was given: only then a missing file is an error.
    pub aes_pwd_given: bool,
    /// -C: at least 1.
    pub max_clients: Option<u32>,
    /// -c: at least 1.
    pub connections: Option<u32>,
    /// -M as it is used: 1 to 16 connections for each set of targets.
    pub slots_per_set: usize,
    /// -M as it was given, 0 to 256.
    pub slots_asked: u32,
    /// -T: 1 s to 1 h.
    pub ping_interval: Duration,
    /// -W: bytes, 0 for none.
    pub window_clamp: u32,
    /// -b: at least 1.
    pub backlog: i32,
    /// -p: the first port of these that is free; 0..=0 lets the kernel choose.
    pub stats_ports: Option<RangeInclusive<u16>>,
    /// --http-stats; then `stats_ports` is there.
    pub http_stats: bool,
    /// -u: not empty.
    pub user: Option<String>,
    /// -v
    pub verbosity: u32,
    /// --nat-info: at most 16 pairs of local and global address.
    pub nat_rules: Vec<(Ipv4Addr, Ipv4Addr)>,
    /// --msg-buffers-size: at least 1 byte.
    pub buffer_bytes: Option<u64>,
}

/// Parses a command line, given without the program's name. Flags and the configuration file may
/// come in any order; the first error, or the first flag that asks for something else than to
/// serve, ends it.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Command, UsageError> {
    let mut parser = lexopt::Parser::from_args(args);
    parser.set_short_equals(false);
    let mut typed = Typed::default();
    loop {
        let arg = match parser.next() {
            Ok(Some(arg)) => arg,
            Ok(None) => break,
            Err(error) => return Err(UsageError::new(error.to_string())),
        };
        let (flag, long) = match arg {
            Arg::Value(value) => {
                typed.files.push(value);
                continue;
            }
            Arg::Long(name) => (find_long(name)?, true),
            Arg::Short(letter) => (find_short(letter)?, false),
        };
        let value = match (&flag.apply, long) {
            (Apply::Alone(_), false) | (Apply::Optional(_), false) => None,
            (Apply::Alone(_) | Apply::Optional(_), true) => parser.optional_value(),
            (Apply::Value(_), _) => parser.value().ok(),
        };
        flag.apply(&mut typed, value)?;
        if let Some(command) = typed.instead.take() {
            return Ok(command);
        }
    }
    check(typed).map(|config| Command::Run(Box::new(config)))
}

/// What was typed, value by value; what was not given is None or empty.
#[derive(Default)]
struct Typed {
    instead: Option<Command>,
    files: Vec<OsString>,
    ports: Vec<u16>,
    ipv6: bool,
    address: Option<Ipv4Addr>,
    secrets: Vec<Secret>,
    padded_only: bool,
    ad_tag: Option<AdTag>,
    aes_pwd: Option<PathBuf>,
    max_clients: Option<u32>,
    connections: Option<u32>,
    slots: u32,
    ping_interval: Option<Duration>,
    window_clamp: Option<u32>,
    backlog: Option<i32>,
    stats_ports: Option<RangeInclusive<u16>>,
    http_stats: bool,
    user: Option<String>,
    verbosity: u32,
    nat_rules: Vec<(Ipv4Addr, Ipv4Addr)>,
    buffer_bytes: Option<u64>,
}

/// The second stage: what only shows when everything is typed, and the defaults.
fn check(typed: Typed) -> Result<Config, UsageError> {
    let given = typed.files.len();
    let mut files = typed.files.into_iter();
    let (Some(config_file), None) = (files.next(), files.next()) else {
        // The arguments are not repeated: one may be a secret that lost its -S.
        let text = format!("expected one configuration file, got {given}\n{}", help());
        return Err(UsageError::new(text));
    };
    if typed.ports.is_empty() {
        let text = "-H/--http-ports: expected at least one port for clients, for example -H 443";
        return Err(UsageError::new(text.into()));
    }
    if typed.http_stats && typed.stats_ports.is_none() {
        let text = "fatal: port isn't defined".into();
        return Err(UsageError { text, code: 1 });
    }
    let slots_per_set = match usize::try_from(typed.slots) {
        Ok(0) => limits::DEFAULT_SLOTS,
        Ok(slots) => slots.min(limits::MAX_SLOTS),
        Err(_) => limits::MAX_SLOTS,
    };
    Ok(Config {
        ports: typed.ports,
        ipv6: typed.ipv6,
        address: typed.address,
        secrets: typed.secrets,
        padded_only: typed.padded_only,
        ad_tag: typed.ad_tag,
        config_file: config_file.into(),
        aes_pwd_given: typed.aes_pwd.is_some(),
        aes_pwd: typed.aes_pwd.unwrap_or("secret".into()),
        max_clients: typed.max_clients,
        connections: typed.connections,
        slots_per_set,
        slots_asked: typed.slots,
        ping_interval: typed.ping_interval.unwrap_or(limits::PING_INTERVAL),
        window_clamp: typed.window_clamp.unwrap_or(WINDOW_CLAMP),
        backlog: typed.backlog.unwrap_or(BACKLOG),
        stats_ports: typed.stats_ports,
        http_stats: typed.http_stats,
        user: typed.user,
        verbosity: typed.verbosity,
        nat_rules: typed.nat_rules,
        buffer_bytes: typed.buffer_bytes,
    })
}

/// -W's default, bytes. C: the same.
const WINDOW_CLAMP: u32 = 131_072;
/// -b's default. C: the same.
const BACKLOG: i32 = 8192;

#[cfg(test)]
mod tests {
    use super::flags::FLAGS;
    use super::*;

    const A: &str = "00112233445566778899aabbccddeeff";
    const B: &str = "ffeeddccbbaa99887766554433221100";

    /// Parses words as they are.
    fn parse_words(words: &[&str]) -> Result<Command, UsageError> {
        parse(words.iter().map(OsString::from))
    }

    /// Parses flags together with what every command line needs.
    fn config(flags: &str) -> Config {
        let line = format!("-H 443 {flags} file");
        let words: Vec<&str> = line.split(' ').filter(|word| !word.is_empty()).collect();
        match parse_words(&words) {
            Ok(Command::Run(config)) => *config,
            other => panic!("{flags}: {other:?}"),
        }
    }

    fn error(flags: &str) -> UsageError {
        let line = format!("-H 443 {flags} file");
        let words: Vec<&str> = line.split(' ').filter(|word| !word.is_empty()).collect();
        match parse_words(&words) {
            Err(error) => error,
            Ok(other) => panic!("{flags}: {other:?}"),
        }
    }

    /// Asserts that each of these is exit 2 with exactly this text.
    fn assert_errors(cases: &[(&str, &str)]) {
        for (flags, text) in cases {
            let wanted = UsageError::new((*text).into());
            assert_eq!(error(flags), wanted, "{flags}");
        }
    }

    fn ip(text: &str) -> Ipv4Addr {
        text.parse().unwrap()
    }

    #[test]
    fn defaults() {
        let wanted = Config {
            ports: vec![443],
            ipv6: false,
            address: None,
            secrets: vec![],
            padded_only: false,
            ad_tag: None,
            config_file: "file".into(),
            aes_pwd: "secret".into(),
            aes_pwd_given: false,
            max_clients: None,
            connections: None,
            slots_per_set: 2,
            slots_asked: 0,
            ping_interval: Duration::from_secs(60),
            window_clamp: 131_072,
            backlog: 8192,
            stats_ports: None,
            http_stats: false,
            user: None,
            verbosity: 0,
            nat_rules: vec![],
            buffer_bytes: None,
        };
        assert_eq!(config(""), wanted);
    }

    #[test]
    fn each_flag_takes_good_values() {
        assert!(config("-6").ipv6 && config("--ipv6").ipv6);
        assert_eq!(config("-C 1").max_clients, Some(1));
        assert_eq!(config("-C 2147483647").max_clients, Some(2_147_483_647));
        assert_eq!(
            config("-P AABBccdd00112233445566778899aabb")
                .ad_tag
                .unwrap()
                .0[..3],
            [0xaa, 0xbb, 0xcc]
        );
        assert!(config("-R").padded_only);
        assert_eq!(config("-T 1").ping_interval, Duration::from_secs(1));
        assert_eq!(config("-T 1.5").ping_interval, Duration::from_millis(1500));
        assert_eq!(config("-T 3600").ping_interval, Duration::from_secs(3600));
        assert_eq!(config("-W 0").window_clamp, 0);
        assert_eq!(config("-W 65536").window_clamp, 65_536);
        assert_eq!(config("-b 1").backlog, 1);
        assert_eq!(config("-b 2147483647").backlog, i32::MAX);
        assert_eq!(config("-c 1024").connections, Some(1024));
        assert_eq!(config("-u nobody").user.as_deref(), Some("nobody"));
        assert_eq!(config("--address 192.0.2.1").address, Some(ip("192.0.2.1")));
        assert_eq!(
            config("--address 192.0.2.1 -6").address,
            Some(ip("192.0.2.1"))
        );
        let given = config("--aes-pwd secret");
        assert!(given.aes_pwd_given && given.aes_pwd == *"secret");
    }

    #[test]
    fn slots() {
        for (asked, used) in [(0, 2), (1, 1), (2, 2), (16, 16), (17, 16), (256, 16)] {
            let config = config(&format!("-M {asked}"));
            assert_eq!((config.slots_asked, config.slots_per_set), (asked, used));
        }
    }

    #[test]
    fn client_ports() {
        let ports = |words: &[&str]| match parse_words(words) {
            Ok(Command::Run(config)) => config.ports,
            other => panic!("{other:?}"),
        };
        assert_eq!(ports(&["-H", "443,80,65535", "f"]), [443, 80, 65535]);
        assert_eq!(ports(&["-H0,0", "f"]), [0, 0]);
        assert_eq!(ports(&["-H", "1", "f", "-H", "2"]), [1, 2]);
        let list = |count: usize| {
            (1..=count)
                .map(|p| p.to_string())
                .collect::<Vec<_>>()
                .join(",")
        };
        assert_eq!(ports(&["-H", &list(128), "f"]).len(), 128);
        let error = parse_words(&["-H", &list(129), "f"]).unwrap_err();
        assert!(
            error
                .text
                .starts_with("-H/--http-ports: expected at most 128 ports, got \"1,2")
        );
        let what = "-H/--http-ports: expected ports from 1 to 65535 with commas between (0: the kernel chooses), got";
        for wrong in [
            "", "65536", "-1", "80,", ",80", "80 81", "+80", "http", "80-90",
        ] {
            let error = parse_words(&["-H", wrong, "f"]).unwrap_err();
            assert_eq!(error, UsageError::new(format!("{what} {wrong:?}")));
        }
        let error = parse_words(&["-H", "443,80,443", "f"]).unwrap_err();
        assert_eq!(
            error.text,
            "-H/--http-ports: expected port 443 only once, got \"443,80,443\""
        );
        let error = parse_words(&["f"]).unwrap_err();
        assert!(error.code == 2 && error.text.contains("-H 443"), "{error}");
    }

    #[test]
    fn secrets() {
        let secrets = config(&format!("-S {A} -S dd{B}")).secrets;
        assert_eq!(
            secrets,
            [Secret::parse(A).unwrap(), Secret::parse(B).unwrap()]
        );
        let many = |count: usize| {
            (0..count)
                .map(|i| format!("-S {i:032x} "))
                .collect::<String>()
        };
        assert_eq!(config(&many(16)).secrets.len(), 16);
        assert_errors(&[
            (
                &many(17),
                "-S/--mtproto-secret: expected at most 16 secrets",
            ),
            (
                &format!("-S {B} -S {A} -S dd{A}"),
                "-S/--mtproto-secret: number 3 is the same secret as number 2",
            ),
            (
                "-S 0123",
                "-S/--mtproto-secret: expected 32 hexadecimal digits, or dd and 32 hexadecimal digits, got 4 characters",
            ),
        ]);
    }

    #[test]
    fn no_error_repeats_a_secret() {
        let part = "5566778899";
        for flags in [
            format!("-S {A}0"),
            format!("-S {A} -S {A}"),
            format!("-P {A}0"),
            format!("{A} {B}"),
            format!("--ipv6={A}"),
            format!("--mtproto-secre={A}z"),
            format!("--secret={A}"),
            format!("--{A}"),
            format!("-R={A}"),
        ] {
            let error = error(&flags);
            assert!(!error.text.contains(part), "{error}");
        }
        let config = format!("{:?}", config(&format!("-S {A}")));
        assert!(
            !config.contains(part) && !config.contains("85, 102"),
            "{config}"
        );
    }

    #[test]
    fn stats_port() {
        assert_eq!(config("-p 8888").stats_ports, Some(8888..=8888));
        assert_eq!(config("-p 0").stats_ports, Some(0..=0));
        assert_eq!(config("-p 1:65535").stats_ports, Some(1..=65535));
        assert_eq!(config("-p 7:7").stats_ports, Some(7..=7));
        assert!(config("-p 1 --http-stats").http_stats);
        let what = "-p/--port: expected a port up to 65535 (0: the kernel chooses), or a range FIRST:LAST, got";
        for wrong in ["65536", "8:7", "0:7", ":", "1:", ":1", "1:2:3", "x", "-1"] {
            let wanted = UsageError::new(format!("{what} {wrong:?}"));
            assert_eq!(error(&format!("-p {wrong}")), wanted);
        }
        let wanted = UsageError {
            text: "fatal: port isn't defined".into(),
            code: 1,
        };
        assert_eq!(error("--http-stats"), wanted);
    }

    #[test]
    fn nat_rules() {
        let rules = config("--nat-info 10.0.0.2:192.0.2.1 --nat-info=10.0.0.3:192.0.2.2").nat_rules;
        let second = (ip("10.0.0.3"), ip("192.0.2.2"));
        assert_eq!(rules, [(ip("10.0.0.2"), ip("192.0.2.1")), second]);
        let many = |count| "--nat-info 10.0.0.2:192.0.2.1 ".repeat(count);
        assert_eq!(config(&many(16)).nat_rules.len(), 16);
        assert_errors(&[
            (
                &many(17),
                "--nat-info: expected at most 16 rules, got \"10.0.0.2:192.0.2.1\"",
            ),
            (
                "--nat-info 10.0.0.2",
                "--nat-info: expected two IPv4 addresses, LOCAL:GLOBAL, got \"10.0.0.2\"",
            ),
            (
                "--nat-info a:1.2.3.4",
                "--nat-info: expected two IPv4 addresses, LOCAL:GLOBAL, got \"a:1.2.3.4\"",
            ),
        ]);
    }

    #[test]
    fn buffer_sizes() {
        for (text, bytes) in [
            ("1", 1),
            ("2k", 2048),
            ("3M", 3 << 20),
            ("8g", 8 << 30),
            ("1t", 1 << 40),
        ] {
            assert_eq!(
                config(&format!("--msg-buffers-size {text}")).buffer_bytes,
                Some(bytes)
            );
        }
        assert_eq!(
            config("--msg-buffers-size=8589934592").buffer_bytes,
            Some(8 << 30)
        );
        let what = "--msg-buffers-size: expected bytes as a number above 0, or one with k, m, g or t behind it, got";
        for wrong in [
            "0",
            "k",
            "-1",
            "+1",
            "1x",
            "1kk",
            "16777216t",
            "99999999999999999999",
            "1é",
        ] {
            let wanted = UsageError::new(format!("{what} {wrong:?}"));
            assert_eq!(error(&format!("--msg-buffers-size {wrong}")), wanted);
        }
    }

    #[test]
    fn wrong_numbers_name_flag_value_and_range() {
        let counts = "expected a number from 1 to 2147483647, got";
        for (flag, label) in [
            ("-C", "-C/--max-special-connections"),
            ("-b", "-b/--backlog"),
            ("-c", "-c/--connections"),
        ] {
            for wrong in [
                "0",
                "2147483648",
                "-1",
                "+1",
                "x",
                "1k",
                "99999999999999999999",
            ] {
                let wanted = UsageError::new(format!("{label}: {counts} {wrong:?}"));
                assert_eq!(error(&format!("{flag} {wrong}")), wanted);
            }
        }
        assert_errors(&[
            (
                "-W -1",
                "-W/--window-clamp: expected a number from 0 to 2147483647, got \"-1\"",
            ),
            (
                "-M 257",
                "-M/--slaves: expected a number from 0 to 256, got \"257\"",
            ),
            (
                "--verbosity=x",
                "-v/--verbosity: expected a number from 0 to 2147483647, got \"x\"",
            ),
            (
                "-P 00",
                "-P/--proxy-tag: expected 32 hexadecimal digits, got 2 characters",
            ),
            ("--user=", "-u/--user: expected a user's name, got \"\""),
            ("--aes-pwd=", "--aes-pwd: expected a file's name, got \"\""),
        ]);
        let what = "-T/--ping-interval: expected seconds from 1 to 3600, a fraction allowed, got";
        for wrong in [
            "0", "0.99", "3600.1", "-5", "inf", "NaN", "1e2", ".", "5s", "1.2.3",
        ] {
            let wanted = UsageError::new(format!("{what} {wrong:?}"));
            assert_eq!(error(&format!("-T {wrong}")), wanted);
        }
    }

    #[test]
    fn exit_codes() {
        let text = "--address: expected an IPv4 address, got \"::1\"".into();
        assert_eq!(error("--address ::1"), UsageError { text, code: 4 });
        assert!(matches!(
            parse_words(&["-h", "--nonsense"]),
            Ok(Command::Help)
        ));
        assert!(matches!(parse_words(&["--help"]), Ok(Command::Help)));
        assert!(matches!(parse_words(&["--version"]), Ok(Command::Version)));
        // What stands before is judged first.
        assert_eq!(parse_words(&["-M", "x", "-h"]).unwrap_err().code, 2);
        for words in [vec![], vec!["-H", "443"], vec!["-H", "443", "one", "two"]] {
            let error = parse_words(&words).unwrap_err();
            assert!(error.code == 2 && error.text.contains(&help()), "{words:?}");
            assert!(
                error
                    .text
                    .starts_with("expected one configuration file, got ")
            );
        }
    }

    #[test]
    fn getopt_forms() {
        assert_eq!(config("-C100").max_clients, Some(100));
        assert_eq!(config("-6C100").max_clients, Some(100));
        assert_eq!(config("--connections=7").connections, Some(7));
        assert_eq!(config("--connections 7").connections, Some(7));
        for (flags, verbosity) in [
            ("-v", 1),
            ("-vv", 2),
            ("-v -v", 2),
            ("-v6v", 2),
            ("--verbosity", 1),
        ] {
            assert_eq!(config(flags).verbosity, verbosity, "{flags}");
        }
        for (flags, verbosity) in [
            ("--verbosity=0", 0),
            ("--verbosity=9 -v", 10),
            ("-v --verbosity=2", 2),
        ] {
            assert_eq!(config(flags).verbosity, verbosity, "{flags}");
        }
        // An optional value is never the next word, nor glued to the letter.
        assert_eq!(parse_words(&["-H1", "-v", "3", "f"]).unwrap_err().code, 2);
        assert_eq!(error("-v3").text, "unknown flag -3; --help lists all");
        // The last one wins, as in C.
        assert_eq!(config("-C 1 -C 2").max_clients, Some(2));
        let Ok(Command::Run(config)) = parse_words(&["-H1", "--", "-v"]) else {
            panic!()
        };
        assert_eq!((config.config_file, config.verbosity), ("-v".into(), 0));
        let Ok(Command::Run(config)) = parse_words(&["file", "-H1", "-6"]) else {
            panic!()
        };
        assert!(config.ipv6);
    }

    #[test]
    fn short_equals_is_part_of_the_value() {
        let text =
            "-C/--max-special-connections: expected a number from 1 to 2147483647, got \"=5\"";
        assert_errors(&[("-C=5", text)]);
    }

    #[test]
    fn long_names_may_be_shortened() {
        assert_eq!(config("--max 5").max_clients, Some(5));
        assert_eq!(config("--aes=x").aes_pwd, PathBuf::from("x"));
        assert!(config("--i --random").ipv6);
        assert!(matches!(parse_words(&["--vers"]), Ok(Command::Version)));
        assert_errors(&[
            ("--ver=1", "--ver may mean --verbosity or --version"),
            ("--http", "--http may mean --http-ports or --http-stats"),
            (
                "--p 1",
                "--p may mean --proxy-tag or --ping-interval or --port",
            ),
        ]);
        // A whole name is never ambiguous, and every name finds its own row.
        for flag in FLAGS {
            assert_eq!(find_long(flag.long).unwrap().long, flag.long);
        }
    }

    #[test]
    fn unknown_flags_name_the_nearest() {
        assert_errors(&[
            (
                "--mtproto-secrets=x",
                "unknown flag --mtproto-secrets; the nearest known one is -S/--mtproto-secret",
            ),
            (
                "--adress 1.2.3.4",
                "unknown flag --adress; the nearest known one is --address",
            ),
            (
                "--aes_pwd x",
                "unknown flag --aes_pwd; the nearest known one is --aes-pwd",
            ),
            ("-s x", "unknown flag -s; did you mean -S/--mtproto-secret?"),
            ("-6z", "unknown flag -z; --help lists all"),
        ]);
    }

    #[test]
    fn missing_and_surplus_values() {
        let error = |words: &[&str]| parse_words(words).unwrap_err().text;
        assert_eq!(
            error(&["f", "-S"]),
            "-S/--mtproto-secret: expected a value, as in --mtproto-secret SECRET"
        );
        assert_eq!(
            error(&["f", "--port"]),
            "-p/--port: expected a value, as in --port PORT[:LAST]"
        );
        assert_eq!(error(&["--ipv6=1", "f"]), "-6/--ipv6: takes no value");
        assert_eq!(error(&["--help=x"]), "-h/--help: takes no value");
    }

    #[cfg(unix)]
    #[test]
    fn values_that_are_no_text() {
        use std::os::unix::ffi::OsStringExt;
        let odd = || OsString::from_vec(vec![b'x', 0xff]);
        let error = parse([OsString::from("-u"), odd()]).unwrap_err();
        assert_eq!(error.text, "-u/--user: expected plain text");
        let file = parse([OsString::from("-H1"), odd()]);
        assert!(matches!(file, Ok(Command::Run(config)) if config.config_file == odd()));
    }
}
