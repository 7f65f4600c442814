//! What is said between the proxy and a middle proxy once their connection is ready (protocol.md
//! 7.1, 7.2). Payloads of frames; the frames themselves are `middle::frame`.

use core::net::{IpAddr, SocketAddr};
use core::ops::Range;

use crate::limits::MAX_HTTP_FIELD;
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
const TL_HTTP: u32 = 0xd45a_b381;

const FLAG_HTTP: u32 = 0x0000_2005;
const FLAG_UNENCRYPTED: u32 = 0x0000_0002;
const FLAG_AD_TAG: u32 = 0x0000_0008;
const FLAG_ALWAYS: u32 = 0x0000_1000;
const FLAG_OBFUSCATED2: u32 = 0x0002_0000;
const FLAG_INTERMEDIATE: u32 = 0x2000_0000;
const FLAG_ABRIDGED: u32 = 0x4000_0000;
const FLAG_QUICK_ACK: u32 = 0x8000_0000;

/// Bytes of a PROXY_REQ before the client's message, without and with an ad tag.
const REQUEST_HEAD: usize = 56;
const REQUEST_HEAD_WITH_TAG: usize = 84;
/// Bytes of the ad tag's item.
const TAG_ITEM: usize = 24;
/// The longest of them; those of HTTP are longer.
pub const MAX_REQUEST_HEAD: usize = REQUEST_HEAD_WITH_TAG;

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
    /// Its framing, or HTTP.
    pub transport: Transport,
    /// Whether its stream is obfuscated.
    pub obfuscated: bool,
    /// The sponsored channel.
    pub ad_tag: Option<AdTag>,
}

impl Origin {
    /// Bytes that [`Origin::encode_head`] writes.
    pub fn head_len(&self) -> usize {
        if self.ad_tag.is_some() {
            REQUEST_HEAD_WITH_TAG
        } else {
            REQUEST_HEAD
        }
    }

    /// Writes the part of PROXY_REQ that comes before the client's message, which follows
    /// unchanged. None if `out` is shorter than [`Origin::head_len`].
    pub fn encode_head(&self, kind: Kind, quick_ack: bool, out: &mut [u8]) -> Option<usize> {
        let mut w = Writer::new(out);
        self.put_start(self.flags(kind, quick_ack), &mut w);
        if self.ad_tag.is_some() {
            w.u32(TAG_ITEM as u32);
            self.put_tag(&mut w);
        }
        w.finish()
    }

    /// Bytes that [`Origin::encode_http_head`] writes.
    pub fn http_head_len(&self, fields: &[&[u8]; 3]) -> usize {
        let extra = self.http_extra_len(fields);
        REQUEST_HEAD.saturating_add(4).saturating_add(extra)
    }

    /// The same as [`Origin::encode_head`] for a request over HTTP, of whose head `fields` are: Origin,
    /// Referer and User-Agent, empty if missing. Longer ones than [`MAX_HTTP_FIELD`] are cut.
    pub fn encode_http_head(
        &self,
        kind: Kind,
        fields: &[&[u8]; 3],
        out: &mut [u8],
    ) -> Option<usize> {
        let mut w = Writer::new(out);
        self.put_start(self.flags(kind, false), &mut w);
        w.u32(self.http_extra_len(fields) as u32);
        self.put_tag(&mut w);
        w.u32(TL_HTTP);
        for text in fields {
            put_string(cut(text), &mut w);
        }
        w.finish()
    }

    fn http_extra_len(&self, fields: &[&[u8]; 3]) -> usize {
        let tag = if self.ad_tag.is_some() { TAG_ITEM } else { 0 };
        let strings = fields.map(|text| string_len(cut(text)));
        let sum = strings.into_iter().fold(4, usize::saturating_add);
        sum.saturating_add(tag)
    }

    fn put_start(&self, flags: u32, w: &mut Writer) {
        w.u32(PROXY_REQ).u32(flags).u64(self.conn.0);
        for address in [self.client, self.ours] {
            let ip = match address.ip() {
                IpAddr::V4(v4) => v4.to_ipv6_mapped(),
                IpAddr::V6(v6) => v6,
            };
            w.put(&ip.octets()).u32(u32::from(address.port()));
        }
    }

    /// The item of the ad tag, if there is one: its type and a TL string of 16 bytes.
    fn put_tag(&self, w: &mut Writer) {
        if let Some(tag) = self.ad_tag {
            w.u32(TL_PROXY_TAG).put(&[16]).put(&tag.0).put(&[0; 3]);
        }
    }

    fn flags(&self, kind: Kind, quick_ack: bool) -> u32 {
        let framing = match self.transport {
            Transport::Abridged => FLAG_ABRIDGED,
            Transport::Intermediate | Transport::PaddedIntermediate => FLAG_INTERMEDIATE,
            Transport::Http => FLAG_HTTP,
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

fn cut(field: &[u8]) -> &[u8] {
    field.get(..MAX_HTTP_FIELD).unwrap_or(field)
}

/// Strings shorter than this have one byte of length.
const SHORT_STRING: usize = 254;

#[inline(never)] // else it is there three times
fn put_string(text: &[u8], w: &mut Writer) {
    match text.len() {
        len @ 0..SHORT_STRING => w.put(&[len as u8]),
        len => w.u32((len as u32) << 8 | SHORT_STRING as u32),
    };
    let unpadded = string_prefix(text).wrapping_add(text.len());
    let padding = unpadded.wrapping_neg() & 3;
    w.put(text).put([0; 3].get(..padding).unwrap_or_default());
}

/// Bytes of a TL string: its length in one byte or four, itself, zeros up to a whole word.
fn string_len(text: &[u8]) -> usize {
    let unpadded = string_prefix(text).saturating_add(text.len());
    unpadded.next_multiple_of(4)
}

fn string_prefix(text: &[u8]) -> usize {
    if text.len() < SHORT_STRING { 1 } else { 4 }
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
    use crate::vectors::Vectors;
    use std::{format, vec};

    #[test]
    fn request_vectors() {
        let v = Vectors::load("rpc_proxy_req");
        let mut checked = 0;
        for i in 0..v.number("rows.count") {
            let key = |name: &str| format!("rows.{i}.{name}");
            let transport = match v.text(&key("transport")) {
                "abridged" => Transport::Abridged,
                "intermediate" => Transport::Intermediate,
                "padded" => Transport::PaddedIntermediate,
                _ => Transport::Http,
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
                obfuscated: transport != Transport::Http,
                ad_tag: (!tag.is_empty()).then(|| AdTag(v.array(&key("ad_tag")))),
            };
            let kind = super::super::mtproto::classify(&message).unwrap();
            assert_eq!(kind == Kind::Encrypted, encrypted);
            if transport == Transport::Http {
                let field = |name| v.text(&key(name)).as_bytes();
                let fields = ["origin", "referer", "user_agent"].map(field);
                let mut head = vec![0; origin.http_head_len(&fields)];
                let len = origin.encode_http_head(kind, &fields, &mut head);
                assert_eq!(len, Some(head.len()));
                let wanted = v.bytes(&key("payload"));
                assert_eq!([&head[..], &message].concat(), wanted);
                checked += 1;
                continue;
            }
            let mut head = vec![0; origin.head_len()];
            let quick_ack = v.text(&key("quick_ack")) == "true";
            assert_eq!(
                origin.encode_head(kind, quick_ack, &mut head),
                Some(head.len())
            );
            assert_eq!(
                [&head[..], &message].concat(),
                v.bytes(&key("payload")),
                "row {i}"
            );
            let short = head.len() - 1;
            assert_eq!(
                origin.encode_head(kind, quick_ack, &mut head[..short]),
                None
            );
            checked += 1;
        }
        assert_eq!(checked, 20);
    }

    #[test]
    fn fields_of_http_as_strings() {
        let mut origin = Origin {
            conn: ConnId(1),
            client: "192.0.2.1:1".parse().unwrap(),
            ours: "192.0.2.2:2".parse().unwrap(),
            transport: Transport::Http,
            obfuscated: false,
            ad_tag: None,
        };
        for len in [0, 1, 3, 4, 253, 254, 256, 1021, 1022, 1023, 20_000] {
            let text = vec![b'a'; len];
            let fields = [&text[..], b"", b"bcd"];
            let mut head = vec![0xff; origin.http_head_len(&fields)];
            let written = origin.encode_http_head(Kind::Unencrypted, &fields, &mut head);
            assert_eq!(written, Some(head.len()));
            assert_eq!(head[4..8], [7, 0x30, 0, 0]);
            let mut wanted = TL_HTTP.to_le_bytes().to_vec();
            let len = len.min(1022);
            match u8::try_from(len).ok().filter(|len| *len < 254) {
                Some(short) => wanted.push(short),
                None => wanted.extend([254, len as u8, (len >> 8) as u8, 0]),
            }
            wanted.extend(&text[..len]);
            wanted.resize(wanted.len().next_multiple_of(4), 0);
            wanted.extend(*b"\0\0\0\0\x03bcd");
            assert_eq!(head[56..60], (wanted.len() as u32).to_le_bytes());
            assert_eq!(head[60..], wanted, "{len}");
            let short = head.len() - 1;
            let cut = origin.encode_http_head(Kind::Encrypted, &fields, &mut head[..short]);
            assert_eq!(cut, None);
        }
        origin.ad_tag = Some(AdTag([5; 16]));
        assert_eq!(origin.http_head_len(&[b"", b"", b""]), 60 + 24 + 16);
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
