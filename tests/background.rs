//! -d, -l, SIGUSR1 and --nice: how the program lives beside a terminal and a log rotation. Also the other flags
//! of the C program that change a running server: --max-accept-rate, --disable-tcp, -T.

use crate::support::client::Client;
use crate::support::dc::{Behaviour, DataCentre};
use crate::support::direct_rig::direct_proxy;
use crate::support::framing::Transport;
use crate::support::http::Figures;
use crate::support::middle_proxy::{MiddleProxy, Options};
use crate::support::programs::{self, Kept};
use crate::support::proxy::{Files, program};
use crate::support::rig::{Rig, SECRET, dialer, proxy_with};
use crate::support::vectors::to_hex;
use crate::support::wait::until;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Stdio;

/// A proxy in direct mode whose log is a file.
struct Logged {
    child: Kept,
    files: Files,
    _centre: DataCentre,
    address: SocketAddr,
}

impl Logged {
    /// As the user that runs the tests: the file must be open to it again later.
    fn start(before: &str) -> Logged {
        let files = Files::new();
        let log = files.path("log");
        if !before.is_empty() {
            files.write("log", before.as_bytes());
        }
        let centre = DataCentre::start(Behaviour::Serve);
        let child = program()
            .args(["-H", "0", "-S", &to_hex(&SECRET), "-u", "root", "-l", &log])
            .args(["--direct", "--dc-override", &centre.as_dc(2)])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(files.path("stderr")).expect("a file"))
            .spawn();
        let child = Kept(child.expect("start the proxy"));
        wait_for_line(&log, "ready");
        let address = address_in(&files.read("log"));
        Logged {
            child,
            files,
            _centre: centre,
            address,
        }
    }

    fn signal(&self, name: &str) {
        signal(&self.child.0.id().to_string(), name);
    }

    fn dial(&self) -> Client {
        dialer(self.address, Transport::Padded).dial()
    }
}

#[test]
fn a_log_file_has_everything_and_standard_error_the_start() {
    let run = Logged::start("what was there\n");
    let mode = fs::metadata(run.files.path("log")).expect("the log").mode();
    let (log, errors) = (run.files.read("log"), run.files.read("stderr"));
    assert!(log.starts_with("what was there\nmtproxy "), "{log}");
    assert!(log.contains("\nready\n"), "{log}");
    assert!(errors.contains("listening on "), "{errors}");
    assert!(!errors.contains("ready"), "{errors}");
    run.dial().echo(10);
    run.signal("USR2");
    wait_for_line(&run.files.path("log"), "signal_ignored name=SIGUSR2");
    drop(run);
    // The test has made that one; the next is the program's own.
    assert_ne!(mode & 0o400, 0);
    let run = Logged::start("");
    let mode = fs::metadata(run.files.path("log")).expect("the log").mode();
    assert_eq!((mode & 0o777) & !0o640, 0, "{mode:o}");
    assert_eq!(mode & 0o600, 0o600, "{mode:o}");
}

#[test]
fn sigusr1_opens_the_log_anew() {
    let run = Logged::start("");
    let (log, old) = (run.files.path("log"), run.files.path("log.1"));
    let mut client = run.dial();
    client.echo(10);
    for _ in 0..3 {
        fs::rename(&log, &old).expect("move the log away");
        let before = fs::read_to_string(&old).expect("the old log");
        run.signal("USR1");
        run.signal("USR2");
        wait_for_line(&log, "signal_ignored name=SIGUSR2");
        assert_eq!(
            run.files.read("log.1"),
            before,
            "written after the rotation"
        );
        client.echo(10);
    }
}

#[test]
fn a_log_that_cannot_be_opened_anew_stays() {
    let run = Logged::start("");
    let (log, old) = (run.files.path("log"), run.files.path("log.1"));
    fs::rename(&log, &old).expect("move the log away");
    fs::create_dir(&log).expect("a directory in its place");
    run.signal("USR1");
    wait_for_line(&old, "log_not_reopened file=");
    run.signal("USR2");
    wait_for_line(&old, "signal_ignored name=SIGUSR2");
    let said = run.files.read("log.1");
    assert_eq!(said.matches("log_not_reopened").count(), 1, "{said}");
    run.dial().echo(10);
    fs::remove_dir(&log).expect("away with it");
    run.signal("USR1");
    until("the log again", || Path::new(&log).is_file().then_some(()));
}

/// Root opens the file and then is somebody else, who can't again: that is said at once.
#[test]
fn a_log_that_the_user_will_not_open_again_is_warned_of() {
    if fs::metadata("/proc/self").expect("/proc").uid() != 0 {
        eprintln!("not root: nothing to see here");
        return;
    }
    let files = Files::new();
    fs::set_permissions(files.path(""), fs::Permissions::from_mode(0o700))
        .expect("a closed folder");
    let log = files.path("log");
    let child = program()
        .args([
            "-H",
            "0",
            "-S",
            &to_hex(&SECRET),
            "-l",
            &log,
            "-u",
            "nobody",
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let _child = Kept(child.expect("start the proxy"));
    wait_for_line(&log, "ready");
    let said = files.read("log");
    let warning = format!("warning: -l {log}: can't be opened again by the user");
    assert!(said.contains(&warning), "{said}");
}

#[test]
fn a_log_that_cannot_be_opened_ends_the_start() {
    let files = Files::new();
    let folder = files.path("");
    for flags in [&["-l", &folder][..], &["-d", "-l", &folder]] {
        let (code, text) = in_the_background(flags);
        assert_eq!(code, Some(1), "{text}");
        let wanted = format!("mtproxy: -l {folder}: can't open the log: ");
        assert!(text.contains(&wanted), "{text}");
    }
}

/// The command returns, its outputs are closed, and the server is there, in a session of its own.
#[test]
fn in_the_background_it_serves_and_has_left_the_terminal() {
    let files = Files::new();
    let log = files.path("log");
    let centre = DataCentre::start(Behaviour::Serve);
    let secret = to_hex(&SECRET);
    let (code, text) = in_the_background(&[
        "-d",
        "-l",
        &log,
        "-u",
        "root",
        "-H",
        "0",
        "-S",
        &secret,
        "-p",
        "0",
        "--http-stats",
        "--direct",
        "--dc-override",
        &centre.as_dc(2),
    ]);
    assert_eq!(code, Some(0), "{text}");
    // It was ready before the command returned.
    let said = files.read("log");
    assert!(said.contains("\nready\n"), "{said}");
    let (_, port) = said
        .split_once("stats on port ")
        .expect("a port for statistics");
    let port = port.lines().next().and_then(|port| port.parse().ok());
    let stats = (Ipv4Addr::LOCALHOST, port.expect("a port")).into();
    let server = Daemon(Figures::of_stats(stats).text("pid").to_owned());
    let mut client = dialer(address_in(&said), Transport::Padded).dial();
    client.echo(1_000);
    let stat = server.stat();
    // Its own session, and nobody's terminal.
    assert_eq!(
        (stat[3].as_str(), stat[4].as_str()),
        (server.0.as_str(), "0"),
        "{stat:?}"
    );
    for fd in 0..=2 {
        // Only root may look.
        if let Ok(target) = fs::read_link(format!("/proc/{}/fd/{fd}", server.0)) {
            assert_eq!(target, Path::new("/dev/null"));
        }
    }
    signal(&server.0, "TERM");
    wait_for_line(&log, "stopped drained=");
    client.expect_closed();
}

#[test]
fn in_the_background_errors_of_a_start_are_the_commands() {
    let taken = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a port");
    let port = taken.local_addr().expect("its address").port().to_string();
    let secret = to_hex(&SECRET);
    for (flags, code, wanted) in [
        (["-d", "-S", &secret, "-H", &port], 1, "can't listen on "),
        (["-d", "-S", &secret, "-H", "x"], 2, "-H/--http-ports: "),
        (
            ["-d", "-S", &secret, "--http-stats", "-H0"],
            1,
            "port isn't defined",
        ),
    ] {
        let (got, text) = in_the_background(&flags);
        assert_eq!(got, Some(code), "{text}");
        assert!(text.contains(wanted), "{text}");
    }
}

#[test]
fn niceness_is_added() {
    let own = niceness("self");
    let proxy = direct_proxy(&[], &["--nice", "3"]);
    let pid = &proxy.status("Pid")[0];
    assert_eq!(niceness(pid), (own + 3).min(19));
    // Threads have it from the one that started them.
    for task in fs::read_dir(format!("/proc/{pid}/task")).expect("its threads") {
        let path = task.expect("a thread").path();
        let path = path.strip_prefix("/proc").expect("a path in /proc");
        assert_eq!(niceness(&path.to_string_lossy()), (own + 3).min(19));
    }
}

#[test]
fn connections_over_the_rate_are_closed_and_counted() {
    const CONNECTIONS: usize = 300;
    let rig = Rig::with(&["--max-accept-rate", "1"], Options::default());
    let mut client = rig.dial(Transport::Padded);
    client.echo(100);
    let address = rig.proxy.address();
    let flood: Vec<TcpStream> = (0..CONNECTIONS)
        .map(|_| TcpStream::connect(address).expect("the kernel accepts"))
        .collect();
    client.echo(100);
    drop(flood);
    // A second brings a token.
    until("a further client", || {
        let mut client = rig.dial(Transport::Padded);
        client.send(&crate::support::message::Message::echo(10).encode());
        client.receive_or_end().map(drop)
    });
    let summary = rig.proxy.stop();
    let refused = summary.count("accept_rate_limit_failed");
    assert!(refused > 0 && refused <= summary.count("inbound_connections_accepted"));
}

#[test]
fn without_tcp_there_are_no_statistics() {
    let middle = MiddleProxy::serving();
    let flags = ["-p", "0", "--http-stats", "--disable-tcp"];
    let lines = proxy_with(middle.config_line(2), &flags).lines();
    let is_said = |line: &String| line.contains("stats") || line.contains("-p");
    assert!(!lines.iter().any(is_said), "{lines:#?}");
}

#[test]
fn half_a_second_between_pings_is_taken_as_one() {
    let rig = Rig::with(&["-T", "0.5"], Options::default());
    rig.middle
        .wait_for("two pings", |state| (state.pings.len() >= 2).then_some(()));
    let lines = rig.proxy.lines();
    let warning = "warning: -T: taken as 1 s";
    assert!(lines.iter().any(|line| line == warning), "{lines:#?}");
}

/// The exit code of a command that should return, and what it said on standard error before everybody had
/// closed that.
fn in_the_background(arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = program();
    let output = programs::output(command.args(arguments), b"").expect("the program");
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

/// A process that isn't our child; it doesn't outlive a test that fails.
struct Daemon(String);

impl Daemon {
    /// What the kernel says of it, from the state on.
    fn stat(&self) -> Vec<String> {
        stat(&self.0)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = programs::run("sh", &["-c", "kill -s KILL \"$0\"", &self.0], b"");
        }
    }
}

fn signal(pid: &str, name: &str) {
    let sent = programs::run("sh", &["-c", "kill -s \"$0\" \"$1\"", name, pid], b"").expect("sh");
    assert!(sent.status.success(), "signal {name} to {pid}: {sent:?}");
}

fn niceness(pid: &str) -> i32 {
    stat(pid)[16].parse().expect("a niceness")
}

/// The fields of /proc/PID/stat behind the name, which may hold spaces.
fn stat(pid: &str) -> Vec<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).expect("a running process");
    let (_, fields) = text.rsplit_once(") ").expect("a name");
    fields.split_whitespace().map(str::to_owned).collect()
}

fn wait_for_line(path: &str, what: &str) {
    until(&format!("{what} in {path}"), || {
        let text = fs::read_to_string(path).ok()?;
        text.lines().any(|line| line.contains(what)).then_some(())
    });
}

/// Where a proxy listens whose log this is.
fn address_in(log: &str) -> SocketAddr {
    let (_, port) = log.split_once("listening on 0.0.0.0:").expect("a port");
    let port = port.lines().next().and_then(|port| port.parse().ok());
    (Ipv4Addr::LOCALHOST, port.expect("a port")).into()
}
