//! What a flag is: a row of `table`, by which the parser sets a field of the [`Config`].

use super::config::{Command, Config, UsageError};
use super::values::Wrong;
use mtproxy::formats::secret::SecretEntry;
use std::ffi::OsString;

/// One row of the table.
pub struct Flag {
    /// As the help shows it: `-x, --long`, or the long name alone; then ` VALUE`, or `[=VALUE]` if it may be
    /// left out.
    pub spelling: &'static str,
    /// Without a full stop; the README and the help wrap it.
    pub help: &'static str,
    /// What the flag does.
    pub apply: Apply,
}

/// What a flag does with its value, which is refused by an error.
pub enum Apply {
    /// It has none.
    Alone(fn(&mut Config)),
    /// It has none, and asks for something else than to serve.
    Instead(fn() -> Command),
    /// One may come with the long name, behind `=`.
    Optional(fn(&mut Config, Option<&str>) -> Result<(), Wrong>),
    /// It must have one.
    Value(fn(&mut Config, &str) -> Result<(), Wrong>),
}

impl Flag {
    /// The letter.
    pub fn short(&self) -> Option<char> {
        let names = self.spelling.strip_prefix('-')?;
        names.chars().next().filter(|letter| *letter != '-')
    }

    /// The long name and what shows its value, with the space or the bracket in front.
    fn long_and_value(&self) -> (&'static str, &'static str) {
        let (_, long) = self.spelling.split_once("--").unwrap_or_default();
        let end = long.find([' ', '[']).unwrap_or(long.len());
        long.split_at(end)
    }

    /// The long name.
    pub fn long(&self) -> &'static str {
        self.long_and_value().0
    }

    /// As errors and hints name it: `-H/--http-ports`, or `--address`.
    pub fn label(&self) -> String {
        let short = self.short().map(|letter| format!("-{letter}/"));
        format!("{}--{}", short.unwrap_or_default(), self.long())
    }

    /// An error about this flag.
    pub fn error(&self, text: &str) -> UsageError {
        UsageError::new(format!("{}: {text}", self.label()))
    }

    /// Does what the flag asks for with its value, None if none came with it. Returns what else it asks for
    /// than to serve.
    pub fn apply(
        &self,
        config: &mut Config,
        value: Option<OsString>,
    ) -> Result<Option<Command>, UsageError> {
        let value = value.map(OsString::into_string).transpose();
        let value = value.map_err(|_| self.error("expected plain text"))?;
        config.given.push(self.long());
        let result = match (&self.apply, &value) {
            (Apply::Alone(apply), None) => {
                apply(config);
                Ok(())
            }
            (Apply::Instead(command), None) => return Ok(Some(command())),
            (Apply::Alone(_) | Apply::Instead(_), Some(_)) => {
                Err(Wrong::Hidden("takes no value".into()))
            }
            (Apply::Optional(apply), value) => apply(config, value.as_deref()),
            (Apply::Value(apply), Some(value)) => apply(config, value),
            (Apply::Value(_), None) => {
                let (long, shown) = self.long_and_value();
                let text = format!("expected a value, as in --{long}{shown}");
                Err(Wrong::Hidden(text))
            }
        };
        let Err(wrong) = result else { return Ok(None) };
        let value = value.unwrap_or_default();
        let (code, what) = match wrong {
            Wrong::Hidden(text) => return Err(self.error(&text)),
            Wrong::Expected(what) => (2, what),
            Wrong::Exit(code, what) => (code, what),
        };
        // In the wrong place it is a secret all the same.
        let got = match SecretEntry::parse(&value) {
            Ok(_) => "a secret".into(),
            Err(_) => format!("{value:?}"),
        };
        let UsageError { text, .. } = self.error(&format!("expected {what}, got {got}"));
        Err(UsageError { text, code })
    }
}
