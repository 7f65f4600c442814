//! What -v and a second -v add to the log.

use crate::support::dc::{Behaviour, DataCentre};
use crate::support::framing::Transport;
use crate::support::message::Message;
use crate::support::middle_proxy::MiddleProxy;
use crate::support::obfuscated2::Header;
use crate::support::proxy::{Proxy, Setup, owned};
use crate::support::random::random_bytes;
use crate::support::rig::{SECRET, dialer};
use crate::support::sockets::dial;
use crate::support::vectors::to_hex;
use std::io::Write;
use std::ops::RangeInclusive;

/// Each level: none, -v, -v -v, on both roads. A level has the lines of the one below.
#[test]
fn each_level_adds_its_lines() {
    let centre = DataCentre::start(Behaviour::Serve);
    let secret = format!("{}:bob", to_hex(&SECRET));
    for road in ["middle", "direct"] {
        for (level, flags) in [&[][..], &["-v"], &["-v", "-v"]].iter().enumerate() {
            // Another run would give its clients the same ids.
            let middle = MiddleProxy::serving();
            let override_2 = centre.as_dc(2);
            let direct = ["--direct", "--dc-override", &override_2];
            let mut setup = Setup::new(middle.config_line(2));
            setup.arguments = owned(&[&["-S", &secret][..], flags].concat());
            if road == "direct" {
                setup.arguments.extend(owned(&direct));
            }
            let mut proxy = Proxy::start(&setup);
            let moved = visit(&proxy);
            if level > 0 {
                closed_as(&proxy, moved);
            }
            proxy.signal("TERM");
            proxy.wait_for_end();
            let lines = proxy.lines();
            let has = |event: &str| lines.iter().any(|line| line.contains(event));
            assert_eq!(
                has(" client_closed "),
                level > 0,
                "{road} {level}: {lines:#?}"
            );
            assert_eq!(
                has(" client_opened "),
                level > 1,
                "{road} {level}: {lines:#?}"
            );
            if level > 1 {
                let opened = proxy.wait_for_events("client_opened", 1).remove(0);
                assert_eq!((opened.text("label"), opened.text("dc")), ("bob", "2"));
            }
        }
    }
}

/// Nobody's label, and a reason.
#[test]
fn the_end_of_a_stranger_is_one_line() {
    let middle = MiddleProxy::serving();
    let mut setup = Setup::new(middle.config_line(2));
    setup.secrets = vec![SECRET];
    setup.arguments = owned(&["-v"]);
    let proxy = Proxy::start(&setup);
    let header = Header::random(Transport::Padded, 2, Some(&random_bytes()));
    let mut stranger = dial(proxy.address());
    stranger.write_all(&header.wire).expect("a header");
    drop(stranger);
    let closed = proxy.wait_for_line("the end", |line| line.contains(" client_closed "));
    assert!(closed.ends_with(" reason=no_secret_fits"), "{closed}");
}

/// A client comes, has a message echoed and leaves; the bytes that it has sent and received.
fn visit(proxy: &Proxy) -> [u64; 2] {
    let mut client = dialer(proxy.address(), Transport::Intermediate).dial();
    let message = Message::echo(5_000).encode();
    client.send(&message);
    assert_eq!(client.packet(), message);
    let framed = message.len() as u64 + 4;
    [framed + 64, framed]
}

fn closed_as(proxy: &Proxy, [up, down]: [u64; 2]) {
    let closed = proxy.wait_for_events("client_closed", 1).remove(0);
    assert_eq!((closed.text("label"), closed.text("dc")), ("bob", "2"));
    // The data centre closes when the client has, and may be seen first.
    let reason = closed.text("reason");
    assert!(["client_gone", "dc_closed"].contains(&reason), "{reason}");
    // The end of a stream may count as a byte.
    let near = |bytes: u64| -> RangeInclusive<u64> { bytes..=bytes + 1 };
    assert!(
        near(up).contains(&closed.count("bytes_up")),
        "{up}: {closed:?}"
    );
    assert!(
        near(down).contains(&closed.count("bytes_down")),
        "{down}: {closed:?}"
    );
    assert!(closed.number("seconds") >= 0.0 && closed.text("peer").starts_with("127.0.0.1:"));
}
