//! Middle proxies in every kind of trouble: the link fails with a reason, is tried again with growing waits,
//! and clients are served as soon as any target is well.

use crate::support::client::Client;
use crate::support::framing::{TRANSPORTS, Transport};
use crate::support::message::Message;
use crate::support::middle_proxy::{Behaviour, MiddleProxy, Options};
use crate::support::middle_wire::Fault;
use crate::support::proxy::Proxy;
use crate::support::rig::{Rig, client_of, dialer, proxy_with};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

/// Every way to break a frame. The lengths: too short, no multiple of 4, just over 16 MiB, huge, negative.
const FAULTS: [Fault; 9] = [
    Fault::Checksum,
    Fault::Sequence,
    Fault::Length(8),
    Fault::Length(0),
    Fault::Length(46),
    Fault::Length((1 << 24) + 4),
    Fault::Length(0x7fff_fffc),
    Fault::Length(0xffff_fffc),
    Fault::Garbage,
];

#[test]
fn a_broken_nonce_fails_the_link_and_a_good_one_heals_it() {
    heals(&FAULTS.map(Behaviour::BrokenNonce));
}

#[test]
fn a_broken_handshake_fails_the_link_and_a_good_one_heals_it() {
    heals(&FAULTS.map(Behaviour::BrokenHandshake));
}

#[test]
fn a_target_that_closes_or_refuses_heals() {
    heals(&[Behaviour::CloseAtOnce, Behaviour::RefuseHandshake]);
}

#[test]
fn a_broken_frame_ends_the_link_and_its_clients() {
    let (middles, proxy) = targets(&[Behaviour::Serve; FAULTS.len()]);
    let mut clients: Vec<Client> = (1..)
        .zip(&middles)
        .map(|(dc, _)| client_of(&proxy, dc))
        .collect();
    clients.iter_mut().for_each(|client| client.echo(100));
    for ((middle, fault), client) in middles.iter().zip(FAULTS).zip(&mut clients) {
        middle.link(0).send_broken(fault);
        client.expect_closed();
    }
    for dc in (1..).take(middles.len()) {
        client_of(&proxy, dc).echo(100);
    }
    let lost = proxy.wait_for_events("backend_lost", FAULTS.len());
    for (middle, fault) in middles.iter().zip(FAULTS) {
        let target = middle.address.to_string();
        assert!(
            lost.iter().any(|event| event.text("target") == target),
            "{fault:?} not in {lost:?}"
        );
    }
}

#[test]
fn a_target_that_never_answers_times_out_and_heals() {
    let options = Options {
        behaviour: Behaviour::Silent,
        ..Options::default()
    };
    let rig = Rig::with(&[], options);
    let event = rig.proxy.wait_for_events("backend_failed", 1).remove(0);
    assert_eq!(event.text("target"), rig.middle.address.to_string());
    rig.middle.set_behaviour(Behaviour::Serve);
    rig.dial(Transport::Padded).echo(100);
}

/// The C program reconnects hundreds of times a second here (protocol.md 6.5 has the right waits).
#[test]
fn refused_handshakes_are_retried_with_growing_waits() {
    let started = Instant::now();
    let options = Options {
        behaviour: Behaviour::RefuseHandshake,
        ..Options::default()
    };
    let rig = Rig::with(&["-M", "1"], options);
    rig.proxy.wait_for_events("backend_failed", 3);
    let elapsed = started.elapsed();
    let attempts = rig.middle.with(|state| state.accepted);
    let failed = rig.proxy.wait_for_events("backend_failed", 3);
    let waits: Vec<f64> = failed.iter().map(|event| event.number("retry")).collect();
    assert!(waits[0] >= 1.0, "{waits:?}");
    assert!(
        waits.windows(2).all(|pair| pair[1] >= pair[0] * 1.4),
        "{waits:?}"
    );
    assert!(
        (3..=failed.len() + 1).contains(&attempts),
        "{attempts} attempts for {waits:?}"
    );
    // 1.0 and 1.5 s at least lie between the first and the third.
    assert!(
        elapsed >= Duration::from_millis(2_400),
        "three attempts in {elapsed:?}"
    );
    rig.middle.set_behaviour(Behaviour::Serve);
    rig.dial(Transport::Padded).echo(100);
}

#[test]
fn one_dead_target_of_two_costs_nothing() {
    for behaviour in [
        Behaviour::CloseAtOnce,
        Behaviour::Silent,
        Behaviour::RefuseHandshake,
    ] {
        for dead_first in [true, false] {
            let dead = MiddleProxy::start(Options {
                behaviour,
                ..Options::default()
            });
            let alive = MiddleProxy::serving();
            let pair = if dead_first {
                [&dead, &alive]
            } else {
                [&alive, &dead]
            };
            let config: String = pair.iter().map(|middle| middle.config_line(2)).collect();
            // A single slot, so that nothing but going on to the next target helps.
            let proxy = proxy_with(config, &["-M", "1"]);
            for transport in TRANSPORTS {
                dialer(proxy.address(), transport).dial().echo(100);
            }
        }
    }
}

#[test]
fn a_refusing_address_of_two_costs_nothing() {
    let alive = MiddleProxy::serving();
    // Nobody listens there: the port belongs to the other one, on another address.
    let dead = SocketAddr::new(
        IpAddr::V4(Ipv4Addr::new(127, 0, 0, 200)),
        alive.address.port(),
    );
    let proxy = proxy_with(
        format!("proxy_for 2 {dead};\n{}", alive.config_line(2)),
        &["-M", "1"],
    );
    dialer(proxy.address(), Transport::Padded).dial().echo(100);
}

#[test]
fn one_address_under_several_data_centres_is_one_connection() {
    let middle = MiddleProxy::serving();
    let config: String = [1, 2, -2, 4]
        .into_iter()
        .map(|dc| middle.config_line(dc))
        .collect();
    let proxy = proxy_with(config, &["-M", "1"]);
    for dc in [1, 2, -2, 4] {
        client_of(&proxy, dc).echo(100);
    }
    assert_eq!(middle.with(|state| state.accepted), 1);
}

#[test]
fn a_restarted_target_serves_again() {
    let mut rig = Rig::with(
        &[],
        Options {
            ip: Ipv4Addr::new(127, 0, 0, 88).into(),
            ..Options::default()
        },
    );
    let mut client = rig.dial(Transport::Padded);
    client.echo(100);
    rig.middle.stop();
    client.expect_closed();
    rig.proxy.wait_for_events("backend_failed", 1);
    rig.middle.restart();
    rig.dial(Transport::Padded).echo(100);
}

#[test]
fn without_any_link_a_client_waits_and_is_closed() {
    let options = Options {
        behaviour: Behaviour::CloseAtOnce,
        ..Options::default()
    };
    let rig = Rig::with(&[], options);
    let started = Instant::now();
    let mut client = rig.dial(Transport::Padded);
    client.send(&Message::echo(100).encode());
    client.expect_closed();
    let waited = started.elapsed();
    assert!(
        waited >= Duration::from_secs(9),
        "closed after {waited:?} already"
    );
    assert_eq!(rig.proxy.stop().count("dropped_queries"), 1);
}

#[test]
fn an_unknown_data_centre_without_default_is_closed() {
    let middle = MiddleProxy::serving();
    let proxy = proxy_with(middle.config_line(2), &[]);
    let mut client = client_of(&proxy, 9);
    client.send(&Message::echo(100).encode());
    client.expect_closed();
    assert_eq!(middle.with(|state| state.requests.len()), 0);
    client_of(&proxy, 2).echo(100);
    assert_eq!(proxy.stop().count("dropped_queries"), 1);
}

#[test]
fn a_link_without_crc32c_serves() {
    let rig = Rig::with(
        &[],
        Options {
            crc32c: false,
            ..Options::default()
        },
    );
    for transport in TRANSPORTS {
        rig.dial(transport).echo(70_000);
    }
}

/// Starts with each target in its own kind of trouble; then all are well and serve.
fn heals(troubles: &[Behaviour]) {
    let (middles, proxy) = targets(troubles);
    for (middle, trouble) in middles.iter().zip(troubles) {
        middle.wait_for("a connection", |state| (state.accepted > 0).then_some(()));
        let target = middle.address.to_string();
        let failed = proxy.wait_for_line(&format!("{trouble:?}"), |line| {
            line.contains(" backend_failed ") && line.contains(&format!("target={target} "))
        });
        assert!(
            !failed.contains("timeout"),
            "{trouble:?} was not noticed: {failed}"
        );
        middle.set_behaviour(Behaviour::Serve);
    }
    for dc in (1..).take(middles.len()) {
        client_of(&proxy, dc).echo(100);
    }
}

/// One target for each behaviour: data centres 1, 2, 3 and so on.
fn targets(behaviours: &[Behaviour]) -> (Vec<MiddleProxy>, Proxy) {
    let start = |&behaviour: &Behaviour| {
        MiddleProxy::start(Options {
            behaviour,
            ..Options::default()
        })
    };
    let middles: Vec<MiddleProxy> = behaviours.iter().map(start).collect();
    let config: String = (1..)
        .zip(&middles)
        .map(|(dc, middle)| middle.config_line(dc))
        .collect();
    let proxy = proxy_with(config, &[]);
    (middles, proxy)
}
