//! The yardstick: a relay without crypto, framing or RPC, run as a child of the bench. One thread,
//! epoll, one read buffer of 64 KiB; a connection to the far side for each that is accepted.

use crate::outgoing::Outgoing;
use crate::sys::{self, Interest, Poller};
use std::io::{self, ErrorKind, Read};
use std::net::{Ipv4Addr, TcpListener, TcpStream};

struct Side {
    socket: TcpStream,
    /// What came from the other side and has not been taken by this socket yet.
    out: Outgoing,
    interest: Interest,
}

/// Runs until its parent's end of standard input is gone. `ports` are the far side's, taken in turn.
pub fn run(ports: &[u16]) -> io::Result<()> {
    sys::raise_descriptor_limit()?;
    std::thread::spawn(|| {
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        std::process::exit(0);
    });
    // Clients come to several addresses of the loopback network, as they do to the proxy.
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    listener.set_nonblocking(true)?;
    let mut poller = Poller::new()?;
    poller.add(&listener, LISTENER, Interest::READ)?;
    eprintln!("listening on {}\nready", listener.local_addr()?);

    let mut pairs: Vec<Option<[Side; 2]>> = Vec::new();
    let mut free = Vec::new();
    let mut ended = Vec::new();
    let mut turns = ports.iter().cycle();
    let mut ready = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        poller.wait(-1, &mut ready)?;
        for event in &ready {
            if event.token == LISTENER {
                while let Ok((socket, _)) = listener.accept() {
                    let port = turns.next().copied().unwrap_or(0);
                    let Ok(pair) = open(socket, port) else {
                        continue;
                    };
                    let index = free.pop().unwrap_or(pairs.len());
                    if index == pairs.len() {
                        pairs.push(None);
                    }
                    poller.add(&pair[0].socket, index as u64 * 2, Interest::READ)?;
                    poller.add(&pair[1].socket, index as u64 * 2 + 1, Interest::READ)?;
                    pairs[index] = Some(pair);
                }
                continue;
            }
            let index = (event.token / 2) as usize;
            let Some(pair) = &mut pairs[index] else {
                continue;
            };
            let [first, second] = pair;
            let (from, to) = if event.token.is_multiple_of(2) {
                (first, second)
            } else {
                (second, first)
            };
            let moved = relay(from, to, event, &mut buffer);
            if moved.is_err() || watch(&poller, index, pair).is_err() {
                // Both sockets close here and leave the set. No event of this turn can meet a newcomer:
                // the place is free for the next turn only.
                pairs[index] = None;
                ended.push(index);
            }
        }
        free.append(&mut ended);
    }
}

fn open(near: TcpStream, port: u16) -> io::Result<[Side; 2]> {
    let far = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    let side = |socket: TcpStream| -> io::Result<Side> {
        socket.set_nonblocking(true)?;
        socket.set_nodelay(true)?;
        Ok(Side {
            socket,
            out: Outgoing::default(),
            interest: Interest::READ,
        })
    };
    Ok([side(near)?, side(far)?])
}

/// Serves one event of `from`. An end of either side ends both.
fn relay(from: &mut Side, to: &mut Side, event: &sys::Ready, buffer: &mut [u8]) -> io::Result<()> {
    if event.writable {
        from.out.flush(&from.socket)?;
    }
    if !event.readable || to.out.blocked {
        return Ok(());
    }
    let count = match (&from.socket).read(buffer) {
        Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
        Ok(count) => count,
        Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
        Err(error) => return Err(error),
    };
    to.out.send(&to.socket, &buffer[..count])
}

/// Reading stops while the other side's socket is full.
fn watch(poller: &Poller, index: usize, pair: &mut [Side; 2]) -> io::Result<()> {
    let blocked = [pair[0].out.blocked, pair[1].out.blocked];
    for (number, side) in pair.iter_mut().enumerate() {
        let interest = Interest {
            read: !blocked[1 - number],
            write: blocked[number],
        };
        if interest != side.interest {
            poller.change(&side.socket, (index * 2 + number) as u64, interest)?;
            side.interest = interest;
        }
    }
    Ok(())
}

const LISTENER: u64 = u64::MAX;
