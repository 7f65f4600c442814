//! What `ping` and `doctor` find out: jobs that run side by side against one deadline, and how their results
//! are printed. Nothing here is a stranger's but texts, which are escaped.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::{Arc, Condvar};
use std::time::{Duration, Instant};

use crate::base::{lock, lock::Mutex, threads};

/// How well it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Verdict {
    #[default]
    Ok,
    Warn,
    Fail,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Verdict::Ok => "ok",
            Verdict::Warn => "warn",
            Verdict::Fail => "fail",
        }
    }
}

/// One line.
#[derive(Clone, Default)]
pub struct Finding {
    /// What was looked at.
    pub name: String,
    pub verdict: Verdict,
    /// What was found.
    pub text: String,
    /// What to do.
    pub hint: String,
    /// Where it failed, in one word.
    pub phase: &'static str,
    /// How long it took.
    pub times: Vec<Duration>,
    /// A name's addresses, for what follows.
    pub addresses: Vec<SocketAddr>,
    /// Another clock is so many seconds ahead of this one.
    pub skew: Option<i64>,
}

impl Finding {
    /// With a verdict, a text and what to do.
    pub fn new(
        verdict: Verdict,
        name: impl AsRef<str>,
        text: impl AsRef<str>,
        hint: &str,
    ) -> Finding {
        Finding::of_texts(verdict, [name.as_ref(), text.as_ref(), hint])
    }

    #[inline(never)] // once, not for each kind of text
    fn of_texts(verdict: Verdict, [name, text, hint]: [&str; 3]) -> Finding {
        Finding {
            name: name.into(),
            verdict,
            text: text.into(),
            hint: hint.into(),
            ..Finding::default()
        }
    }

    /// Nothing is to be done.
    pub fn ok(name: impl AsRef<str>, text: impl AsRef<str>) -> Finding {
        Finding::new(Verdict::Ok, name, text, "")
    }

    fn json(&self) -> String {
        let times: Vec<String> = self.times.iter().map(|time| millis(*time)).collect();
        format!(
            "{{\"name\":{},\"verdict\":\"{}\",\"text\":{},\"hint\":{},\"phase\":\"{}\",\"ms\":[{}]}}",
            quoted(&self.name),
            self.verdict.word(),
            quoted(&self.text),
            quoted(&self.hint),
            self.phase,
            times.join(",")
        )
    }
}

/// Milliseconds with one decimal.
pub fn millis(time: Duration) -> String {
    let tenths = time.as_micros() as u64 / 100;
    format!("{}.{}", tenths / 10, tenths % 10)
}

/// As a JSON string.
pub fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out + "\""
}

/// What finds out one thing; its name is for when it takes too long.
pub struct Job {
    pub name: String,
    pub run: Box<dyn FnOnce() -> Finding + Send>,
}

/// Runs the jobs in a thread each. Their findings are in the jobs' order; which has none by `deadline` failed.
pub fn side_by_side(jobs: Vec<Job>, deadline: Instant) -> Vec<Finding> {
    let board = Arc::new((Mutex::new(vec![None; jobs.len()]), Condvar::new()));
    let names: Vec<String> = jobs.iter().map(|job| job.name.clone()).collect();
    for (at, job) in jobs.into_iter().enumerate() {
        let theirs = board.clone();
        let run = move || {
            let found = (job.run)();
            theirs.0.lock()[at] = Some(found);
            theirs.1.notify_one();
        };
        // Without a thread it stays undone.
        let _ = threads::spawn("check", run);
    }
    let (found, changed) = &*board;
    let left = deadline.saturating_duration_since(Instant::now());
    let undone = |all: &mut Vec<Option<Finding>>| all.iter().any(Option::is_none);
    let mut found = lock::wait_while(changed, found.lock(), left, undone);
    let late = |name| Finding {
        phase: "late",
        ..Finding::new(Verdict::Fail, name, "not done within the time", "")
    };
    let both = found.iter_mut().zip(names);
    both.map(|(found, name)| found.take().unwrap_or_else(|| late(name)))
        .collect()
}

/// Prints them to standard output, and returns the worst.
pub fn print(findings: &[Finding], json: bool) -> Verdict {
    let has = |verdict| findings.iter().any(|found| found.verdict == verdict);
    let worst = match (has(Verdict::Fail), has(Verdict::Warn)) {
        (true, _) => Verdict::Fail,
        (false, true) => Verdict::Warn,
        (false, false) => Verdict::Ok,
    };
    let mut text = String::new();
    if json {
        let all: Vec<String> = findings.iter().map(Finding::json).collect();
        let (verdict, all) = (worst.word(), all.join(","));
        text = format!("{{\"verdict\":\"{verdict}\",\"findings\":[{all}]}}\n");
    } else {
        for Finding {
            name,
            verdict,
            text: what,
            hint,
            ..
        } in findings
        {
            let end = if hint.is_empty() { "" } else { "; " };
            let line = format!("{:5} {name}: {what}{end}{hint}", verdict.word());
            text.extend(line.chars().map(|c| if c.is_control() { ' ' } else { c }));
            text.push('\n');
        }
    }
    let _ = std::io::stdout().write_all(text.as_bytes());
    worst
}
