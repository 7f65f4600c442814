//! Messages of middle proxies and data centres, and what may be forwarded to them.

use std::net::{Ipv6Addr, SocketAddr};

use mtproxy::proto::middle::handshake::{
    ProcessId, accept_handshake, accept_nonce, accept_nonce_with_dh, handshake, handshake_error,
    nonce,
};
use mtproxy::proto::mtproto::{self, Kind, Reply};
use mtproxy::proto::rpc::{FromMiddle, Origin, decode};
use mtproxy::proto::transport::Transport;
use mtproxy::proto::wire::{AdTag, ConnId};

pub fn rpc(payload: &[u8]) {
    match decode(payload) {
        FromMiddle::Answer { data, .. } => assert!(payload.get(data).is_some()),
        FromMiddle::SimpleAck { .. } => assert_eq!(payload.len(), 16),
        FromMiddle::CloseExt { .. } | FromMiddle::Ping(_) | FromMiddle::Pong => {
            assert_eq!(payload.len(), 12);
        }
        FromMiddle::Other => {}
    }
    handshakes(payload);
    messages(payload);
    requests(payload);
}

fn handshakes(payload: &[u8]) {
    let (selector, now) = ([0xba, 0xce, 0x92, 0x4a], 0x68e7_7801);
    let us = ProcessId::of_peer(SocketAddr::from(([203, 0, 113, 1], 4321)));
    if let Ok(theirs) = accept_nonce(payload, selector, now) {
        // A nonce of ours that says the same is accepted, and by both.
        let again = nonce(selector, now, &theirs);
        assert_eq!(accept_nonce(&again, selector, now), Ok(theirs));
    }
    let _ = accept_nonce_with_dh(payload, selector, now);
    let _ = accept_handshake(payload, us);
    let peer = ProcessId::default();
    assert!(accept_handshake(&handshake(peer, us), us).is_ok());
    assert!(accept_handshake(&handshake_error(-1, us), us).is_err());
}

fn messages(payload: &[u8]) {
    if let Some(kind) = mtproto::classify(payload) {
        assert!(payload.len() % 4 == 0);
        let key_is_zero = payload.starts_with(&[0; 8]);
        assert_eq!(key_is_zero, kind == Kind::Unencrypted);
    }
    let nonce = payload.first_chunk().copied().unwrap_or_default();
    let question = mtproto::req_pq(1 << 32, &nonce);
    assert_eq!(mtproto::classify(&question), Some(Kind::Unencrypted));
    let is_error = matches!(mtproto::reply(payload, &nonce), Reply::Error(_));
    assert_eq!(is_error, payload.len() == 4);
}

/// The head of a request fills just the room that it says it needs.
fn requests(payload: &[u8]) {
    let item = &payload[..payload.len() / 4 * 4];
    let client = SocketAddr::from((Ipv6Addr::LOCALHOST, 5));
    for (transport, ad_tag) in [
        (Some(Transport::Abridged), None),
        (None, Some(AdTag([7; 16]))),
    ] {
        let origin = Origin {
            conn: ConnId(1),
            client,
            ours: SocketAddr::from(([127, 0, 0, 1], 443)),
            transport,
            obfuscated: true,
            ad_tag,
        };
        let len = origin.head_len(item);
        let mut out = vec![0; len];
        assert_eq!(
            origin.encode_head(Kind::Encrypted, true, item, &mut out),
            Some(len)
        );
        out.pop();
        assert_eq!(
            origin.encode_head(Kind::Encrypted, true, item, &mut out),
            None
        );
    }
}
