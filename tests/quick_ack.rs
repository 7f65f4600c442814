//! Quick acks: asked for by a bit of the packet, passed on as a flag, answered in the transport's own form.

use crate::support::framing::{Item, TRANSPORTS, Transport};
use crate::support::message::{Message, unencrypted};
use crate::support::rig::Rig;
use crate::support::rpc::{self, QUICK_ACK, UNENCRYPTED, flags_of};
use crate::support::service::confirm_of;

#[test]
fn comes_before_the_answer_in_every_transport() {
    let rig = Rig::start();
    for transport in TRANSPORTS {
        let mut client = rig.dial(transport);
        for body in [0, 1_000, 70_000] {
            let message = Message::echo(body);
            client.send_asking_ack(&message.encode());
            let Item::QuickAck { confirm, .. } = client.receive() else {
                panic!("{transport:?}: no ack")
            };
            assert_eq!(confirm, confirm_of(message.tag), "{transport:?}");
            assert_eq!(client.packet(), message.encode(), "{transport:?}");
            assert_eq!(
                rig.middle.request(message.tag).flags,
                flags_of(transport) | QUICK_ACK
            );
        }
    }
}

#[test]
fn the_flag_belongs_to_one_packet() {
    let rig = Rig::start();
    for transport in TRANSPORTS {
        let mut client = rig.dial(transport);
        client.send_asking_ack(&Message::echo(10).encode());
        let after = Message::echo(10);
        client.send(&after.encode());
        assert_eq!(
            rig.middle.request(after.tag).flags,
            flags_of(transport),
            "{transport:?}"
        );
    }
}

#[test]
fn may_be_asked_for_an_unencrypted_message() {
    let rig = Rig::start();
    for transport in TRANSPORTS {
        let message = unencrypted();
        let mut client = rig.dial(transport);
        client.send_raw(&transport.frame(&message, true, &[]));
        let wanted = flags_of(transport) | QUICK_ACK | UNENCRYPTED;
        assert_eq!(
            rig.middle.request_of(&message).flags,
            wanted,
            "{transport:?}"
        );
    }
}

/// In the padded transport half of the acks come bare, half in frames. With 64 of them both kinds are
/// missing once in 2^63 runs.
#[test]
fn takes_both_forms_when_padded() {
    let rig = Rig::start();
    let mut client = rig.dial(Transport::Padded);
    let first = Message::echo(0);
    client.send(&first.encode());
    client.packet();
    let conn_id = rig.middle.request(first.tag).conn_id;
    let link = rig.middle.link_of(conn_id);
    let mut seen = [0, 0];
    for number in 0..64 {
        let confirm = 0x8000_0000 | number << 20 | number;
        assert!(link.send(&[&rpc::simple_ack(conn_id, confirm)]));
        match client.receive() {
            Item::QuickAck {
                confirm: got,
                framed,
            } if got == confirm => seen[usize::from(framed)] += 1,
            other => panic!("ack {confirm:08x} came as {other:?}"),
        }
    }
    assert!(seen[0] > 0 && seen[1] > 0, "bare and framed: {seen:?}");
    client.echo(100);
}
