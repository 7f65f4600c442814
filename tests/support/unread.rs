//! A proxy whose log nobody reads but where a test asks for a line; its pipe can be filled.

use super::client::Client;
use super::framing::Transport;
use super::rig::{SECRET, dialer};
use super::vectors::to_hex;
use super::wait::PATIENCE;
use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, PipeReader, Write, pipe};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

/// What a stop takes at most (5 s, and a second for the log), with what a busy machine adds.
const STOPS_WITHIN: Duration = Duration::from_secs(9);

/// A proxy whose log nobody reads.
pub struct Unread {
    child: Child,
    /// A line is read from the pipe when one is taken from here.
    lines: Receiver<String>,
    /// The pipe.
    log: PipeReader,
    pub address: SocketAddr,
}

impl Unread {
    /// Starts `program` with the usual secret and waits until it is ready.
    pub fn start(mut program: Command, arguments: &[&str]) -> Unread {
        let (reader, writer) = pipe().expect("a pipe");
        let child = program
            .args(["-H", "0", "-S", &to_hex(&SECRET)])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(writer)
            .spawn()
            .expect("start the proxy");
        drop(program); // and with it our handle of the pipe's other end
        let log = reader.try_clone().expect("a second handle");
        let (give, lines) = sync_channel(0);
        thread::spawn(move || {
            let mut all = BufReader::new(reader).lines().map_while(Result::ok);
            while all.next().is_some_and(|line| give.send(line).is_ok()) {}
        });
        let mut run = Unread {
            child,
            lines,
            log,
            address: (Ipv4Addr::LOCALHOST, 0).into(),
        };
        let listening = run.wait_for_line("listening on ");
        let port = listening.rsplit(':').next().expect("a port");
        run.address.set_port(port.parse().expect("a port"));
        run.wait_for_line("ready");
        run
    }

    /// Fills the log's pipe to the last byte.
    pub fn fill_its_log(&mut self) {
        let end = format!("/proc/self/fd/{}", self.log.as_raw_fd());
        let mut filler = OpenOptions::new()
            .write(true)
            .open(end)
            .expect("the pipe's other end");
        let written = Arc::new(AtomicUsize::new(0));
        let count = written.clone();
        thread::spawn(move || {
            // Ends when the last reader is gone.
            while let Ok(n) = filler.write(&[b'\n'; 1_024]) {
                count.fetch_add(n, Ordering::Relaxed);
            }
        });
        let mut before = 0;
        loop {
            thread::sleep(Duration::from_millis(200));
            let now = written.load(Ordering::Relaxed);
            if now > 0 && now == before {
                return;
            }
            before = now;
        }
    }

    /// Reads the log up to a line with this text; gives what is behind it.
    pub fn wait_for_line(&mut self, text: &str) -> String {
        let end = Instant::now() + PATIENCE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left);
            let line = line.unwrap_or_else(|_| panic!("the log waits in vain for {text}"));
            if let Some((_, behind)) = line.split_once(text) {
                return behind.to_owned();
            }
        }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// By the shell's own kill: std can only send SIGKILL.
    pub fn signal(&self, name: &str) {
        let kill = ["-c", "kill -s \"$0\" \"$1\"", name, &self.id().to_string()];
        let sent = Command::new("sh").args(kill).status().expect("sh");
        assert!(sent.success(), "signal {name}");
    }

    pub fn dial(&self, dc: i16) -> Client {
        let mut dialer = dialer(self.address, Transport::Intermediate);
        dialer.dc = dc;
        dialer.dial()
    }

    /// SIGTERM ends it within its deadline, with 0.
    pub fn stop(mut self) {
        self.signal("TERM");
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("its status") {
                assert_eq!(status.code(), Some(0));
                return;
            }
            assert!(begun.elapsed() < STOPS_WITHIN, "it doesn't stop");
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
