//! The test peers themselves, against vectors that other implementations agreed on: when they are right,
//! what the other modules show is about the program and not about two equal mistakes.

use crate::support::crypto::{Cbc, Checksum, Ctr, Derivation, Keys, as_array};
use crate::support::framing::{Item, Transport};
use crate::support::middle_wire::{FrameReader, FrameWriter};
use crate::support::obfuscated2::{FORBIDDEN_FIRST, Header, Secret, is_forbidden};
use crate::support::rpc::{self, Request};
use crate::support::vectors::{Vectors, from_hex, to_hex};
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV4};

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

#[test]
fn link_keys() {
    let vectors = Vectors::load("rpc_key_derivation");
    let mut compared = 0;
    for index in 0..vectors.count("count") {
        let key = |name: &str| format!("{index}.{name}");
        if !vectors.text(&key("temp_key")).is_empty() {
            // With a DH value: not something that the fake middle proxy does.
            continue;
        }
        let proxy_secret = vectors.bytes(&key("proxy_secret"));
        let derivation = Derivation {
            nonce_server: vectors.array(&key("nonce_server")),
            nonce_client: vectors.array(&key("nonce_client")),
            client_timestamp: u32::try_from(vectors.number(&key("client_timestamp")))
                .expect("a time")
                .to_le_bytes(),
            server: end_of(&vectors, index, "server"),
            client: end_of(&vectors, index, "client"),
            proxy_secret: &proxy_secret,
        };
        assert_eq!(
            to_hex(&derivation.string(b"CLIENT")),
            vectors.text(&key("string_client"))
        );
        assert_eq!(
            to_hex(&derivation.string(b"SERVER")),
            vectors.text(&key("string_server"))
        );
        for (keys, name) in [
            (derivation.client_writes(), "write"),
            (derivation.server_writes(), "read"),
        ] {
            assert_eq!(
                to_hex(&keys.key),
                vectors.text(&key(&format!("client_{name}_key")))
            );
            assert_eq!(
                to_hex(&keys.iv),
                vectors.text(&key(&format!("client_{name}_iv")))
            );
        }
        compared += 1;
    }
    assert_eq!(compared, 3, "IPv4, IPv6 and a short secret");
}

/// A whole conversation: what the backend says is written, what the proxy says is read.
#[test]
fn link_transcript() {
    let vectors = Vectors::load("rpc_transcript");
    let (mut writer, mut reader) = (FrameWriter::new(), FrameReader::new());
    for index in 0..vectors.count("steps.count") {
        let key = |name: &str| format!("steps.{index}.{name}");
        if index == 2 {
            let keys = |way: &str| Keys {
                key: vectors.array(&format!("client_{way}_key")),
                iv: vectors.array(&format!("client_{way}_iv")),
            };
            reader
                .decrypt_with(&keys("write"))
                .expect("nothing read ahead");
            writer.encrypt_with(&keys("read"));
        }
        if index == 4 {
            reader.check_with(Checksum::Crc32c);
            writer.check_with(Checksum::Crc32c);
        }
        let payloads = payloads_of(&vectors, index);
        let wire = vectors.bytes(&key("wire"));
        if vectors.text(&key("from")) == "backend" {
            let payloads: Vec<&[u8]> = payloads.iter().map(Vec::as_slice).collect();
            assert_eq!(
                to_hex(&writer.flush(&payloads)),
                to_hex(&wire),
                "step {index}"
            );
        } else {
            for byte in wire {
                reader.feed(&[byte]);
            }
            for payload in payloads {
                assert_eq!(reader.next(), Ok(Some(payload)), "step {index}");
            }
            assert_eq!(reader.next(), Ok(None), "step {index}");
        }
    }
}

#[test]
fn proxy_requests() {
    let vectors = Vectors::load("rpc_proxy_req");
    for index in 0..vectors.count("rows.count") {
        let key = |name: &str| format!("rows.{index}.{name}");
        if vectors.text(&key("transport")) == "http" {
            continue;
        }
        let request = Request::decode(&vectors.bytes(&key("payload"))).expect("a right PROXY_REQ");
        assert_eq!(
            format!("{:08x}", request.flags),
            vectors.text(&key("flags"))
        );
        assert_eq!(
            request.conn_id.cast_signed().to_string(),
            vectors.text(&key("conn_id"))
        );
        assert_eq!(request.client, mapped(vectors.text(&key("client"))));
        assert_eq!(request.our, mapped(vectors.text(&key("our"))));
        assert_eq!(
            request.ad_tag.map_or(String::new(), |tag| to_hex(&tag)),
            vectors.text(&key("ad_tag"))
        );
        let message = format!("{}_message", vectors.text(&key("message")));
        assert_eq!(request.message, vectors.bytes(&message));
        let transport = transport_named(vectors.text(&key("transport")));
        assert_eq!(
            request.flags & !(rpc::UNENCRYPTED | rpc::AD_TAG | rpc::QUICK_ACK),
            rpc::flags_of(transport)
        );
    }
}

fn transport_named(name: &str) -> Transport {
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

fn payloads_of(vectors: &Vectors, index: usize) -> Vec<Vec<u8>> {
    if let Some(payload) = vectors.optional(&format!("steps.{index}.payload")) {
        return vec![from_hex(payload)];
    }
    let count = vectors.count(&format!("steps.{index}.payloads.count"));
    (0..count)
        .map(|nth| vectors.bytes(&format!("steps.{index}.payloads.{nth}")))
        .collect()
}

fn end_of(vectors: &Vectors, index: usize, name: &str) -> SocketAddr {
    let port = u16::try_from(vectors.number(&format!("{index}.{name}_port"))).expect("a port");
    let v6 = vectors.bytes(&format!("{index}.{name}_ipv6"));
    if v6.is_empty() {
        let v4 = vectors.text(&format!("{index}.{name}_ipv4"));
        return format!("{v4}:{port}").parse().expect("an address");
    }
    (Ipv6Addr::from(as_array::<16>(&v6)), port).into()
}

/// The form in which a PROXY_REQ holds an address.
fn mapped(address: &str) -> (Ipv6Addr, u32) {
    if let Ok(v4) = address.parse::<SocketAddrV4>() {
        return (v4.ip().to_ipv6_mapped(), u32::from(v4.port()));
    }
    let (ip, port) = address.rsplit_once(':').expect("address:port");
    let ip = ip
        .trim_matches(['[', ']'])
        .parse()
        .expect("an IPv6 address");
    (ip, port.parse().expect("a port"))
}
