//! Lengths at, under and over their limits; messages that must not reach Telegram; the number of clients.

use crate::support::client::Client;
use crate::support::framing::{MAX_UP, TRANSPORTS, Transport};
use crate::support::message::{KEY_ID, Message, unencrypted};
use crate::support::middle_proxy::Options;
use crate::support::rig::Rig;
use crate::support::vectors::Vectors;
use crate::support::wait::until;

#[test]
fn lengths_that_close_at_once() {
    let rig = Rig::start();
    let long = u32::try_from(MAX_UP).expect("20 bits");
    let words = ((long + 4) / 4).to_le_bytes();
    let mut cases: Vec<(Transport, Vec<u8>)> = vec![
        (Transport::Abridged, vec![0]),
        (Transport::Abridged, vec![0x80]),
        (Transport::Abridged, vec![0x7f, 0, 0, 0]),
        (Transport::Abridged, vec![0x7f, 0x7e, 0, 0]),
        (Transport::Abridged, vec![0xff, 0x7e, 0, 0]),
        (
            Transport::Abridged,
            vec![0x7f, words[0], words[1], words[2]],
        ),
        (Transport::Abridged, vec![0x7f, 0xff, 0xff, 0xff]),
    ];
    for length in [
        0,
        1,
        2,
        3,
        5,
        57,
        58,
        59,
        long + 4,
        0x4000_0038,
        0x7fff_fffc,
        0x8000_0000,
    ] {
        cases.push((Transport::Intermediate, length.to_le_bytes().to_vec()));
    }
    for length in [
        0,
        1,
        2,
        3,
        long + 1,
        long + 4,
        0x4000_0038,
        0x7fff_ffff,
        0x8000_0000,
        0x8000_0003,
    ] {
        cases.push((Transport::Padded, length.to_le_bytes().to_vec()));
    }
    let vectors = Vectors::load("framing");
    for index in 0..vectors.count("reject.count") {
        let transport = match vectors.text(&format!("reject.{index}.transport")) {
            "abridged" => Transport::Abridged,
            "intermediate" => Transport::Intermediate,
            _ => Transport::Padded,
        };
        cases.push((transport, vectors.bytes(&format!("reject.{index}.bytes"))));
    }
    for (transport, bytes) in cases {
        assert_closes(rig.dial(transport), &bytes);
        let mut client = rig.dial(transport);
        client.echo(10);
        assert_closes(client, &bytes);
    }
    rig.dial(Transport::Padded).echo(10);
}

#[test]
fn the_longest_packet_is_accepted() {
    let rig = Rig::start();
    for (transport, pad) in [
        (Transport::Abridged, 0),
        (Transport::Intermediate, 0),
        (Transport::Padded, 0),
        (Transport::Padded, 4),
        (Transport::Padded, 15),
    ] {
        // The limit includes the padding.
        let message = Message::echo((MAX_UP - pad) / 4 * 4 - 28).encode();
        let mut client = rig.dial(transport);
        client.send_raw(&transport.frame(
            &message,
            false,
            &vec![0; pad.min(MAX_UP - message.len())],
        ));
        assert!(
            client.packet() == message,
            "{transport:?} with {pad} bytes of padding"
        );
    }
}

#[test]
fn messages_that_are_not_for_telegram_are_dropped_and_the_client_stays() {
    let rig = Rig::start();
    let dropped = dropped_messages();
    for transport in TRANSPORTS {
        let mut client = rig.dial(transport);
        for message in &dropped {
            client.send_raw(&transport.frame(message, false, &[]));
        }
        client.echo(10);
        for message in &dropped {
            client.send_raw(&transport.frame(message, true, &[]));
        }
        client.echo(10);
    }
    let forwarded = rig.middle.with(|state| state.requests.len());
    assert_eq!(forwarded, 2 * TRANSPORTS.len(), "only the echoes");
    assert_eq!(
        rig.proxy.stop().count("dropped_queries"),
        0,
        "dropped without counting"
    );
}

#[test]
fn messages_at_the_edge_are_forwarded() {
    let rig = Rig::start();
    let mut edge = vec![
        [&KEY_ID[..], &[3; 48]].concat(),
        [&KEY_ID[..], &[4; 52]].concat(),
    ];
    edge.push([&[0, 0, 0, 0, 0, 0, 0, 1][..], &[5; 48]].concat());
    for constructor in [0x6046_9778_u32, 0xbe7e_8ef1, 0xd712_e4be, 0xf504_5f1f] {
        let mut message = unencrypted();
        message[20..24].copy_from_slice(&constructor.to_le_bytes());
        edge.push(message.clone());
        // A body that leaves room behind it.
        message.extend([9; 24]);
        edge.push(message.clone());
        message[16..20].copy_from_slice(&44_u32.to_le_bytes());
        edge.push(message);
    }
    for transport in TRANSPORTS {
        let mut client = rig.dial(transport);
        for message in &edge {
            client.send_raw(&transport.frame(message, false, &[]));
            rig.middle.request_of(message);
        }
        rig.middle.with(|state| state.requests.clear());
    }
}

#[test]
fn a_client_too_many_is_closed_and_a_free_place_is_taken() {
    let rig = Rig::with(&["-C", "3"], Options::default());
    let mut clients: Vec<Client> = (0..3).map(|_| rig.dial(Transport::Padded)).collect();
    for client in &mut clients {
        client.echo(10);
    }
    rig.dial(Transport::Padded).expect_closed();
    for client in &mut clients {
        client.echo(10);
    }
    clients.pop().expect("three of them").leave();
    // The place is free some time after the connection has ended.
    until("a free place", || {
        is_served(rig.dial(Transport::Padded)).then_some(())
    });
}

/// Everything of protocol.md 7.4 that is dropped, in frames that are right.
fn dropped_messages() -> Vec<Vec<u8>> {
    let mut dropped = vec![
        vec![1; 4],
        vec![1; 24],
        [&KEY_ID[..], &[3; 20]].concat(),
        [&KEY_ID[..], &[3; 44]].concat(),
        vec![0; 28],
        vec![0; 56],
        unencrypted()[..36].to_vec(),
    ];
    for (body_length, constructor) in [
        (20, 0x0000_0000_u32),
        (20, 0xbe7e_8ef2),
        (20, 0xf18e_7ebe),
        (16, 0xbe7e_8ef1),
        (0, 0xbe7e_8ef1),
        (24, 0xbe7e_8ef1),
        (0xffff_fffc, 0xbe7e_8ef1),
    ] {
        let mut message = unencrypted();
        message[16..20].copy_from_slice(&u32::to_le_bytes(body_length));
        message[20..24].copy_from_slice(&constructor.to_le_bytes());
        dropped.push(message);
    }
    dropped
}

fn assert_closes(mut client: Client, bytes: &[u8]) {
    client.send_raw(bytes);
    client.expect_closed();
}

fn is_served(mut client: Client) -> bool {
    let message = Message::echo(10).encode();
    client.send(&message);
    client.receive_or_end().is_some()
}
