//! Bytes between a client and its data centre (`pair` has the two threads and the ends).
//!
//! A direction that is idle waits in a small read and holds nothing else. While its reads fill up it
//! borrows what moves more at a time: a large pooled buffer upwards, where bytes go through two
//! ciphers; a pipe downwards, through which the kernel moves them without a copy. In fake TLS the
//! record layer comes off upwards, and downwards bytes go through a buffer: a pipe would have to be
//! emptied record by record, which costs more than the copy.

use std::io::{ErrorKind, IoSlice, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mtproxy::crypto::ctr::Ctr;
use mtproxy::limits::{PIPES_KEPT, RECORD_START, RELAY_BUSY, RELAY_COPY, RELAY_LINGER, RELAY_STEP};
use mtproxy::proto::faketls::record::{self, Deframer, Sizer};

use crate::buffers::{self, Buffer};
use crate::clock;
use crate::pair::{self, Broken, Half, Pair};
use crate::records;
use crate::stats::{Close, Traffic};
use crate::sys::Pipe;

/// What is done to bytes on their way.
pub struct Layers {
    /// The client's stream to us.
    pub receive: Ctr,
    /// Our stream to the data centre.
    pub send: Ctr,
    /// The data centre's stream to us, if the client expects another.
    pub down: Option<Box<Ctr>>,
    /// In fake TLS: takes the client's records apart. Then the client gets records, too.
    pub tls: Option<Deframer>,
    /// Counts bytes.
    pub traffic: &'static Traffic,
}

/// The way down.
struct Down {
    /// What comes is deciphered.
    cipher: Option<Box<Ctr>>,
    /// In fake TLS.
    sizer: Option<Sizer>,
    traffic: &'static Traffic,
}

/// Relays until both halves have ended; counts and says what ended first.
pub fn run(client: TcpStream, dc: TcpStream, mut layers: Layers, small: &mut [u8]) -> Close {
    let pair = Arc::new(Pair::new(client, dc));
    let down = Down {
        cipher: layers.down.take(),
        sizer: layers.tls.as_ref().map(|_| Sizer::new()),
        traffic: layers.traffic,
    };
    let up = |pair: &Pair| relay_up(pair, &mut layers, small);
    let down = move |pair: &Pair| relay_down(pair, down);
    pair::run(&pair, [Close::ClientGone, Close::DcClosed], up, down).counted()
}

fn relay_up(pair: &Pair, layers: &mut Layers, small: &mut [u8]) -> Half {
    // It may have been broken behind the first record already.
    refuse_broken(layers)?;
    loop {
        let mut n = read(&pair.client, small, CLIENT_LOST)?;
        let mut taken = pass_up(pair, layers, &mut small[..n])?;
        if taken && n == small.len() && buffers::excess() == 0 {
            let mut large = Buffer::new(RELAY_STEP);
            linger(&pair.client, Some(RELAY_LINGER));
            while taken {
                match read_soon(&pair.client, &mut large, CLIENT_LOST)? {
                    Some(step) => n = step,
                    None => break,
                }
                taken = pass_up(pair, layers, &mut large[..n])?;
                if n < RELAY_BUSY {
                    break;
                }
            }
            linger(&pair.client, None);
        }
        if n == 0 {
            let _ = pair.far.shutdown(Shutdown::Write);
            return Ok(());
        }
        if !taken {
            return discard(pair, small);
        }
    }
}

/// Whether the data centre takes these bytes.
fn pass_up(pair: &Pair, layers: &mut Layers, mut bytes: &mut [u8]) -> Result<bool, Broken> {
    if let Some(tls) = &mut layers.tls {
        let len = tls.deframe(bytes);
        bytes = &mut bytes[..len];
    }
    layers.receive.apply(bytes);
    layers.send.apply(bytes);
    pair.step();
    layers.traffic.direct_up_bytes.add(bytes.len() as u64);
    let taken = (&pair.far).write_all(bytes).is_ok();
    refuse_broken(layers)?;
    Ok(taken)
}

/// An error once the client has sent a wrong record.
fn refuse_broken(layers: &Layers) -> Half {
    match &layers.tls {
        Some(tls) if tls.is_broken() => Err(Broken::Client(Close::BadRecord)),
        _ => Ok(()),
    }
}

/// The data centre takes no more, but what it has sent is still on its way to the client. Closing
/// the client's connection with bytes unread would make the kernel drop that.
fn discard(pair: &Pair, small: &mut [u8]) -> Half {
    while read(&pair.client, small, CLIENT_LOST)? > 0 {}
    Ok(())
}

fn relay_down(pair: &Pair, mut down: Down) -> Half {
    // So long that a record of what it holds is like the first one of any stream.
    let mut small = [0; record::HEADER + RECORD_START];
    loop {
        let body = &mut small[record::HEADER..];
        let (mut n, room) = (read(&pair.far, body, DC_LOST)?, body.len());
        pass_small_down(pair, &mut small, n, &mut down)?;
        if n == room {
            linger(&pair.far, Some(RELAY_LINGER));
            // What goes through a pipe isn't seen, and can't be cut into records at no cost.
            let by_copy = down.sizer.is_some() || down.cipher.is_some();
            n = match (!by_copy).then(take_pipe).flatten() {
                Some(pipe) => move_by_pipe(pair, pipe, &down)?,
                None if buffers::excess() == 0 => {
                    move_by_copy(pair, Buffer::new(RELAY_COPY), &mut down)?
                }
                None => n,
            };
            linger(&pair.far, None);
        }
        if n == 0 {
            let _ = pair.client.shutdown(Shutdown::Write);
            return Ok(());
        }
    }
}

/// Passes on the `n` bytes that lie behind room for a record's header. They fit any record.
fn pass_small_down(pair: &Pair, small: &mut [u8], n: usize, down: &mut Down) -> Half {
    let mut start = record::HEADER;
    if let Some(sizer) = down.sizer.as_mut().filter(|_| n > 0) {
        sizer.next(clock::millis());
        small[..start].copy_from_slice(&record::header(n));
        start = 0;
    }
    decipher(down, &mut small[record::HEADER..record::HEADER + n]);
    passed_down(pair, n, down);
    let bytes = &small[start..record::HEADER + n];
    (&pair.client).write_all(bytes).map_err(|_| CLIENT_LOST)
}

fn decipher(down: &mut Down, bytes: &mut [u8]) {
    if let Some(cipher) = &mut down.cipher {
        cipher.apply(bytes);
    }
}

/// `n` bytes of the data centre's are on their way.
fn passed_down(pair: &Pair, n: usize, down: &Down) {
    pair.step();
    down.traffic.direct_down_bytes.add(n as u64);
}

/// Until a step moves little or nothing comes for a while; returns how much, 0 at the end.
fn move_by_pipe(pair: &Pair, pipe: Pipe, down: &Down) -> Result<usize, Broken> {
    loop {
        let n = match pipe.fill(&pair.far, RELAY_STEP) {
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                keep_pipe(pipe);
                return Ok(1);
            }
            result => result.map_err(|_| DC_LOST)?,
        };
        let mut left = n;
        while left > 0 {
            match pipe.empty(&pair.client, left) {
                Ok(0) => return Err(CLIENT_LOST),
                Ok(gone) => left -= gone,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Err(CLIENT_LOST),
            }
            pair.step();
        }
        down.traffic.direct_down_bytes.add(n as u64);
        if n < RELAY_BUSY {
            keep_pipe(pipe);
            return Ok(n);
        }
    }
}

/// The same in records, or where no pipe can be had. Not inlined: idle clients' threads keep the stack.
#[inline(never)]
fn move_by_copy(pair: &Pair, mut large: Buffer, down: &mut Down) -> Result<usize, Broken> {
    loop {
        let Some(n) = read_soon(&pair.far, &mut large, DC_LOST)? else {
            return Ok(1);
        };
        decipher(down, &mut large[..n]);
        passed_down(pair, n, down);
        let sent = match &mut down.sizer {
            None => (&pair.client).write_all(&large[..n]),
            Some(sizer) => records::cut(sizer, &large[..n], |parts| {
                pair.step();
                write_parts(&pair.client, parts)
            }),
        };
        sent.map_err(|_| CLIENT_LOST)?;
        if n < RELAY_BUSY {
            return Ok(n);
        }
    }
}

fn write_parts(mut socket: &TcpStream, mut parts: &mut [IoSlice]) -> std::io::Result<()> {
    while !parts.is_empty() {
        match socket.write_vectored(parts) {
            Ok(n) => IoSlice::advance_slices(&mut parts, n),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

const CLIENT_LOST: Broken = Broken::Client(Close::ClientLost);
const DC_LOST: Broken = Broken::Far(Close::DcLost);

/// How long reads of a busy relay wait, so that what it holds is given back when it falls idle.
fn linger(socket: &TcpStream, wait: Option<Duration>) {
    // If this fails the connection is broken, which the next read finds out.
    let _ = socket.set_read_timeout(wait);
}

/// Reads what is there; None if nothing comes within the socket's timeout.
fn read_soon(from: &TcpStream, buf: &mut [u8], lost: Broken) -> Result<Option<usize>, Broken> {
    pair::read_soon(from, buf).map_err(|_| lost)
}

/// Reads what is there; 0 at the end.
fn read(from: &TcpStream, buf: &mut [u8], lost: Broken) -> Result<usize, Broken> {
    loop {
        match pair::read_soon(from, buf) {
            Ok(Some(n)) => return Ok(n),
            Ok(None) => {}
            Err(_) => return Err(lost),
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
    use mtproxy::limits::READ_SMALL;
    use mtproxy::proto::transport::Transport;
    use mtproxy::proto::wire::DcId;
    use std::io::Read;
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

    fn noise(len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        cipher(9).apply(&mut bytes);
        bytes
    }

    fn traffic() -> &'static Traffic {
        crate::stats::traffic_of(0, DcId(2), Transport::Abridged)
    }

    fn layers() -> Layers {
        Layers {
            receive: cipher(1),
            send: cipher(2),
            down: None,
            tls: None,
            traffic: traffic(),
        }
    }

    /// Sends `bytes` through `relay` from one socket to another and returns what arrives.
    fn through(bytes: Vec<u8>, relay: impl FnOnce(&Pair) + Send + 'static) -> Vec<u8> {
        let ((client, mut far_client), (dc, mut far_dc)) = (pair(), pair());
        let relaying = thread::spawn(move || relay(&Pair::new(client, dc)));
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

    /// Without the records that a client of fake TLS gets, each of a length that TLS allows.
    fn payload(wire: Vec<u8>, tls: bool) -> Vec<u8> {
        if !tls {
            return wire;
        }
        let (mut rest, mut out) = (&wire[..], Vec::new());
        while let Some((head, behind)) = rest.split_first_chunk() {
            let [0x17, 3, 3, high, low] = *head else {
                panic!("{head:02x?}")
            };
            let len = usize::from(u16::from_be_bytes([high, low]));
            assert!((1..=16_640).contains(&len));
            out.extend(&behind[..len]);
            rest = &behind[len..];
        }
        assert!(rest.is_empty());
        out
    }

    #[test]
    fn down_by_pipe_and_by_copy_lose_nothing() {
        for len in [0, 1, READ_SMALL - 1, READ_SMALL, READ_SMALL + 1, 5_000_000] {
            let bytes = noise(len);
            for tls in [false, true] {
                let new = move || Down {
                    cipher: None,
                    sizer: tls.then(Sizer::new),
                    traffic: traffic(),
                };
                let down = move |pair: &Pair| assert!(relay_down(pair, new()).is_ok());
                let got = through(bytes.clone(), down);
                assert!(payload(got, tls) == bytes, "{len} bytes");
                let by_copy = move |pair: &Pair| {
                    let mut down = new();
                    let large = || Buffer::new(RELAY_STEP);
                    while move_by_copy(pair, large(), &mut down).is_ok_and(|n| n > 0) {}
                };
                let got = through(bytes.clone(), by_copy);
                assert!(payload(got, tls) == bytes, "{len} bytes by copy");
            }
        }
    }

    #[test]
    fn both_halves_end_one_after_the_other() {
        let ((client, mut far_client), (dc, mut far_dc)) = (pair(), pair());
        let relaying = thread::spawn(move || run(client, dc, layers(), &mut [0; READ_SMALL]));
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
        let relaying = thread::spawn(move || run(client, dc, layers(), &mut [0; READ_SMALL]));
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
