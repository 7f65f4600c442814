//! One connection from the proxy to the data centre of dc.rs: obfuscated2 as the server sees it, keys taken
//! from the header without a secret (protocol.md 3.1 to 3.3, 12), and the test service on its packets.

use super::client::{Half, Held, send_until_held};
use super::crypto::{Ctr, RunningHash, as_array};
use super::framing::{TRANSPORTS, Transport};
use super::message::{Command, Message, res_pq};
use super::obfuscated2::is_forbidden;
use super::random::{Stream, random_bytes};
use super::service::confirm_of;
use super::sockets::is_end;
use super::wait::uninterrupted;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// A header that passed its checks.
#[derive(Clone, Copy, Debug)]
pub struct Received {
    pub wire: [u8; 64],
    pub transport: Transport,
    pub dc: i16,
}

pub struct Link {
    pub stream: TcpStream,
    pub header: Received,
    send: Ctr,
    receive: Ctr,
}

impl Link {
    /// Reads the header. None when the connection ends before its first byte, a sentence when it is wrong.
    pub fn accept(stream: TcpStream) -> Result<Option<Link>, String> {
        let mut wire = [0; 64];
        match read_whole(&stream, &mut wire)? {
            0 => return Ok(None),
            64 => {}
            count => return Err(format!("the connection ended after {count} of 64 bytes")),
        }
        if is_forbidden(&wire) {
            return Err(format!("a header with a forbidden beginning: {wire:02x?}"));
        }
        let mut reversed: [u8; 48] = as_array(&wire[8..]);
        reversed.reverse();
        let send = Ctr::new(as_array(&reversed), as_array(&reversed[32..]));
        let mut receive = Ctr::new(as_array(&wire[8..]), as_array(&wire[40..]));
        let mut clear = wire;
        receive.apply(&mut clear);
        let transport = TRANSPORTS
            .into_iter()
            .find(|transport| transport.tag() == clear[56..60])
            .ok_or_else(|| format!("the tag {:02x?} is of no transport", &clear[56..60]))?;
        let dc = i16::from_le_bytes(as_array(&clear[60..]));
        let header = Received {
            wire,
            transport,
            dc,
        };
        Ok(Some(Link {
            stream,
            header,
            send,
            receive,
        }))
    }

    /// Encrypts and sends bytes; false when the connection is gone.
    pub fn send_raw(&mut self, bytes: &[u8]) -> bool {
        let mut bytes = bytes.to_vec();
        self.send.apply(&mut bytes);
        (&self.stream).write_all(&bytes).is_ok()
    }

    /// Sends one packet, padded at random where the transport has padding.
    pub fn send(&mut self, payload: &[u8]) -> bool {
        let random = random_bytes::<4>();
        let pad = &random[1..1 + usize::from(random[0] % 4)];
        self.send_raw(&self.header.transport.frame(payload, false, pad))
    }

    /// The sending and the receiving half, for two threads.
    pub fn halves(self) -> (Half, Half) {
        Half::pair(self.stream, self.send, self.receive)
    }

    /// The connection ends, now or soon, in order or not, with or without bytes before.
    pub fn wait_for_end(&self) {
        let mut bytes = [0; 4_096];
        loop {
            match uninterrupted(|| (&self.stream).read(&mut bytes)) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) if is_end(&error) => return,
                Err(error) => panic!("the proxy keeps the connection open: {error}"),
            }
        }
    }

    /// Sends the same bytes again and again until the proxy takes no more for `patience`, at most `limit`.
    pub fn send_until_held(&mut self, bytes: &[u8], limit: usize, patience: Duration) -> Held {
        let cipher = &mut self.send;
        let mut next = || {
            let mut bytes = bytes.to_vec();
            cipher.apply(&mut bytes);
            bytes
        };
        send_until_held(&self.stream, &mut next, (limit, patience))
    }

    /// The payload of the next packet, padding included, and whether a quick ack is wanted. None when the
    /// connection has ended, wherever: a client may leave inside a packet.
    pub fn request(&mut self) -> Result<Option<(Vec<u8>, bool)>, String> {
        let abridged = self.header.transport == Transport::Abridged;
        let Some(prefix) = self.read_clear(if abridged { 1 } else { 4 })? else {
            return Ok(None);
        };
        let last = prefix[prefix.len() - 1];
        let quick_ack = last & 0x80 != 0;
        let length = if !abridged {
            u32::from_le_bytes(as_array(&prefix)) as usize & 0x7fff_ffff
        } else if last & 0x7f < 0x7f {
            usize::from(last & 0x7f) * 4
        } else {
            let Some(words) = self.read_clear(3)? else {
                return Ok(None);
            };
            u32::from_le_bytes([words[0], words[1], words[2], 0]) as usize * 4
        };
        if length == 0 || length > LONGEST {
            return Err(format!("a packet of {length} bytes: the stream is broken"));
        }
        let payload = self.read_clear(length)?;
        Ok(payload.map(|payload| (payload, quick_ack)))
    }

    fn read_clear(&mut self, length: usize) -> Result<Option<Vec<u8>>, String> {
        let mut bytes = vec![0; length];
        let count = read_whole(&self.stream, &mut bytes)?;
        self.receive.apply(&mut bytes);
        Ok((count == length).then_some(bytes))
    }
}

/// Fills the buffer, or less when the connection ends; a sentence when nothing comes for too long.
fn read_whole(mut stream: &TcpStream, bytes: &mut [u8]) -> Result<usize, String> {
    let mut done = 0;
    while done < bytes.len() {
        match uninterrupted(|| stream.read(&mut bytes[done..])) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if is_end(&error) => break,
            Err(error) => return Err(format!("after {done} of {} bytes: {error}", bytes.len())),
        }
    }
    Ok(done)
}

/// The service of service.rs without a middle proxy around it. Answers come in order, a long one wholly
/// before the next request is read.
pub fn serve(link: &mut Link) -> Result<(), String> {
    let (mut hash, mut length) = (RunningHash::default(), 0_u64);
    while let Some((payload, quick_ack)) = link.request()? {
        if let Some(answer) = res_pq(&payload, 0) {
            link.send(&answer);
            continue;
        }
        let Some(message) = Message::decode(&payload) else {
            return Err(format!(
                "a packet of {} bytes that no client sent: the stream is broken",
                payload.len()
            ));
        };
        if quick_ack {
            let confirm = confirm_of(message.tag);
            link.send_raw(&match link.header.transport {
                Transport::Abridged => confirm.to_be_bytes(),
                _ => confirm.to_le_bytes(),
            });
        }
        if matches!(message.command, Command::Upload | Command::UploadEnd) {
            hash.add(&message.body);
            length += message.body.len() as u64;
        }
        let goes_on = match message.command {
            Command::Echo => link.send(&message.encode()),
            Command::Error => link.send(&message.a.to_le_bytes()),
            Command::Close => false,
            Command::Swallow | Command::Upload => true,
            Command::Stream => stream(link, &message),
            Command::UploadEnd => {
                let digest = std::mem::take(&mut hash).finish();
                let receipt = [&digest[..], &std::mem::take(&mut length).to_le_bytes()].concat();
                link.send(&receipt)
            }
        };
        if !goes_on {
            break;
        }
    }
    Ok(())
}

fn stream(link: &mut Link, message: &Message) -> bool {
    let mut stream = Stream::new(message.tag);
    let mut left = message.a as usize;
    while left > 0 {
        let piece = stream.take(left.min(message.b as usize));
        left -= piece.len();
        if !link.send(&piece) {
            return false;
        }
    }
    true
}

/// Longer than anything that a client of the tests sends.
const LONGEST: usize = 1 << 22;
