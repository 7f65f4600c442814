//! The load generator's one thread: clients, the Telegram behind the servers, and the servers' own
//! output, all in one loop. The scenarios drive it turn by turn.

use crate::clients::{Answer, Client, Door};
use crate::sys::{Interest, Poller, Ready, now};
use crate::telegram::{Peer, Role};
use crate::wire::{Ask, Frame, Random};
use std::io::{ErrorKind, Read};
use std::net::{Ipv4Addr, TcpListener};
use std::process::ChildStderr;

pub struct Engine {
    poller: Poller,
    ready: Vec<Ready>,
    buffer: Vec<u8>,
    frames: Vec<Frame>,
    random: Random,
    clients: Slots<Client>,
    peers: Slots<Peer>,
    listeners: Vec<(TcpListener, Role)>,
    outputs: Vec<Output>,
    proxy_secret: &'static [u8],
    connected: u64,
}

/// What a server has written to its standard error.
struct Output {
    pipe: Option<ChildStderr>,
    text: String,
}

/// Things with numbers that are used again.
struct Slots<T> {
    items: Vec<Option<T>>,
    free: Vec<usize>,
}

impl<T> Slots<T> {
    fn add(&mut self, item: T) -> usize {
        let index = self.free.pop().unwrap_or(self.items.len());
        if index == self.items.len() {
            self.items.push(None);
        }
        self.items[index] = Some(item);
        index
    }

    fn remove(&mut self, index: usize) {
        if self.items[index].take().is_some() {
            self.free.push(index);
        }
    }
}

impl Engine {
    /// `proxy_secret` is the content of the file that the proxy is given.
    pub fn new(proxy_secret: &'static [u8]) -> std::io::Result<Engine> {
        Ok(Engine {
            poller: Poller::new()?,
            ready: Vec::new(),
            buffer: vec![0; 256 << 10],
            frames: Vec::new(),
            random: Random(now() ^ u64::from(std::process::id()) << 32),
            clients: Slots {
                items: Vec::new(),
                free: Vec::new(),
            },
            peers: Slots {
                items: Vec::new(),
                free: Vec::new(),
            },
            listeners: Vec::new(),
            outputs: Vec::new(),
            proxy_secret,
            connected: 0,
        })
    }

    /// Opens a listening socket for servers and returns its port.
    pub fn listen(&mut self, role: Role) -> std::io::Result<u16> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        let token = LISTENER | self.listeners.len() as u64;
        self.poller.add(&listener, token, Interest::READ)?;
        self.listeners.push((listener, role));
        Ok(port)
    }

    /// Collects a server's output from now on; the number is for `output`.
    pub fn follow(&mut self, pipe: ChildStderr) -> std::io::Result<usize> {
        let index = self.outputs.len();
        self.poller
            .add(&pipe, OUTPUT | index as u64, Interest::READ)?;
        self.outputs.push(Output {
            pipe: Some(pipe),
            text: String::new(),
        });
        Ok(index)
    }

    /// What a server has written so far, and whether it can still write.
    pub fn output(&self, index: usize) -> (&str, bool) {
        let output = &self.outputs[index];
        (&output.text, output.pipe.is_some())
    }

    pub fn connect(&mut self, door: Door) -> Result<usize, String> {
        self.connected += 1;
        let client = Client::connect(door, self.connected, &mut self.random)
            .map_err(|error| format!("a client can't connect: {error}"))?;
        let index = self.clients.add(client);
        if let Some(client) = &self.clients.items[index] {
            let added = self
                .poller
                .add(&client.socket, CLIENT | index as u64, Interest::READ);
            added.map_err(|error| error.to_string())?;
        }
        Ok(index)
    }

    /// Sends one request.
    pub fn ask(&mut self, index: usize, ask: Ask) -> Result<(), String> {
        let Some(client) = &mut self.clients.items[index] else {
            return Ok(());
        };
        client.ask(index, ask, &mut self.random);
        self.flush_client(index)
    }

    /// Closes one client's connection.
    pub fn close(&mut self, index: usize) {
        self.clients.remove(index);
    }

    pub fn close_all_clients(&mut self) {
        for index in 0..self.clients.items.len() {
            self.clients.remove(index);
        }
    }

    /// Whether any client still waits for an answer.
    pub fn waits(&self) -> bool {
        self.clients.items.iter().flatten().any(Client::waits)
    }

    /// Waits at most `milliseconds` for something to happen, and appends the answers that came.
    pub fn turn(&mut self, milliseconds: i32, answers: &mut Vec<Answer>) -> Result<(), String> {
        let mut ready = std::mem::take(&mut self.ready);
        self.poller
            .wait(milliseconds, &mut ready)
            .map_err(|error| error.to_string())?;
        for event in &ready {
            let index = (event.token & INDEX) as usize;
            match event.token & !INDEX {
                CLIENT => self.serve_client(index, event, answers)?,
                PEER => self.serve_peer(index, event)?,
                LISTENER => self.accept(index)?,
                _ => self.read_output(index),
            }
        }
        self.ready = ready;
        Ok(())
    }

    fn serve_client(
        &mut self,
        index: usize,
        event: &Ready,
        answers: &mut Vec<Answer>,
    ) -> Result<(), String> {
        let Some(client) = &mut self.clients.items[index] else {
            return Ok(());
        };
        if event.readable {
            let count = match (&client.socket).read(&mut self.buffer) {
                Ok(0) => return Err("the server closed a client's connection".into()),
                Ok(count) => count,
                Err(error) if is_passing(&error) => 0,
                Err(error) => return Err(closed(error)),
            };
            let delays = client.receive(&self.buffer[..count], &mut self.frames)?;
            answers.extend(delays.into_iter().map(|nanoseconds| Answer {
                client: index,
                nanoseconds,
            }));
            // The answer to a hello lets the client speak.
            if client.out.waiting() > 0 {
                self.flush_client(index)?;
            }
        }
        let client = self.clients.items[index].as_mut();
        if let Some(client) = client.filter(|_| event.writable) {
            client.out.flush(&client.socket).map_err(closed)?;
            self.watch_client(index);
        }
        Ok(())
    }

    /// Sends what is queued; the rest when the socket can take more.
    fn flush_client(&mut self, index: usize) -> Result<(), String> {
        let client = self.clients.items[index].as_mut();
        if let Some(client) = client.filter(|client| !client.out.blocked) {
            client.out.flush(&client.socket).map_err(closed)?;
            if client.out.blocked {
                self.watch_client(index);
            }
        }
        Ok(())
    }

    fn watch_client(&self, index: usize) {
        if let Some(client) = &self.clients.items[index] {
            let interest = Interest {
                read: true,
                write: client.out.blocked,
            };
            // It can't fail for a socket that is in the set; if it did, the stall would be noticed.
            let _ = self
                .poller
                .change(&client.socket, CLIENT | index as u64, interest);
        }
    }

    fn serve_peer(&mut self, index: usize, event: &Ready) -> Result<(), String> {
        let Some(peer) = &mut self.peers.items[index] else {
            return Ok(());
        };
        if event.readable {
            match (&peer.socket).read(&mut self.buffer) {
                Ok(count) if count > 0 => {
                    let received = peer.receive(&self.buffer[..count]);
                    received.map_err(|text| format!("Telegram's side: {text}"))?;
                }
                Err(error) if is_passing(&error) => {}
                _ => {
                    self.peers.remove(index);
                    return Ok(());
                }
            }
        }
        let was_blocked = peer.out.blocked;
        if peer.answer().is_err() {
            self.peers.remove(index);
            return Ok(());
        }
        if peer.out.blocked != was_blocked {
            let interest = Interest {
                read: true,
                write: peer.out.blocked,
            };
            let _ = self
                .poller
                .change(&peer.socket, PEER | index as u64, interest);
        }
        Ok(())
    }

    fn accept(&mut self, index: usize) -> Result<(), String> {
        let (listener, role) = &self.listeners[index];
        loop {
            let socket = match listener.accept() {
                Ok((socket, _)) => socket,
                Err(error) if is_passing(&error) => return Ok(()),
                Err(error) => return Err(format!("Telegram's side can't accept: {error}")),
            };
            let prepared = socket
                .set_nonblocking(true)
                .and_then(|()| socket.set_nodelay(true));
            let peer = prepared.and_then(|()| Peer::new(socket, *role, self.proxy_secret));
            // A connection that broke already, or that goes to a mask, is not worth a word: its server
            // will notice.
            let Ok(peer) = peer else { continue };
            let number = self.peers.add(peer);
            if let Some(peer) = &self.peers.items[number] {
                let _ = self
                    .poller
                    .add(&peer.socket, PEER | number as u64, Interest::READ);
            }
        }
    }

    fn read_output(&mut self, index: usize) {
        let output = &mut self.outputs[index];
        let Some(pipe) = &mut output.pipe else { return };
        match pipe.read(&mut self.buffer) {
            Ok(count) if count > 0 => {
                output
                    .text
                    .push_str(&String::from_utf8_lossy(&self.buffer[..count]));
            }
            Err(error) if is_passing(&error) => {}
            _ => output.pipe = None,
        }
    }
}

fn is_passing(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

fn closed(error: std::io::Error) -> String {
    format!("the server broke a client's connection: {error}")
}

// A token is a kind in the upper half and an index in the lower.
const INDEX: u64 = 0xffff_ffff;
const CLIENT: u64 = 0;
const PEER: u64 = 1 << 32;
const LISTENER: u64 = 2 << 32;
const OUTPUT: u64 = 3 << 32;
