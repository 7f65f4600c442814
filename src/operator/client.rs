//! What a Telegram client does first, for `ping` and `doctor`: it connects, proves the secret, and asks one
//! data centre for the first step of a key exchange (`req_pq`).
//!
//! The addresses are the operator's, or of a link that somebody gave him; what comes back is untrusted. Each
//! call blocks its thread until its deadline at most, and holds no lock.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use mtproxy::crypto::ctr::Ctr;
use mtproxy::crypto::random::Random;
use mtproxy::formats::secret::Form;
use mtproxy::limits::PING_ANSWER;
use mtproxy::proto::faketls::client_hello::{self, RANDOM_AT, RANDOM_END};
use mtproxy::proto::faketls::probe::{self, Kind};
use mtproxy::proto::faketls::record::{self, Deframer};
use mtproxy::proto::faketls::server_hello::{Judgement, judge};
use mtproxy::proto::mtproto::{self, Reply};
use mtproxy::proto::obfuscated2::{self, Offer};
use mtproxy::proto::secret::Secret;
use mtproxy::proto::transport::{ROOM_BEFORE, ROOM_BEHIND, Transport};
use mtproxy::proto::wire::DcId;

use crate::base::{clock, net, outgoing, sys};

/// Whom to ask for what.
pub struct Question {
    /// To try in order.
    pub addresses: Vec<SocketAddr>,
    /// Where to come from, if not from where the system chooses.
    pub source: Option<IpAddr>,
    /// This server is asked, past --socks5.
    pub is_own: bool,
    /// None: this is a data centre.
    pub secret: Option<Secret>,
    /// How clients with this secret talk.
    pub form: Form,
    /// Which data centre is to answer.
    pub dc: DcId,
    /// How often it is asked, on one connection.
    pub count: u32,
    /// When all of it must have ended.
    pub deadline: Instant,
}

/// All went well, and took so long.
pub struct Answer {
    pub connect: Duration,
    /// Of fake TLS.
    pub hello: Duration,
    /// From each question to its answer.
    pub times: Vec<Duration>,
    /// Telegram's clock, unix seconds.
    pub server_time: u32,
}

/// Where it ended.
pub enum Failure {
    /// No connection.
    Connect(io::Error),
    /// The connection was closed behind the hello.
    HelloClosed,
    /// Nothing came behind the hello.
    HelloSilent,
    /// Somebody who doesn't know the secret answered the hello; whether in TLS.
    HelloForeign(bool),
    /// The connection was closed behind the question.
    Closed,
    /// Nothing came behind the question.
    Silent,
    /// A web server's answer to the question.
    WebServer,
    /// Telegram's error packet.
    Error(i32),
    /// Any other bytes.
    Wrong,
}

impl Question {
    /// Asks.
    pub fn ask(&self) -> Result<Answer, Failure> {
        let begun = Instant::now();
        let within = net::left(self.deadline).unwrap_or_default();
        let dial = match self.is_own {
            true => outgoing::dial_here,
            false => outgoing::dial_any,
        };
        let dialled = dial(&self.addresses, self.source, within).map_err(Failure::Connect)?;
        let socket = dialled.socket;
        socket.set_nodelay(true).map_err(Failure::Connect)?;
        let seed = sys::random_array().map_err(Failure::Connect)?;
        let mut random = Random::new(&seed);
        let connect = begun.elapsed();
        let mut pending = Vec::new();
        let is_tls = matches!(self.form, Form::FakeTls(_));
        if let (Form::FakeTls(domain), Some(secret)) = (&self.form, &self.secret) {
            pending = self.say_hello(&socket, domain, secret, &mut random)?;
        }
        let hello = match is_tls {
            true => begun.elapsed() - connect,
            false => Duration::ZERO,
        };
        let offer = self.offer(&mut random);
        let mut stream = Stream {
            socket,
            deadline: self.deadline,
            receive: Ctr::new(&offer.receive),
            offer,
            deframer: is_tls.then(Deframer::of_server),
            transport: self.transport(),
            begun: false,
            first: Vec::new(),
            clear: Vec::new(),
        };
        stream.take(&mut pending);
        let mut answer = Answer {
            connect,
            hello,
            times: Vec::new(),
            server_time: 0,
        };
        for number in 0..self.count {
            let asked = Instant::now();
            answer.server_time = stream.ask(number, &mut random)?;
            answer.times.push(asked.elapsed());
        }
        Ok(answer)
    }

    /// As TDLib does.
    fn transport(&self) -> Transport {
        match self.form {
            Form::Plain => Transport::Intermediate,
            _ => Transport::PaddedIntermediate,
        }
    }

    fn offer(&self, random: &mut Random) -> Offer {
        loop {
            let mut header = [0; 64];
            random.fill(&mut header);
            let made = obfuscated2::offer(&header, self.secret.as_ref(), self.transport(), self.dc);
            if let Some(offer) = made {
                return offer;
            }
        }
    }

    /// A hello like a phone's; returns what came behind the first flight.
    fn say_hello(
        &self,
        socket: &TcpStream,
        domain: &str,
        secret: &Secret,
        random: &mut Random,
    ) -> Result<Vec<u8>, Failure> {
        let mut hello = probe::hello(domain, Kind::ALL[3], &mut |bytes| random.fill(bytes));
        client_hello::sign(&mut hello, secret, clock::unix() as u32);
        let sent = net::write_before(self.deadline, socket, &hello);
        let mut received = vec![0; PING_ANSWER];
        let mut len = 0;
        let mut end = sent.err().map(|e| e.kind());
        while end.is_none() && len < received.len() {
            match net::read_more(self.deadline, socket, &mut received[len..]) {
                Ok(n) => len += n,
                Err(e) => end = Some(e.kind()),
            }
            match judge(&received[..len], &hello[RANDOM_AT..RANDOM_END], secret) {
                Judgement::Incomplete => {}
                Judgement::Foreign => break,
                Judgement::Proven(flight) => return Ok(received[flight..len].to_vec()),
            }
        }
        Err(match (received[..len].first(), end) {
            (Some(first), _) => Failure::HelloForeign((0x14..=0x17).contains(first)),
            (None, Some(ErrorKind::TimedOut)) => Failure::HelloSilent,
            (None, _) => Failure::HelloClosed,
        })
    }
}

/// A connection behind the handshake of fake TLS, if there is one.
struct Stream {
    socket: TcpStream,
    deadline: Instant,
    offer: Offer,
    receive: Ctr,
    deframer: Option<Deframer>,
    transport: Transport,
    /// The header has been sent.
    begun: bool,
    /// The first bytes that came, as they were.
    first: Vec<u8>,
    /// What came and has not been read yet.
    clear: Vec<u8>,
}

impl Stream {
    /// One question and its answer; gives Telegram's clock.
    fn ask(&mut self, number: u32, random: &mut Random) -> Result<u32, Failure> {
        let mut nonce = [0; 16];
        random.fill(&mut nonce);
        let id = (clock::unix() << 32) + u64::from(number) * 4;
        self.send(&mtproto::req_pq(id, &nonce), random.next_u32())
            .map_err(|_| Failure::Closed)?;
        match mtproto::reply(&self.packet()?, &nonce) {
            Reply::ResPq(time) => Ok(time),
            Reply::Error(code) => Err(Failure::Error(code)),
            Reply::Other => Err(Failure::Wrong),
        }
    }

    fn send(&mut self, message: &[u8], random: u32) -> io::Result<()> {
        let mut bytes = vec![0; ROOM_BEFORE];
        bytes.extend(message);
        let place = ROOM_BEFORE..bytes.len();
        bytes.resize(bytes.len() + ROOM_BEHIND, 0);
        let framed = self.transport.frame_in_place(&mut bytes, place, random);
        let mut wire = bytes[framed.unwrap_or_default()].to_vec();
        self.offer.send.apply(&mut wire);
        if !self.begun {
            wire.splice(0..0, self.offer.header);
        }
        if self.deframer.is_some() {
            wire.splice(0..0, record::header(wire.len()));
            if !self.begun {
                wire.splice(0..0, [0x14, 3, 3, 0, 1, 1]);
            }
        }
        self.begun = true;
        net::write_before(self.deadline, &self.socket, &wire)
    }

    fn packet(&mut self) -> Result<Vec<u8>, Failure> {
        loop {
            let prefix = self.transport.decode_prefix(&self.clear);
            match prefix {
                Ok(Some(prefix)) if prefix.len <= PING_ANSWER => {
                    let end = prefix.prefix_len + prefix.len;
                    if self.clear.len() >= end {
                        let packet = self.clear.drain(..end).skip(prefix.prefix_len);
                        return Ok(packet.take(prefix.payload_len()).collect());
                    }
                }
                Ok(None) => {}
                _ => return Err(self.wrong()),
            }
            let mut some = vec![0; PING_ANSWER];
            match net::read_more(self.deadline, &self.socket, &mut some) {
                Ok(n) => {
                    some.truncate(n);
                    self.take(&mut some);
                }
                // A web server's short error looks like the start of a long packet.
                Err(_) if !self.first.is_empty() => return Err(self.wrong()),
                Err(e) if e.kind() == ErrorKind::TimedOut => return Err(Failure::Silent),
                Err(_) => return Err(Failure::Closed),
            }
            if self.deframer.as_ref().is_some_and(Deframer::is_broken) {
                return Err(Failure::Closed);
            }
        }
    }

    /// Takes bytes of the connection.
    fn take(&mut self, bytes: &mut [u8]) {
        if self.first.is_empty() && self.deframer.is_none() {
            self.first = bytes[..bytes.len().min(5)].to_vec();
        }
        let len = match &mut self.deframer {
            Some(deframer) => deframer.deframe(bytes),
            None => bytes.len(),
        };
        self.receive.apply(&mut bytes[..len]);
        self.clear.extend(&bytes[..len]);
    }

    fn wrong(&self) -> Failure {
        match self.first.starts_with(b"HTTP/") || self.first.starts_with(&[0x15, 3]) {
            true => Failure::WebServer,
            false => Failure::Wrong,
        }
    }
}
