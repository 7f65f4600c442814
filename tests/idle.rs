//! Idle is idle: what a server with 50 connected clients that say nothing asks of the kernel in 65 s, seen by
//! strace. Run by `make soak`; ignored in the usual run because it takes as long as it says.

use crate::support::framing::Transport;
use crate::support::programs::{are_there, end_of, show};
use crate::support::proxy::Files;
use crate::support::rig::dialer;
use crate::support::tls_hello::Kind;
use crate::support::tls_rig::{MODES, Mode, TlsRig, tls_dialer};
use crate::support::wait::until;
use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

const CLIENTS: usize = 50;
/// More than a minute: whatever is done once a minute is seen.
const WATCHED: Duration = Duration::from_secs(65);
/// Threads that do something: those of the minute's work, of settings that may have changed, of signals,
/// and of connections to middle proxies, which are pinged. None is a client's.
const AWAKE: [&str; 4] = ["main", "reload", "signal", "b0."];
/// Their calls, all together. Measured: 7 in direct mode, 36 in middle mode.
const MOST: usize = 100;

#[test]
#[ignore = "takes over a minute: make soak"]
fn in_either_mode() {
    assert!(
        are_there(&["strace"]),
        "strace is missing: install Debian's package strace"
    );
    thread::scope(|scope| {
        for mode in MODES {
            scope.spawn(move || idle(mode));
        }
    });
}

fn idle(mode: Mode) {
    // The default interval; the rig's own would leave no ping to be seen.
    let arguments: &[&str] = match mode {
        Mode::Middle => &["--allow-plain", "-T", "60"],
        Mode::Direct => &["--allow-plain"],
    };
    let rig = TlsRig::with(mode, arguments);
    let address = rig.address();
    let mut clients: Vec<_> = (0..CLIENTS)
        .map(|number| match number % 2 {
            0 => dialer(address, Transport::Padded).dial(),
            _ => tls_dialer(address, Kind::Today).dial(),
        })
        .collect();
    clients.iter_mut().for_each(|client| client.echo(100));
    rig.wait_until_probed();

    let (files, id) = (Files::new(), rig.served.proxy.id());
    let output = files.path("calls");
    let names = names(id);
    let mut strace = Command::new("strace")
        .args(["-f", "-qq", "-o", &output, "-p", &id.to_string()])
        .stdin(Stdio::null())
        .spawn()
        .expect("start strace");
    until("strace to hold every thread", || {
        is_traced(id).then_some(())
    });
    thread::sleep(WATCHED);
    let pid = strace.id().to_string();
    let sent = Command::new("kill").args(["-s", "INT", &pid]).status();
    assert!(sent.expect("kill").success());
    end_of(&mut strace, "strace");
    let seen = calls(&files.read("calls"), &names);
    for ((thread, call), count) in &seen {
        show(&format!(
            "{mode:?} idle for {WATCHED:?}: {thread:<16} {call:<16} {count:>4}"
        ));
    }
    for (thread, call) in seen.keys() {
        let is_awake = AWAKE.iter().any(|name| thread.starts_with(name));
        assert!(is_awake, "{mode:?}: {thread} called {call}");
    }
    let all: usize = seen.values().sum();
    assert!((1..=MOST).contains(&all), "{mode:?}: {all} calls");
    clients.iter_mut().for_each(|client| client.echo(100));
}

/// Its threads' names by their ids; the first one has the program's, whatever that is called.
fn names(id: u32) -> BTreeMap<String, String> {
    let tasks = fs::read_dir(format!("/proc/{id}/task")).expect("its threads");
    let name = |task: fs::DirEntry| {
        let number = task.file_name().to_string_lossy().into_owned();
        let name = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        let is_first = number == id.to_string();
        let name = if is_first { "main" } else { name.trim() };
        (number, name.to_owned())
    };
    tasks.flatten().map(name).collect()
}

fn is_traced(id: u32) -> bool {
    let tasks = fs::read_dir(format!("/proc/{id}/task")).expect("its threads");
    tasks.flatten().all(|task| {
        let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
        !status.contains("TracerPid:\t0\n")
    })
}

/// How often each thread called what. The first call of each is the one in which strace found it waiting.
fn calls(log: &str, names: &BTreeMap<String, String>) -> BTreeMap<(String, String), usize> {
    let mut found = BTreeMap::new();
    let mut known = Vec::new();
    for line in log.lines() {
        let (id, rest) = line.split_once(' ').unwrap_or_default();
        let Some((call, _)) = rest.trim_start().split_once('(') else {
            continue;
        };
        let is_call = call.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !is_call {
            continue; // the rest of an earlier one
        }
        if names.contains_key(id) && !known.contains(&id) {
            known.push(id);
            continue;
        }
        let name = names.get(id).map_or("a new thread", String::as_str);
        *found.entry((name.to_owned(), call.to_owned())).or_default() += 1;
    }
    found
}
