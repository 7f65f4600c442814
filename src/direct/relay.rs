//! Bytes between a client and its data centre, one thread for each direction, until both have ended.
//! An end of one side is passed on as an end of that half only, so nothing in flight is lost.
//!
//! A direction that is idle waits in a small read and holds nothing else. While its reads fill up it
//! borrows what moves more at a time: a large pooled buffer upwards, where bytes go through two
//! ciphers; a pipe downwards, through which the kernel moves them without a copy.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use mtproxy::crypto::ctr::Ctr;
use mtproxy::limits::{HALF_OPEN, PIPES_KEPT, READ_SMALL, RELAY_BUSY, RELAY_LINGER, RELAY_STEP};

use crate::buffers::{self, Buffer};
use crate::stats::{Close, Traffic};
use crate::sys::Pipe;
use crate::threads;

/// Upwards: what the client sends is deciphered with one and enciphered with the other.
pub struct Ciphers {
    /// The client's stream to us.
    pub receive: Ctr,
    /// Our stream to the data centre.
    pub send: Ctr,
}

/// Relays until both halves have ended; counts and says what ended first.
pub fn run(
    client: TcpStream,
    dc: TcpStream,
    ciphers: Ciphers,
    small: &mut [u8; READ_SMALL],
    traffic: &'static Traffic,
) -> Close {
    let pair = Arc::new(Pair::new(client, dc, traffic));
    let down = pair.clone();
    if !threads::run(Box::new(move || {
        down.half(Close::DcClosed, || down.relay_down())
    })) {
        return Close::NoThread.counted();
    }
    let mut ciphers = ciphers;
    pair.half(Close::ClientGone, || pair.relay_up(&mut ciphers, small));
    pair.reason().counted()
}

/// Both sockets, and how far both halves are.
struct Pair {
    client: TcpStream,
    dc: TcpStream,
    traffic: &'static Traffic,
    /// Steps of both halves so far: changes as long as there is progress.
    steps: AtomicU32,
    ended: Mutex<Ended>,
    both: Condvar,
}

#[derive(Default)]
struct Ended {
    halves: u8,
    reason: Option<Close>,
}

/// A half's connection broke; which side is at fault.
struct Broken(Close);

impl Pair {
    fn new(client: TcpStream, dc: TcpStream, traffic: &'static Traffic) -> Pair {
        Pair {
            client,
            dc,
            traffic,
            steps: AtomicU32::new(0),
            ended: Mutex::default(),
            both: Condvar::new(),
        }
    }

    /// One direction from its start to the end of both. An orderly end is passed on and the other
    /// half may go on while it makes progress. A data centre's broken connection is an end too: what
    /// has come from it is on its way to the client. A client's broken connection ends both halves.
    fn half(&self, orderly: Close, relay: impl FnOnce() -> Result<(), Broken>) {
        let mut result = Err(Broken(Close::Panicked));
        threads::guarded(|| result = relay());
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Ok(()) => _ = ended.reason.get_or_insert(orderly),
            Err(Broken(reason)) => {
                ended.reason.get_or_insert(reason);
                let _ = self.dc.shutdown(Shutdown::Both);
                let of_client = if reason == Close::DcLost {
                    Shutdown::Write
                } else {
                    Shutdown::Both
                };
                let _ = self.client.shutdown(of_client);
            }
        }
        ended.halves += 1;
        if ended.halves == 2 {
            self.both.notify_all();
        }
        while ended.halves < 2 {
            let before = self.steps.load(Ordering::Relaxed);
            let wait = self.both.wait_timeout(ended, HALF_OPEN);
            let timed_out;
            (ended, timed_out) = match wait {
                Ok((guard, result)) => (guard, result.timed_out()),
                Err(poisoned) => (poisoned.into_inner().0, false),
            };
            let alone = ended.halves < 2;
            if alone && timed_out && before == self.steps.load(Ordering::Relaxed) {
                ended.reason = Some(Close::HalfOpen);
                self.shut_down();
            }
        }
    }

    fn shut_down(&self) {
        let _ = self.client.shutdown(Shutdown::Both);
        let _ = self.dc.shutdown(Shutdown::Both);
    }

    fn reason(&self) -> Close {
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        ended.reason.unwrap_or(Close::Panicked)
    }

    fn relay_up(&self, ciphers: &mut Ciphers, small: &mut [u8]) -> Result<(), Broken> {
        loop {
            let mut n = read(&self.client, small, Close::ClientLost)?;
            let mut taken = self.pass_up(ciphers, &mut small[..n]);
            if taken && n == small.len() && buffers::excess() == 0 {
                let mut large = Buffer::new(RELAY_STEP);
                linger(&self.client, Some(RELAY_LINGER));
                while taken {
                    match read_soon(&self.client, &mut large, Close::ClientLost)? {
                        Some(step) => n = step,
                        None => break,
                    }
                    taken = self.pass_up(ciphers, &mut large[..n]);
                    if n < RELAY_BUSY {
                        break;
                    }
                }
                linger(&self.client, None);
            }
            if n == 0 {
                let _ = self.dc.shutdown(Shutdown::Write);
                return Ok(());
            }
            if !taken {
                return self.discard(small);
            }
        }
    }

    /// Whether the data centre takes these bytes.
    fn pass_up(&self, ciphers: &mut Ciphers, bytes: &mut [u8]) -> bool {
        ciphers.receive.apply(bytes);
        ciphers.send.apply(bytes);
        self.steps.fetch_add(1, Ordering::Relaxed);
        self.traffic.direct_up_bytes.add(bytes.len() as u64);
        (&self.dc).write_all(bytes).is_ok()
    }

    /// The data centre takes no more, but what it has sent is still on its way to the client. Closing
    /// the client's connection with bytes unread would make the kernel drop that.
    fn discard(&self, small: &mut [u8]) -> Result<(), Broken> {
        while read(&self.client, small, Close::ClientLost)? > 0 {}
        Ok(())
    }

    fn relay_down(&self) -> Result<(), Broken> {
        let mut small = [0; READ_SMALL];
        loop {
            let mut n = read(&self.dc, &mut small, Close::DcLost)?;
            self.pass_down(&small[..n])?;
            if n == small.len() {
                linger(&self.dc, Some(RELAY_LINGER));
                n = match take_pipe() {
                    Some(pipe) => self.move_by_pipe(pipe)?,
                    None if buffers::excess() == 0 => self.move_by_copy(Buffer::new(RELAY_STEP))?,
                    None => n,
                };
                linger(&self.dc, None);
            }
            if n == 0 {
                let _ = self.client.shutdown(Shutdown::Write);
                return Ok(());
            }
        }
    }

    fn pass_down(&self, bytes: &[u8]) -> Result<(), Broken> {
        self.steps.fetch_add(1, Ordering::Relaxed);
        self.traffic.direct_down_bytes.add(bytes.len() as u64);
        (&self.client)
            .write_all(bytes)
            .map_err(|_| Broken(Close::ClientLost))
    }

    /// Until a step moves little or nothing comes for a while; returns how much, 0 at the end.
    fn move_by_pipe(&self, pipe: Pipe) -> Result<usize, Broken> {
        loop {
            let n = match pipe.fill(&self.dc, RELAY_STEP) {
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    keep_pipe(pipe);
                    return Ok(1);
                }
                result => result.map_err(|_| Broken(Close::DcLost))?,
            };
            let mut left = n;
            while left > 0 {
                match pipe.empty(&self.client, left) {
                    Ok(0) => return Err(Broken(Close::ClientLost)),
                    Ok(gone) => left -= gone,
                    Err(e) if e.kind() == ErrorKind::Interrupted => {}
                    Err(_) => return Err(Broken(Close::ClientLost)),
                }
                self.steps.fetch_add(1, Ordering::Relaxed);
            }
            self.traffic.direct_down_bytes.add(n as u64);
            if n < RELAY_BUSY {
                keep_pipe(pipe);
                return Ok(n);
            }
        }
    }

    /// The same where no pipe can be had.
    fn move_by_copy(&self, mut large: Buffer) -> Result<usize, Broken> {
        loop {
            let Some(n) = read_soon(&self.dc, &mut large, Close::DcLost)? else {
                return Ok(1);
            };
            self.pass_down(&large[..n])?;
            if n < RELAY_BUSY {
                return Ok(n);
            }
        }
    }
}

/// How long reads of a busy relay wait, so that what it holds is given back when it falls idle.
fn linger(socket: &TcpStream, wait: Option<Duration>) {
    // If this fails the connection is broken, which the next read finds out.
    let _ = socket.set_read_timeout(wait);
}

/// Reads what is there; None if nothing comes within the socket's timeout.
fn read_soon(mut from: &TcpStream, buf: &mut [u8], lost: Close) -> Result<Option<usize>, Broken> {
    loop {
        match from.read(buf) {
            Ok(n) => return Ok(Some(n)),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(_) => return Err(Broken(lost)),
        }
    }
}

/// Reads what is there; 0 at the end.
fn read(from: &TcpStream, buf: &mut [u8], lost: Close) -> Result<usize, Broken> {
    loop {
        if let Some(n) = read_soon(from, buf, lost)? {
            return Ok(n);
        }
    }
}

/// Pipes that are empty and wait for their next use.
static PIPES: Mutex<Vec<Pipe>> = Mutex::new(Vec::new());

fn take_pipe() -> Option<Pipe> {
    let kept = PIPES.lock().unwrap_or_else(PoisonError::into_inner).pop();
    kept.or_else(|| Pipe::new(RELAY_STEP).ok())
}

fn keep_pipe(pipe: Pipe) {
    let mut pipes = PIPES.lock().unwrap_or_else(PoisonError::into_inner);
    if pipes.len() < PIPES_KEPT {
        pipes.push(pipe);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mtproxy::crypto::ctr::StreamKey;
    use mtproxy::proto::transport::Transport;
    use mtproxy::proto::wire::DcId;
    use std::net::TcpListener;
    use std::thread;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (ours, listener.accept().unwrap().0)
    }

    fn cipher(byte: u8) -> Ctr {
        Ctr::new(&StreamKey {
            key: [byte; 32],
            iv: [byte; 16],
        })
    }

    fn traffic() -> &'static Traffic {
        crate::stats::traffic_of(0, DcId(1), Transport::Abridged)
    }

    fn noise(len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        cipher(9).apply(&mut bytes);
        bytes
    }

    /// Sends `bytes` through `relay` from one socket to another and returns what arrives.
    fn through(bytes: Vec<u8>, relay: impl FnOnce(&Pair) + Send + 'static) -> Vec<u8> {
        let ((client, mut far_client), (dc, mut far_dc)) = (pair(), pair());
        let relaying = thread::spawn(move || relay(&Pair::new(client, dc, traffic())));
        let writing = thread::spawn(move || {
            far_dc.write_all(&bytes).unwrap();
            far_dc.shutdown(Shutdown::Write).unwrap();
        });
        let mut got = Vec::new();
        far_client.read_to_end(&mut got).unwrap();
        writing.join().unwrap();
        relaying.join().unwrap();
        got
    }

    #[test]
    fn down_by_pipe_and_by_copy_lose_nothing() {
        for len in [0, 1, READ_SMALL - 1, READ_SMALL, READ_SMALL + 1, 5_000_000] {
            let bytes = noise(len);
            let got = through(bytes.clone(), |pair| assert!(pair.relay_down().is_ok()));
            assert!(got == bytes, "{len} bytes");
            let by_copy = |pair: &Pair| {
                let large = || Buffer::new(RELAY_STEP);
                while pair.move_by_copy(large()).is_ok_and(|n| n > 0) {}
            };
            let got = through(bytes.clone(), by_copy);
            assert!(got == bytes, "{len} bytes by copy");
        }
    }

    #[test]
    fn both_halves_end_one_after_the_other() {
        let ((client, mut far_client), (dc, mut far_dc)) = (pair(), pair());
        let ciphers = Ciphers {
            receive: cipher(1),
            send: cipher(2),
        };
        let relaying =
            thread::spawn(move || run(client, dc, ciphers, &mut [0; READ_SMALL], traffic()));
        let up = noise(3_000_000);
        let mut wire = up.clone();
        cipher(1).apply(&mut wire);
        let sending = thread::spawn(move || {
            far_client.write_all(&wire).unwrap();
            far_client.shutdown(Shutdown::Write).unwrap();
            far_client
        });
        let mut got = Vec::new();
        far_dc.read_to_end(&mut got).unwrap();
        cipher(2).apply(&mut got);
        assert!(got == up);
        let mut far_client = sending.join().unwrap();
        let down = noise(2_000_000);
        let answer = down.clone();
        let answering = thread::spawn(move || far_dc.write_all(&answer).unwrap());
        let mut got = Vec::new();
        far_client.read_to_end(&mut got).unwrap();
        answering.join().unwrap();
        assert!(got == down);
        assert_eq!(relaying.join().unwrap(), Close::ClientGone);
    }

    #[test]
    fn a_data_centre_that_closes_while_the_client_speaks_loses_nothing() {
        let ((client, mut far_client), (dc, mut far_dc)) = (pair(), pair());
        let ciphers = Ciphers {
            receive: cipher(1),
            send: cipher(2),
        };
        let relaying =
            thread::spawn(move || run(client, dc, ciphers, &mut [0; READ_SMALL], traffic()));
        let down = noise(3_000_000);
        let answer = down.clone();
        let answering = thread::spawn(move || far_dc.write_all(&answer).unwrap());
        let mut got = vec![0; 1_000_000];
        far_client.read_exact(&mut got).unwrap();
        answering.join().unwrap(); // and the data centre's socket is closed
        for _ in 0..5 {
            far_client.write_all(&[0; 100]).unwrap();
        }
        far_client.read_to_end(&mut got).unwrap();
        assert!(got == down);
        drop(far_client);
        assert!(matches!(
            relaying.join().unwrap(),
            Close::DcClosed | Close::DcLost
        ));
    }
}
