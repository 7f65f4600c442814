//! What secrets have used of their quotas, kept over restarts in a file beside that of --state: FILE.usage.
//! The main thread reads it at start, and writes it once a minute and at the end if something has changed; a
//! new file takes the old one's place at once, so a crash leaves one or the other.
//!
//! A line holds a secret's label, the bytes that are used, and when the quota begins anew in unix seconds, or
//! 0. The first line and the last are fixed, so a torn file and somebody else's are noticed; such a one is
//! kept aside, and counting begins at 0. Labels that no secret has any more are dropped.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use mtproxy::limits::MAX_USAGE_FILE;
use mtproxy::proto::wire::decimal;

use crate::base::log;
use crate::operator::files::read_file;
use crate::stats;

/// The file, and what stands in it.
pub struct UsageFile {
    path: PathBuf,
    written: String,
}

impl UsageFile {
    /// Hands what the file beside `state` holds to the accounts, which are there.
    pub fn open(state: &Path) -> UsageFile {
        let path = with_suffix(state, ".usage");
        let written = match read(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
            Err(e) => {
                let bad = with_suffix(&path, ".bad");
                let kept = fs::rename(&path, &bad).err().unwrap_or(e);
                let (path, bad) = (path.display(), bad.display());
                log::say(format_args!(
                    "warning: {path}: {kept}; quotas count from 0, see {bad}"
                ));
                String::new()
            }
        };
        UsageFile { path, written }
    }

    /// Writes what is used now, if that has changed.
    pub fn save(&mut self) {
        let text = text();
        if text == self.written || (self.written.is_empty() && text == [HEAD, END].concat()) {
            return;
        }
        let new = with_suffix(&self.path, ".new");
        // On the disk before it takes the old one's place: a machine that loses power has one or the other.
        let write = || {
            let mut file = File::create(&new)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()
        };
        match write().and_then(|()| fs::rename(&new, &self.path)) {
            Ok(()) => self.written = text,
            Err(e) => log::event(format_args!("usage_failed error=\"{e}\"")),
        }
    }
}

/// Reads the file and hands it on; nothing of it if something is wrong.
fn read(path: &Path) -> io::Result<String> {
    let wrong = || io::Error::other("it is torn, or no file of quotas");
    let text = String::from_utf8(read_file(path, MAX_USAGE_FILE)?).map_err(|_| wrong())?;
    let lines = text.strip_prefix(HEAD).and_then(|t| t.strip_suffix(END));
    let used = lines.ok_or_else(wrong)?.lines().map(parse);
    let used: Option<Vec<_>> = used.collect();
    for (label, used, period_end) in used.ok_or_else(wrong)? {
        let mut all = stats::accounts().into_iter();
        if let Some(account) = all.find(|account| account.label == label) {
            account.set_used(used, period_end);
        }
    }
    Ok(text)
}

fn parse(line: &str) -> Option<(&str, u64, u64)> {
    let mut words = line.split(' ');
    let label = words.next()?;
    let mut number = || decimal(words.next()?.as_bytes());
    let numbers = (number()?, number()?);
    words
        .next()
        .is_none()
        .then_some((label, numbers.0, numbers.1))
}

fn text() -> String {
    let mut text = String::from(HEAD);
    for account in stats::accounts() {
        if let Some((used, period_end)) = account.used() {
            let _ = writeln!(text, "{} {used} {period_end}", account.label);
        }
    }
    text + END
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

const HEAD: &str = "mtproxy quotas 1\n";
const END: &str = "end\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        assert_eq!(parse("bob 17 0"), Some(("bob", 17, 0)));
        for wrong in [
            "",
            "bob",
            "bob 17",
            "bob 17 0 1",
            "bob 17 0 ",
            "bob x 0",
            "bob 17 -1",
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
