//! RPC messages of the middle proxy link (protocol.md 6.2, 6.4, 6.5, 7.1, 7.2) from the far end's side.

use super::crypto::as_array;
use super::framing::Transport;
use std::net::Ipv6Addr;

pub const NONCE: u32 = 0x7acb_87aa;
pub const HANDSHAKE: u32 = 0x7682_eef5;
pub const HANDSHAKE_ERROR: u32 = 0x6a27_beda;
pub const PING: u32 = 0x5730_a2df;
pub const PONG: u32 = 0x8430_eaa7;
pub const PROXY_REQ: u32 = 0x36ce_f1ee;
pub const PROXY_ANS: u32 = 0x4403_da0d;
pub const SIMPLE_ACK: u32 = 0x3bac_409b;
pub const CLOSE_EXT: u32 = 0x5eb6_34a2;
pub const CLOSE_CONN: u32 = 0x1fcf_425d;

/// Flags of PROXY_REQ.
pub const UNENCRYPTED: u32 = 0x2;
pub const HTTP_ITEM: u32 = 0x4;
pub const AD_TAG: u32 = 0x8;
pub const ALWAYS: u32 = 0x1000;
pub const OBFUSCATED2: u32 = 0x2_0000;
pub const INTERMEDIATE: u32 = 0x2000_0000;
pub const ABRIDGED: u32 = 0x4000_0000;
pub const QUICK_ACK: u32 = 0x8000_0000;

/// All that every request over HTTP has.
pub const HTTP: u32 = 0x3005;

/// A PROXY_REQ as it came.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Request {
    pub flags: u32,
    pub conn_id: u64,
    /// Where the client came from; IPv4 in mapped form.
    pub client: (Ipv6Addr, u32),
    /// What it connected to.
    pub our: (Ipv6Addr, u32),
    pub ad_tag: Option<[u8; 16]>,
    /// Over HTTP: Origin, Referer, User-Agent.
    pub http: Option<[String; 3]>,
    pub message: Vec<u8>,
}

impl Request {
    /// Reads the payload of a frame of type PROXY_REQ; every field that can be wrong is looked at.
    pub fn decode(payload: &[u8]) -> Result<Request, String> {
        if payload.len() < 56 {
            return Err(format!("a PROXY_REQ of {} bytes", payload.len()));
        }
        let word = |at: usize| u32::from_le_bytes(as_array(&payload[at..]));
        let flags = word(4);
        check_flags(flags)?;
        let mut message = &payload[56..];
        let mut extra = &message[..0];
        if flags & (AD_TAG | HTTP_ITEM) != 0 {
            let length = as_array(message.get(..4).ok_or("no length of the extra items")?);
            let behind = message[4..].split_at_checked(u32::from_le_bytes(length) as usize);
            (extra, message) = behind.ok_or("extra items that end early")?;
        }
        let tag = (flags & AD_TAG != 0).then(|| ad_tag(&mut extra));
        let http = (flags & HTTP_ITEM != 0).then(|| http_item(&mut extra));
        let (ad_tag, http) = (tag.transpose()?, http.transpose()?);
        if !extra.is_empty() {
            return Err(format!("behind the extra items {extra:02x?}"));
        }
        let encrypted = message.get(..8).is_some_and(|key_id| key_id != [0; 8]);
        if encrypted != (flags & UNENCRYPTED == 0) {
            return Err(format!(
                "flags {flags:08x} for a message whose key id says otherwise"
            ));
        }
        Ok(Request {
            flags,
            conn_id: u64::from_le_bytes(as_array(&payload[8..])),
            client: (Ipv6Addr::from(as_array::<16>(&payload[16..])), word(32)),
            our: (Ipv6Addr::from(as_array::<16>(&payload[36..])), word(52)),
            ad_tag,
            http,
            message: message.to_vec(),
        })
    }
}

/// The flags that belong to a transport, apart from those of a single message.
pub fn flags_of(transport: Transport) -> u32 {
    ALWAYS
        | OBFUSCATED2
        | if transport == Transport::Abridged {
            ABRIDGED
        } else {
            INTERMEDIATE
        }
}

fn check_flags(flags: u32) -> Result<(), String> {
    let transport = flags & !(UNENCRYPTED | AD_TAG | QUICK_ACK);
    let [abridged, intermediate] = [Transport::Abridged, Transport::Intermediate].map(flags_of);
    let known = [
        abridged,
        intermediate,
        abridged & !OBFUSCATED2,
        intermediate & !OBFUSCATED2,
        HTTP,
    ];
    if known.contains(&transport) && (transport != HTTP || flags & QUICK_ACK == 0) {
        Ok(())
    } else {
        Err(format!("PROXY_REQ flags {flags:08x}"))
    }
}

/// The extra item with the ad tag: constructor, TL string of 16 bytes.
fn ad_tag(extra: &mut &[u8]) -> Result<[u8; 16], String> {
    let (item, rest) = extra.split_at_checked(24).ok_or("no room for the ad tag")?;
    let right = item[..5] == [0xae, 0x26, 0x1e, 0xdb, 0x10] && item[21..] == [0, 0, 0];
    if !right {
        return Err(format!("ad tag item {item:02x?}"));
    }
    *extra = rest;
    Ok(as_array(&item[5..]))
}

/// The extra item of HTTP: constructor, three TL strings of at most 1022 bytes.
fn http_item(extra: &mut &[u8]) -> Result<[String; 3], String> {
    let constructor = [0x81, 0xb3, 0x5a, 0xd4];
    *extra = extra.strip_prefix(&constructor).ok_or("no HTTP item")?;
    Ok([string(extra)?, string(extra)?, string(extra)?])
}

fn string(extra: &mut &[u8]) -> Result<String, String> {
    let (start, length) = match **extra {
        [254, a, b, c, ..] => (4, u32::from_le_bytes([a, b, c, 0]) as usize),
        [short, ..] if short < 254 => (1, usize::from(short)),
        _ => return Err(format!("no string: {extra:02x?}")),
    };
    let end = (start + length).next_multiple_of(4);
    let right = length <= 1_022
        && (start == 4) == (length >= 254)
        && extra
            .get(start + length..end)
            .is_some_and(|pad| pad.iter().all(|byte| *byte == 0));
    if !right {
        return Err(format!("a string of {length} bytes"));
    }
    let text = String::from_utf8(extra[start..start + length].to_vec());
    *extra = &extra[end..];
    text.map_err(|error| error.to_string())
}

pub fn answer(conn_id: u64, flags: u32, data: &[u8]) -> Vec<u8> {
    let mut payload = words(&[PROXY_ANS, flags]);
    payload.extend(conn_id.to_le_bytes());
    payload.extend(data);
    payload
}

pub fn simple_ack(conn_id: u64, confirm: u32) -> Vec<u8> {
    let mut payload = with_eight(SIMPLE_ACK, conn_id.to_le_bytes());
    payload.extend(confirm.to_le_bytes());
    payload
}

pub fn close_ext(conn_id: u64) -> Vec<u8> {
    with_eight(CLOSE_EXT, conn_id.to_le_bytes())
}

/// PING and PONG, or anything else that is a type and eight bytes.
pub fn with_eight(kind: u32, bytes: [u8; 8]) -> Vec<u8> {
    let mut payload = words(&[kind]);
    payload.extend(bytes);
    payload
}

pub fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}
