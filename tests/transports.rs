//! Each transport carries whole packets both ways, unchanged, and the backend learns which one it was.

use crate::support::client::Client;
use crate::support::framing::{MAX_UP, TRANSPORTS, Transport};
use crate::support::message::{Command, Message, unencrypted};
use crate::support::rig::{Rig, dialer};
use crate::support::rpc::{UNENCRYPTED, flags_of};

/// Lengths around every border of the prefixes: 0x7e, 0x7f and 0x80 words, and far above.
const BODIES: [usize; 10] = [
    0,
    28,
    32,
    472,
    476,
    480,
    484,
    4_068,
    70_000,
    MAX_UP - 28 - 16,
];

#[test]
fn packets_of_every_length_come_back() {
    let rig = Rig::start();
    for transport in TRANSPORTS {
        let mut client = rig.dial(transport);
        for body in BODIES {
            client.echo(body);
        }
    }
}

#[test]
fn over_ipv6() {
    let rig = Rig::with(&["-6"], Default::default());
    for transport in TRANSPORTS {
        dialer(rig.proxy.address_v6(), transport).dial().echo(100);
        rig.dial(transport).echo(100);
    }
}

#[test]
fn flags_name_the_transport() {
    let rig = Rig::start();
    for transport in TRANSPORTS {
        let message = Message::echo(40);
        let mut client = rig.dial(transport);
        client.send(&message.encode());
        assert_eq!(
            rig.middle.request(message.tag).flags,
            flags_of(transport),
            "{transport:?}"
        );
    }
}

#[test]
fn unencrypted_messages_pass_with_their_flag() {
    let rig = Rig::start();
    for transport in TRANSPORTS {
        let message = unencrypted();
        let mut client = rig.dial(transport);
        // A whole frame without padding, so that the message arrives as it is.
        client.send_raw(&transport.frame(&message, false, &[]));
        assert_eq!(client.packet(), message, "{transport:?}");
        assert_eq!(
            rig.middle.request_of(&message).flags,
            flags_of(transport) | UNENCRYPTED
        );
    }
}

#[test]
fn padding_is_cut_to_whole_words() {
    let rig = Rig::start();
    let mut client = rig.dial(Transport::Padded);
    for length in 0..16 {
        let message = Message::echo(60);
        let bytes = message.encode();
        let pad = vec![0xa5; length];
        client.send_raw(&Transport::Padded.frame(&bytes, false, &pad));
        assert_eq!(client.packet(), bytes);
        let wanted = [&bytes[..], &pad[..length / 4 * 4]].concat();
        assert_eq!(
            rig.middle.request(message.tag).message,
            wanted,
            "{length} bytes of padding"
        );
    }
}

#[test]
fn many_packets_in_one_write() {
    let rig = Rig::start();
    for transport in TRANSPORTS {
        let mut client = rig.dial(transport);
        let messages: Vec<Vec<u8>> = (0..200)
            .map(|length| Message::echo(length).encode())
            .collect();
        let frames: Vec<u8> = messages
            .iter()
            .flat_map(|message| transport.frame(message, false, &[]))
            .collect();
        client.send_raw(&frames);
        for message in messages {
            assert!(
                client.packet() == message,
                "{transport:?}: another packet or another order"
            );
        }
    }
}

#[test]
fn errors_come_as_four_bytes() {
    let rig = Rig::start();
    for transport in TRANSPORTS {
        let mut client = rig.dial(transport);
        for code in [-404_i32, -429, -444] {
            assert_eq!(
                error(&mut client, code),
                code.to_le_bytes(),
                "{transport:?}"
            );
        }
    }
}

/// Asks the service for an error; gives what arrives.
fn error(client: &mut Client, code: i32) -> Vec<u8> {
    let message = Message {
        a: code.cast_unsigned(),
        ..Message::new(Command::Error, 0)
    };
    client.send(&message.encode());
    client.packet()
}
