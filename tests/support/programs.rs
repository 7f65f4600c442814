//! Other programs, run with a deadline. Where one is missing the tests say so and pass; `.ci/run` installs them.

use super::wait::{PATIENCE, joined, until, until_within};
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::OnceLock;
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How long a program has that does much: the tests that run once more, in a network of their own.
const LONG: Duration = PATIENCE.saturating_mul(4);

/// Debian's packages of the programs that the tests use.
const PACKAGES: [(&str, &str); 25] = [
    ("nginx", "nginx-light"),
    ("openssl", "openssl"),
    ("curl", "curl"),
    ("unshare", "util-linux"),
    ("ip", "iproute2"),
    ("zbarimg", "zbar-tools"),
    ("promtool", "prometheus"),
    ("node", "nodejs"),
    ("md5sum", "coreutils"),
    ("prlimit", "util-linux"),
    ("haproxy", "haproxy"),
    ("microsocks", "microsocks"),
    ("danted", "dante-server"),
    ("systemd-socket-activate", "systemd"),
    ("id", "coreutils"),
    ("systemd-analyze", "systemd"),
    ("shellcheck", "shellcheck"),
    ("busybox", "busybox"),
    ("socat", "socat"),
    ("qemu-mipsel", "qemu-user"),
    ("qemu-arm", "qemu-user"),
    ("qemu-mips", "qemu-user"),
    ("qemu-aarch64", "qemu-user"),
    ("qemu-x86_64", "qemu-user"),
    ("strace", "strace"),
];

/// Whether all of these programs can be run; says which can't.
pub fn are_there(programs: &[&str]) -> bool {
    // Whatever it makes of that: it is there.
    let is_there = |program: &&str| run(program, &["--version"], b"").is_some();
    programs.iter().all(is_there)
}

/// Whether a server is missing, which asking for its version might start; says so.
pub fn missing(program: &str) -> bool {
    let mut places = std::env::var("PATH").unwrap_or_default();
    places += ":/usr/sbin:/sbin";
    let is_there = places
        .split(':')
        .any(|place| Path::new(place).join(program).exists());
    if !is_there {
        say_missing(program);
    }
    !is_there
}

fn say_missing(program: &str) {
    let package = PACKAGES.iter().find(|(name, _)| *name == program);
    let (_, package) = package.unwrap_or_else(|| panic!("{program} is missing"));
    not_tested(&format!(
        "{program} is missing, install Debian's package {package}"
    ));
}

/// Not by eprintln, which is only shown of tests that fail.
pub fn not_tested(why: &str) {
    show(&format!("NOT TESTED: {why}"));
}

/// Lines for a reader, shown whether the test passes or not.
pub fn show(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Runs a program to its end, with this on its standard input. None, and a line that says so, if it is missing.
pub fn run(program: &str, arguments: &[&str], input: &[u8]) -> Option<Output> {
    output(Command::new(program).args(arguments), input)
}

/// The same of a command that has more to it.
pub fn output(command: &mut Command, input: &[u8]) -> Option<Output> {
    let program = command.get_program().to_string_lossy().into_owned();
    let started = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match started {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            say_missing(&program);
            return None;
        }
        child => child.unwrap_or_else(|error| panic!("{program}: {error}")),
    };
    let stdout = reading(child.stdout.take().expect("its output"));
    let stderr = reading(child.stderr.take().expect("its errors"));
    // It needn't read it.
    let _ = child.stdin.take().expect("its input").write_all(input);
    let status = end_of(&mut child, &program);
    Some(Output {
        status,
        stdout: joined(&program, stdout),
        stderr: joined(&program, stderr),
    })
}

fn reading(mut pipe: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).expect("what a program says");
        bytes
    })
}

/// How a program ends; panics, and kills it, when it goes on and on.
pub fn end_of(child: &mut Child, program: &str) -> ExitStatus {
    let status = until_within(LONG, || child.try_wait().expect("its exit status"));
    status.unwrap_or_else(|| {
        let _ = child.kill();
        panic!("{program} goes on after {LONG:?}")
    })
}

/// How many files the tests may open together.
const FILES: usize = 4_096;

/// How many files this process may open. Eight tests at a time have up to 1500, more than many systems allow by
/// default: where `make test` hasn't set the bound it is set here, as high as need be or as may be.
pub fn file_limit() -> usize {
    static LIMIT: OnceLock<usize> = OnceLock::new();
    *LIMIT.get_or_init(|| {
        let (soft, hard) = file_limits();
        if soft >= FILES || soft == hard {
            return soft;
        }
        let wanted = format!("--nofile={}:", hard.min(FILES));
        let process = std::process::id().to_string();
        let _ = run("prlimit", &["--pid", &process, &wanted], b"");
        let (soft, _) = file_limits();
        if soft < FILES {
            show(&format!("{soft} files (ulimit -n) are few for the tests"));
        }
        soft
    })
}

/// The soft bound and the hard one.
fn file_limits() -> (usize, usize) {
    let limits = fs::read_to_string("/proc/self/limits").expect("the limits of this process");
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let words = line.map(|line| line.split_whitespace().skip(3));
    let mut numbers = words.into_iter().flatten().map(|word| {
        // Or it is unlimited.
        word.parse().unwrap_or(usize::MAX)
    });
    let mut next = || numbers.next().expect("two limits");
    (next(), next())
}

/// A program that ends with the test.
pub struct Kept(pub Child);

impl Drop for Kept {
    fn drop(&mut self) {
        // By its id; a child that has been waited for is left alone by std.
        let _ = self.0.kill();
        until("the end of a killed program", || {
            self.0.try_wait().expect("its exit status")
        });
    }
}
