//! Nobody reads the log, and its pipe is full: clients are served, a lost middle proxy is dialled again, and
//! SIGTERM ends the process. When somebody reads again the log says how many lines are missing.

use crate::support::client::Client;
use crate::support::dc::{Behaviour, DataCentre};
use crate::support::framing::Transport;
use crate::support::middle_proxy::MiddleProxy;
use crate::support::proxy::{Files, program};
use crate::support::rig::{SECRET, dialer};
use crate::support::vectors::to_hex;
use crate::support::wait::PATIENCE;
use std::io::{BufRead, BufReader, PipeReader, Write, pipe};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// More than the queue of the log and its pipe hold.
const CONNECTIONS: usize = 1_500;

/// What a stop takes at most (5 s, and a second for the log), with what a busy machine adds.
const STOPS_WITHIN: Duration = Duration::from_secs(9);

#[test]
fn middle_mode_goes_on_and_stops() {
    let (lost, other) = (MiddleProxy::serving(), MiddleProxy::serving());
    let files = Files::new();
    let config = format!(
        "default 2;\n{}{}",
        lost.config_line(2),
        other.config_line(3)
    );
    let secret_file = files.write("proxy-secret", lost.proxy_secret());
    let config_file = files.write("proxy-multi.conf", config.as_bytes());
    let run = Run::start(&["--aes-pwd", &secret_file, "-M", "1", &config_file]);
    let bystander = Bystander::start(run.dial(3));
    run.dial(2).echo(100);
    lost.kill_links();
    lost.link(1);
    run.dial(2).echo(100);
    bystander.end();
    run.stop();
}

#[test]
fn direct_mode_goes_on_and_stops() {
    let centre = DataCentre::start(Behaviour::Serve);
    let run = Run::start(&["--direct", "--dc-override", &centre.as_dc(2)]);
    let bystander = Bystander::start(run.dial(2));
    for _ in 0..CONNECTIONS {
        drop(TcpStream::connect(run.address).expect("a connection"));
    }
    run.dial(2).echo(100);
    bystander.end();
    run.stop();
}

#[test]
fn what_is_missing_is_counted_once_somebody_reads() {
    let centre = DataCentre::start(Behaviour::Serve);
    let mut run = Run::start(&["--direct", "--dc-override", &centre.as_dc(2)]);
    for _ in 0..CONNECTIONS {
        drop(TcpStream::connect(run.address).expect("a connection"));
    }
    run.dial(2).echo(100);
    let dropped = run.wait_for_line("log_dropped lines=");
    let lines: usize = dropped.trim().parse().expect("a number");
    assert!((1..CONNECTIONS).contains(&lines), "{lines}");
    run.dial(2).echo(100);
    run.stop();
}

/// A proxy whose log nobody reads.
struct Run {
    child: Child,
    log: BufReader<PipeReader>,
    address: SocketAddr,
}

impl Run {
    /// Started, ready, and its log's pipe filled to the last byte.
    fn start(arguments: &[&str]) -> Run {
        let (reader, writer) = pipe().expect("a pipe");
        let child = program()
            .args(["-H", "0", "-v", "-S", &to_hex(&SECRET)])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(writer.try_clone().expect("a second handle"))
            .spawn()
            .expect("start the proxy");
        let mut run = Run {
            child,
            log: BufReader::new(reader),
            address: (Ipv4Addr::LOCALHOST, 0).into(),
        };
        let listening = run.wait_for_line("listening on ");
        let port = listening.trim().rsplit(':').next().expect("a port");
        run.address.set_port(port.parse().expect("a port"));
        run.wait_for_line("ready");
        let written = Arc::new(AtomicUsize::new(0));
        let count = written.clone();
        let mut filler = writer;
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
                return run;
            }
            before = now;
        }
    }

    /// Reads the log up to a line with this text; gives what is behind it.
    fn wait_for_line(&mut self, text: &str) -> String {
        let begun = Instant::now();
        let mut line = String::new();
        while begun.elapsed() < PATIENCE {
            line.clear();
            self.log.read_line(&mut line).expect("a line of the log");
            if let Some((_, behind)) = line.split_once(text) {
                return behind.to_owned();
            }
        }
        panic!("the log waits in vain for {text}");
    }

    fn dial(&self, dc: i16) -> Client {
        let mut dialer = dialer(self.address, Transport::Intermediate);
        dialer.dc = dc;
        dialer.dial()
    }

    /// SIGTERM ends it within its deadline, with 0.
    fn stop(mut self) {
        let pid = self.child.id().to_string();
        let kill = ["-c", "kill -s TERM \"$0\"", &pid];
        assert!(
            Command::new("sh")
                .args(kill)
                .status()
                .expect("sh")
                .success()
        );
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

impl Drop for Run {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A client that is served all the time.
struct Bystander {
    goes_on: Arc<AtomicBool>,
    thread: JoinHandle<usize>,
}

impl Bystander {
    fn start(mut client: Client) -> Bystander {
        let goes_on = Arc::new(AtomicBool::new(true));
        let flag = goes_on.clone();
        let thread = thread::spawn(move || {
            let mut echoes = 0;
            while flag.load(Ordering::Relaxed) {
                client.echo(1_000);
                echoes += 1;
            }
            echoes
        });
        Bystander { goes_on, thread }
    }

    /// It has lost nothing.
    fn end(self) {
        self.goes_on.store(false, Ordering::Relaxed);
        assert!(self.thread.join().expect("a bystander that is served") > 0);
    }
}
