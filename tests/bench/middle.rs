//! A middle proxy: one connection of the measured server to "Telegram" (protocol.md 6 and 7). It takes
//! the server's nonce, handshake and requests, checks sequence numbers and the checksums of all frames
//! that it deciphers whole, and passes over the filler of long requests.

use crate::crc::Crc;
use crate::link::{Derivation, Receiving, Sending};
use crate::wire::{HEAD, Head, Random, array, filler, word};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

/// A request that has arrived. `body` is the whole message for an echo, else empty.
pub struct Request {
    pub conn_id: u64,
    pub head: Head,
    pub body: Vec<u8>,
}

pub struct Link {
    telegram: SocketAddr,
    proxy: SocketAddr,
    secret: &'static [u8],
    chains: Option<(Receiving, Sending)>,
    /// Ciphertext of an incomplete block.
    partial: Vec<u8>,
    plain: Vec<u8>,
    /// Bytes of the current frame that nobody looks at.
    skip: usize,
    received: i32,
    sent: i32,
}

impl Link {
    pub fn new(telegram: SocketAddr, proxy: SocketAddr, secret: &'static [u8]) -> Link {
        Link {
            telegram,
            proxy,
            secret,
            chains: None,
            partial: Vec::new(),
            plain: Vec::new(),
            skip: 0,
            received: FIRST_SEQUENCE,
            sent: FIRST_SEQUENCE,
        }
    }

    /// Takes what a read brought; the link's own answers go to `out`.
    pub fn receive(
        &mut self,
        bytes: &[u8],
        out: &mut Vec<u8>,
        requests: &mut VecDeque<Request>,
    ) -> Result<(), String> {
        if self.chains.is_none() {
            self.plain.extend_from_slice(bytes);
            return self.receive_nonce(out);
        }
        let mut bytes = bytes;
        if !self.partial.is_empty() {
            let count = (16 - self.partial.len()).min(bytes.len());
            self.partial.extend_from_slice(&bytes[..count]);
            bytes = &bytes[count..];
            if self.partial.len() < 16 {
                return Ok(());
            }
            let block = std::mem::take(&mut self.partial);
            self.receive_blocks(&block, out, requests)?;
        }
        let whole = bytes.len() / 16 * 16;
        self.partial.extend_from_slice(&bytes[whole..]);
        self.receive_blocks(&bytes[..whole], out, requests)
    }

    fn receive_blocks(
        &mut self,
        mut blocks: &[u8],
        out: &mut Vec<u8>,
        requests: &mut VecDeque<Request>,
    ) -> Result<(), String> {
        let mut wanted = self.parse(out, requests)?;
        while !blocks.is_empty() {
            let Some((receiving, _)) = &mut self.chains else {
                return Ok(());
            };
            let passed = (self.skip / 16 * 16).min(blocks.len());
            if passed > 0 {
                receiving.skip(&blocks[..passed]);
                self.skip -= passed;
                blocks = &blocks[passed..];
                continue;
            }
            let missing = wanted.saturating_sub(self.plain.len()).max(1);
            let count = missing.next_multiple_of(16).min(blocks.len());
            receiving.decrypt(&blocks[..count], &mut self.plain);
            blocks = &blocks[count..];
            wanted = self.parse(out, requests)?;
        }
        Ok(())
    }

    /// Consumes what is complete; returns how many bytes of plaintext the next step needs.
    fn parse(
        &mut self,
        out: &mut Vec<u8>,
        requests: &mut VecDeque<Request>,
    ) -> Result<usize, String> {
        let mut at = 0;
        let wanted = loop {
            let passed = self.skip.min(self.plain.len() - at);
            self.skip -= passed;
            at += passed;
            let rest = &self.plain[at..];
            if rest.len() < 4 {
                break 4;
            }
            let len = word(rest, 0) as usize;
            if len == 4 {
                at += 4;
                continue;
            }
            if !(16..=1 << 24).contains(&len) || !len.is_multiple_of(4) {
                return Err(format!("a frame of {len} bytes came over the link"));
            }
            let lead = len.min(LEAD);
            if rest.len() < lead {
                break lead;
            }
            if len > WHOLE && is_plain_request(rest) {
                self.expect_sequence(word(rest, 4))?;
                requests.push_back(request(&self.plain[at + 8..at + LEAD], len - 12)?);
                self.skip = len;
                continue;
            }
            if rest.len() < len {
                break len;
            }
            let frame = rest[..len].to_vec();
            at += len;
            self.take_frame(&frame, out, requests)?;
        };
        self.plain.drain(..at);
        Ok(wanted)
    }

    fn expect_sequence(&mut self, sequence: u32) -> Result<(), String> {
        if sequence as i32 != self.received {
            return Err(format!(
                "sequence number {} where {} is due",
                sequence as i32, self.received
            ));
        }
        self.received += 1;
        Ok(())
    }

    fn take_frame(
        &mut self,
        frame: &[u8],
        out: &mut Vec<u8>,
        requests: &mut VecDeque<Request>,
    ) -> Result<(), String> {
        let payload = self.check_frame(frame)?;
        match word(payload, 0) {
            HANDSHAKE if payload.len() == 32 => {
                let mut answer = HANDSHAKE.to_le_bytes().to_vec();
                // No flags: CRC-32 stays. The two process ids change places.
                answer.extend_from_slice(&[0; 4]);
                answer.extend_from_slice(&payload[20..32]);
                answer.extend_from_slice(&payload[8..20]);
                self.put(&answer, out);
            }
            PING if payload.len() == 12 => {
                let mut answer = PONG.to_le_bytes().to_vec();
                answer.extend_from_slice(&payload[4..]);
                self.put(&answer, out);
            }
            PROXY_REQ => requests.push_back(request(payload, payload.len())?),
            // PONG, CLOSE_CONN and whatever else: nothing to answer.
            _ => {}
        }
        Ok(())
    }

    /// Checks sequence and checksum; what lies between is the payload.
    fn check_frame<'a>(&mut self, frame: &'a [u8]) -> Result<&'a [u8], String> {
        self.expect_sequence(word(frame, 4))?;
        let (checked, crc) = frame.split_at(frame.len() - 4);
        if Crc::of(checked) != word(crc, 0) {
            return Err(format!(
                "a frame of {} bytes has a wrong checksum",
                frame.len()
            ));
        }
        Ok(&checked[8..])
    }

    fn receive_nonce(&mut self, out: &mut Vec<u8>) -> Result<(), String> {
        if self.plain.len() < NONCE_FRAME {
            return Ok(());
        }
        // Anything behind the nonce can be padding only: the other side waits for our nonce.
        let frame: [u8; NONCE_FRAME] = array(&self.plain);
        self.plain.clear();
        let payload = self.check_frame(&frame)?;
        if word(&frame, 0) as usize != NONCE_FRAME || word(payload, 0) != NONCE {
            return Err("the link doesn't begin with a nonce of schema 0 or 1".into());
        }
        if payload[4..8] != self.secret[..4] {
            return Err("the nonce names another proxy-secret".into());
        }
        let since_epoch = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let mut telegram_nonce = [0; 16];
        Random(since_epoch.as_nanos() as u64).fill(&mut telegram_nonce);
        let mut answer = NONCE.to_le_bytes().to_vec();
        answer.extend_from_slice(&self.secret[..4]);
        answer.extend_from_slice(&1_u32.to_le_bytes());
        answer.extend_from_slice(&(since_epoch.as_secs() as u32).to_le_bytes());
        answer.extend_from_slice(&telegram_nonce);
        self.put(&answer, out);
        let derivation = Derivation {
            telegram_nonce,
            proxy_nonce: array(&payload[16..]),
            proxy_time: array(&payload[12..]),
            telegram: self.telegram,
            proxy: self.proxy,
            secret: self.secret,
        };
        self.chains = Some(derivation.chains());
        Ok(())
    }

    /// Appends one frame.
    fn put(&mut self, payload: &[u8], out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&(payload.len() as u32 + 12).to_le_bytes());
        out.extend_from_slice(&self.next_sequence());
        out.extend_from_slice(payload);
        let crc = Crc::of(&out[start..]);
        out.extend_from_slice(&crc.to_le_bytes());
        if let Some((_, sending)) = &mut self.chains {
            sending.seal(out, start);
        }
    }

    fn next_sequence(&mut self) -> [u8; 4] {
        self.sent += 1;
        (self.sent - 1).to_le_bytes()
    }

    /// Appends the answer to one request.
    pub fn answer(&mut self, request: &Request, out: &mut Vec<u8>) {
        let mut payload = PROXY_ANS.to_le_bytes().to_vec();
        payload.extend_from_slice(&[0; 4]);
        payload.extend_from_slice(&request.conn_id.to_le_bytes());
        if request.head.is_echo() {
            payload.extend_from_slice(&request.body);
            return self.put(&payload, out);
        }
        payload.extend_from_slice(&request.head.0);
        let rest = request.head.answer() - HEAD;
        // The head of a long answer ends in the middle of a block: 8 bytes of filler complete it.
        let middle = rest.saturating_sub(8) / 16 * 16;
        if middle < 256 {
            payload.extend_from_slice(&filler()[..rest]);
            return self.put(&payload, out);
        }
        payload.extend_from_slice(&filler()[..8]);
        let mut lead = ((payload.len() - 8 + rest + 12) as u32)
            .to_le_bytes()
            .to_vec();
        lead.extend_from_slice(&self.next_sequence());
        lead.extend_from_slice(&payload);
        if let Some((_, sending)) = &mut self.chains {
            sending.put_long(out, &lead, middle, rest - 8 - middle);
        }
    }
}

/// Whether the beginning of a frame is a request whose filler needn't be deciphered.
fn is_plain_request(frame: &[u8]) -> bool {
    word(frame, 8) == PROXY_REQ
        && word(frame, 12) & FLAG_EXTRA == 0
        && !Head(array(&frame[LEAD - HEAD..])).is_echo()
}

/// Reads RPC_PROXY_REQ of `len` bytes, of which the first LEAD - 8 suffice unless it asks for an echo.
fn request(payload: &[u8], len: usize) -> Result<Request, String> {
    let extra = match word(payload, 4) & FLAG_EXTRA {
        0 => 0,
        _ => 4 + word(payload, REQ_FIELDS) as usize,
    };
    let message = payload.get(REQ_FIELDS + extra..).unwrap_or(&[]);
    if message.len() < HEAD || !Head(array(message)).is_ours() {
        return Err("a request without the bench's mark came over the link".into());
    }
    let head = Head(array(message));
    let message_len = len - REQ_FIELDS - extra;
    if !head.fits(message_len) {
        return Err(format!(
            "a request arrived with a wrong length, {message_len} bytes"
        ));
    }
    Ok(Request {
        conn_id: u64::from(word(payload, 12)) << 32 | u64::from(word(payload, 8)),
        head,
        body: if head.is_echo() {
            message.to_vec()
        } else {
            Vec::new()
        },
    })
}

const FIRST_SEQUENCE: i32 = -2;
const NONCE_FRAME: usize = 44;
/// Bytes of RPC_PROXY_REQ before the extra items or the message.
const REQ_FIELDS: usize = 56;
/// What is deciphered of each long request: length, sequence number, fields, head of the message.
const LEAD: usize = 8 + REQ_FIELDS + HEAD;
/// Frames up to this length are deciphered whole and their checksum is verified.
const WHOLE: usize = 512;
const FLAG_EXTRA: u32 = 0xc;
const NONCE: u32 = 0x7acb_87aa;
const HANDSHAKE: u32 = 0x7682_eef5;
const PING: u32 = 0x5730_a2df;
const PONG: u32 = 0x8430_eaa7;
const PROXY_REQ: u32 = 0x36ce_f1ee;
const PROXY_ANS: u32 = 0x4403_da0d;
