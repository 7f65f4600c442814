//! The counters of the summary are exact: they equal what both ends have seen.

use crate::support::framing::{Item, TRANSPORTS, Transport};
use crate::support::message::{Command, Message};
use crate::support::rig::Rig;
use std::thread;

const THREADS: usize = 4;
const CLIENTS: usize = 25;
const PACKETS: usize = 6;

#[test]
fn counts_equal_what_happened() {
    let rig = Rig::start();
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| (0..CLIENTS).for_each(|number| visit(&rig, TRANSPORTS[number % 3])));
        }
    });
    let requests = rig.middle.with(|state| state.requests.len()) as u64;
    let clients = (THREADS * CLIENTS) as u64;
    rig.middle.wait_for("every CLOSE_CONN", |state| {
        (state.closed.len() as u64 == clients).then_some(())
    });
    let summary = rig.proxy.stop();
    assert_eq!(requests, clients * (PACKETS as u64 + 1));
    for (name, wanted) in [
        ("ext_connections_created", clients),
        ("tot_forwarded_queries", requests),
        ("tot_forwarded_responses", clients * PACKETS as u64),
        ("tot_forwarded_simple_acks", clients),
        ("dropped_queries", 0),
        ("dropped_responses", 0),
        ("dropped_simple_acks", 0),
        ("connections_failed_lru", 0),
        ("connections_failed_flood", 0),
    ] {
        assert_eq!(summary.count(name), wanted, "{name}");
    }
}

/// Some echoes, one message with an ack and no answer, and away.
fn visit(rig: &Rig, transport: Transport) {
    let mut client = rig.dial(transport);
    for number in 0..PACKETS {
        client.echo(number * 100);
    }
    client.send_asking_ack(&Message::new(Command::Swallow, 1).encode());
    assert!(matches!(client.receive(), Item::QuickAck { .. }));
    client.leave();
}
