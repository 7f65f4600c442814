//! Every way in which a connection ends, and that both sides hear of it. (`basic_` marks the short form's.)

use crate::support::client::Client;
use crate::support::framing::{TRANSPORTS, Transport};
use crate::support::message::{Command, Message};
use crate::support::middle_proxy::MiddleProxy;
use crate::support::rig::{
    Rig, dialer, expect_answers, id_of, proxy_with, queue_answers, send_answers,
};
use crate::support::rpc;
use crate::support::sockets::is_listening;
use crate::support::wait::until;

const MIB: usize = 1 << 20;

#[test]
fn basic_a_client_that_leaves_is_reported() {
    let rig = Rig::start();
    for transport in TRANSPORTS {
        let mut client = rig.dial(transport);
        let conn_id = id_of(&rig.middle, &mut client);
        client.leave();
        rig.middle.wait_for_close(conn_id);
    }
}

#[test]
fn basic_close_ext_closes_the_client() {
    let rig = Rig::start();
    for transport in TRANSPORTS {
        let mut client = rig.dial(transport);
        let conn_id = id_of(&rig.middle, &mut client);
        client.send(&Message::new(Command::Close, 0).encode());
        client.expect_closed();
        // Nothing goes back: Telegram knows.
        rig.middle.ping(&rig.middle.link_of(conn_id), *b"answered");
        assert!(
            !rig.middle.with(|state| state.closed.contains(&conn_id)),
            "CLOSE_CONN after CLOSE_EXT"
        );
    }
}

#[test]
fn basic_sigterm_ends_with_0_and_a_summary() {
    let rig = Rig::start();
    let mut client = rig.dial(Transport::Padded);
    client.echo(10);
    let summary = rig.proxy.stop();
    assert_eq!(summary.count("tot_forwarded_queries"), 1);
    client.expect_closed();
}

#[test]
fn sigint_ends_with_0() {
    let mut rig = Rig::start();
    rig.proxy.signal("INT");
    assert_eq!(rig.proxy.wait_for_end().code(), Some(0));
}

#[test]
fn a_client_that_resets_is_reported() {
    let rig = Rig::start();
    let mut client = rig.dial(Transport::Padded);
    let conn_id = id_of(&rig.middle, &mut client);
    // Closing a socket with unread bytes sends a reset.
    client.send(&Message::stream(1, MIB, 4_096).encode());
    client.packet();
    drop(client);
    rig.middle.wait_for_close(conn_id);
    rig.dial(Transport::Padded).echo(10);
}

#[test]
fn a_client_that_leaves_inside_a_packet_is_reported() {
    let rig = Rig::start();
    let mut client = rig.dial(Transport::Intermediate);
    let conn_id = id_of(&rig.middle, &mut client);
    client.send_raw(&500_000_u32.to_le_bytes());
    client.send_raw(&[0x5a; 1_000]);
    client.leave();
    rig.middle.wait_for_close(conn_id);
    let half = [0x5a; 996];
    assert!(!rig.middle.with(|state| {
        state
            .requests
            .iter()
            .any(|request| request.message.starts_with(&half))
    }));
}

#[test]
fn close_ext_lets_the_answers_before_it_through() {
    let rig = Rig::start();
    let mut client = rig.dial(Transport::Intermediate);
    let conn_id = id_of(&rig.middle, &mut client);
    let link = rig.middle.link_of(conn_id);
    send_answers(&link, conn_id, 8, MIB);
    assert!(link.send(&[&rpc::close_ext(conn_id)]));
    expect_answers(&mut client, 8, MIB);
    client.expect_closed();
}

#[test]
fn a_killed_backend_closes_its_clients_and_the_next_is_served() {
    let rig = Rig::start();
    let mut clients: Vec<Client> = (0..10)
        .map(|number| rig.dial(TRANSPORTS[number % 3]))
        .collect();
    for client in &mut clients {
        client.send(&Message::stream(2, 64 * MIB, 64 * 1_024).encode());
        client.packet();
    }
    rig.middle.kill_links();
    for client in &mut clients {
        client.drain_until_closed();
    }
    for transport in TRANSPORTS {
        rig.dial(transport).echo(1_000);
    }
    let event = rig.proxy.wait_for_events("backend_lost", 1).remove(0);
    assert_eq!(event.text("target"), rig.middle.address.to_string());
}

#[test]
fn unknown_ids_are_answered_with_close_conn() {
    const UNKNOWN: [u64; 3] = [0x0123_4567_89ab_cdef, 0, u64::MAX];
    let rig = Rig::start();
    let link = rig.middle.link(0);
    for id in UNKNOWN {
        assert!(link.send(&[&rpc::answer(id, 0, &[1; 64])]));
        rig.middle.wait_for_close(id);
        rig.middle.with(|state| state.closed.clear());
        assert!(link.send(&[&rpc::simple_ack(id, 0x8000_0001)]));
        rig.middle.wait_for_close(id);
        rig.middle.with(|state| state.closed.clear());
    }
    rig.dial(Transport::Padded).echo(10);
    let summary = rig.proxy.stop();
    assert_eq!(summary.count("dropped_responses"), 3);
    assert_eq!(summary.count("dropped_simple_acks"), 3);
}

#[test]
fn an_id_of_another_link_is_unknown_here() {
    let (owner, other) = (MiddleProxy::serving(), MiddleProxy::serving());
    let proxy = proxy_with(
        format!("{}{}", owner.config_line(2), other.config_line(3)),
        &[],
    );
    let mut client = dialer(proxy.address(), Transport::Intermediate).dial();
    let conn_id = id_of(&owner, &mut client);
    let link = other.link(0);
    assert!(link.send(&[
        &rpc::answer(conn_id, 0, &[7; 64]),
        &rpc::simple_ack(conn_id, 0x8765_4321)
    ]));
    other.wait_for("two CLOSE_CONN", |state| {
        (state.closed == [conn_id, conn_id]).then_some(())
    });
    assert!(link.send(&[&rpc::close_ext(conn_id)]));
    other.ping(&link, *b"all read");
    client.echo(100);
}

/// Wrong lengths and unknown types are ignored (protocol.md 6.5, 7.1); the link lives on.
#[test]
fn odd_rpc_packets_are_ignored() {
    let rig = Rig::start();
    let mut client = rig.dial(Transport::Intermediate);
    let conn_id = id_of(&rig.middle, &mut client);
    let link = rig.middle.link_of(conn_id);
    let too_long = |mut payload: Vec<u8>| {
        payload.extend([0; 4]);
        payload
    };
    let odd: Vec<Vec<u8>> = vec![
        too_long(rpc::close_ext(conn_id)),
        too_long(rpc::simple_ack(conn_id, 0x8000_0002)),
        rpc::words(&[rpc::PROXY_ANS, 0, 1]),
        too_long(rpc::with_eight(rpc::PING, *b"too long")),
        rpc::words(&[0x1234_5678, 1, 2, 3]),
        rpc::words(&[0x1234_5678]),
        rpc::with_eight(rpc::PONG, *b"unasked!"),
    ];
    let odd: Vec<&[u8]> = odd.iter().map(Vec::as_slice).collect();
    assert!(link.send(&odd));
    rig.middle.ping(&link, *b"answered");
    client.echo(100);
    assert_eq!(
        rig.middle.with(|state| state.pongs.len()),
        1,
        "an odd PING was answered"
    );
}

#[test]
fn sigterm_drains_what_is_queued() {
    let mut rig = Rig::start();
    let mut client = rig.dial(Transport::Intermediate);
    queue_answers(&rig.middle, &mut client, 8, MIB);
    rig.proxy.signal("TERM");
    expect_answers(&mut client, 8, MIB);
    client.expect_closed();
    assert_eq!(rig.proxy.wait_for_end().code(), Some(0));
}

#[test]
fn a_drain_lets_nobody_in() {
    let mut rig = Rig::start();
    let mut client = rig.dial(Transport::Intermediate);
    queue_answers(&rig.middle, &mut client, 2, 4 * MIB);
    rig.proxy.signal("TERM");
    until("the end of listening", || {
        (!is_listening(rig.proxy.address())).then_some(())
    });
    // It was a drain that refused, not the end: the client's answers are still there.
    expect_answers(&mut client, 2, 4 * MIB);
    client.expect_closed();
    assert_eq!(rig.proxy.wait_for_end().code(), Some(0));
}

#[test]
fn a_second_signal_ends_a_drain() {
    let mut rig = Rig::start();
    let mut client = rig.dial(Transport::Intermediate);
    queue_answers(&rig.middle, &mut client, 16, MIB);
    rig.proxy.signal("TERM");
    rig.proxy.signal("TERM");
    let status = rig.proxy.wait_for_end();
    assert!(status.code().is_some(), "killed by the signal: {status}");
}
