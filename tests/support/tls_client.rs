//! Fake TLS as a client sees it (protocol.md 5.4, 5.7). The answer is checked as the strictest of the real
//! clients does: everything that has come belongs to it, and nothing follows before the client speaks.

use super::obfuscated2::Secret;
use super::tls_hello::{Kind, RANDOM, SESSION_ID, hmac, sign};
use super::wait::uninterrupted;
use std::io::{self, Error, ErrorKind, Read, Write};
use std::net::TcpStream;

/// The one record that says nothing, from each side.
pub const CHANGE_CIPHER_SPEC: [u8; 6] = [0x14, 3, 3, 0, 1, 1];

/// What a client in fake TLS decides before it connects.
#[derive(Clone, Copy, Debug)]
pub struct Tls {
    pub kind: Kind,
    pub name: &'static str,
    pub cut: Cut,
}

/// Payloads of the records that a client sends. The first holds the header in any case.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cut {
    /// All as long as this, if there is enough. TDLib's are of 2878 bytes.
    Every(usize),
    /// Any length that TLS has room for, empty ones too.
    Varied,
}

pub const TDLIB: Cut = Cut::Every(2_878);

const VARIED: [usize; 9] = [517, 0, 1, 16_384, 2, 40_000, 65_535, 0, 2_878];

/// An answer that passed its checks.
pub struct Answer {
    pub bytes: Vec<u8>,
    /// How much the first read gave.
    pub first_read: usize,
}

/// Sends the hello and reads the answer; panics when there is none or a real client would refuse it.
pub fn handshake(mut stream: &TcpStream, hello: &[u8], secret: &Secret) -> Answer {
    stream.write_all(hello).expect("send the hello");
    read_answer(stream, hello, secret)
}

/// The answer to a hello that has been sent as one record.
pub fn read_answer(mut stream: &TcpStream, hello: &[u8], secret: &Secret) -> Answer {
    let (mut bytes, mut first_read) = (Vec::new(), 0);
    let mut buffer = vec![0; 128 * 1_024];
    while answer_length(&bytes).is_none_or(|length| length > bytes.len()) {
        let count = uninterrupted(|| stream.read(&mut buffer)).expect("an answer to the hello");
        assert!(count > 0, "closed after {} bytes of an answer", bytes.len());
        bytes.extend(&buffer[..count]);
        first_read = if first_read == 0 { count } else { first_read };
    }
    check_answer(&bytes, hello, secret).unwrap_or_else(|why| panic!("{why}: {bytes:02x?}"));
    expect_nothing_yet(stream);
    Answer { bytes, first_read }
}

/// So far nothing lies there to be read.
pub fn expect_nothing_yet(stream: &TcpStream) {
    stream.set_nonblocking(true).expect("don't wait");
    let more = stream.peek(&mut [0]);
    stream.set_nonblocking(false).expect("wait again");
    match more {
        Err(error) if error.kind() == ErrorKind::WouldBlock => {}
        other => panic!("the proxy goes on before its client speaks: {other:?}"),
    }
}

/// The length of the whole answer, as soon as its last header is there.
fn answer_length(bytes: &[u8]) -> Option<usize> {
    let length = |at: usize| {
        Some(usize::from(u16::from_be_bytes([
            *bytes.get(at)?,
            *bytes.get(at + 1)?,
        ])))
    };
    let last = 5 + length(3)? + CHANGE_CIPHER_SPEC.len();
    Some(last + 5 + length(last + 3)?)
}

/// What TDLib, desktop and Android look at, taken together; and of the ServerHello what any TLS library would.
pub fn check_answer(bytes: &[u8], hello: &[u8], secret: &Secret) -> Result<(), &'static str> {
    let check = |right: bool, why| if right { Ok(()) } else { Err(why) };
    check(bytes.starts_with(&[0x16, 3, 3]), "no handshake record")?;
    let whole = answer_length(bytes).ok_or("an incomplete answer")?;
    check(whole <= bytes.len(), "an incomplete answer")?;
    check(whole >= bytes.len(), "bytes behind the answer")?;
    check(whole < 64 * 1_024, "an answer too long for TDLib")?;
    let first = 5 + usize::from(u16::from_be_bytes([bytes[3], bytes[4]]));
    let (server_hello, rest) = bytes.split_at(first);
    check(
        rest.starts_with(&CHANGE_CIPHER_SPEC) && rest[6..].starts_with(&[0x17, 3, 3]),
        "no change of ciphers and one record behind the ServerHello",
    )?;
    check(rest.len() > 11, "an empty record")?;
    let mut blank = bytes.to_vec();
    blank
        .get_mut(RANDOM)
        .ok_or("a ServerHello without a random")?
        .fill(0);
    let digest = hmac(secret, &[&hello[RANDOM], &blank]);
    check(bytes[RANDOM] == digest, "the random is not the digest")?;
    let message = u16::try_from(first - 9)
        .expect("a length in 16 bits")
        .to_be_bytes();
    check(
        server_hello[5..11] == [2, 0, message[0], message[1], 3, 3],
        "no ServerHello that fills its record",
    )?;
    check(
        server_hello[43] == 32 && server_hello[SESSION_ID] == hello[SESSION_ID],
        "another session than the hello's",
    )
}

/// The record layer of a connection after the answer.
#[derive(Clone)]
pub struct Session {
    cut: Cut,
    /// Whether the client has spoken.
    spoken: bool,
    /// Records sent.
    sent: usize,
    header: Vec<u8>,
    /// Bytes of the present record that are still to come.
    left: usize,
    /// Payload of each record that came.
    pub lengths: Vec<usize>,
}

impl Tls {
    pub fn new(kind: Kind, name: &'static str) -> Tls {
        Tls {
            kind,
            name,
            cut: TDLIB,
        }
    }

    /// Says hello and checks the answer. `hello` goes byte by byte when told so.
    pub fn start(&self, mut stream: &TcpStream, secret: &Secret, one_byte_writes: bool) -> Session {
        let hello = sign(
            self.kind.unsigned(self.name),
            secret,
            super::tls_hello::now(),
        );
        let piece = if one_byte_writes { 1 } else { hello.len() };
        for piece in hello.chunks(piece) {
            stream.write_all(piece).expect("send the hello");
        }
        read_answer(stream, &hello, secret);
        Session::new(self.cut)
    }
}

impl Session {
    pub fn new(cut: Cut) -> Session {
        Session {
            cut,
            spoken: false,
            sent: 0,
            header: Vec::new(),
            left: 0,
            lengths: Vec::new(),
        }
    }

    /// Puts bytes into records; the change of ciphers stands before the first, which takes the header.
    pub fn seal(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut wire = Vec::new();
        let mut rest = bytes;
        if !self.spoken {
            self.spoken = true;
            let most = match self.cut {
                Cut::Every(length) => length.max(64),
                Cut::Varied => 40_000,
            };
            let (first, after) = rest.split_at(rest.len().min(most));
            wire.extend(CHANGE_CIPHER_SPEC);
            wire.extend(record(first));
            rest = after;
        }
        while !rest.is_empty() {
            let length = match self.cut {
                Cut::Every(length) => length,
                Cut::Varied => VARIED[self.sent % VARIED.len()],
            };
            self.sent += 1;
            let (payload, after) = rest.split_at(rest.len().min(length));
            wire.extend(record(payload));
            rest = after;
        }
        wire
    }

    /// Reads what there is of the present record's payload; 0 at an orderly end between two records.
    pub fn read(&mut self, mut stream: &TcpStream, bytes: &mut [u8]) -> io::Result<usize> {
        while self.left == 0 {
            let mut header = [0; 5];
            let missing = 5 - self.header.len();
            let count = uninterrupted(|| stream.read(&mut header[..missing]))?;
            if count == 0 {
                assert!(self.header.is_empty(), "the end inside a record's header");
                return Ok(0);
            }
            self.header.extend(&header[..count]);
            if self.header.len() == 5 {
                assert_eq!(self.header[..3], [0x17, 3, 3], "a record of another kind");
                self.left = usize::from(u16::from_be_bytes([self.header[3], self.header[4]]));
                assert!(self.left > 0, "an empty record");
                self.lengths.push(self.left);
                self.header.clear();
            }
        }
        let room = self.left.min(bytes.len());
        let count = uninterrupted(|| stream.read(&mut bytes[..room]))?;
        if count == 0 {
            let what = format!("the connection ended {} bytes before its record", self.left);
            return Err(Error::new(ErrorKind::UnexpectedEof, what));
        }
        self.left -= count;
        Ok(count)
    }
}

/// An application-data record.
pub fn record(payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len())
        .expect("a length of a record")
        .to_be_bytes();
    [&[0x17, 3, 3, length[0], length[1]], payload].concat()
}
