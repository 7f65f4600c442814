//! Middle mode whose middle proxies can't be reached: after 30 s new clients go to their data centre
//! directly, until a middle proxy is back; not with an ad tag, and not with --no-fallback.
//!
//! The 30 s are real, as are the 10 s that a client waits for a middle proxy.

use crate::support::dc::{Behaviour, DataCentre, Refusing};
use crate::support::framing::Transport;
use crate::support::message::Message;
use crate::support::middle_proxy::{self, MiddleProxy, Options};
use crate::support::proxy::Proxy;
use crate::support::rig::{dialer, proxy_with};
use crate::support::wait::until;
use std::thread;
use std::time::{Duration, Instant};

/// When it must be over, 30 s and what a client waits, with room for a slow machine.
const LONG_ENOUGH: Duration = Duration::from_secs(45);

#[test]
fn new_clients_go_direct_until_a_middle_proxy_is_back() {
    let middle = MiddleProxy::start(Options {
        behaviour: middle_proxy::Behaviour::CloseAtOnce,
        ..Options::default()
    });
    let centre = DataCentre::start(Behaviour::Serve);
    let config = format!("default 2;\n{}", middle.config_line(2));
    let proxy = proxy_with(config, &["--dc-override", &centre.as_dc(2)]);
    until("a client that goes direct", || {
        is_served(&proxy).then_some(())
    });
    proxy.wait_for_events("fallback_begins", 1);
    for dc in [2, -2] {
        let mut direct = dialer(proxy.address(), Transport::Intermediate);
        direct.dc = dc;
        direct.dial().echo(100_000);
        let newest = centre.with(|state| state.headers.last().copied());
        assert_eq!(newest.map(|header| header.dc), Some(dc));
    }
    let mut stays = dialer(proxy.address(), Transport::Padded).dial();
    stays.echo(10);

    middle.set_behaviour(middle_proxy::Behaviour::Serve);
    proxy.wait_for_events("fallback_ends", 1);
    let before = centre.with(|state| state.accepted);
    dialer(proxy.address(), Transport::Padded).dial().echo(10);
    assert_eq!(centre.with(|state| state.accepted), before);
    assert_eq!(middle.with(|state| state.requests.len()), 1);
    // Whoever went direct stays there.
    stays.echo(10);
    assert_eq!(middle.with(|state| state.requests.len()), 1);
    // One line on each change, however many clients came meanwhile.
    for event in ["fallback_begins", "fallback_ends"] {
        assert_eq!(proxy.wait_for_events(event, 1).len(), 1, "{event}");
    }
}

#[test]
fn nobody_goes_direct_who_must_not() {
    let tag = "0123456789abcdef".repeat(2);
    thread::scope(|scope| {
        scope.spawn(|| stays_in_middle_mode(&["--no-fallback"]));
        scope.spawn(|| stays_in_middle_mode(&["-P", &tag]));
    });
}

fn stays_in_middle_mode(arguments: &[&str]) {
    let (refusing, centre) = (Refusing::new(), DataCentre::start(Behaviour::Serve));
    let dc = centre.as_dc(2);
    let config = format!("default 2;\nproxy_for 2 {};\n", refusing.address);
    let arguments = [arguments, &["--dc-override", &dc]].concat();
    let proxy = proxy_with(config, &arguments);
    let started = Instant::now();
    while started.elapsed() < LONG_ENOUGH {
        assert!(!is_served(&proxy), "answered with {arguments:?}");
    }
    assert_eq!(centre.with(|state| state.accepted), 0, "{arguments:?}");
}

/// Whether a new client gets its answer; otherwise it was closed.
fn is_served(proxy: &Proxy) -> bool {
    let mut client = dialer(proxy.address(), Transport::Padded).dial();
    client.send(&Message::echo(100).encode());
    client.receive_or_end().is_some()
}
