//! The program under test: starts the binary that cargo built on ports of the kernel's choice, follows its
//! log, stops it and reads the summary that it leaves.
//!
//! MTPROXY_BIN names another binary and MTPROXY_RUNNER a program to run it with: the same tests then
//! serve for cross-built binaries (tests.rs shows how).

use super::middle_proxy::proxy_secret;
use super::obfuscated2::Secret;
use super::programs::{Kept, end_of, file_limit, run};
use super::vectors::to_hex;
use super::wait::{Watch, until_within};
use std::collections::HashMap;
use std::env;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

/// How long the proxy may take to come to rest before it is stopped.
const REST: Duration = Duration::from_secs(5);

/// What to start the proxy with.
pub struct Setup {
    pub config: String,
    /// For -H.
    pub ports: String,
    pub secrets: Vec<Secret>,
    pub proxy_secret: Vec<u8>,
    /// Further arguments.
    pub arguments: Vec<String>,
}

impl Setup {
    /// With this configuration and no client secret.
    pub fn new(config: String) -> Setup {
        Setup {
            config,
            ports: "0".to_owned(),
            secrets: Vec::new(),
            proxy_secret: proxy_secret(128),
            arguments: Vec::new(),
        }
    }
}

pub fn owned(arguments: &[&str]) -> Vec<String> {
    arguments.iter().map(|&text| text.to_owned()).collect()
}

pub struct Proxy {
    run: Run,
    addresses: Vec<SocketAddr>,
    _files: Option<Files>,
}

impl Proxy {
    /// Starts the proxy and waits until it says that it is ready.
    pub fn start(setup: &Setup) -> Proxy {
        let files = Files::new();
        let mut arguments = vec!["-H".to_owned(), setup.ports.clone()];
        for secret in &setup.secrets {
            arguments.extend(["-S".to_owned(), to_hex(secret)]);
        }
        arguments.extend([
            "--aes-pwd".to_owned(),
            files.write("proxy-secret", &setup.proxy_secret),
        ]);
        // Pings of its own would set free what the proxy has held back by mistake.
        arguments.extend(["-T".to_owned(), "3600".to_owned()]);
        arguments.extend(setup.arguments.iter().cloned());
        arguments.push(files.write("proxy-multi.conf", setup.config.as_bytes()));
        let mut proxy = Proxy::start_with(&arguments);
        proxy._files = Some(files);
        proxy
    }

    /// Starts it with exactly these arguments, and no files.
    pub fn start_with<T: AsRef<OsStr>>(arguments: &[T]) -> Proxy {
        Proxy::running(Run::spawn(arguments))
    }

    /// As [`Proxy::start_with`], with so many KiB of address space.
    pub fn start_within<T: AsRef<OsStr>>(kib: u32, arguments: &[T]) -> Proxy {
        let inner = program();
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -v $0 && exec \"$@\"", &kib.to_string()]);
        command
            .arg(inner.get_program())
            .args(inner.get_args())
            .args(arguments)
            .stdin(Stdio::null());
        Proxy::running(Run::started(command))
    }

    /// With a command of the test's own, of which only the standard outputs are set.
    pub fn start_by(command: Command) -> Proxy {
        Proxy::running(Run::started(command))
    }

    fn running(run: Run) -> Proxy {
        run.wait_for_line("ready", |line| line == "ready");
        let lines = run.log.with(|log| log.lines.clone());
        let addresses = lines
            .iter()
            .filter_map(|line| line.strip_prefix("listening on "))
            // The path of a unix socket is none.
            .filter_map(|text| text.parse().ok());
        Proxy {
            addresses: addresses.collect(),
            run,
            _files: None,
        }
    }

    /// Where it listens, as it says.
    pub fn listening(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Where clients on this machine reach it by IPv4.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.addresses[0].port()).into()
    }

    /// Where they reach it by IPv6, when it was started with -6.
    pub fn address_v6(&self) -> SocketAddr {
        (Ipv6Addr::LOCALHOST, self.addresses[0].port()).into()
    }

    pub fn lines(&self) -> Vec<String> {
        self.run.log.with(|log| log.lines.clone())
    }

    /// What it has written to standard output.
    pub fn output(&self) -> String {
        self.run.files.read("output")
    }

    /// Waits for a line of the log; lines from before count.
    pub fn wait_for_line(&self, what: &str, is_it: impl Fn(&str) -> bool) -> String {
        self.run.wait_for_line(what, is_it)
    }

    /// Waits until an event has been logged `count` times; gives all of them, in order.
    pub fn wait_for_events(&self, name: &str, count: usize) -> Vec<Event> {
        let found = self.run.log.wait(|log| {
            let events: Vec<Event> = log
                .lines
                .iter()
                .filter_map(|line| Event::parse(line, name))
                .collect();
            (events.len() >= count).then_some(events)
        });
        found.unwrap_or_else(|| self.run.fail(&format!("{count} lines of {name}")))
    }

    pub fn id(&self) -> u32 {
        self.run.child.0.id()
    }

    pub fn signal(&self, name: &str) {
        self.run.signal(name);
    }

    /// Waits for the end after a signal.
    pub fn wait_for_end(&mut self) -> ExitStatus {
        self.run.wait_for_end()
    }

    /// Ends it by SIGTERM; gives the counters of the summary line. Whoever was closed sees that a moment before it
    /// is counted, so the proxy may come to rest first.
    pub fn stop(mut self) -> Event {
        let is_at_rest = || {
            let before = self.activity()?;
            (self.activity()? == before).then_some(())
        };
        // It needn't, in the middle of a stream.
        let _ = until_within(REST, is_at_rest);
        self.run.signal("TERM");
        let status = self.run.wait_for_end();
        assert_eq!(status.code(), Some(0), "exit after SIGTERM");
        self.summary()
    }

    /// The counters that it left at its end.
    pub fn summary(&self) -> Event {
        self.wait_for_events("summary", 1).remove(0)
    }

    /// The most memory that the process ever had in use, in bytes.
    pub fn peak_memory(&self) -> u64 {
        let kilobytes: u64 = self.status("VmHWM")[0].parse().expect("a size");
        kilobytes * 1_024
    }

    /// How often its threads have gone to sleep so far, all together. None while one of them runs.
    pub fn activity(&self) -> Option<u64> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.run.child.0.id())).ok()?;
        let sleeps = tasks.map(|task| {
            let status = fs::read_to_string(task.ok()?.path().join("status")).ok()?;
            let word = |name: &str| {
                let line = status.lines().find(|line| line.starts_with(name))?;
                line.split_whitespace().nth(1)
            };
            let is_asleep = word("State:")? == "S";
            let sleeps: u64 = word("voluntary_ctxt_switches:")?.parse().ok()?;
            is_asleep.then_some(sleeps)
        });
        sleeps.sum()
    }

    /// The directory that it sees as the whole file system.
    pub fn root(&self) -> PathBuf {
        fs::read_link(format!("/proc/{}/root", self.run.child.0.id())).expect("a running proxy")
    }

    /// What the kernel says of the process: the words of a line of its status file.
    pub fn status(&self, name: &str) -> Vec<String> {
        let path = format!("/proc/{}/status", self.run.child.0.id());
        let status = fs::read_to_string(path).expect("a running proxy");
        let words = status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .unwrap_or_else(|| panic!("no line {name} in {status}"));
        words.split_whitespace().map(str::to_owned).collect()
    }
}

/// A log line `TIME NAME key=value ...`.
#[derive(Clone, Debug)]
pub struct Event(HashMap<String, String>);

impl Event {
    fn parse(line: &str, name: &str) -> Option<Event> {
        let mut words = line.split_whitespace().skip(1);
        (words.next() == Some(name)).then(|| {
            let pairs = words.filter_map(|word| word.split_once('='));
            Event(
                pairs
                    .map(|(key, value)| (key.to_owned(), value.to_owned()))
                    .collect(),
            )
        })
    }

    pub fn text(&self, key: &str) -> &str {
        self.0
            .get(key)
            .unwrap_or_else(|| panic!("no {key} in {self:?}"))
    }

    pub fn number(&self, key: &str) -> f64 {
        self.text(key)
            .parse()
            .unwrap_or_else(|_| panic!("{key} is no number in {self:?}"))
    }

    /// A counter; those that are zero are not in the line.
    pub fn count(&self, key: &str) -> u64 {
        let count = self.0.get(key).map_or("0", String::as_str);
        count
            .parse()
            .unwrap_or_else(|_| panic!("{key} is no count in {self:?}"))
    }
}

/// How a run that was not to serve has ended.
pub struct Refusal {
    pub code: Option<i32>,
    pub text: String,
}

/// Runs the proxy with arguments that should make it end by itself.
pub fn run_to_end<T: AsRef<OsStr>>(arguments: &[T]) -> Refusal {
    let mut run = Run::spawn(arguments);
    let code = run.wait_for_end().code();
    let text = run.log.with(|log| log.lines.join("\n"));
    Refusal { code, text }
}

/// A child process and what it has said on stderr.
struct Run {
    child: Kept,
    log: Arc<Watch<Log>>,
    /// Its standard output.
    files: Files,
}

#[derive(Default)]
struct Log {
    lines: Vec<String>,
    ended: bool,
}

impl Run {
    fn spawn<T: AsRef<OsStr>>(arguments: &[T]) -> Run {
        let mut command = program();
        command.args(arguments).stdin(Stdio::null());
        Run::started(command)
    }

    fn started(mut command: Command) -> Run {
        file_limit();
        let files = Files::new();
        command
            .stdout(File::create(files.path("output")).expect("a file for its output"))
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("start the proxy");
        let log = Arc::new(Watch::<Log>::default());
        let errors = BufReader::new(child.stderr.take().expect("its stderr"));
        let follower = Arc::clone(&log);
        thread::spawn(move || {
            for line in errors.split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).into_owned();
                follower.with(|log| log.lines.push(line));
            }
            follower.with(|log| log.ended = true);
        });
        let child = Kept(child);
        Run { child, log, files }
    }

    fn wait_for_line(&self, what: &str, is_it: impl Fn(&str) -> bool) -> String {
        // Some(None): it has ended and the line can't come any more.
        let found = self
            .log
            .wait(|log| match log.lines.iter().find(|line| is_it(line)) {
                Some(line) => Some(Some(line.clone())),
                None => log.ended.then_some(None),
            });
        found.flatten().unwrap_or_else(|| self.fail(what))
    }

    fn wait_for_end(&mut self) -> ExitStatus {
        if self.log.wait(|log| log.ended.then_some(())).is_none() {
            self.fail("its end");
        }
        end_of(&mut self.child.0, "the proxy")
    }

    fn fail(&self, what: &str) -> ! {
        let log = self.log.with(|log| log.lines.join("\n  "));
        panic!("the proxy's log waits in vain for {what}:\n  {log}")
    }

    /// By the shell's own kill: std can only send SIGKILL.
    fn signal(&self, name: &str) {
        let pid = self.child.0.id().to_string();
        let sent = run("sh", &["-c", "kill -s \"$0\" \"$1\"", name, &pid], b"").expect("sh");
        assert!(sent.status.success(), "signal {name} to {pid}: {sent:?}");
    }
}

/// The program, ready for its arguments.
pub fn program() -> Command {
    let binary =
        env::var("MTPROXY_BIN").unwrap_or_else(|_| env!("CARGO_BIN_EXE_mtproxy").to_owned());
    match env::var("MTPROXY_RUNNER") {
        Err(_) => Command::new(binary),
        Ok(runner) => {
            let mut command = Command::new(runner);
            command.arg(binary);
            command
        }
    }
}

/// A directory of its own for a test's files, gone with it.
pub struct Files(PathBuf);

impl Files {
    pub fn new() -> Files {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let directory =
            env::temp_dir().join(format!("mtproxy-tests-{}-{number}", std::process::id()));
        fs::create_dir(&directory).expect("a directory of its own");
        Files(directory)
    }

    /// Writes a file; gives its path.
    pub fn write(&self, name: &str, contents: &[u8]) -> String {
        let path = self.0.join(name);
        fs::write(&path, contents).expect("write a test's file");
        as_text(&path)
    }

    /// What a file holds.
    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.0.join(name)).expect("read a test's file")
    }

    /// The path of a file that doesn't exist.
    pub fn missing(&self) -> String {
        as_text(&self.0.join("missing"))
    }

    /// The path of a file, whether it exists or not; the directory's own for an empty name.
    pub fn path(&self, name: &str) -> String {
        as_text(&self.0.join(name))
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn as_text(path: &Path) -> String {
    path.to_str().expect("a path in UTF-8").to_owned()
}
