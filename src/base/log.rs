//! The log: one event a line on standard error, `time EVENT key=value ...`. Nothing per packet, never
//! a secret. Prose for the operator (start block, errors) is written by `say`.
//!
//! At start lines are written by the one thread that there is. From [`start`] on a thread of its own
//! writes them, out of a bounded queue: standard error may be a pipe that nobody reads or a terminal
//! that is held by Ctrl-S, and nobody who serves waits for that. Lines that don't fit are dropped and
//! counted; the count is logged once the queue is empty again.
//!
//! With -l the thread writes to a file, which it opens anew on [`reopen`]. What was said before it started
//! is on standard error and, through the queue, in the file.

use std::fmt::{Arguments, Write as _};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::panic::PanicHookInfo;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use mtproxy::formats::date::Moment;
use mtproxy::limits::{LOG_FLUSH, LOG_LINES};

use super::queue::Queue;
use super::{clock, threads};

static VERBOSITY: AtomicU32 = AtomicU32::new(0);
/// To the log's thread.
static QUEUE: Queue<String> = Queue::new();
/// There is one.
static STARTED: AtomicBool = AtomicBool::new(false);
/// -l
static FILE: OnceLock<PathBuf> = OnceLock::new();
/// The file is to be opened anew.
static REOPEN: AtomicBool = AtomicBool::new(false);
/// Lines that found no room since this was last logged.
static DROPPED: AtomicU32 = AtomicU32::new(0);

/// Sets how many -v were given.
pub fn set_verbosity(level: u32) {
    VERBOSITY.store(level, Ordering::Relaxed);
}

/// Opens a file of -l.
pub fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(0o640).open(path)
}

/// Lines are to go to this file, once there is the thread that writes them.
pub fn set_file(path: &Path) {
    let _ = FILE.set(path.into());
}

/// From now on lines are written by a thread of their own, to this file or to standard error.
pub fn start(file: Option<File>) -> io::Result<()> {
    let out: Box<dyn io::Write + Send> = match file {
        Some(file) => Box::new(file),
        None => Box::new(io::stderr()),
    };
    threads::spawn("log", || write_lines(&QUEUE, out))?;
    STARTED.store(true, Ordering::Relaxed);
    Ok(())
}

/// Has the file of -l opened anew, by the log's thread; false if there is none.
pub fn reopen() -> bool {
    if FILE.get().is_none() {
        return false;
    }
    REOPEN.store(true, Ordering::Relaxed);
    // Wakes the thread. If there is no room, it is awake.
    QUEUE.push(String::new(), LOG_LINES);
    true
}

/// Waits until everything is written, but not for long: nobody may be reading.
pub fn flush() {
    if STARTED.load(Ordering::Relaxed) {
        QUEUE.wait_done(LOG_FLUSH);
    }
}

/// Logs an event that an operator wants to know of.
pub fn event(what: Arguments) {
    line(stamped(what));
}

/// How many -v were given.
pub fn verbosity() -> u32 {
    VERBOSITY.load(Ordering::Relaxed)
}

/// Prints a line of prose.
pub fn say(what: Arguments) {
    let mut text = String::with_capacity(160);
    let _ = writeln!(text, "{what}");
    line(text);
}

/// The panic hook: place and message. std's own hook may print a backtrace, which needs more than a
/// small stack has, and waits for whoever reads standard error.
pub fn panicked(panic: &PanicHookInfo) {
    event(format_args!("{}", description(panic)));
}

fn description(panic: &PanicHookInfo) -> String {
    let what = panic.payload();
    let text = what.downcast_ref::<&str>().copied();
    let text = text.or_else(|| what.downcast_ref::<String>().map(String::as_str));
    let thread = std::thread::current();
    format!(
        "panicked thread={} at={} message={:?}",
        thread.name().unwrap_or("main"),
        panic
            .location()
            .map_or(&"?" as &dyn std::fmt::Display, |at| at),
        text.unwrap_or_default()
    )
}

fn stamped(what: Arguments) -> String {
    let mut text = String::with_capacity(160);
    let _ = writeln!(text, "{} {what}", Utc(clock::unix()));
    text
}

fn line(text: String) {
    if !STARTED.load(Ordering::Relaxed) {
        write(&mut io::stderr(), &text);
        if FILE.get().is_some() {
            QUEUE.push(text, LOG_LINES);
        }
    } else if !QUEUE.push(text, LOG_LINES) {
        DROPPED.fetch_add(1, Ordering::Relaxed);
    }
}

/// The log's thread.
fn write_lines(queue: &Queue<String>, mut out: Box<dyn io::Write + Send>) {
    while let Some(lines) = queue.take() {
        if REOPEN.swap(false, Ordering::Relaxed)
            && let Some(path) = FILE.get()
        {
            match open(path) {
                Ok(file) => out = Box::new(file),
                Err(e) => {
                    let what = format_args!("log_not_reopened file={path:?} error=\"{e}\"");
                    write(&mut out, &stamped(what));
                }
            }
        }
        lines.iter().for_each(|line| write(&mut out, line));
        let dropped = DROPPED.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            let what = format_args!("log_dropped lines={dropped}");
            write(&mut out, &stamped(what));
        }
    }
}

/// One write, so that a line doesn't mix with those of others who have the same standard error. Nothing
/// can be done if it fails.
fn write(out: &mut dyn io::Write, line: &str) {
    let _ = out.write_all(line.as_bytes());
}

/// Unix seconds, shown as 2026-11-23T04:10:00Z.
struct Utc(u64);

impl std::fmt::Display for Utc {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let moment = Moment::new(self.0);
        let (year, month, day) = (moment.year, moment.month, moment.day);
        let (h, m, s) = (
            moment.seconds / 3_600,
            moment.seconds / 60 % 60,
            moment.seconds % 60,
        );
        write!(f, "{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}Z")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::lock::Mutex;

    #[test]
    fn a_panic_is_one_line_with_its_place_and_message() {
        static SEEN: Mutex<Vec<String>> = Mutex::new(Vec::new());
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(|panic| SEEN.lock().push(description(panic))));
        let thread = std::thread::Builder::new().name("unlucky".into());
        let number = std::hint::black_box(7);
        let panics = move || panic!("on purpose,\n{number} times");
        assert!(thread.spawn(panics).unwrap().join().is_err());
        std::panic::set_hook(before);
        let seen = SEEN.lock(); // of other tests, too
        let own = seen.iter().find(|line| line.contains("unlucky")).unwrap();
        let start = "panicked thread=unlucky at=src/base/log.rs:";
        let end = r#" message="on purpose,\n7 times""#;
        assert!(own.starts_with(start) && own.ends_with(end), "{own}");
    }

    #[test]
    fn dates() {
        for (seconds, wanted) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_795_401_000, "2026-11-23T02:30:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(Utc(seconds).to_string(), wanted);
        }
    }
}
