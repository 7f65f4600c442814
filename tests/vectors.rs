//! The test peers themselves (what belongs to a middle proxy's link is in vectors_link), against vectors
//! that other implementations agreed on: when the peers are right, what the other modules show is about
//! the program and not about two equal mistakes.

use crate::support::crypto::{Cbc, Checksum, Ctr, Keys};
use crate::support::framing::{Item, Transport};
use crate::support::obfuscated2::{FORBIDDEN_FIRST, Header, Secret, is_forbidden};
use crate::support::vectors::{Vectors, from_hex, to_hex};

#[test]
fn ciphers_and_checksums() {
    let vectors = Vectors::load("primitives");
    for name in ["aes_256_ctr", "aes_256_ctr_carry"] {
        let mut bytes = vectors.bytes(&format!("{name}.plain"));
        Ctr::new(
            vectors.array(&format!("{name}.key")),
            vectors.array(&format!("{name}.iv")),
        )
        .apply(&mut bytes);
        assert_eq!(bytes, vectors.bytes(&format!("{name}.cipher")), "{name}");
    }
    let keys = Keys {
        key: vectors.array("aes_256_cbc.key"),
        iv: vectors.array("aes_256_cbc.iv"),
    };
    let mut bytes = vectors.bytes("aes_256_cbc.plain");
    Cbc::new(&keys).encrypt(&mut bytes);
    assert_eq!(bytes, vectors.bytes("aes_256_cbc.cipher"));
    Cbc::new(&keys).decrypt(&mut bytes);
    assert_eq!(bytes, vectors.bytes("aes_256_cbc.plain"));
    for index in 0..vectors.count("crc.count") {
        let data = vectors.bytes(&format!("crc.{index}.data"));
        for (name, checksum) in [("crc32", Checksum::Crc32), ("crc32c", Checksum::Crc32c)] {
            let wanted = vectors.text(&format!("crc.{index}.{name}")).to_owned();
            assert_eq!(
                format!("{:08x}", checksum.of(&data)),
                wanted,
                "{name} {index}"
            );
        }
    }
}

#[test]
fn obfuscated2_headers() {
    let vectors = Vectors::load("obfuscated2");
    for index in 0..vectors.count("headers.count") {
        let key = |name: &str| format!("headers.{index}.{name}");
        let secret: Option<Secret> = vectors.bytes(&key("secret")).try_into().ok();
        let mut header =
            Header::from_plain(vectors.array(&key("client_plain_header")), secret.as_ref());
        assert_eq!(
            to_hex(&header.wire),
            vectors.text(&key("wire_header")),
            "header {index}"
        );
        let mut up = vectors.bytes(&key("after_header.client_plain"));
        header.send.apply(&mut up);
        assert_eq!(
            up,
            vectors.bytes(&key("after_header.client_wire")),
            "header {index}"
        );
        let mut down = vectors.bytes(&key("after_header.proxy_wire"));
        header.receive.apply(&mut down);
        assert_eq!(
            down,
            vectors.bytes(&key("after_header.proxy_plain")),
            "header {index}"
        );
        let transport = transport_named(vectors.text(&key("transport")));
        assert_eq!(transport.tag().to_vec(), vectors.bytes(&key("tag")));
    }
}

#[test]
fn forbidden_headers() {
    let vectors = Vectors::load("obfuscated2");
    let forbidden: Vec<u32> = (0..vectors.count("forbidden_first_u32_le.count"))
        .map(|index| vectors.text(&format!("forbidden_first_u32_le.{index}")))
        .map(|word| u32::from_str_radix(word, 16).expect("a hex word"))
        .collect();
    assert_eq!(forbidden, FORBIDDEN_FIRST);
    let mut header = [1; 64];
    assert!(!is_forbidden(&header));
    header[4..8].fill(0);
    assert!(is_forbidden(&header));
    assert!(is_forbidden(&[0xef; 64]));
}

#[test]
fn frames_of_the_transports() {
    let vectors = Vectors::load("framing");
    for index in 0..vectors.count("encode.count") {
        let key = |name: &str| format!("encode.{index}.{name}");
        let length = vectors.count(&key("payload_len"));
        let quick_ack = vectors.text(&key("quick_ack_bit")) == "true";
        let payload = match vectors.optional(&key("payload")) {
            Some(hex) => from_hex(hex),
            None => vec![0; length],
        };
        for (name, transport) in [
            ("abridged", Transport::Abridged),
            ("intermediate", Transport::Intermediate),
        ] {
            let frame = transport.frame(&payload, quick_ack, &[]);
            let prefix = vectors.bytes(&key(&format!("{name}_prefix")));
            assert_eq!(frame, [&prefix, &payload[..]].concat(), "{name} {index}");
            if !quick_ack {
                assert_eq!(
                    items(transport, &frame),
                    [Item::Packet(payload.clone())],
                    "{name} {index}"
                );
            }
        }
        if let Some(wire) = vectors.optional(&key("padded_client_to_proxy")) {
            let wire = from_hex(wire);
            let pad = &wire[4 + payload.len()..];
            assert_eq!(
                Transport::Padded.frame(&payload, quick_ack, pad),
                wire,
                "padded {index}"
            );
        }
        if let Some(wire) = vectors.optional(&key("padded_proxy_to_client_with_2_pad_bytes")) {
            assert_eq!(
                items(Transport::Padded, &from_hex(wire)),
                [Item::Packet(payload)],
                "padded {index}"
            );
        }
    }
}

#[test]
fn quick_acks_and_errors() {
    let vectors = Vectors::load("framing");
    let confirm =
        u32::from_str_radix(vectors.text("quick_ack_reply.confirm"), 16).expect("a hex word");
    for (name, transport, framed) in [
        ("abridged_reply", Transport::Abridged, false),
        ("intermediate_reply", Transport::Intermediate, false),
        ("padded_reply_form_a", Transport::Padded, false),
        (
            "padded_reply_form_b_without_random_tail",
            Transport::Padded,
            true,
        ),
    ] {
        let wire = vectors.bytes(&format!("quick_ack_reply.{name}"));
        assert_eq!(
            items(transport, &wire),
            [Item::QuickAck { confirm, framed }],
            "{name}"
        );
    }
    let code = vectors.bytes("error_packet.payload");
    assert_eq!(
        items(Transport::Abridged, &vectors.bytes("error_packet.abridged")),
        [Item::Packet(code.clone())]
    );
    let wire = vectors.bytes("error_packet.intermediate");
    assert_eq!(
        items(Transport::Intermediate, &wire),
        [Item::Packet(code.clone())]
    );
    assert_eq!(items(Transport::Padded, &wire), [Item::Packet(code)]);
}

pub fn transport_named(name: &str) -> Transport {
    match name {
        "abridged" => Transport::Abridged,
        "intermediate" => Transport::Intermediate,
        "padded" => Transport::Padded,
        other => panic!("transport {other}"),
    }
}

/// Everything that a client reads from these bytes.
fn items(transport: Transport, bytes: &[u8]) -> Vec<Item> {
    let mut rest = bytes;
    let mut read = |length: usize| {
        let taken;
        (taken, rest) = rest.split_at_checked(length)?;
        Some(taken.to_vec())
    };
    std::iter::from_fn(|| transport.read_item(&mut read)).collect()
}
