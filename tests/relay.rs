//! Nothing is lost or mixed up: long streams both ways by hash, in each transport, and many clients at once.

use crate::support::client::Client;
use crate::support::crypto::{RunningHash, sha256};
use crate::support::framing::TRANSPORTS;
use crate::support::message::Message;
use crate::support::random::Stream;
use crate::support::rig::{Rig, dialer};
use crate::support::service::receipt;
use crate::support::transfers::{PIECES, download, echo_interleaved, send_pieces, upload};
use std::collections::HashSet;
use std::thread;

const MIB: usize = 1 << 20;

#[test]
fn bulk_1mib_up() {
    each_transport(|client| upload(client, MIB, &[10_000, 1, 131_072, 700]));
}

#[test]
fn bulk_1mib_down() {
    each_transport(|client| download(client, MIB, 4_096));
}

#[test]
fn bulk_16mib_up() {
    each_transport(|client| upload(client, 16 * MIB, &PIECES));
}

#[test]
fn bulk_16mib_down_in_packets_of_4mib() {
    each_transport(|client| download(client, 16 * MIB, 4 * MIB));
}

#[test]
fn bulk_16mib_down_in_packets_of_64kib() {
    each_transport(|client| download(client, 16 * MIB, 64 * 1_024));
}

#[test]
fn one_byte_writes() {
    const TOTAL: usize = 64 * 1_024;
    let rig = Rig::start();
    thread::scope(|scope| {
        for transport in TRANSPORTS {
            let mut dialer = dialer(rig.proxy.address(), transport);
            dialer.one_byte_writes = true;
            scope.spawn(move || {
                let mut client = dialer.dial();
                client.echo(100);
                upload(&mut client, TOTAL, &[7_000, 1, 500]);
                download(&mut client, TOTAL, 1_000);
            });
        }
    });
}

/// Both ways at once on one connection.
#[test]
fn up_and_down_together() {
    let rig = Rig::start();
    for transport in TRANSPORTS {
        let mut client = rig.dial(transport);
        let asked = Message::stream(9, 4 * MIB, 40_000);
        client.send(&asked.encode());
        let bytes = Stream::new(5).take(2 * MIB);
        send_pieces(&mut client, &bytes, &PIECES);
        let wanted = sha256(&Stream::new(9).take(4 * MIB));
        let (mut hash, mut left) = (RunningHash::default(), 4 * MIB);
        // The receipt may come between any two packets of the stream.
        let mut receipts = Vec::new();
        while left > 0 || receipts.is_empty() {
            let packet = client.packet();
            if packet.len() == 40 {
                receipts.push(packet);
                continue;
            }
            hash.add(&packet);
            left = left
                .checked_sub(packet.len())
                .expect("no more than was asked for");
        }
        assert_eq!(hash.finish(), wanted, "{transport:?}");
        assert_eq!(receipts, [receipt(&bytes)], "{transport:?}");
    }
}

#[test]
fn two_hundred_clients_get_their_own_answers() {
    const THREADS: usize = 8;
    const EACH: usize = 25;
    let rig = Rig::start();
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let clients = (0..EACH).map(|number| rig.dial(TRANSPORTS[number % 3]));
                echo_interleaved(clients.collect(), 20, 10);
            });
        }
    });
    let ids = rig.middle.with(|state| {
        state
            .requests
            .iter()
            .map(|request| request.conn_id)
            .collect::<HashSet<_>>()
    });
    assert_eq!(ids.len(), THREADS * EACH, "one id a client");
}

fn each_transport(transfer: impl Fn(&mut Client) + Sync) {
    let rig = Rig::start();
    thread::scope(|scope| {
        for transport in TRANSPORTS {
            let (rig, transfer) = (&rig, &transfer);
            scope.spawn(move || transfer(&mut rig.dial(transport)));
        }
    });
}
