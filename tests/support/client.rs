//! A client of the proxy: dials, says hello if it is one in fake TLS, sends the obfuscated2 header, then
//! packets up and items down. It never waits longer than PATIENCE, and checks every frame that it reads.

use super::crypto::Ctr;
use super::framing::{Item, Transport};
use super::message::Message;
use super::obfuscated2::{Header, Secret};
use super::random::random_bytes;
use super::sockets::{dial, expect_closed, is_end};
use super::tls_client::{Session, Tls};
use super::wait::{PATIENCE, uninterrupted};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// Everything that a client decides before it connects.
#[derive(Clone, Copy)]
pub struct Dialer {
    pub address: SocketAddr,
    pub transport: Transport,
    pub secret: Option<Secret>,
    pub dc: i16,
    /// Each byte, from the connection's first on, in a write of its own.
    pub one_byte_writes: bool,
    /// In fake TLS, as this client; needs a secret.
    pub tls: Option<Tls>,
}

pub struct Client {
    pub stream: TcpStream,
    pub transport: Transport,
    send: Ctr,
    receive: Ctr,
    one_byte_writes: bool,
    /// The record layer in fake TLS.
    pub session: Option<Session>,
}

impl Dialer {
    pub fn dial(&self) -> Client {
        self.dial_saying(&[])
    }

    /// The header and further bytes, encrypted but not framed, in one write.
    pub fn dial_saying(&self, bytes: &[u8]) -> Client {
        let stream = dial(self.address);
        let session = self.tls.map(|tls| {
            let secret = self.secret.expect("a secret for fake TLS");
            tls.start(&stream, &secret, self.one_byte_writes)
        });
        self.over(stream, session, bytes)
    }

    /// The same on a connection of the test's own, in fake TLS where the hello has been answered.
    pub fn over(&self, stream: TcpStream, session: Option<Session>, bytes: &[u8]) -> Client {
        let mut header = Header::random(self.transport, self.dc, self.secret.as_ref());
        let mut bytes = bytes.to_vec();
        header.send.apply(&mut bytes);
        let mut client = Client {
            stream,
            transport: self.transport,
            send: header.send,
            receive: header.receive,
            one_byte_writes: self.one_byte_writes,
            session,
        };
        client.write(&[&header.wire[..], &bytes].concat());
        client
    }
}

/// A client that doesn't obfuscate: it begins with the transport's tag, of which abridged sends one byte.
pub fn dial_clear(address: SocketAddr, transport: Transport) -> Client {
    let mut client = Client {
        stream: dial(address),
        transport,
        send: Ctr::clear(),
        receive: Ctr::clear(),
        one_byte_writes: false,
        session: None,
    };
    client.send_raw(start_of(transport));
    client
}

/// The bytes that such a client begins with.
pub fn start_of(transport: Transport) -> &'static [u8] {
    match transport {
        Transport::Abridged => &[0xef],
        Transport::Intermediate => &[0xee; 4],
        Transport::Padded => &[0xdd; 4],
    }
}

impl Client {
    /// Sends one packet, padded as TDLib pads where the transport has padding.
    pub fn send(&mut self, payload: &[u8]) {
        self.send_framed(payload, false);
    }

    pub fn send_asking_ack(&mut self, payload: &[u8]) {
        self.send_framed(payload, true);
    }

    fn send_framed(&mut self, payload: &[u8], quick_ack: bool) {
        let random = random_bytes::<16>();
        let pad = &random[1..1 + usize::from(random[0] % 16)];
        self.send_raw(&self.transport.frame(payload, quick_ack, pad));
    }

    /// Encrypts and sends bytes that needn't be a right frame.
    pub fn send_raw(&mut self, bytes: &[u8]) {
        let mut bytes = bytes.to_vec();
        self.send.apply(&mut bytes);
        self.write(&bytes);
    }

    /// Encrypts and sends bytes, with others as they are behind them in the same segment.
    pub fn send_and_end(&mut self, bytes: &[u8], behind: &[u8]) {
        let mut bytes = bytes.to_vec();
        self.send.apply(&mut bytes);
        let bytes = sealed(&mut self.session, bytes);
        self.write_raw(&[&bytes, behind].concat());
    }

    fn write(&mut self, bytes: &[u8]) {
        let bytes = sealed(&mut self.session, bytes.to_vec());
        self.write_raw(&bytes);
    }

    /// Sends bytes as they are, without cipher and record.
    pub fn write_raw(&mut self, bytes: &[u8]) {
        let piece = if self.one_byte_writes {
            1
        } else {
            bytes.len().max(1)
        };
        for piece in bytes.chunks(piece) {
            match self.stream.write_all(piece) {
                Ok(()) => {}
                // The proxy has closed; the next read tells what it said before.
                Err(error) if is_end(&error) => return,
                Err(error) => panic!("the proxy takes no more: {error}"),
            }
        }
    }

    /// The next packet or quick ack; panics when the proxy closes instead.
    pub fn receive(&mut self) -> Item {
        self.receive_or_end()
            .expect("an item, but the proxy closed the connection")
    }

    /// The next packet or quick ack, None when the proxy has closed between two frames.
    pub fn receive_or_end(&mut self) -> Option<Item> {
        let (stream, cipher) = (&self.stream, &mut self.receive);
        let session = &mut self.session;
        self.transport.read_item(&mut |length| {
            let mut bytes = read_exactly(stream, session, length)?;
            cipher.apply(&mut bytes);
            Some(bytes)
        })
    }

    /// The next item, which is a packet.
    pub fn packet(&mut self) -> Vec<u8> {
        match self.receive() {
            Item::Packet(payload) => payload,
            other => panic!("expected a packet, got {other:?}"),
        }
    }

    /// Sends a message that the test service returns, and checks that it comes back whole.
    pub fn echo(&mut self, body_length: usize) {
        let message = Message::echo(body_length).encode();
        self.send(&message);
        assert!(
            self.packet() == message,
            "another answer than this client's own echo"
        );
    }

    /// Sends the same bytes again and again until the proxy takes no more for `patience`, at most `limit`
    /// bytes; gives how many went. The stream is of no use afterwards.
    pub fn send_until_held(&mut self, bytes: &[u8], limit: usize, patience: Duration) -> usize {
        let (cipher, session) = (&mut self.send, &mut self.session);
        let mut next = || {
            let mut bytes = bytes.to_vec();
            cipher.apply(&mut bytes);
            sealed(session, bytes)
        };
        send_until_held(&self.stream, &mut next, (limit, patience)).sent
    }

    /// Reads whatever still comes until the proxy closes, in whatever state the last frame is.
    pub fn drain_until_closed(&mut self) {
        match io::copy(&mut self.stream, &mut io::sink()) {
            Ok(_) => {}
            Err(error) if is_end(&error) => {}
            Err(error) => panic!("the proxy keeps the connection open: {error}"),
        }
    }

    /// The proxy closes, now or soon, without a byte more.
    pub fn expect_closed(&mut self) {
        expect_closed(&self.stream);
    }

    /// The sending and the receiving half, for two threads.
    pub fn halves(self) -> (Half, Half) {
        let (mut up, mut down) = Half::pair(self.stream, self.send, self.receive);
        up.session = self.session.clone();
        down.session = self.session;
        (up, down)
    }

    /// Ends the connection as a client that goes away.
    pub fn leave(&self) {
        self.stream.shutdown(Shutdown::Both).expect("shutdown");
    }
}

/// Bytes as they go over the wire, in records if there is a record layer.
fn sealed(session: &mut Option<Session>, bytes: Vec<u8>) -> Vec<u8> {
    match session {
        Some(session) => session.seal(&bytes),
        None => bytes,
    }
}

/// One direction of an obfuscated2 connection, as a stream of bytes without frames.
pub struct Half {
    pub stream: TcpStream,
    cipher: Ctr,
    /// The record layer in fake TLS.
    pub session: Option<Session>,
}

impl Half {
    pub fn pair(stream: TcpStream, send: Ctr, receive: Ctr) -> (Half, Half) {
        let copy = stream.try_clone().expect("a second handle");
        let half = |stream, cipher| Half {
            stream,
            cipher,
            session: None,
        };
        (half(copy, send), half(stream, receive))
    }

    pub fn send(&mut self, bytes: &[u8]) {
        let mut bytes = bytes.to_vec();
        self.cipher.apply(&mut bytes);
        let bytes = sealed(&mut self.session, bytes);
        self.stream.write_all(&bytes).expect("send");
    }

    /// Reads and decrypts what there is, at most so much; 0 at an orderly end.
    pub fn read_some(&mut self, bytes: &mut [u8]) -> usize {
        let count =
            read_payload(&self.stream, &mut self.session, bytes).expect("bytes or an orderly end");
        self.cipher.apply(&mut bytes[..count]);
        count
    }

    /// Nothing more is sent from here; the other half goes on.
    pub fn finish(&self) {
        self.stream
            .shutdown(Shutdown::Write)
            .expect("end one direction");
    }
}

/// How far `send_until_held` came.
pub struct Held {
    /// Bytes that the socket took.
    pub sent: usize,
    /// What it didn't take of the last piece, encrypted.
    pub rest: Vec<u8>,
}

/// Sends what `next` gives, encrypted, again and again until the far end takes no more for the time given,
/// or so much as is given has gone.
pub fn send_until_held(
    mut stream: &TcpStream,
    next: &mut dyn FnMut() -> Vec<u8>,
    (limit, patience): (usize, Duration),
) -> Held {
    stream
        .set_write_timeout(Some(patience))
        .expect("write timeout");
    let (mut sent, mut rest) = (0, Vec::new());
    while sent < limit {
        if rest.is_empty() {
            rest = next();
        }
        match stream.write(&rest) {
            Ok(count) => {
                sent += count;
                rest.drain(..count);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    stream
        .set_write_timeout(Some(PATIENCE))
        .expect("write timeout");
    Held { sent, rest }
}

/// Reads what there is, without the record layer if there is one.
fn read_payload(
    mut stream: &TcpStream,
    session: &mut Option<Session>,
    bytes: &mut [u8],
) -> io::Result<usize> {
    match session {
        Some(session) => session.read(stream, bytes),
        None => uninterrupted(|| stream.read(bytes)),
    }
}

/// Reads so many bytes; None when the connection ends before the first.
fn read_exactly(
    stream: &TcpStream,
    session: &mut Option<Session>,
    length: usize,
) -> Option<Vec<u8>> {
    let mut bytes = vec![0; length];
    let mut done = 0;
    while done < length {
        match read_payload(stream, session, &mut bytes[done..]) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if is_end(&error) => break,
            Err(error) => {
                panic!("nothing more from the proxy after {done} of {length} bytes: {error}")
            }
        }
    }
    if done == length {
        return Some(bytes);
    }
    assert_eq!(
        done, 0,
        "the connection ended after {done} of {length} bytes"
    );
    None
}
