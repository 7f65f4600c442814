//! What a row of the flag table is, how the row of a name is found, and the help.
//!
//! The rows themselves are in `table`; the help and the README's table derive from them.

use crate::operator::options::table::FLAGS;
use crate::operator::options::values::Wrong;
use crate::operator::options::{Typed, UsageError};
use mtproxy::proto::secret::SecretEntry;
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
        // In the wrong place it is a secret all the same.
        let got = || match SecretEntry::parse(&value) {
            Ok(_) => "a secret".into(),
            Err(_) => format!("{value:?}"),
        };
        result.map_err(|wrong| match wrong {
            Wrong::Expected(what) => {
                UsageError::new(format!("{label}: expected {what}, got {}", got()))
            }
            Wrong::Exit(code, what) => {
                let text = format!("{label}: expected {what}, got {}", got());
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
const USAGE: &str = "usage: mtproxy [run] [-H PORT] [-S SECRET] [-D DOMAIN] [FLAGS]
       mtproxy [run] -H PORT -S SECRET [-P TAG] [--aes-pwd FILE] [FLAGS] CONFIG
       mtproxy link -S SECRET [-H PORT] [--server HOST] [-D DOMAIN] [--qr]
       mtproxy secret [DOMAIN]

Without CONFIG clients are taken straight to Telegram, and without -S a secret is made up and its
link shown. With -D the proxy passes for a web site (fake TLS). CONFIG is Telegram's list of middle
proxies, https://core.telegram.org/getProxyConfig, and the file for --aes-pwd is
https://core.telegram.org/getProxySecret. Both change: fetch them daily. link shows the links of a
proxy, and takes its flags; secret makes up a secret.

";

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
