//! The page of proxy type WEB itself, run by Debian's Node in a mock of the object that Telegram's apps define
//! (support/web_app.js), with real clients on the streams that it carries.

use crate::support::dc::Behaviour;
use crate::support::direct_rig::DirectRig;
use crate::support::framing::Transport;
use crate::support::http::{Figures, SERVING, stats_address, wait_for};
use crate::support::programs::{Kept, are_there};
use crate::support::rig::{SECRET, dialer};
use crate::support::transfers::{download, echo_interleaved, upload};
use crate::support::wait::Watch;
use crate::support::web::{HOST, capability, web_address};
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;

#[test]
fn the_page_carries_an_apps_streams() {
    if !are_there(&["node"]) {
        return;
    }
    let arguments = [
        &["--web", HOST, "--web-listen", "127.0.0.1:0"][..],
        &SERVING,
    ]
    .concat();
    let rig = DirectRig::with(Behaviour::Serve, &arguments);
    let address = web_address(&rig.proxy);
    let app = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/web_app.js");
    let child = Command::new("node")
        .args([
            app,
            &address.ip().to_string(),
            &address.port().to_string(),
            HOST,
        ])
        .arg(capability(HOST, "", &SECRET))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let mut child = Kept(child.expect("node"));
    let lines = BufReader::new(child.0.stdout.take().expect("its output"));
    let said = Arc::new(Watch::<Vec<String>>::default());
    let follower = said.clone();
    thread::spawn(move || {
        for line in lines.lines().map_while(Result::ok) {
            follower.with(|all| all.push(line));
        }
    });
    let line = said.wait_for("the app to listen", |all| all.first().cloned());
    let port = line
        .strip_prefix("listening ")
        .and_then(|port| port.parse().ok());
    let port: u16 = port.unwrap_or_else(|| panic!("{line}"));
    let dial = || dialer(([127, 0, 0, 1], port).into(), Transport::Padded).dial();

    let mut client = dial();
    client.echo(100);
    upload(&mut client, 10 << 20, &[200_000]);
    download(&mut client, 10 << 20, 300_000);
    echo_interleaved((0..6).map(|_| dial()).collect(), 4, 3000);
    client.leave();
    drop(client);
    let figures = || Figures::of_metrics(stats_address(&rig.proxy));
    let open = |count: u64| move |all: &Figures| all.number("mtproxy_web_open_lanes") == count;
    wait_for(figures, "lanes to end", open(0));
    dial().echo(1000);
    // Its own end: lanes and session are given back.
    let mut input = child.0.stdin.take().expect("its input");
    input.write_all(b"close\n").expect("a word to it");
    assert!(
        child.0.wait().expect("its end").success(),
        "{:?}",
        said.with(|all| all.clone())
    );
    wait_for(figures, "lanes to end", open(0));
    let counters = figures();
    let lanes = counters.number("mtproxy_web_lanes_total");
    assert_eq!(lanes, 8, "no lane for a stream that never was");
    assert_eq!(said.with(|all| all.len()), 1);
}
