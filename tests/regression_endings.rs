//! Faults at the end of connections that were found and mended: whoever is closed still gets what was queued,
//! whoever waits is sent away when the proxy stops, and each end is counted once, under the right reason.

use crate::support::client::Client;
use crate::support::framing::{TRANSPORTS, Transport};
use crate::support::message::{Command, Message};
use crate::support::middle_proxy::{MiddleProxy, Options};
use crate::support::obfuscated2::Header;
use crate::support::proxy::Proxy;
use crate::support::random::random_bytes;
use crate::support::rig::{
    Rig, dialer, expect_answer, expect_answers, id_of, proxy_with, send_answers,
};
use crate::support::rpc;
use crate::support::sockets::{dial, wait_until_read};
use crate::support::transfers::upload_until_held;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};

const MIB: usize = 1 << 20;

/// Answers of 1 MiB that are queued for a client: far more than the sockets hold.
const ANSWERS: u8 = 16;

#[test]
fn a_client_that_talks_after_close_ext_gets_all_that_was_queued() {
    let rig = Rig::start();
    for transport in TRANSPORTS {
        let mut client = rig.dial(transport);
        let conn_id = id_of(&rig.middle, &mut client);
        let link = rig.middle.link_of(conn_id);
        send_answers(&link, conn_id, ANSWERS, MIB);
        assert!(link.send(&[&rpc::close_ext(conn_id)]));
        // Once the PONG is here the proxy has taken all of it.
        rig.middle.ping(&link, conn_id.to_le_bytes());
        for number in 0..ANSWERS {
            talk(&mut client);
            expect_answer(&mut client, number, MIB);
        }
        client.expect_closed();
    }
}

#[test]
fn a_client_that_talks_after_sigterm_gets_all_that_was_queued() {
    let mut rig = Rig::start();
    let mut client = rig.dial(Transport::Intermediate);
    let conn_id = id_of(&rig.middle, &mut client);
    let link = rig.middle.link_of(conn_id);
    send_answers(&link, conn_id, ANSWERS, MIB);
    rig.middle.ping(&link, *b"all read");
    rig.proxy.signal("TERM");
    rig.proxy.wait_for_events("stopping", 1);
    talk(&mut client);
    expect_answers(&mut client, ANSWERS, MIB);
    client.expect_closed();
    assert_eq!(rig.proxy.wait_for_end().code(), Some(0));
}

#[test]
fn a_client_held_back_by_its_backend_gets_all_that_was_queued_before_close_ext() {
    let rig = Rig::with(&["-M", "1"], Options::default());
    let mut client = rig.dial(Transport::Intermediate);
    let conn_id = id_of(&rig.middle, &mut client);
    hold_back(&rig.middle, &mut client);
    let link = rig.middle.link_of(conn_id);
    send_answers(&link, conn_id, ANSWERS, MIB);
    assert!(link.send(&[&rpc::close_ext(conn_id)]));
    expect_answers(&mut client, ANSWERS, MIB);
    client.expect_closed();
}

#[test]
fn a_client_held_back_by_its_backend_gets_all_that_was_queued_before_sigterm() {
    let mut rig = Rig::with(&["-M", "1"], Options::default());
    let mut client = rig.dial(Transport::Intermediate);
    let conn_id = id_of(&rig.middle, &mut client);
    let mut other = rig.dial(Transport::Intermediate);
    let other_id = id_of(&rig.middle, &mut other);
    hold_back(&rig.middle, &mut client);
    let link = rig.middle.link_of(conn_id);
    send_answers(&link, conn_id, ANSWERS, MIB);
    // No PONG can come. Once the other client has this the proxy has taken all that came before it.
    assert!(link.send(&[&rpc::answer(other_id, 0, &[1; 64])]));
    assert_eq!(other.packet(), [1; 64]);
    rig.proxy.signal("TERM");
    rig.proxy.wait_for_events("stopping", 1);
    // What still came when all is written would be answered with a reset by the kernel.
    wait_until_read(&client.stream);
    expect_answers(&mut client, ANSWERS, MIB);
    client.expect_closed();
    assert_eq!(rig.proxy.wait_for_end().code(), Some(0));
}

#[test]
fn sigterm_sends_a_client_away_that_waits_for_a_backend() {
    let alive = MiddleProxy::serving();
    // Nobody listens there: the port belongs to the other one, on another address.
    let refusing = SocketAddr::new(Ipv4Addr::new(127, 0, 0, 200).into(), alive.address.port());
    let mut proxy = proxy_with(format!("proxy_for 2 {refusing};\n"), &["-M", "2"]);
    let mut client = dialer(proxy.address(), Transport::Padded).dial();
    client.send(&Message::echo(100).encode());
    wait_for_a_waiting_client(&proxy);
    proxy.signal("TERM");
    client.expect_closed();
    assert_eq!(proxy.wait_for_end().code(), Some(0));
    let stopped = proxy.wait_for_events("stopped", 1).remove(0);
    assert_eq!(stopped.text("drained"), "true");
    let summary = proxy.summary();
    assert_eq!(summary.count("dropped_queries"), 1);
    let ends = ["closed_no_backend", "closed_stopping"].map(|name| summary.count(name));
    assert_eq!(
        ends.iter().sum::<u64>(),
        1,
        "no_backend, stopping: {ends:?}"
    );
}

#[test]
fn each_end_is_counted_once_under_its_reason() {
    const LEFT: usize = 9;
    const BAD_LENGTH: usize = 5;
    const CLOSED: usize = 7;
    const WRONG_SECRET: usize = 4;
    let rig = Rig::with(&["-v"], Options::default());
    for number in 0..LEFT {
        let mut client = rig.dial(TRANSPORTS[number % 3]);
        // One in two leaves before its first packet.
        if number % 2 == 0 {
            client.echo(100);
        }
        client.leave();
    }
    for number in 0..BAD_LENGTH {
        let mut client = rig.dial(TRANSPORTS[number % 3]);
        client.echo(100);
        client.send_raw(&[0; 4]);
        client.expect_closed();
    }
    for number in 0..CLOSED {
        let mut client = rig.dial(TRANSPORTS[number % 3]);
        client.send(&Message::new(Command::Close, 0).encode());
        client.expect_closed();
    }
    for _ in 0..WRONG_SECRET {
        let header = Header::random(Transport::Padded, 2, Some(&random_bytes()));
        let mut stranger = dial(rig.proxy.address());
        stranger.write_all(&header.wire).expect("a header");
    }
    // With -v each end is logged, once it has been counted.
    let ends = LEFT + BAD_LENGTH + CLOSED + WRONG_SECRET;
    rig.proxy.wait_for_events("client_closed", ends);
    let summary = rig.proxy.stop();
    for (name, wanted) in [
        ("closed_client_gone", LEFT),
        ("closed_bad_length", BAD_LENGTH),
        ("closed_backend_closed", CLOSED),
        ("closed_no_secret_fits", WRONG_SECRET),
        ("closed_client_lost", 0),
        ("closed_stopping", 0),
        ("ext_connections", 0),
    ] {
        assert_eq!(summary.count(name), wanted as u64, "{name}");
    }
}

fn talk(client: &mut Client) {
    client.send(&Message::new(Command::Swallow, 0).encode());
}

/// The middle proxy stops reading, and the client sends until the proxy takes no more.
fn hold_back(middle: &MiddleProxy, client: &mut Client) {
    middle.stall(true);
    upload_until_held(client, 100_000);
}

/// A client that waits makes the proxy try a second slot; each slot's first retry comes after 1.0 s, all
/// later ones after 1.5 s and more.
fn wait_for_a_waiting_client(proxy: &Proxy) {
    let mut seen = 2;
    loop {
        let failed = proxy.wait_for_events("backend_failed", seen);
        let slots = failed.iter().filter(|event| event.number("retry") < 1.4);
        if slots.count() == 2 {
            return;
        }
        seen = failed.len() + 1;
    }
}
