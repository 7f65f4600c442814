//! The data centre of the direct-mode tests itself: against the vector of a proxy's own header, with
//! clients that come to it without a proxy, and that it notices what it must not let pass.

use crate::support::dc::{Behaviour, DataCentre, Refusing};
use crate::support::direct_rig::use_service;
use crate::support::framing::TRANSPORTS;
use crate::support::obfuscated2::{FORBIDDEN_FIRST, Header};
use crate::support::rig::dialer;
use crate::support::sockets::{dial, expect_bytes, is_listening};
use crate::support::vectors::Vectors;
use std::io::Write;

#[test]
fn the_vector_of_an_outbound_header() {
    let vectors = Vectors::load("obfuscated2");
    let of = |name: &str| vectors.bytes(&format!("outbound_direct_mode.{name}"));
    let centre = DataCentre::start(Behaviour::HandOver);
    let mut proxy = dial(centre.address);
    let bytes = [of("wire_header"), of("send_wire")].concat();
    proxy.write_all(&bytes).expect("header and traffic");
    let link = centre.take();
    assert_eq!(link.header.wire.to_vec(), of("wire_header"));
    assert_eq!(
        link.header.transport.tag().to_vec(),
        of("plain_header")[56..60]
    );
    assert_eq!(
        link.header.dc.to_le_bytes().to_vec(),
        of("plain_header")[60..62]
    );
    let (mut sending, mut receiving) = link.halves();
    let mut clear = vec![0; of("send_plain").len()];
    let mut done = 0;
    while done < clear.len() {
        done += receiving.read_some(&mut clear[done..]);
    }
    assert_eq!(clear, of("send_plain"));
    sending.send(&of("recv_plain"));
    expect_bytes(&proxy, &of("recv_wire"), "an answer");
}

/// A data centre has no secret: clients with raw keys can talk to it as they are.
#[test]
fn clients_without_a_proxy() {
    let centre = DataCentre::start(Behaviour::Serve);
    for transport in TRANSPORTS {
        for dc in [2, -2, 203, 10_002, i16::MIN] {
            let mut dialer = dialer(centre.address, transport);
            (dialer.secret, dialer.dc) = (None, dc);
            let before = centre.with(|state| state.headers.len());
            let mut client = dialer.dial();
            for body in [0, 476, 480, 484, 100_000, 1_000_000] {
                client.echo(body);
            }
            let header = centre.header(before);
            assert_eq!((header.transport, header.dc), (transport, dc));
            use_service(&mut client);
            centre.wait_for_ends(before + 1);
        }
    }
}

#[test]
fn wrong_headers_and_broken_streams_are_noticed() {
    let plain = |first: [u8; 8], tag: [u8; 4]| {
        let mut plain = [0x5a; 64];
        plain[..8].copy_from_slice(&first);
        plain[56..60].copy_from_slice(&tag);
        Header::from_plain(plain, None).wire.to_vec()
    };
    let right_tag = [0xee; 4];
    let mut wrong: Vec<(Vec<u8>, &str)> = FORBIDDEN_FIRST
        .iter()
        .map(|first| (u64::from(*first) | 1 << 32).to_le_bytes())
        .chain([[0xef; 8], [1, 1, 1, 1, 0, 0, 0, 0]])
        .map(|first| (plain(first, right_tag), "forbidden"))
        .collect();
    wrong.push((plain([1; 8], [0xdc; 4]), "of no transport"));
    wrong.push((plain([1; 8], right_tag)[..63].to_vec(), "63 of 64 bytes"));
    // What nobody encrypted for it is no packet of the service.
    let random = [plain([1; 8], right_tag), vec![0x77; 1 << 20]].concat();
    wrong.push((random, "broken"));
    for (bytes, wanted) in wrong {
        let centre = DataCentre::start(Behaviour::Serve);
        let mut stream = dial(centre.address);
        // It may close before it has read all.
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let failure = centre.wait_for("a failure", |state| state.failures.pop());
        assert!(failure.contains(wanted), "{failure}");
    }
}

#[test]
fn a_refusing_address_refuses() {
    let refusing = Refusing::new();
    for _ in 0..3 {
        assert!(!is_listening(refusing.address));
    }
}
