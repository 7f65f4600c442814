//! Clients that don't obfuscate are served where nobody needs a secret and --open says so; elsewhere they
//! begin wrongly like any other stranger.

use crate::support::client::{dial_clear, start_of};
use crate::support::dc::{Behaviour, DataCentre};
use crate::support::direct_rig::use_service;
use crate::support::framing::{Item, MAX_UP, TRANSPORTS, Transport};
use crate::support::message::{Message, unencrypted};
use crate::support::middle_proxy::MiddleProxy;
use crate::support::proxy::{Proxy, Setup, owned};
use crate::support::rig::{Rig, dialer};
use crate::support::rpc::{OBFUSCATED2, QUICK_ACK, UNENCRYPTED, flags_of};
use crate::support::service::confirm_of;
use crate::support::sockets::{dial, expect_closed, read_bytes};
use crate::support::transfers::Ends;
use std::io::Write;
use std::net::SocketAddr;
use std::thread;

fn middle_mode(arguments: &[&str]) -> (Proxy, MiddleProxy) {
    let middle = MiddleProxy::serving();
    // Clients that name no data centre go to the default.
    let mut setup = Setup::new(format!("default -4;\n{}", middle.config_line(-4)));
    setup.arguments = owned(arguments);
    (Proxy::start(&setup), middle)
}

fn direct_mode(behaviour: Behaviour) -> (Proxy, DataCentre) {
    let centre = DataCentre::start(behaviour);
    let dc = centre.as_dc(2);
    let arguments = ["--direct", "-H", "0", "--open", "--dc-override", &dc];
    (Proxy::start_with(&arguments), centre)
}

#[test]
fn every_framing_is_served_through_a_middle_proxy() {
    let (proxy, middle) = middle_mode(&["--open"]);
    for transport in TRANSPORTS {
        let flags = flags_of(transport) & !OBFUSCATED2;
        let mut client = dial_clear(proxy.address(), transport);
        for body in [0, 500, 70_000, MAX_UP - 28 - 16] {
            client.echo(body);
        }
        let message = Message::echo(40);
        client.send_asking_ack(&message.encode());
        let Item::QuickAck { confirm, .. } = client.receive() else {
            panic!("{transport:?}: no ack")
        };
        assert_eq!(confirm, confirm_of(message.tag));
        assert_eq!(client.packet(), message.encode());
        assert_eq!(middle.request(message.tag).flags, flags | QUICK_ACK);
        let message = unencrypted();
        client.send_raw(&transport.frame(&message, false, &[]));
        assert_eq!(client.packet(), message);
        assert_eq!(middle.request_of(&message).flags, flags | UNENCRYPTED);
    }
    // Others are served as before.
    let mut obfuscating = dialer(proxy.address(), Transport::Padded);
    obfuscating.secret = None;
    obfuscating.dial().echo(100);
}

#[test]
fn the_beginning_may_come_in_pieces_or_with_packets() {
    let (proxy, _middle) = middle_mode(&["--open"]);
    for transport in TRANSPORTS {
        let message = Message::echo(30).encode();
        let all = [start_of(transport), &transport.frame(&message, false, &[])].concat();
        for piece in [1, 3, all.len()] {
            let mut stream = dial(proxy.address());
            for bytes in all.chunks(piece) {
                stream.write_all(bytes).expect("send");
            }
            let item =
                transport.read_item(&mut |length| Some(read_bytes(&stream, length, "an answer")));
            assert_eq!(item, Some(Item::Packet(message.clone())), "{transport:?}");
        }
    }
}

#[test]
fn every_framing_is_served_in_direct_mode() {
    let (proxy, centre) = direct_mode(Behaviour::Serve);
    for (number, transport) in TRANSPORTS.into_iter().enumerate() {
        let mut client = dial_clear(proxy.address(), transport);
        client.echo(100);
        use_service(&mut client);
        let header = centre.header(number);
        assert_eq!((header.transport, header.dc), (transport, 2));
    }
}

#[test]
fn long_streams_pass_in_direct_mode() {
    let (proxy, centre) = direct_mode(Behaviour::HandOver);
    let client = dial_clear(proxy.address(), Transport::Intermediate);
    Ends::new(client, centre.take()).pass_both_ways(6 << 20);
}

#[test]
fn nobody_is_without_the_flag() {
    let (proxy, middle) = middle_mode(&[]);
    hear_nothing(proxy.address(), &TRANSPORTS);
    assert_eq!(proxy.stop().count("closed_no_secret_fits"), 3);
    drop(middle);
}

#[test]
fn nobody_is_where_there_is_a_secret() {
    let rig = Rig::start();
    hear_nothing(rig.proxy.address(), &TRANSPORTS);
    assert_eq!(rig.middle.with(|state| state.requests.len()), 0);
}

#[test]
fn only_padded_ones_are_with_r() {
    let (proxy, _middle) = middle_mode(&["--open", "-R"]);
    dial_clear(proxy.address(), Transport::Padded).echo(100);
    let others = [Transport::Abridged, Transport::Intermediate];
    hear_nothing(proxy.address(), &others);
}

/// All at once; each has sent enough for a header.
fn hear_nothing(address: SocketAddr, transports: &[Transport]) {
    thread::scope(|scope| {
        for transport in transports {
            scope.spawn(move || {
                let mut client = dial_clear(address, *transport);
                client.send(&Message::echo(40).encode());
                expect_closed(&client.stream);
            });
        }
    });
}
