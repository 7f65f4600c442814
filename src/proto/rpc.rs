//! What is said between the proxy and a middle proxy once their connection is ready (protocol.md
//! 7.1, 7.2). Payloads of frames; the frames themselves are `middle::frame`.

use core::net::{IpAddr, SocketAddr};
use core::ops::Range;

use crate::proto::mtproto::Kind;
use crate::proto::transport::Transport;
use crate::proto::wire::{AdTag, ConnId, Reader, Writer};

const PROXY_REQ: u32 = 0x36ce_f1ee;
const PROXY_ANS: u32 = 0x4403_da0d;
const SIMPLE_ACK: u32 = 0x3bac_409b;
const CLOSE_EXT: u32 = 0x5eb6_34a2;
const CLOSE_CONN: u32 = 0x1fcf_425d;
const PING: u32 = 0x5730_a2df;
const PONG: u32 = 0x8430_eaa7;
const TL_PROXY_TAG: u32 = 0xdb1e_26ae;

const FLAG_HTTP: u32 = 0x0000_2005;
const FLAG_UNENCRYPTED: u32 = 0x0000_0002;
const FLAG_AD_TAG: u32 = 0x0000_0008;
const FLAG_ALWAYS: u32 = 0x0000_1000;
const FLAG_OBFUSCATED2: u32 = 0x0002_0000;
const FLAG_INTERMEDIATE: u32 = 0x2000_0000;
const FLAG_ABRIDGED: u32 = 0x4000_0000;
const FLAG_QUICK_ACK: u32 = 0x8000_0000;

/// Bytes of a PROXY_REQ before its extra items, without their length.
const REQUEST_HEAD: usize = 56;
/// Bytes of the ad tag's item.
const TAG_ITEM: usize = 24;
/// The longest head of a request whose only item may be the ad tag.
pub const MAX_REQUEST_HEAD: usize = REQUEST_HEAD + 4 + TAG_ITEM;

/// The flag of a PROXY_ANS whose data is the number of an error.
const ANSWER_IS_ERROR: u32 = 0x0000_0010;

/// What a request says about the client, the same for each of its packets.
#[derive(Clone, Copy)]
pub struct Origin {
    /// The client's name towards this middle proxy.
    pub conn: ConnId,
    /// The client's address.
    pub client: SocketAddr,
    /// The address that the client connected to, translated behind NAT.
    pub ours: SocketAddr,
    /// Its framing; None over HTTP.
    pub transport: Option<Transport>,
    /// Whether its stream is obfuscated.
    pub obfuscated: bool,
    /// The sponsored channel.
    pub ad_tag: Option<AdTag>,
}

impl Origin {
    /// Bytes that [`Origin::encode_head`] writes for a request with this item.
    pub fn head_len(&self, item: &[u8]) -> usize {
        match self.items_len(item) {
            0 => REQUEST_HEAD,
            len => REQUEST_HEAD.saturating_add(4).saturating_add(len),
        }
    }

    /// Writes the part of PROXY_REQ that comes before the client's message, which follows
    /// unchanged: with the ad tag, and then `item`, which may be empty. None if `out` is shorter than
    /// [`Origin::head_len`].
    pub fn encode_head(
        &self,
        kind: Kind,
        quick_ack: bool,
        item: &[u8],
        out: &mut [u8],
    ) -> Option<usize> {
        let mut w = Writer::new(out);
        w.u32(PROXY_REQ).u32(self.flags(kind, quick_ack));
        w.u64(self.conn.0);
        for address in [self.client, self.ours] {
            let ip = match address.ip() {
                IpAddr::V4(v4) => v4.to_ipv6_mapped(),
                IpAddr::V6(v6) => v6,
            };
            w.put(&ip.octets()).u32(u32::from(address.port()));
        }
        let items = self.items_len(item);
        if items > 0 {
            w.u32(items as u32);
        }
        if let Some(tag) = self.ad_tag {
            // A TL string of 16 bytes.
            w.u32(TL_PROXY_TAG).put(&[16]).put(&tag.0).put(&[0; 3]);
        }
        w.put(item).finish()
    }

    fn items_len(&self, item: &[u8]) -> usize {
        let tag = if self.ad_tag.is_some() { TAG_ITEM } else { 0 };
        item.len().saturating_add(tag)
    }

    fn flags(&self, kind: Kind, quick_ack: bool) -> u32 {
        let framing = match self.transport {
            Some(Transport::Abridged) => FLAG_ABRIDGED,
            Some(Transport::Intermediate | Transport::PaddedIntermediate) => FLAG_INTERMEDIATE,
            None => FLAG_HTTP,
        };
        let when = |condition: bool, flag: u32| if condition { flag } else { 0 };
        FLAG_ALWAYS
            | framing
            | when(self.obfuscated, FLAG_OBFUSCATED2)
            | when(kind == Kind::Unencrypted, FLAG_UNENCRYPTED)
            | when(self.ad_tag.is_some(), FLAG_AD_TAG)
            | when(quick_ack, FLAG_QUICK_ACK)
    }
}

/// A message from a middle proxy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FromMiddle {
    /// A packet for a client; `data` is its place in the payload.
    Answer {
        /// For whom.
        conn: ConnId,
        /// Where in the payload.
        data: Range<usize>,
        /// It is the number of an error.
        is_error: bool,
    },
    /// Quick ack for a client.
    SimpleAck {
        /// For whom.
        conn: ConnId,
        /// What to confirm with; bit 31 is set.
        confirm: u32,
    },
    /// A client's connection shall be closed.
    CloseExt {
        /// Whose.
        conn: ConnId,
    },
    /// Is to be answered with [`pong`] and the same 8 bytes.
    Ping([u8; 8]),
    /// Answer to our ping.
    Pong,
    /// Unknown type or wrong length: ignored.
    Other,
}

/// Bytes of a PROXY_ANS before its data.
const ANSWER_HEAD: usize = 16;

/// Reads the payload of a frame. A known type with a wrong length is [`FromMiddle::Other`].
pub fn decode(payload: &[u8]) -> FromMiddle {
    try_decode(payload).unwrap_or(FromMiddle::Other)
}

fn try_decode(payload: &[u8]) -> Option<FromMiddle> {
    let mut r = Reader::new(payload);
    Some(match (r.u32()?, payload.len()) {
        (PROXY_ANS, _) => {
            let flags = r.u32()?;
            FromMiddle::Answer {
                is_error: flags & ANSWER_IS_ERROR != 0,
                conn: ConnId(r.u64()?),
                data: ANSWER_HEAD..payload.len(),
            }
        }
        (SIMPLE_ACK, 16) => FromMiddle::SimpleAck {
            conn: ConnId(r.u64()?),
            confirm: r.u32()?,
        },
        (CLOSE_EXT, 12) => FromMiddle::CloseExt {
            conn: ConnId(r.u64()?),
        },
        (PING, 12) => FromMiddle::Ping(r.array()?),
        (PONG, 12) => FromMiddle::Pong,
        _ => return None,
    })
}

/// Tells a middle proxy that a client is gone.
pub fn close_conn(conn: ConnId) -> [u8; 12] {
    short(CLOSE_CONN, conn.0.to_le_bytes())
}

/// Asks a middle proxy for a sign of life.
pub fn ping(id: [u8; 8]) -> [u8; 12] {
    short(PING, id)
}

/// Answers a middle proxy's ping.
pub fn pong(id: [u8; 8]) -> [u8; 12] {
    short(PONG, id)
}

fn short(kind: u32, body: [u8; 8]) -> [u8; 12] {
    let mut out = [0; 12];
    Writer::new(&mut out).u32(kind).put(&body);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::http;
    use crate::vectors::Vectors;
    use alloc::vec::Vec;
    use std::{format, vec};

    #[test]
    fn request_vectors() {
        let v = Vectors::load("rpc_proxy_req");
        let mut checked = 0;
        for i in 0..v.number("rows.count") {
            let key = |name: &str| format!("rows.{i}.{name}");
            let transport = match v.text(&key("transport")) {
                "abridged" => Some(Transport::Abridged),
                "intermediate" => Some(Transport::Intermediate),
                "padded" => Some(Transport::PaddedIntermediate),
                _ => None,
            };
            let tag = v.text(&key("ad_tag"));
            let encrypted = v.text(&key("message")) == "encrypted";
            let message = v.bytes(if encrypted {
                "encrypted_message"
            } else {
                "req_pq_multi_message"
            });
            let origin = Origin {
                conn: ConnId(v.number(&key("conn_id")) as u64),
                client: v.text(&key("client")).parse().unwrap(),
                ours: v.text(&key("our")).parse().unwrap(),
                transport,
                obfuscated: transport.is_some(),
                ad_tag: (!tag.is_empty()).then(|| AdTag(v.array(&key("ad_tag")))),
            };
            let kind = super::super::mtproto::classify(&message).unwrap();
            assert_eq!(kind == Kind::Encrypted, encrypted);
            let item = match transport {
                Some(_) => Vec::new(),
                None => {
                    let field = |name| v.text(&key(name)).as_bytes();
                    http::fields_item(["origin", "referer", "user_agent"].map(field))
                }
            };
            let mut head = vec![0; origin.head_len(&item)];
            let quick_ack = transport.is_some() && v.text(&key("quick_ack")) == "true";
            let encode = |out: &mut [u8]| origin.encode_head(kind, quick_ack, &item, out);
            assert_eq!(encode(&mut head), Some(head.len()));
            let short = head.len() - 1;
            assert_eq!(encode(&mut vec![0; short]), None);
            assert_eq!(
                [&head[..], &message].concat(),
                v.bytes(&key("payload")),
                "row {i}"
            );
            checked += 1;
        }
        assert_eq!(checked, 20);
    }

    #[test]
    fn answers_with_their_exact_lengths() {
        let conn = ConnId(0x0102_0304_0506_0708);
        let message = |kind: u32, rest: usize| {
            let mut m = kind.to_le_bytes().to_vec();
            m.extend(conn.0.to_le_bytes());
            m.resize(4 + rest, 0x80);
            m
        };
        assert_eq!(
            decode(&message(SIMPLE_ACK, 12)),
            FromMiddle::SimpleAck {
                conn,
                confirm: 0x8080_8080
            }
        );
        assert_eq!(
            decode(&message(CLOSE_EXT, 8)),
            FromMiddle::CloseExt { conn }
        );
        assert_eq!(
            decode(&message(PING, 8)),
            FromMiddle::Ping(conn.0.to_le_bytes())
        );
        assert_eq!(decode(&message(PONG, 8)), FromMiddle::Pong);
        for (kind, right) in [(SIMPLE_ACK, 12), (CLOSE_EXT, 8), (PING, 8), (PONG, 8)] {
            for wrong in [0, 4, right - 4, right + 4] {
                assert_eq!(decode(&message(kind, wrong)), FromMiddle::Other);
            }
        }
        for len in 0..16 {
            assert_eq!(decode(&vec![0; len]), FromMiddle::Other);
            let mut answer = message(PROXY_ANS, 12);
            answer.truncate(len);
            assert_eq!(decode(&answer), FromMiddle::Other);
        }
        let mut answer = PROXY_ANS.to_le_bytes().to_vec();
        answer.extend([9; 4]);
        answer.extend(conn.0.to_le_bytes());
        let (data, is_error) = (16..16, false);
        let wanted = FromMiddle::Answer {
            conn,
            data,
            is_error,
        };
        assert_eq!(decode(&answer), wanted);
        answer[4] |= 0x10;
        assert!(matches!(
            decode(&answer),
            FromMiddle::Answer { is_error: true, .. }
        ));
    }

    #[test]
    fn transcript_payloads() {
        let v = Vectors::load("rpc_transcript");
        let ping_answer = v.bytes("steps.5.payloads.0");
        let FromMiddle::Ping(id) = decode(&ping_answer) else {
            panic!("not a ping")
        };
        assert_eq!(pong(id).to_vec(), v.bytes("steps.6.payloads.0"));
        assert_eq!(ping(id).to_vec(), ping_answer);
        assert!(matches!(
            decode(&v.bytes("steps.5.payloads.1")),
            FromMiddle::Answer { .. }
        ));
        assert!(matches!(
            decode(&v.bytes("steps.7.payloads.0")),
            FromMiddle::SimpleAck { .. }
        ));
        let FromMiddle::CloseExt { conn } = decode(&v.bytes("steps.8.payloads.0")) else {
            panic!("no CLOSE_EXT")
        };
        assert_eq!(close_conn(conn).to_vec(), v.bytes("steps.9.payloads.0"));
    }
}
