//! The far end of a middle proxy link, against vectors that other implementations agreed on: keys, a whole
//! conversation, requests.

use crate::support::crypto::{Checksum, Derivation, Keys, as_array};
use crate::support::middle_wire::{FrameReader, FrameWriter};
use crate::support::rpc::{self, Request};
use crate::support::vectors::{Vectors, from_hex, to_hex};
use crate::vectors::transport_named;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV4};

#[test]
fn link_keys() {
    let vectors = Vectors::load("rpc_key_derivation");
    let mut compared = 0;
    for index in 0..vectors.count("count") {
        let key = |name: &str| format!("{index}.{name}");
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
            shared: vectors.bytes(&key("temp_key")).try_into().ok(),
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
    assert_eq!(
        compared, 5,
        "IPv4, IPv6, both with Diffie-Hellman, and a short secret"
    );
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
