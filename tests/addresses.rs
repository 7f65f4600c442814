//! The backend learns where a client came from and where it connected to; both ends of a link agree on each
//! other's addresses for the keys, behind NAT too; the ad tag is carried.

use crate::support::client::Client;
use crate::support::framing::{TRANSPORTS, Transport};
use crate::support::message::{Message, unencrypted};
use crate::support::middle_proxy::Options;
use crate::support::rig::{Rig, dialer};
use crate::support::rpc::{AD_TAG, Request, UNENCRYPTED, flags_of};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What the outside sees instead of 127.0.0.1 and 127.0.0.2.
const PUBLIC: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);
const OTHER_PUBLIC: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 77);

#[test]
fn of_clients_of_each_family() {
    for (arguments, is_v6) in [(&[][..], false), (&["-6"], true), (&["-6"], false)] {
        let rig = Rig::with(arguments, Options::default());
        let address = if is_v6 {
            rig.proxy.address_v6()
        } else {
            rig.proxy.address()
        };
        for transport in TRANSPORTS {
            let mut client = dialer(address, transport).dial();
            let request = request_of(&rig, &mut client);
            let own = client.stream.local_addr().expect("an address");
            assert_eq!(request.client, as_sent(own), "{arguments:?}");
            assert_eq!(request.our, as_sent(address), "{arguments:?}");
        }
    }
}

#[test]
fn an_ipv6_link_serves() {
    let options = Options {
        ip: IpAddr::V6(Ipv6Addr::LOCALHOST),
        ..Options::default()
    };
    let rig = Rig::with(&[], options);
    assert!(rig.middle.link(0).peer.is_ipv6());
    rig.dial(Transport::Padded).echo(100);
}

#[test]
fn the_ad_tag_is_carried() {
    let rig = Rig::with(
        &["-P", "0123456789abcdef00112233aabbccdd"],
        Options::default(),
    );
    let tag = [
        0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef, 0, 0x11, 0x22, 0x33, 0xaa, 0xbb, 0xcc, 0xdd,
    ];
    for transport in TRANSPORTS {
        let mut client = rig.dial(transport);
        let request = request_of(&rig, &mut client);
        assert_eq!(request.ad_tag, Some(tag));
        assert_eq!(request.flags, flags_of(transport) | AD_TAG);
        let message = unencrypted();
        client.send_raw(&transport.frame(&message, false, &[]));
        let request = rig.middle.request_of(&message);
        assert_eq!(
            (request.ad_tag, request.flags),
            (Some(tag), flags_of(transport) | AD_TAG | UNENCRYPTED)
        );
    }
}

#[test]
fn without_a_tag_none_is_sent() {
    let rig = Rig::start();
    let request = request_of(&rig, &mut rig.dial(Transport::Padded));
    assert_eq!(request.ad_tag, None);
}

#[test]
fn nat_rules_translate_our_address() {
    let rule = format!("127.0.0.1:{PUBLIC}");
    let options = Options {
        ip: Ipv4Addr::new(127, 0, 0, 2).into(),
        nat: vec![(Ipv4Addr::LOCALHOST, PUBLIC)],
        ..Options::default()
    };
    let rig = Rig::with(&["--nat-info", &rule], options);
    assert_eq!(
        rig.middle.link(0).peer.ip(),
        Ipv4Addr::LOCALHOST,
        "the test needs this source address"
    );
    let mut client = rig.dial(Transport::Padded);
    let request = request_of(&rig, &mut client);
    assert_eq!(request.our.0, PUBLIC.to_ipv6_mapped());
    assert_eq!(
        request.our.1,
        u32::from(rig.proxy.address().port()),
        "ports are not translated"
    );
    assert_eq!(
        request.client,
        as_sent(client.stream.local_addr().expect("an address"))
    );
}

#[test]
fn nat_rules_translate_both_ends_by_the_first_match() {
    let options = Options {
        ip: Ipv4Addr::new(127, 0, 0, 2).into(),
        nat: vec![
            (Ipv4Addr::LOCALHOST, PUBLIC),
            (Ipv4Addr::new(127, 0, 0, 2), OTHER_PUBLIC),
        ],
        ..Options::default()
    };
    let rules = [
        "--nat-info".to_owned(),
        format!("127.0.0.2:{OTHER_PUBLIC}"),
        format!("--nat-info=127.0.0.1:{PUBLIC}"),
        format!("--nat-info=127.0.0.1:{OTHER_PUBLIC}"),
    ];
    let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
    Rig::with(&rules, options).dial(Transport::Padded).echo(100);
}

/// The far end sees another address than we do: no key can fit, and the log says that the link failed.
#[test]
fn a_missing_nat_rule_fails_the_link() {
    let options = Options {
        nat: vec![(Ipv4Addr::LOCALHOST, PUBLIC)],
        ..Options::default()
    };
    let rig = Rig::with(&[], options);
    let event = rig.proxy.wait_for_events("backend_failed", 1).remove(0);
    assert_eq!(event.text("target"), rig.middle.address.to_string());
    rig.middle.wait_for("a wrong frame", |state| {
        (!state.failures.is_empty()).then_some(())
    });
    drop(rig.proxy);
    rig.middle.forget_failures();
}

#[test]
fn the_given_address_is_bound_on_both_sides() {
    let ours = Ipv4Addr::new(127, 0, 0, 3);
    let rig = Rig::with(&["--address", "127.0.0.3"], Options::default());
    assert_eq!(rig.middle.link(0).peer.ip(), ours);
    let listening = rig.proxy.listening()[0];
    assert_eq!(listening.ip(), ours);
    dialer(listening, Transport::Padded).dial().echo(100);
}

/// Sends a message; gives the request that the backend gets.
fn request_of(rig: &Rig, client: &mut Client) -> Request {
    let message = Message::echo(30);
    client.send(&message.encode());
    rig.middle.request(message.tag)
}

/// The form in which a PROXY_REQ holds an address.
fn as_sent(address: SocketAddr) -> (Ipv6Addr, u32) {
    let ip = match address.ip() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    (ip, u32::from(address.port()))
}
