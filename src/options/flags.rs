//! The table of flags: one row each, and finding the row of a name.
//!
//! A row holds a flag's names, its value, its help and the function that notes it in [`Typed`]. The
//! help and the README's table derive from the rows; to add a flag is to add a row and a field.

use super::values::{
    MAX_COUNT, Wrong, apply_buffers, apply_http_ports, apply_nat_info, apply_ping_interval,
    apply_port, apply_proxy_tag, apply_secret, number,
};
use super::{Command, Typed, UsageError};
use std::ffi::OsString;
use std::fmt::Write;

/// One row of the table.
pub struct Flag {
    pub short: Option<char>,
    pub long: &'static str,
    /// As the help shows it behind the long name: empty, ` NAME`, or `[=NAME]`.
    pub value: &'static str,
    pub help: &'static str,
    pub apply: Apply,
}

/// How a flag is noted. An error is what was expected, for the sentence "expected X".
pub enum Apply {
    Alone(fn(&mut Typed)),
    Optional(fn(&mut Typed, Option<&str>) -> Result<(), Wrong>),
    Value(fn(&mut Typed, &str) -> Result<(), Wrong>),
}

impl Flag {
    /// As errors and the README name it: `-H/--http-ports`, or `--address`.
    pub fn label(&self) -> String {
        let short = self.short.map(|letter| format!("-{letter}/"));
        format!("{}--{}", short.unwrap_or_default(), self.long)
    }

    /// Notes this flag with its value, None if none came with it.
    pub fn apply(&self, typed: &mut Typed, value: Option<OsString>) -> Result<(), UsageError> {
        let label = self.label();
        let value = match value.map(OsString::into_string) {
            None => None,
            Some(Ok(value)) => Some(value),
            Some(Err(_)) => return Err(UsageError::new(format!("{label}: expected plain text"))),
        };
        let result = match (&self.apply, &value) {
            (Apply::Alone(apply), None) => {
                apply(typed);
                Ok(())
            }
            (Apply::Alone(_), Some(_)) => Err(Wrong::Hidden("takes no value".into())),
            (Apply::Optional(apply), value) => apply(typed, value.as_deref()),
            (Apply::Value(apply), Some(value)) => apply(typed, value),
            (Apply::Value(_), None) => {
                let text = format!("expected a value, as in --{}{}", self.long, self.value);
                Err(Wrong::Hidden(text))
            }
        };
        let value = value.unwrap_or_default();
        result.map_err(|wrong| match wrong {
            Wrong::Expected(what) => {
                UsageError::new(format!("{label}: expected {what}, got {value:?}"))
            }
            Wrong::Exit(code, what) => {
                let text = format!("{label}: expected {what}, got {value:?}");
                UsageError { text, code }
            }
            Wrong::Hidden(text) => UsageError::new(format!("{label}: {text}")),
        })
    }
}

/// The row of a long name or of an unambiguous beginning of one.
pub fn find_long(name: &str) -> Result<&'static Flag, UsageError> {
    if let Some(flag) = FLAGS.iter().find(|flag| flag.long == name) {
        return Ok(flag);
    }
    let starts = |flag: &&Flag| !name.is_empty() && flag.long.starts_with(name);
    let matching: Vec<&'static Flag> = FLAGS.iter().filter(starts).collect();
    match matching.as_slice() {
        [flag] => Ok(flag),
        [] => {
            let nearest = FLAGS.iter().min_by_key(|flag| distance(name, flag.long));
            let nearest = nearest.map_or(String::new(), Flag::label);
            // Whatever is as long as a secret may be one, in a wrong place.
            let name = if name.len() < 32 { name } else { "..." };
            let text = format!("unknown flag --{name}; the nearest known one is {nearest}");
            Err(UsageError::new(text))
        }
        several => {
            let names: Vec<String> = several.iter().map(|f| format!("--{}", f.long)).collect();
            let text = format!("--{name} may mean {}", names.join(" or "));
            Err(UsageError::new(text))
        }
    }
}

/// The row of a letter; what differs in case only is suggested.
pub fn find_short(letter: char) -> Result<&'static Flag, UsageError> {
    let known = |letter: char| FLAGS.iter().find(|flag| flag.short == Some(letter));
    known(letter).ok_or_else(|| {
        let other_case = match letter.is_ascii_lowercase() {
            true => letter.to_ascii_uppercase(),
            false => letter.to_ascii_lowercase(),
        };
        let hint = match known(other_case) {
            Some(flag) => format!("did you mean {}?", flag.label()),
            None => "--help lists all".into(),
        };
        UsageError::new(format!("unknown flag -{letter}; {hint}"))
    })
}

/// Insertions, deletions and replacements of characters that make `a` into `b`.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, to) in b.chars().enumerate() {
            let replaced = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row.last().copied().unwrap_or(0)
}

/// The usage text: one entry for each row of the table.
pub fn help() -> String {
    let mut text = String::from(USAGE);
    for flag in FLAGS {
        let short = flag
            .short
            .map_or("    ".into(), |letter| format!("-{letter}, "));
        let _ = write!(text, "  {short}--{}{}\n       ", flag.long, flag.value);
        let mut column = 7;
        for word in flag.help.split(' ') {
            if column + 1 + word.len() > HELP_WIDTH {
                text.push_str("\n       ");
                column = 7;
            }
            let _ = write!(text, " {word}");
            column += 1 + word.len();
        }
        text.push('\n');
    }
    text
}

/// What begins the help.
const USAGE: &str =
    "usage: mtproxy -H PORT[,PORT] -S SECRET [-P TAG] [--aes-pwd FILE] [FLAGS] CONFIG

CONFIG is Telegram's list of middle proxies, from https://core.telegram.org/getProxyConfig; the
file for --aes-pwd is https://core.telegram.org/getProxySecret. Both change: fetch them daily.

";

/// Every flag, in the order of the help: capitals and digits, small letters, long ones.
pub const FLAGS: &[Flag] = &[
    Flag {
        short: Some('6'),
        long: "ipv6",
        value: "",
        help: "listen for clients on IPv6, which takes IPv4 clients too",
        apply: Apply::Alone(|typed| typed.ipv6 = true),
    },
    Flag {
        short: Some('C'),
        long: "max-special-connections",
        value: " N",
        help: "serve at most N clients at a time (default: what the system's limits allow)",
        apply: Apply::Value(|typed, text| {
            typed.max_clients = Some(number(text, 1..=MAX_COUNT)?);
            Ok(())
        }),
    },
    Flag {
        short: Some('H'),
        long: "http-ports",
        value: " PORT[,PORT]",
        help: "ports for clients, at most 128; needed; 0 lets the kernel choose",
        apply: Apply::Value(apply_http_ports),
    },
    Flag {
        short: Some('M'),
        long: "slaves",
        value: " N",
        help: "connections to each set of middle proxies, 0 to 256: 0 is 2 (default), above 16 is 16; \
               in the C program worker processes, of which this one needs none",
        apply: Apply::Value(|typed, text| {
            typed.slots = number(text, 0..=256)?;
            Ok(())
        }),
    },
    Flag {
        short: Some('P'),
        long: "proxy-tag",
        value: " TAG",
        help: "the tag of the sponsored channel from @MTProxybot, 32 hexadecimal digits",
        apply: Apply::Value(apply_proxy_tag),
    },
    Flag {
        short: Some('R'),
        long: "random-padding-only",
        value: "",
        help: "serve only clients that pad their packets (links with a dd secret)",
        apply: Apply::Alone(|typed| typed.padded_only = true),
    },
    Flag {
        short: Some('S'),
        long: "mtproto-secret",
        value: " SECRET",
        help: "a secret that clients must know, 32 hexadecimal digits, dd may stand in front; \
               up to 16 times; without any, everybody is served",
        apply: Apply::Value(apply_secret),
    },
    Flag {
        short: Some('T'),
        long: "ping-interval",
        value: " SECONDS",
        help: "ping middle proxies this often, 1 to 3600, default 60; \
               the C program parsed it and never pinged",
        apply: Apply::Value(apply_ping_interval),
    },
    Flag {
        short: Some('W'),
        long: "window-clamp",
        value: " BYTES",
        help: "limit of a client's TCP window, default 131072; 0 for none",
        apply: Apply::Value(|typed, text| {
            typed.window_clamp = Some(number(text, 0..=MAX_COUNT)?);
            Ok(())
        }),
    },
    Flag {
        short: Some('b'),
        long: "backlog",
        value: " N",
        help: "clients that may wait to be accepted, default 8192 (the system may cut it)",
        apply: Apply::Value(|typed, text| {
            typed.backlog = i32::try_from(number(text, 1..=MAX_COUNT)?).ok();
            Ok(())
        }),
    },
    Flag {
        short: Some('c'),
        long: "connections",
        value: " N",
        help: "use at most N file descriptors (default: what the system allows)",
        apply: Apply::Value(|typed, text| {
            typed.connections = Some(number(text, 1..=MAX_COUNT)?);
            Ok(())
        }),
    },
    Flag {
        short: Some('h'),
        long: "help",
        value: "",
        help: "print this text, exit 2",
        apply: Apply::Alone(|typed| typed.instead = Some(Command::Help)),
    },
    Flag {
        short: Some('p'),
        long: "port",
        value: " PORT[:LAST]",
        help: "port for statistics, or the first free one of a range; 0 lets the kernel choose",
        apply: Apply::Value(apply_port),
    },
    Flag {
        short: Some('u'),
        long: "user",
        value: " NAME",
        help: "become this user when started as root (default: mtproxy, else nobody)",
        apply: Apply::Value(|typed, text| match text.is_empty() {
            true => Err(Wrong::Expected("a user's name".into())),
            false => {
                typed.user = Some(text.into());
                Ok(())
            }
        }),
    },
    Flag {
        short: Some('v'),
        long: "verbosity",
        value: "[=N]",
        help: "log more; each -v adds one, --verbosity=N sets it",
        apply: Apply::Optional(|typed, text| {
            typed.verbosity = match text {
                Some(text) => number(text, 0..=MAX_COUNT)?,
                None => typed.verbosity.saturating_add(1),
            };
            Ok(())
        }),
    },
    Flag {
        short: None,
        long: "address",
        value: " IPV4",
        help: "listen on this address (not with -6) and dial middle proxies from it",
        apply: Apply::Value(|typed, text| {
            let address = text.parse().ok();
            let what = || Wrong::Exit(4, "an IPv4 address".into());
            typed.address = Some(address.ok_or_else(what)?);
            Ok(())
        }),
    },
    Flag {
        short: None,
        long: "aes-pwd",
        value: " FILE",
        help: "Telegram's proxy-secret file (default: secret in the current directory)",
        apply: Apply::Value(|typed, text| match text.is_empty() {
            true => Err(Wrong::Expected("a file's name".into())),
            false => {
                typed.aes_pwd = Some(text.into());
                Ok(())
            }
        }),
    },
    Flag {
        short: None,
        long: "http-stats",
        value: "",
        help: "serve statistics over HTTP on the port of -p",
        apply: Apply::Alone(|typed| typed.http_stats = true),
    },
    Flag {
        short: None,
        long: "msg-buffers-size",
        value: " BYTES[kmgt]",
        help: "memory for packets on their way (default: a quarter of the memory, at most 256m)",
        apply: Apply::Value(apply_buffers),
    },
    Flag {
        short: None,
        long: "nat-info",
        value: " LOCAL:GLOBAL",
        help: "a local IPv4 address and the one that Telegram sees in its place; up to 16 times",
        apply: Apply::Value(apply_nat_info),
    },
    Flag {
        short: None,
        long: "version",
        value: "",
        help: "print the version, exit 0",
        apply: Apply::Alone(|typed| typed.instead = Some(Command::Version)),
    },
];

/// Columns of the help.
const HELP_WIDTH: usize = 80;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_complete_and_distinct() {
        for (index, flag) in FLAGS.iter().enumerate() {
            assert!(
                flag.help.len() > 10 && !flag.help.contains(['|', '\n', '`']),
                "{}",
                flag.long
            );
            assert!(
                !flag.help.contains("  ") && !flag.help.ends_with('.'),
                "{}",
                flag.long
            );
            let shape_fits = match flag.apply {
                Apply::Alone(_) => flag.value.is_empty(),
                Apply::Optional(_) => flag.value.starts_with("[="),
                Apply::Value(_) => flag.value.starts_with(' ') && flag.value.len() > 1,
            };
            assert!(shape_fits, "{}", flag.long);
            for other in &FLAGS[index + 1..] {
                assert_ne!(flag.long, other.long);
                assert!(
                    flag.short.is_none() || flag.short != other.short,
                    "{:?}",
                    flag.short
                );
            }
        }
    }

    #[test]
    fn help_shows_every_row_within_its_width() {
        let help = help();
        let words: Vec<&str> = help.split_whitespace().collect();
        let words = words.join(" ");
        for flag in FLAGS {
            assert!(
                help.contains(&format!("--{}{}\n", flag.long, flag.value)),
                "{}",
                flag.long
            );
            let short = flag
                .short
                .map(|letter| format!("  -{letter}, --{}", flag.long));
            assert!(
                short.is_none_or(|short| help.contains(&short)),
                "{}",
                flag.long
            );
            assert!(words.contains(flag.help), "{}", flag.long);
        }
        let table = help
            .split_once("\n\n")
            .unwrap()
            .1
            .split_once("\n\n")
            .unwrap()
            .1;
        assert!(
            table
                .lines()
                .all(|line| line.len() <= HELP_WIDTH && line == line.trim_end())
        );
    }

    /// The rows as the README shows them.
    fn markdown() -> String {
        let mut text = String::from("| flag | value | meaning |\n|---|---|---|\n");
        for flag in FLAGS {
            let short = flag
                .short
                .map_or(String::new(), |letter| format!("`-{letter}`, "));
            let value = match flag.value.trim() {
                "" => String::new(),
                value => format!("`{value}` "),
            };
            let _ = writeln!(
                text,
                "| {short}`--{}` | {value}| {} |",
                flag.long, flag.help
            );
        }
        text
    }

    #[test]
    fn readme_has_this_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
        let readme = std::fs::read_to_string(path).unwrap_or_default();
        let section = readme
            .split_once("<!-- options:begin -->\n")
            .and_then(|(_, rest)| rest.split_once("<!-- options:end -->"))
            .map(|(section, _)| section);
        let wanted = markdown();
        assert!(
            section.map(str::trim) == Some(wanted.trim()),
            "README.md between <!-- options:begin --> and <!-- options:end --> must be:\n\n{wanted}"
        );
    }

    #[test]
    fn distances() {
        for (a, b, wanted) in [
            ("", "", 0),
            ("a", "", 1),
            ("", "ab", 2),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(distance(a, b), wanted);
        }
    }
}
