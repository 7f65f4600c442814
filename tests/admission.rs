//! Whoever has proven no secret takes nothing from clients: no place, no memory. Each attack has a
//! bystander, and new clients get in while it lasts.

use crate::support::attack::{get_in, hold, still_open};
use crate::support::bystander::Bystander;
use crate::support::framing::Transport;
use crate::support::rig::dialer;
use crate::support::tls_hello::Kind;
use crate::support::tls_rig::{DOMAIN, MODES, Served, TlsRig, tls_dialer};
use std::time::Duration;

/// Far above what an echo takes on a busy machine, far below a deadline of the proxy's.
const SOON: Duration = Duration::from_secs(5);

#[test]
fn silent_connections_keep_nobody_out() {
    for mode in MODES {
        let served = Served::start(mode, &["-C", "200"]);
        let dialer = dialer(served.address(), Transport::Padded);
        let bystander = Bystander::start(dialer.dial(), 1000);
        let held = hold(served.address(), 220, &[], Duration::from_millis(1));
        get_in(&dialer, 30);
        let open = still_open(&held);
        assert!((1..=64).contains(&open), "{open} are open");
        bystander.unharmed(SOON);
        let counts = served.stop();
        assert!(counts.count("unproven_dropped_early") >= 100);
        assert_eq!(counts.count("accept_connection_limit_failed"), 0);
    }
}

#[test]
fn connections_that_have_sent_something_keep_nobody_out() {
    let served = Served::start(MODES[0], &["--max-unauthenticated", "40"]);
    let dialer = dialer(served.address(), Transport::Padded);
    let bystander = Bystander::start(dialer.dial(), 1000);
    let held = hold(served.address(), 100, &[0xef], Duration::from_millis(1));
    get_in(&dialer, 30);
    assert!((1..=40).contains(&still_open(&held)));
    bystander.unharmed(SOON);
}

#[test]
fn clients_take_no_place_of_those_that_come() {
    let served = Served::start(MODES[0], &["--max-unauthenticated", "4"]);
    let dialer = dialer(served.address(), Transport::Padded);
    let mut clients = Vec::new();
    for _ in 0..40 {
        let mut client = dialer.dial();
        client.echo(10);
        clients.push(client);
    }
    assert_eq!(served.stop().count("unproven_dropped_early"), 0);
}

#[test]
fn half_hellos_take_no_memory_of_clients() {
    for mode in MODES {
        let rig = TlsRig::with(mode, &["--msg-buffers-size", "4m"]);
        let dialer = tls_dialer(rig.address(), Kind::Today);
        let bystander = Bystander::start(dialer.dial(), 50_000);
        // A record of the longest hello, all but its last five bytes.
        let mut half = vec![0x16, 3, 1, 0x40, 0, 1, 0, 0x3f, 0xfc, 3, 3];
        half.resize(16_384, 0x55);
        let held = hold(rig.address(), 50, &half, Duration::from_millis(2));
        get_in(&dialer, 10);
        // 264 KiB of buffers of 16.5 KiB.
        let open = still_open(&held);
        assert!((1..=16).contains(&open), "{open} are open");
        bystander.unharmed(SOON);
        let counts = rig.stop();
        assert!(counts.count("unproven_dropped_memory") >= 30);
        assert_eq!(counts.count("connections_failed_lru"), 0);
    }
}

#[test]
fn strangers_wait_for_a_place_at_the_site() {
    let rig = TlsRig::with(MODES[1], &["--mask-max", "2"]);
    let bystander = Bystander::start(rig.dial(), 1000);
    let hellos = [0; 2].map(|_| Kind::Today.unsigned(DOMAIN));
    let first = hold(rig.address(), 2, &hellos[0], Duration::from_millis(20));
    rig.site.wait_for_bytes(&hellos[0]);
    let waits = hold(rig.address(), 1, &hellos[1], Duration::from_millis(300));
    assert_eq!(still_open(&waits), 1, "it was closed at once");
    assert!(!rig.site.has_heard(&hellos[1]));
    drop(first);
    rig.site.wait_for_bytes(&hellos[1]);
    bystander.unharmed(SOON);
}
