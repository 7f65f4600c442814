//! Nobody reads the log, and its pipe is full: clients are served, a lost middle proxy is dialled again, and
//! SIGTERM ends the process. When somebody reads again the log says how many lines are missing.

use crate::support::bystander::Bystander;
use crate::support::dc::{Behaviour, DataCentre};
use crate::support::middle_proxy::MiddleProxy;
use crate::support::proxy::{Files, program};
use crate::support::unread::Unread;
use crate::support::wait::PATIENCE;
use std::net::TcpStream;

/// More than the queue of the log and its pipe hold.
const CONNECTIONS: usize = 1_500;

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
    let run = unread(&["--aes-pwd", &secret_file, "-M", "1", &config_file]);
    let bystander = Bystander::start(run.dial(3), 1_000);
    run.dial(2).echo(100);
    lost.kill_links();
    lost.link(1);
    run.dial(2).echo(100);
    bystander.unharmed(PATIENCE);
    run.stop();
}

#[test]
fn direct_mode_goes_on_and_stops() {
    let centre = DataCentre::start(Behaviour::Serve);
    let run = unread(&["--direct", "--dc-override", &centre.as_dc(2)]);
    let bystander = Bystander::start(run.dial(2), 1_000);
    for _ in 0..CONNECTIONS {
        drop(TcpStream::connect(run.address).expect("a connection"));
    }
    run.dial(2).echo(100);
    bystander.unharmed(PATIENCE);
    run.stop();
}

#[test]
fn what_is_missing_is_counted_once_somebody_reads() {
    let centre = DataCentre::start(Behaviour::Serve);
    let mut run = unread(&["--direct", "--dc-override", &centre.as_dc(2)]);
    for _ in 0..CONNECTIONS {
        drop(TcpStream::connect(run.address).expect("a connection"));
    }
    run.dial(2).echo(100);
    let dropped = run.wait_for_line("log_dropped lines=");
    let lines: usize = dropped.parse().expect("a number");
    assert!((1..CONNECTIONS).contains(&lines), "{lines}");
    run.dial(2).echo(100);
    run.stop();
}

/// Started, ready, and its log's pipe filled to the last byte.
fn unread(arguments: &[&str]) -> Unread {
    let mut run = Unread::start(program(), &[&["-v"], arguments].concat());
    run.fill_its_log();
    run
}
