//! One client of a server under measurement: its socket, its two streams, what it has asked.

use crate::fake_tls::FakeTls;
use crate::outgoing::Outgoing;
use crate::sys;
use crate::wire::{
    Ask, Frame, FrameReader, HEAD, Head, Keystream, LONGEST_PAD, Random, Secret, client_header,
    filler,
};
use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// Where clients connect.
#[derive(Clone, Copy)]
pub struct Door {
    pub port: u16,
    /// None: header with raw keys, for the plain relay and the data centre behind it.
    pub secret: Option<Secret>,
    /// Clients ask for this many data centres in turn; 0: for number 2, all of them.
    pub centres: u16,
    /// Clients begin with a hello signed with the secret.
    pub fake_tls: bool,
}

impl Door {
    fn centre(self, number: u64) -> i16 {
        match self.centres {
            0 => 2,
            count => 1 + (number % u64::from(count)) as i16,
        }
    }
}

/// An answer that has passed its checks.
pub struct Answer {
    pub client: usize,
    pub nanoseconds: u64,
}

pub struct Client {
    pub socket: TcpStream,
    pub out: Outgoing,
    fake_tls: Option<FakeTls>,
    sending: Keystream,
    reader: FrameReader,
    /// What is asked and not answered, oldest first, with its length.
    asked: VecDeque<(Head, Ask)>,
    serial: u32,
}

impl Client {
    /// Connects; `number` spreads clients over the addresses of the loopback network, so that ports
    /// don't run out while connections come and go.
    pub fn connect(door: Door, number: u64, random: &mut Random) -> std::io::Result<Client> {
        let address = Ipv4Addr::new(127, 0, 0, 1 + (number % 8) as u8);
        let socket =
            TcpStream::connect_timeout(&SocketAddr::from((address, door.port)), CONNECT_LIMIT)?;
        socket.set_nonblocking(true)?;
        socket.set_nodelay(true)?;
        let (header, keys) = client_header(door.secret.as_ref(), door.centre(number), random);
        let mut out = Outgoing::default();
        let hello_secret = door.secret.filter(|_| door.fake_tls);
        let mut fake_tls =
            hello_secret.map(|secret| FakeTls::start(&secret, random, &mut out.bytes));
        stream(&mut fake_tls, &mut out).extend_from_slice(&header);
        Ok(Client {
            socket,
            out,
            fake_tls,
            sending: keys.sending,
            reader: FrameReader::new(keys.receiving),
            asked: VecDeque::new(),
            serial: 0,
        })
    }

    /// Queues one request; the caller flushes.
    pub fn ask(&mut self, own_number: usize, ask: Ask, random: &mut Random) {
        self.serial += 1;
        let head = Head::new(own_number as u32, self.serial, ask);
        let pad = (random.next() % (LONGEST_PAD as u64 + 1)) as usize;
        let rest = &filler()[..ask.request - HEAD + pad];
        let stream = stream(&mut self.fake_tls, &mut self.out);
        self.sending.put_frame(stream, &head, rest);
        if let Some(tls) = &mut self.fake_tls {
            tls.seal(&mut self.out.bytes);
        }
        self.asked.push_back((head, ask));
    }

    pub fn waits(&self) -> bool {
        !self.asked.is_empty()
    }

    /// Takes what a read brought; gives the delay of each answer. Answers must come in order, with the
    /// head of their request, in the length asked for; an echo must be equal to the last byte. May
    /// queue bytes, as `ask` does.
    pub fn receive(&mut self, bytes: &[u8], frames: &mut Vec<Frame>) -> Result<Vec<u64>, String> {
        frames.clear();
        match &mut self.fake_tls {
            None => self.reader.receive(bytes, frames)?,
            Some(tls) => {
                let mut rest = bytes;
                while let Some(piece) = tls.next_piece(&mut rest)? {
                    self.reader.receive(piece, frames)?;
                }
                tls.seal(&mut self.out.bytes);
            }
        }
        let mut delays = Vec::with_capacity(frames.len());
        for frame in frames.drain(..) {
            let Some((head, ask)) = self.asked.pop_front() else {
                return Err("an answer to nothing came".into());
            };
            if frame.head != head {
                return Err(format!(
                    "client {} got an answer meant for client {}, request {} instead of {}",
                    head.client(),
                    frame.head.client(),
                    frame.head.serial(),
                    head.serial()
                ));
            }
            check_length_and_body(&frame, ask)?;
            delays.push(sys::now().saturating_sub(head.time()));
        }
        Ok(delays)
    }
}

/// Where a client's stream goes: on its way, or to where it is put into records.
fn stream<'a>(fake_tls: &'a mut Option<FakeTls>, out: &'a mut Outgoing) -> &'a mut Vec<u8> {
    match fake_tls {
        Some(tls) => &mut tls.waiting,
        None => &mut out.bytes,
    }
}

fn check_length_and_body(frame: &Frame, ask: Ask) -> Result<(), String> {
    let (expected, spare) = match ask.answer {
        // The padding up to a whole word comes back, and then the server's own.
        0 => (ask.request, LONGEST_PAD + 3),
        answer => (answer, LONGEST_PAD),
    };
    if !(expected..=expected + spare).contains(&frame.len) {
        return Err(format!(
            "an answer of {} bytes came instead of {expected}",
            frame.len
        ));
    }
    if ask.answer == 0 && frame.body[HEAD..expected] != filler()[..expected - HEAD] {
        return Err(format!("an echo of {expected} bytes came back changed"));
    }
    Ok(())
}

/// A connection over loopback needs microseconds; a server whose backlog is full never answers.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
