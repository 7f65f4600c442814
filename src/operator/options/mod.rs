//! The command line, from the words that were typed to a checked [`Config`]. They come from the operator;
//! an error never repeats a value of -S or -P, nor a secret that was given to another flag by mistake.
//!
//! `main` calls [`parse`] and, for `Help`, [`help`]; a reload calls [`again`]. A flag is one row of `table` and a
//! field of `config`; its value is judged in `values`, its name in `names`, and what involves several flags in
//! `check`. The file of --config is read in `file`; of other files nothing is read here.
//!
//! Answers to the C proxy's `server-functions.c` and `f_parse_option`, with getopt_long's rules: long names
//! may be shortened while unique, values are `--x=v`, `--x v`, `-x v` or `-xv`, short flags may be glued,
//! an optional value is only `--x=v`.

mod check;
mod commands;
mod config;
mod file;
mod flag;
mod help;
mod names;
mod table;
mod values;

pub use check::needs_domain;
use config::Setting;
pub use config::{
    Command, Config, DcOverride, Doctor, Front, Kind, Listen, Ping, Service, UsageError,
};
pub use help::help;

use crate::door::sites::Domain;
use flag::{Apply, Flag};
use lexopt::Arg;
use mtproxy::formats::secret::parse_domain;
use mtproxy::proto::wire::decimal;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use table::FLAGS;

/// A commented file for --config.
pub const SAMPLE: &str = include_str!("../../../testdata/mtproxy.conf");

/// Parses a command line, given without the program's name. Flags and the configuration file may
/// come in any order; the first error, or the first flag that asks for something else than to
/// serve, ends it.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Command, UsageError> {
    let mut args: Vec<OsString> = args.into_iter().collect();
    let word = args.first().and_then(|word| word.to_str()).unwrap_or("");
    match word {
        "help" => Ok(Command::Help),
        "secret" => parse_secret(&args[1..]),
        "config" if args.len() == 1 => Ok(Command::Sample),
        "ping" => commands::ping(args.split_off(1)),
        "service" => match args.get(1).and_then(|word| word.to_str()) {
            Some("nginx") => parse_front(Front::Nginx, args.split_off(2)),
            Some("caddy") => parse_front(Front::Caddy, args.split_off(2)),
            _ => service(args.split_off(1)),
        },
        "migrate" => commands::migrate(args.split_off(1)),
        "doctor" => {
            let (how, args) = commands::doctor(args.split_off(1))?;
            Ok(match parse_flags(args, check::run)? {
                Command::Run(config) => Command::Doctor(config, how),
                Command::Help => Command::Usage(commands::DOCTOR),
                other => other,
            })
        }
        "link" => parse_flags(args.split_off(1), check::link),
        "run" => parse_flags(args.split_off(1), check::run),
        _ if looks_like_a_command(word) && !Path::new(word).exists() => {
            let text = format!(
                "unknown command {word}: there are run, link, secret, ping, doctor, service, migrate, config and help"
            );
            Err(UsageError::new(format!("{text}, and no file of that name")))
        }
        _ => parse_flags(args, check::run),
    }
}

/// Letters and dashes, and too short for a secret.
fn looks_like_a_command(word: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_lowercase() || byte == b'-';
    (2..names::SHORTEST_SECRET).contains(&word.len())
        && word.bytes().all(known)
        && !word.starts_with('-')
}

/// `service nginx FLAGS` and `service caddy FLAGS`, with the flags of --web.
fn parse_front(front: Front, args: Vec<OsString>) -> Result<Command, UsageError> {
    let check: fn(Config) -> _ = match front {
        Front::Nginx => |config| check::front(Front::Nginx, config),
        Front::Caddy => |config| check::front(Front::Caddy, config),
    };
    parse_flags(args, check)
}

/// `mtproxy secret [DOMAIN]`, which takes no flags but -h.
fn parse_secret(args: &[OsString]) -> Result<Command, UsageError> {
    let words: Vec<&str> = args.iter().map(|arg| arg.to_str().unwrap_or("")).collect();
    let domain = match words.as_slice() {
        [] => None,
        ["-h" | "--help"] => return Ok(Command::Help),
        [word] => match parse_domain(word.trim_end_matches('.')) {
            Ok(domain) if !word.starts_with('-') => Some(Domain::named(&domain).name),
            _ => {
                let what = "secret: expected a domain of 1 to 182 letters, digits, - _ or .";
                return Err(UsageError::new(format!("{what}, got {word:?}")));
            }
        },
        _ => {
            let text = "secret: expected nothing behind it, or one domain";
            return Err(UsageError::new(text));
        }
    };
    Ok(Command::Secret(domain))
}

/// `service systemd|openwrt|docker FLAGS`: the flags are checked as for a start, and kept as they were given.
fn service(mut args: Vec<OsString>) -> Result<Command, UsageError> {
    let rest = args.split_off(args.len().min(1));
    let kind = commands::kind(args.pop())?;
    let Some(kind) = kind else {
        return Ok(Command::Usage(commands::SERVICE));
    };
    let config = match parse_flags(rest.clone(), check::run)? {
        Command::Run(config) => *config,
        Command::Help => return Ok(Command::Usage(commands::SERVICE)),
        other => return Ok(other),
    };
    let (flags, file, _) = spelled_or_lost(rest);
    Ok(Command::Service(Box::new(Service {
        kind,
        config,
        flags,
        file,
    })))
}

/// Flags with long names, and their values.
type Spelled = Vec<(&'static str, Option<String>)>;

/// Whether there is a flag of this long name.
pub fn knows(name: &str) -> bool {
    names::is_known(name)
}

/// Flags by their long names, and the file, of a command line; then what is no flag here.
pub fn spelled_or_lost(args: Vec<OsString>) -> (Spelled, Option<String>, Vec<String>) {
    let mut parser = lexopt::Parser::from_args(args);
    parser.set_short_equals(false);
    let (mut flags, mut file, mut lost) = (Vec::new(), None, Vec::new());
    while let Ok(Some(arg)) = parser.next() {
        let (flag, is_long, name) = match arg {
            Arg::Long(name) => (names::find_long(name), true, format!("--{name}")),
            Arg::Short(letter) => (names::find_short(letter), false, format!("-{letter}")),
            Arg::Value(value) => {
                file = value.into_string().ok();
                continue;
            }
        };
        let takes = match &flag {
            Ok(flag) => matches!(flag.apply, Apply::Value(_)),
            Err(_) => false,
        };
        let value = match takes {
            true => parser.value().ok(),
            false if is_long => parser.optional_value(),
            false => None,
        };
        let Ok(flag) = flag else {
            lost.push(name);
            continue;
        };
        let value = value.and_then(|value| value.into_string().ok());
        flags.push((flag.long(), value));
    }
    (flags, file, lost)
}

/// A command line of flags and at most one file, and the check that its command needs.
fn parse_flags(
    args: Vec<OsString>,
    check: fn(Config) -> Result<Command, UsageError>,
) -> Result<Command, UsageError> {
    let mut parser = lexopt::Parser::from_args(args);
    parser.set_short_equals(false);
    let mut config = Config::default();
    let mut files = Vec::new();
    let mut given = Vec::new();
    let mut before: Option<&Flag> = None;
    while let Some(arg) = parser.next().map_err(|e| UsageError::new(e.to_string()))? {
        let (flag, is_long) = match arg {
            Arg::Long(name) => (names::find_long(name)?, true),
            Arg::Short(letter) => (names::find_short(letter)?, false),
            Arg::Value(value) => {
                if let Some(flag) = before.take() {
                    refuse_detached_value(flag, &value)?;
                }
                files.push(value);
                continue;
            }
        };
        let value = match flag.apply {
            Apply::Value(_) => parser.value().ok(),
            _ if is_long => parser.optional_value(),
            _ => None,
        };
        let may_take_more = matches!(flag.apply, Apply::Optional(_)) && value.is_none();
        before = may_take_more.then_some(flag);
        if let Some(command) = flag.apply(&mut config, value.clone())? {
            return Ok(command);
        }
        given.push(Setting {
            name: flag.long(),
            value,
            place: None,
        });
    }
    if files.len() > 1 {
        // The arguments are not repeated: one may be a secret that lost its -S.
        let count = files.len();
        let text =
            format!("expected at most one configuration file, got {count}; --help shows the usage");
        return Err(UsageError::new(text));
    }
    if let Some(name) = files.pop() {
        given.push(Setting {
            name: "",
            value: Some(name),
            place: None,
        });
    }
    let file = match &config.settings_file {
        Some(path) => file::read(path)?,
        None => Vec::new(),
    };
    check(merge(file, given)?)
}

/// What the lines of the file and the command line say together. The command line wins: a flag that it gives
/// counts as often as it is given there, and not in the file.
fn merge(mut file: Vec<Setting>, given: Vec<Setting>) -> Result<Config, UsageError> {
    let mut config = Config::default();
    file.retain(|line| !given.iter().any(|setting| setting.name == line.name));
    for setting in file.iter().chain(&given) {
        apply(&mut config, setting)?;
    }
    file.retain(file::is_fixed);
    config.kept = [given, file].concat();
    Ok(config)
}

fn apply(config: &mut Config, setting: &Setting) -> Result<(), UsageError> {
    let value = setting.value.clone();
    let Some(flag) = FLAGS.iter().find(|flag| flag.long() == setting.name) else {
        config.config_file = value.map(Into::into);
        return Ok(());
    };
    let applied = flag.apply(config, value).map(drop);
    applied.map_err(|error| match &setting.place {
        Some(place) => error.at(place),
        None => error,
    })
}

/// What holds after a reload: the same command line, and the file of --config as it is now. Flags that only a
/// start can apply stay as they were; those that have changed in the file are named.
pub fn again(before: &Config) -> Result<(Config, Vec<&'static str>), UsageError> {
    let (given, fixed): (Vec<Setting>, Vec<Setting>) =
        before.kept.iter().cloned().partition(|s| s.place.is_none());
    let mut file = match &before.settings_file {
        Some(path) => file::read(path)?,
        None => Vec::new(),
    };
    file.retain(|line| !given.iter().any(|setting| setting.name == line.name));
    let (now, mut file): (Vec<Setting>, Vec<Setting>) = file.into_iter().partition(file::is_fixed);
    let mut changed = Vec::new();
    for (these, those) in [(&fixed, &now), (&now, &fixed)] {
        for setting in these {
            let is_new = !those.iter().any(|known| known.equals(setting));
            if is_new && !changed.contains(&setting.name) {
                changed.push(setting.name);
            }
        }
    }
    file.extend(fixed);
    match check::run(merge(file, given)?)? {
        Command::Run(config) => Ok((*config, changed)),
        _ => Ok((Config::default(), changed)), // there is no such case
    }
}

/// An optional value is never the next word, as in getopt_long. A number there was hardly meant for a file.
fn refuse_detached_value(flag: &Flag, word: &OsStr) -> Result<(), UsageError> {
    let Some(number) = decimal::<u32>(word.as_encoded_bytes()) else {
        return Ok(());
    };
    let example = format!("--{}={number}", flag.long());
    Err(flag.error(&format!("expected its number behind =, as in {example}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mtproxy::formats::cidr::Network;
    use mtproxy::formats::secret::SecretEntry;
    use mtproxy::proto::wire::DcId;
    use std::net::Ipv4Addr;
    use std::path::PathBuf;
    use std::time::Duration;

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
            let wanted = UsageError::new(*text);
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
            config_file: Some("file".into()),
            given: vec!["http-ports"],
            kept: config("").kept,
            ..Config::default()
        };
        assert_eq!(config(""), wanted);
        let skew = (wanted.skew_back.0, wanted.skew_ahead.0);
        assert_eq!(
            (wanted.mask_max, wanted.backlog.0, skew),
            (None, 8192, (600, 3))
        );
        assert_eq!(
            (wanted.slots_per_set(), wanted.window_clamp()),
            (2, 131_072)
        );
        assert_eq!(wanted.ping_interval(), Duration::from_secs(60));
        assert!(wanted.is_open() && wanted.has_fallback() && !wanted.is_direct());
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
        for (given, millis) in [
            ("1", 1000),
            ("1.5", 1500),
            ("5.000", 5000),
            (".0025", 1000),
            ("0.5", 1000),
            ("0", 60_000),
            ("7.", 7000),
            ("61.1239", 61_123),
            ("3600", 3_600_000),
            ("3600.1", 3_600_000),
            ("99999999999999999999", 3_600_000),
        ] {
            let interval = config(&format!("-T {given}")).ping_interval();
            assert_eq!(interval, Duration::from_millis(millis), "{given}");
        }
        assert_eq!(config("-W 0").window_clamp(), 0);
        assert_eq!(config("-W 65536").window_clamp(), 65_536);
        assert_eq!(config("-b 1").backlog.0, 1);
        assert_eq!(config("-b 2147483647").backlog.0, i32::MAX as u32);
        assert_eq!(config("-c 1024").connections, Some(1024));
        assert_eq!(config("-u nobody").user.as_deref(), Some("nobody"));
        let given = config("--aes-pwd secret");
        assert_eq!(given.aes_pwd, Some("secret".into()));
    }

    #[test]
    fn slots() {
        for (asked, used) in [(0, 2), (1, 1), (2, 2), (16, 16), (17, 16), (256, 16)] {
            let config = config(&format!("-M {asked}"));
            assert_eq!((config.slots, config.slots_per_set()), (asked, used));
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
        let needed = |words: &[&str]| {
            let error = parse_words(words).unwrap_err();
            assert!(
                error.code == 2 && error.text.contains("-H 443"),
                "{error:?}"
            );
        };
        needed(&["f"]);
        needed(&["-S", A]);
        needed(&["--secret-file", "s"]);
        needed(&["--direct", "-S", A, "f"]);
    }

    #[test]
    fn secrets() {
        let given = config(&format!("-S {A} -S dd{B}:bob:9"));
        let entry = |text: &str| SecretEntry::parse(text).unwrap();
        assert_eq!(given.secrets, [entry(A), entry(&format!("dd{B}:bob:9"))]);
        assert!(!given.is_open());
        let given = config("--secret-file f");
        assert!(given.secret_file == Some("f".into()) && !given.is_open());
        let many = |count: usize| {
            (0..count)
                .map(|i| format!("-S {i:032x} "))
                .collect::<String>()
        };
        assert_eq!(config(&many(16)).secrets.len(), 16);
        assert_errors(&[
            (
                &many(17),
                "-S/--mtproto-secret: number 17: expected at most 16 secrets",
            ),
            (
                &format!("-S {B} -S {A} -S dd{A}"),
                "-S/--mtproto-secret: number 3 is the same secret as number 2",
            ),
            (
                "-S 0123",
                "-S/--mtproto-secret: expected a secret of 32 hexadecimal digits, or its dd, ee or base64url form, got 4 characters",
            ),
            (
                &format!("-S {B} -S {A}:bob -S {A}:eve"),
                "-S/--mtproto-secret: number 3 (eve) is the same secret as number 2 (bob)",
            ),
            (
                &format!("-S {B}:bob -S {A}:bob"),
                "-S/--mtproto-secret: number 2 (bob) has the same label as number 1 (bob)",
            ),
            (
                &format!("-S ee{A}612f62:bob"),
                "-S/--mtproto-secret: expected the ee form to end with a domain of 1 to 182 letters, digits, - _ or .",
            ),
            (
                &format!("--secret-file {A}:x"),
                "--secret-file: expected a file's name, got a secret: that goes to -S",
            ),
            (
                "--secret-file=",
                "--secret-file: expected a file's name, got \"\"",
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
            format!("--secret-file={A}"),
            format!("-S {A}:bob:0"),
            format!("-S {B}:{A}"),
            format!("-S ee{A}612e62 -S {A}"),
            format!("-S ee{A}612e6"),
            format!("-D {A}"),
            format!("-D dd{A}:443"),
            format!("-D ee{A}612e62"),
            format!("--mask={A}"),
            format!("--mask={A}:x"),
            format!("--tls-skew={A}"),
            format!("--tls-hybrid={A}"),
        ] {
            let error = error(&flags);
            assert!(!error.text.contains(part), "{error:?}");
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
        let nets = "-p 1 --http-stats --stats-allow-net 10.0.0.0/8 --stats-allow-net ::1";
        let wanted = ["10.0.0.0/8", "::1"].map(|net| Network::parse(net).unwrap());
        assert_eq!(config(nets).stats_nets, wanted);
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
            (
                "--user=",
                "-u/--user: expected a user's name or number, got \"\"",
            ),
            ("--aes-pwd=", "--aes-pwd: expected a file's name, got \"\""),
        ]);
        let what = "-T/--ping-interval: expected seconds, a fraction allowed, got";
        for wrong in ["-5", "inf", "NaN", "1e2", ".", "5s", "1.2.3", "1.-2", "1.é"] {
            let wanted = UsageError::new(format!("{what} {wrong:?}"));
            assert_eq!(error(&format!("-T {wrong}")), wanted);
        }
    }

    #[test]
    fn exit_codes() {
        let text = "--address: expected an IP address without a port, got \"h\"".into();
        assert_eq!(error("--address h"), UsageError { text, code: 4 });
        assert!(matches!(
            parse_words(&["-h", "--nonsense"]),
            Ok(Command::Help)
        ));
        assert!(matches!(parse_words(&["--help"]), Ok(Command::Help)));
        assert!(matches!(parse_words(&["--version"]), Ok(Command::Version)));
        // What stands before is judged first.
        assert_eq!(parse_words(&["-M", "x", "-h"]).unwrap_err().code, 2);
        let error = parse_words(&["-H", "443", "one", "two"]).unwrap_err();
        let text = "expected at most one configuration file, got 2; --help shows the usage";
        assert_eq!(error, UsageError::new(text));
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
        let file = Some("-v".into());
        assert_eq!((config.config_file, config.verbosity), (file, 0));
        let Ok(Command::Run(config)) = parse_words(&["./file", "-H1", "-6"]) else {
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
        assert_eq!(config("--max-s 5").max_clients, Some(5));
        assert_eq!(config("--aes=x").aes_pwd, Some(PathBuf::from("x")));
        assert!(config("--ipv --random").ipv6);
        assert!(matches!(parse_words(&["--vers"]), Ok(Command::Version)));
        assert_errors(&[
            ("--http", "--http may mean --http-ports or --http-stats"),
            (
                "--p 1",
                "--p may mean --proxy-tag or --ping-interval or --port or --prefer-ipv6 or --print-links or --proxy-config or --proxy-protocol or --proxy-protocol-from",
            ),
        ]);
        // A whole name is never ambiguous, and every name finds its own row.
        for flag in FLAGS {
            assert_eq!(names::find_long(flag.long()).unwrap().long(), flag.long());
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
            "-S/--mtproto-secret: expected a value, as in --mtproto-secret SECRET[:LABEL[:LIMIT]]"
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
        assert!(
            matches!(file, Ok(Command::Run(config)) if config.config_file == Some(odd().into()))
        );
    }

    #[test]
    fn direct_mode() {
        for (words, direct, open, ports) in [
            (&[][..], true, false, [8443]),
            (&["run"], true, false, [8443]),
            (&["--open"], true, true, [8443]),
            (&["--direct", "f"], true, false, [8443]),
            (&["-H", "1", "-S", A], true, false, [1]),
            (&["run", "-H", "1", "f"], false, true, [1]),
            (&["-H", "1", "run"], false, true, [1]),
            (&["-H", "1", "--direct", "f", "-S", A], true, false, [1]),
        ] {
            let Ok(Command::Run(config)) = parse_words(words) else {
                panic!("{words:?}")
            };
            let got = (config.is_direct(), config.is_open(), config.ports);
            assert_eq!(got, (direct, open, ports.to_vec()), "{words:?}");
        }
        assert!(!config("--no-fallback").has_fallback() && config("--prefer-ipv6").prefer_ipv6);
        let tag = format!("-P {A}");
        assert!(config(&tag).ad_tag.is_some());
        let what = "-P/--proxy-tag: only middle proxies show a sponsored channel: \
                    it needs a configuration file and goes without --direct";
        assert_errors(&[
            (&format!("{tag} --direct"), what),
            (
                &format!("--open -S {B}"),
                "--open: goes neither with -S nor with --secret-file",
            ),
        ]);
        assert_eq!(parse_words(&["-P", A]).unwrap_err().text, what);
    }

    #[test]
    fn dc_overrides() {
        let flags = "--dc-override 2:127.0.0.1:443 --dc-override=-203:[::1]:1 \
                     --dc-override 10002:dc-2.example:65535";
        let row = |id, host: &str, port| (DcId(id), (host.into(), port));
        let wanted = [
            row(2, "127.0.0.1", 443),
            row(-203, "::1", 1),
            row(10002, "dc-2.example", 65535),
        ];
        assert_eq!(config(flags).dc_overrides, wanted);
        let what = "--dc-override: expected ID:HOST:PORT with the number of a data centre, \
                    IPv6 addresses in brackets, got";
        for wrong in [
            "",
            "2",
            "2:h",
            "h:1",
            "0:h:1",
            "x:h:1",
            "32768:h:1",
            "-32768:h:1",
            "2::1",
            "2:h:0",
            "2:h:65536",
            "2:h:",
            "2:::1:1",
            "2:[h]:1",
            "2:[::1:1",
            "2:a/b:1",
            "2:h:+1",
        ] {
            let wanted = UsageError::new(format!("{what} {wrong:?}"));
            assert_eq!(error(&format!("--dc-override={wrong}")), wanted);
        }
    }

    #[test]
    fn servers_in_links() {
        for (text, host) in [
            ("proxy.example", "proxy.example"),
            ("192.0.2.1", "192.0.2.1"),
            ("2001:DB8::1", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
        ] {
            assert_eq!(
                config(&format!("--server {text}")).server,
                Some(host.into())
            );
        }
        let what = "--server: expected a name or an IP address without a port, got";
        let long = "h".repeat(254);
        for wrong in ["", "h:443", "a&b", "é.example", "[h]", "192.0.2.1:1", &long] {
            let wanted = UsageError::new(format!("{what} {wrong:?}"));
            assert_eq!(error(&format!("--server={wrong}")), wanted);
        }
        assert!(config("--print-links").print_links);
    }

    #[test]
    fn link() {
        let link = |words: &[&str]| match parse_words(&[&["link"], words].concat()) {
            Ok(Command::Link(request)) => *request,
            other => panic!("{words:?}: {other:?}"),
        };
        let request = link(&["-S", A]);
        assert_eq!((request.ports, request.qr), (vec![443], false));
        let ee = format!("ee{A}612e62");
        let request = link(&["--qr", "-S", &ee, "-H", "1,2", "-D", "c.d", "-R", "file"]);
        assert_eq!(request.ports, [1, 2]);
        assert_eq!(request.domains, [Domain::named("c.d")]);
        assert!(request.qr && request.padded_only);
        assert!(link(&["--secret-file", "f"]).secret_file.is_some());
        assert!(matches!(parse_words(&["link", "-h"]), Ok(Command::Help)));
        let error = |words: &[&str]| parse_words(words).unwrap_err().text;
        assert_eq!(
            error(&["link"]),
            "link: expected the secret of the proxy, -S SECRET or --secret-file FILE"
        );
        assert_eq!(
            error(&["link", "-S", A, "-H", "0"]),
            "link: expected the port of the proxy, got -H 0"
        );
        assert!(
            error(&["link", "-S", A, "--mask-max", "1"]).starts_with("--mask-max: is for fake TLS")
        );
        assert_errors(&[(
            "--qr",
            "--qr: only for mtproxy link; a start shows it with the links",
        )]);
    }

    #[test]
    fn secret() {
        let secret = |words: &[&str]| match parse_words(words) {
            Ok(Command::Secret(domain)) => Ok(domain),
            Ok(other) => panic!("{words:?}: {other:?}"),
            Err(error) => Err(error.text),
        };
        assert_eq!(secret(&["secret"]), Ok(None));
        for word in ["a.b", "A.B", "a.b."] {
            assert_eq!(secret(&["secret", word]), Ok(Some("a.b".into())));
        }
        let what = "secret: expected a domain of 1 to 182 letters, digits, - _ or ., got";
        for wrong in ["", ".", "a b", "-v", "--nonsense"] {
            assert_eq!(secret(&["secret", wrong]), Err(format!("{what} {wrong:?}")));
        }
        assert!(secret(&["secret", "a", "b"]).is_err());
        assert!(matches!(parse_words(&["secret", "-h"]), Ok(Command::Help)));
    }

    #[test]
    fn first_words_that_are_no_file() {
        assert!(matches!(parse_words(&["help"]), Ok(Command::Help)));
        assert!(matches!(parse_words(&["help", "link"]), Ok(Command::Help)));
        for word in ["check", "status", "generate-secret"] {
            let text = parse_words(&[word, "-H1"]).unwrap_err().text;
            let what = format!(
                "unknown command {word}: there are run, link, secret, ping, doctor, service, migrate, config and help"
            );
            assert_eq!(text, format!("{what}, and no file of that name"));
        }
        // The tests run where there is a folder of this name, and this may be a secret.
        for word in ["src", "./doctor", "multi.conf", "abcdefghijklmnopqrstuv"] {
            assert!(
                matches!(parse_words(&[word, "-H1"]), Ok(Command::Run(_))),
                "{word}"
            );
        }
    }

    #[test]
    fn an_optional_value_is_not_the_next_word() {
        for words in [
            &["-H1", "--verbosity", "3"][..],
            &["-v", "3", "-H1"],
            &["-6v", "3", "f"],
        ] {
            let what = "-v/--verbosity: expected its number behind =, as in --verbosity=3";
            assert_eq!(parse_words(words).unwrap_err(), UsageError::new(what));
        }
        for words in [
            ["-H1", "-v", "./3"],
            ["-v", "-H1", "3"],
            ["-H1", "--verbosity=2", "3"],
        ] {
            assert!(parse_words(&words).is_ok(), "{words:?}");
        }
    }
}
