//! The file of --config: flags by their long names, a line each. Read at start and again for a reload, which
//! applies some of them ([`RELOADED`]) and leaves the others as they were. The file is the operator's; an error
//! names it and the line.

use super::config::{Setting, UsageError};
use super::names;
use mtproxy::crypto::wipe::wipe;
use mtproxy::formats::settings::parse_line;
use mtproxy::limits::MAX_SETTINGS_FILE;
use std::ffi::OsString;
use std::path::Path;

use crate::operator::files::read_file;

/// The flags that a reload applies.
const RELOADED: &[&str] = &[
    "allow-plain",
    "any-sni",
    "domain",
    "drain",
    "ip-allowlist",
    "ip-blocklist",
    "mask",
    "mask-private",
    "mask-proxy-protocol",
    "mtproto-secret",
    "proxy-protocol-from",
    "secret-file",
    "tls-hybrid",
    "tls-skew",
    "verbosity",
];

/// Whether only a start can apply a flag.
pub fn is_fixed(setting: &Setting) -> bool {
    !RELOADED.contains(&setting.name)
}

/// Reads the file.
pub fn read(path: &Path) -> Result<Vec<Setting>, UsageError> {
    let name = path.display().to_string();
    let failed = |text: &str| UsageError {
        text: format!("--config: can't read {name}: {text}"),
        code: 1,
    };
    let bytes = read_file(path, MAX_SETTINGS_FILE).map_err(|e| failed(&e.to_string()))?;
    if bytes.len() > MAX_SETTINGS_FILE {
        return Err(failed("expected at most 1 MiB"));
    }
    let text = String::from_utf8(bytes).map_err(|_| failed("expected UTF-8"))?;
    let settings = parse(text.trim_start_matches('\u{feff}'), &name);
    wipe(&mut text.into_bytes());
    settings
}

fn parse(text: &str, file: &str) -> Result<Vec<Setting>, UsageError> {
    let mut settings = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let place = format!("{file}:{number}");
        let at = |error: UsageError| error.at(&place);
        let parsed = parse_line(line).map_err(|text| at(UsageError::new(text)))?;
        let Some((name, value)) = parsed else {
            continue;
        };
        let flag = names::find_name(name).map_err(at)?;
        let (name, value) = (flag.long(), value.map(OsString::from));
        settings.push(Setting {
            name,
            value,
            place: Some(place),
        });
    }
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::super::table::FLAGS;
    use super::super::{Command, again, parse as parse_words};
    use super::*;
    use std::fs;

    const A: &str = "00112233445566778899aabbccddeeff";
    const B: &str = "ffeeddccbbaa99887766554433221100";

    #[test]
    fn what_a_reload_applies_are_flags() {
        for name in RELOADED {
            assert!(FLAGS.iter().any(|flag| flag.long() == *name), "{name}");
        }
    }

    /// A file of its own for each test.
    struct Scratch(std::path::PathBuf);

    impl Scratch {
        fn new(name: &str, text: &str) -> Scratch {
            let path = std::env::temp_dir().join(format!("mtproxy-{}-{name}", std::process::id()));
            fs::write(&path, text).unwrap();
            Scratch(path)
        }

        fn parse(&self, flags: &str) -> Result<Command, UsageError> {
            let mut words: Vec<OsString> = vec!["--config".into(), self.0.clone().into()];
            words.extend(flags.split_whitespace().map(OsString::from));
            parse_words(words)
        }

        fn config(&self, flags: &str) -> super::super::Config {
            match self.parse(flags) {
                Ok(Command::Run(config)) => *config,
                other => panic!("{flags}: {other:?}"),
            }
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_file(&self.0);
        }
    }

    #[test]
    fn the_command_line_wins() {
        let text = format!(
            "\u{feff}# ours\nhttp-ports 443,444\nmtproto-secret {A}:ann\nmtproto-secret '{B}:bob'\n\
             verbosity 2\nproxy-config conf\nrandom-padding-only\nuser \"no body\"\n"
        );
        let file = Scratch::new("wins", &text);
        let config = file.config("");
        let labels = |config: &super::super::Config| -> Vec<String> {
            let entries = config.secrets.iter();
            entries
                .map(|e| e.label.clone().unwrap_or_default())
                .collect()
        };
        assert_eq!((&config.ports[..], config.verbosity), (&[443, 444][..], 2));
        assert_eq!(labels(&config), ["ann", "bob"]);
        assert_eq!(config.config_file, Some("conf".into()));
        assert_eq!(config.user.as_deref(), Some("no body"));
        assert!(config.padded_only);
        let other = format!("-H 1 -S {A}:eve -v other");
        let config = file.config(&other);
        assert_eq!((&config.ports[..], config.verbosity), (&[1][..], 1));
        assert_eq!(labels(&config), ["eve"]);
        assert_eq!(config.config_file, Some("other".into()));
    }

    #[test]
    fn errors_name_file_and_line() {
        let long = format!("http-ports 1\n{A}{B} x\n");
        for (text, code, wanted) in [
            (
                "\nprot 80\n",
                2,
                ":2: unknown name prot; mtproxy config prints a sample",
            ),
            (
                "domian a.b",
                2,
                ":1: unknown name domian; the nearest known one is domain",
            ),
            (
                "domai a.b",
                2,
                ":1: unknown name domai; the nearest known one is domain",
            ),
            ("help", 2, ":1: unknown name help; "),
            ("config other", 2, ":1: unknown name config; "),
            ("-H 80", 2, ":1: unknown name -H; "),
            (&long, 2, ":2: unknown name ...; "),
            (
                "http-ports x",
                2,
                ":1: -H/--http-ports: expected ports from 1",
            ),
            ("http-ports", 2, ":1: -H/--http-ports: expected a value"),
            ("\n\ndirect yes", 2, ":3: --direct: takes no value"),
            ("user 'a", 2, ":1: expected a quote at the value's end"),
            (
                "mtproto-secret 0123",
                2,
                ":1: -S/--mtproto-secret: expected a secret of 32 hex",
            ),
            ("address a", 4, ":1: --address: expected an IP address"),
        ] {
            let file = Scratch::new("errors", text);
            let error = file.parse("").unwrap_err();
            let wanted = format!("{}{wanted}", file.0.display());
            assert!(error.text.starts_with(&wanted), "{text}: {}", error.text);
            assert_eq!(error.code, code, "{text}");
        }
        let error = Scratch::new("errors-2", "direct\n")
            .parse("--config other")
            .unwrap_err();
        assert!(
            error.text.starts_with("--config: can't read other: "),
            "{}",
            error.text
        );
        assert_eq!(error.code, 1);
        // The rules that involve several flags hold for both together.
        let error = Scratch::new("errors-3", "open\n").parse(&format!("-H 1 -S {A}"));
        assert!(error.unwrap_err().text.starts_with("--open: goes neither"));
    }

    #[test]
    fn a_reload_applies_what_it_can_and_names_the_rest() {
        let file = Scratch::new(
            "again",
            &format!("mtproto-secret {A}\nport 1\nuser a\nhttp-ports 5\n"),
        );
        let first = file.config("-v -H 7");
        let change = |text: &str| {
            fs::write(&file.0, text).unwrap();
            again(&first)
        };
        let text = format!("http-ports 6\nmtproto-secret {B}\nverbosity 5\nuser a\nport 2\nipv6\n");
        let (second, fixed) = change(&text).unwrap();
        assert_eq!(second.secrets[0].secret.bytes()[0], 0xff);
        assert_eq!(second.verbosity, 1, "the command line wins");
        assert_eq!(
            (second.stats_ports.clone(), second.ipv6),
            (Some(1..=1), false)
        );
        assert_eq!(fixed, ["port", "ipv6"]);
        // What was not applied is still told the next time, and what is back is not.
        let (_, fixed) = again(&second).unwrap();
        assert_eq!(fixed, ["port", "ipv6"]);
        let (third, fixed) = change(&format!("port 1\nuser a\nmtproto-secret {B}")).unwrap();
        assert!(fixed.is_empty() && third.secrets == second.secrets);
        assert!(
            change("nonsense\n")
                .unwrap_err()
                .text
                .contains(":1: unknown name")
        );
    }

    #[test]
    fn the_sample_is_a_file_of_this_kind() {
        let sample = super::super::SAMPLE;
        // Also with every setting that is commented out there.
        let all: String = sample
            .lines()
            .filter_map(|line| line.strip_prefix('#').or(Some(line)))
            .filter(|line| !line.starts_with(' '))
            .map(|line| format!("{line}\n"))
            .collect();
        for text in [sample, &all] {
            let settings = parse(text, "sample").unwrap();
            let mut config = super::super::Config::default();
            for setting in &settings {
                super::super::apply(&mut config, setting).unwrap();
            }
        }
        assert!(parse(&all, "sample").unwrap().len() > parse(sample, "sample").unwrap().len() + 5);
    }
}
