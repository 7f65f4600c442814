//! The far side of all servers: middle proxies, and data centres for direct mode and the plain relay.
//! Every request says what its answer shall be.

use crate::middle::{Link, Request};
use crate::outgoing::Outgoing;
use crate::wire::{Frame, FrameReader, HEAD, Keystream, accept_header, filler};
use std::collections::VecDeque;
use std::io;
use std::net::TcpStream;

/// What a listening socket of ours pretends to be.
#[derive(Clone, Copy)]
pub enum Role {
    MiddleProxy,
    DataCentre,
    /// A site behind fake TLS where nobody is at home.
    Mask,
}

/// One connection of a server to us.
pub struct Peer {
    pub socket: TcpStream,
    pub out: Outgoing,
    side: Side,
    jobs: VecDeque<Request>,
}

enum Side {
    Middle(Box<Link>),
    Header(Vec<u8>),
    Direct(Box<Direct>),
}

struct Direct {
    reader: FrameReader,
    sending: Keystream,
    frames: Vec<Frame>,
}

impl Peer {
    /// Takes an accepted, non-blocking socket, but none to a mask. `secret` is the content of the proxy-secret file.
    pub fn new(socket: TcpStream, role: Role, secret: &'static [u8]) -> io::Result<Peer> {
        let side = match role {
            Role::Mask => return Err(io::ErrorKind::ConnectionRefused.into()),
            Role::DataCentre => Side::Header(Vec::new()),
            Role::MiddleProxy => {
                let link = Link::new(socket.local_addr()?, socket.peer_addr()?, secret);
                Side::Middle(Box::new(link))
            }
        };
        Ok(Peer {
            socket,
            out: Outgoing::default(),
            side,
            jobs: VecDeque::new(),
        })
    }

    /// Takes what a read brought.
    pub fn receive(&mut self, bytes: &[u8]) -> Result<(), String> {
        if let Side::Header(header) = &mut self.side {
            header.extend_from_slice(bytes);
            let Some((header, rest)) = header.split_first_chunk::<64>() else {
                return Ok(());
            };
            let keys = accept_header(header).ok_or("a data centre got an unknown transport tag")?;
            let rest = rest.to_vec();
            self.side = Side::Direct(Box::new(Direct {
                reader: FrameReader::new(keys.receiving),
                sending: keys.sending,
                frames: Vec::new(),
            }));
            return self.receive(&rest);
        }
        match &mut self.side {
            Side::Middle(link) => link.receive(bytes, &mut self.out.bytes, &mut self.jobs),
            Side::Direct(direct) => {
                direct.reader.receive(bytes, &mut direct.frames)?;
                if direct
                    .frames
                    .iter()
                    .any(|frame| !frame.head.fits(frame.len))
                {
                    return Err("a request arrived with a wrong length".into());
                }
                self.jobs
                    .extend(direct.frames.drain(..).map(|frame| Request {
                        conn_id: 0,
                        head: frame.head,
                        body: frame.body,
                    }));
                Ok(())
            }
            Side::Header(_) => Ok(()),
        }
    }

    /// Answers what has been asked, as far as the socket and a bound on the queue let it. The bound keeps
    /// the bytes in the cache while many clients wait for long answers on one link.
    pub fn answer(&mut self) -> io::Result<()> {
        loop {
            while self.out.waiting() < QUEUE {
                let Some(request) = self.jobs.pop_front() else {
                    break;
                };
                match &mut self.side {
                    Side::Middle(link) => link.answer(&request, &mut self.out.bytes),
                    Side::Direct(direct) => direct.answer(&request, &mut self.out.bytes),
                    Side::Header(_) => {}
                }
            }
            self.out.flush(&self.socket)?;
            if self.jobs.is_empty() || self.out.blocked {
                return Ok(());
            }
        }
    }
}

impl Direct {
    fn answer(&mut self, request: &Request, out: &mut Vec<u8>) {
        let head = &request.head;
        let rest = match head.is_echo() {
            // A client's padding stays in its message, but a message is whole words.
            true => &request.body[HEAD..request.body.len() / 4 * 4],
            false => &filler()[..head.answer() - HEAD],
        };
        self.sending.put_frame(out, head, rest);
    }
}

/// Bytes of answers made ahead of a socket.
const QUEUE: usize = 256 << 10;
