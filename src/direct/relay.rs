//! Relays bytes between a client and its data centre; `pair` has the two threads and the ends.
//!
//! A direction that is idle waits in a small read and holds nothing else. While its reads fill up it
//! borrows what moves more at a time: upwards, where bytes go through two ciphers, a large pooled buffer;
//! downwards a pipe, through which the kernel moves them without a copy. In fake TLS the record layer
//! comes off upwards, and downwards bytes go through a buffer: a pipe would have to be emptied record by
//! record, which costs more than the copy; the pieces of a web page's lane are long enough. The free pipes have a lock, held for a push or a pop.

use std::io::{self, ErrorKind, IoSlice, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mtproxy::crypto::ctr::Ctr;
use mtproxy::limits::{
    PIPES_KEPT, RECORD_START, RELAY_BUSY, RELAY_COPY, RELAY_LINGER, RELAY_STEP, WEB_PIECE,
};

use super::lane::{Closing, Lane};
use crate::base::buffers::{self, Account, Buffer};
use crate::base::lock::Mutex;
use crate::base::net;
use crate::base::records::{MAX_HEAD, Wrap};
use crate::base::sys::{self, Pipe};
use crate::pair::{self, Broken, Half, Listed, Pair};
use crate::stats::{Close, Guest, Traffic};
use crate::stream::{ClientStream, Layers};

/// From the client to the data centre.
pub struct Up<'a> {
    /// The client's stream.
    pub stream: ClientStream<'a>,
    /// Our stream to the data centre.
    pub send: Ctr,
}

/// From the data centre to the client.
struct Down {
    /// The data centre's stream, if the client expects another one.
    cipher: Option<Box<Ctr>>,
    way: Way,
    traffic: &'static Traffic,
}

/// In what bytes go down.
enum Way {
    /// As they are, or in records.
    Wrapped(Wrap),
    /// In messages of a lane, within its credit.
    Lane(Arc<Lane>),
}

/// Relays until both halves have ended; says what ended first, which is counted.
pub fn run(
    client: TcpStream,
    dc: TcpStream,
    mut up: Up,
    down: Option<Box<Ctr>>,
    guest: &mut Guest,
) -> (Close, Listed) {
    let traffic = guest.traffic;
    let pair = Arc::new(Pair::new(client, dc, Some(guest.owner)));
    let (way, lane) = match up.stream.layers.wrap() {
        Wrap::Lane(down) => {
            let lane = Arc::new(Lane::new(down));
            (Way::Lane(lane.clone()), Some(lane))
        }
        wrap => (Way::Wrapped(wrap), None),
    };
    let down = Down {
        cipher: down,
        way,
        traffic,
    };
    let up = |pair: &Pair| {
        let _closing = lane.as_deref().map(Closing);
        relay_up(pair, &mut up, lane.as_deref(), traffic)
    };
    let down = move |pair: &Pair| relay_down(pair, down);
    let ends = [Close::ClientGone, Close::DcClosed];
    let (reason, listed) = pair::run(&pair, ends, up, down);
    guest.ended(reason, Some(&pair.client));
    (reason, listed)
}

fn relay_up(pair: &Pair, up: &mut Up, lane: Option<&Lane>, traffic: &Traffic) -> Half {
    let Up { stream, send } = up;
    let ClientStream { layers, small, .. } = stream;
    heed(pair, layers, lane)?;
    // A wrong record may have come with the header.
    layers.check().map_err(Broken::Client)?;
    let patience = layers.patience();
    loop {
        let Some(mut n) = read_soon(&pair.client, &mut **small, CLIENT_LOST)? else {
            layers.silent().map_err(Broken::Client)?;
            heed(pair, layers, lane)?;
            continue;
        };
        let mut pass = |bytes: &mut [u8]| pass_up(pair, (layers, lane), send, traffic, bytes);
        let mut taken = pass(&mut small[..n])?;
        let is_busy = taken && n == small.len() && buffers::excess() == 0;
        if let Some(mut large) = is_busy.then(|| large(RELAY_STEP)).flatten() {
            linger(&pair.client, Some(RELAY_LINGER));
            while taken {
                let step = traffic.account.step(large.len());
                match read_soon(&pair.client, &mut large[..step], CLIENT_LOST)? {
                    Some(step) => n = step,
                    None => break,
                }
                taken = pass(&mut large[..n])?;
                if n < RELAY_BUSY {
                    break;
                }
            }
            linger(&pair.client, patience);
        }
        if n == 0 && lane.is_some() {
            return Err(Broken::Client(Close::ClientGone));
        }
        if n == 0 {
            let _ = pair.far.shutdown(Shutdown::Write);
            return Ok(());
        }
        if !taken {
            return discard(pair, &mut **small);
        }
    }
}

/// Passes on bytes as the client sent them; false if the data centre takes no more. An error once the client has sent a wrong record.
fn pass_up(
    pair: &Pair,
    (layers, lane): (&mut Layers, Option<&Lane>),
    send: &mut Ctr,
    traffic: &Traffic,
    bytes: &mut [u8],
) -> Result<bool, Broken> {
    let len = layers.strip(bytes);
    let bytes = &mut bytes[..len];
    send.apply(bytes);
    pair.step();
    traffic.account.spend(len).map_err(Broken::Client)?;
    traffic.direct_up_bytes.add(len as u64);
    let taken = (&pair.far).write_all(bytes).is_ok();
    traffic.account.pace(len);
    heed(pair, layers, lane)?;
    layers.check().map_err(Broken::Client)?;
    Ok(taken)
}

/// Tells a lane's client what it is to be told.
fn heed(pair: &Pair, layers: &mut Layers, lane: Option<&Lane>) -> Half {
    let mut told = Ok(());
    if let Some(lane) = lane {
        layers.reply(|granted, bytes| told = lane.control(&pair.client, granted, bytes));
    }
    told.map_err(|_| CLIENT_LOST)
}

/// The data centre takes no more, but what it has sent is still on its way to the client. Closing the
/// client's connection with bytes unread would make the kernel drop it, so they are read.
fn discard(pair: &Pair, small: &mut [u8]) -> Half {
    while read(&pair.client, small, CLIENT_LOST)? > 0 {}
    Ok(())
}

fn relay_down(pair: &Pair, mut down: Down) -> Half {
    // Its size is that of the first record on a stream.
    let mut small = [0; MAX_HEAD + RECORD_START];
    loop {
        let body = &mut small[MAX_HEAD..];
        let (mut n, room) = (read(&pair.far, body, DC_LOST)?, body.len());
        pass_small_down(pair, &mut small, n, &mut down)?;
        if n == room {
            linger(&pair.far, Some(RELAY_LINGER));
            // Bytes in a pipe can't be deciphered, nor cut into records at no cost.
            let by_copy = matches!(down.way, Way::Wrapped(Wrap::Tls(_))) || down.cipher.is_some();
            let moved = match (!by_copy).then(take_pipe).flatten() {
                Some(pipe) => move_by_pipe(pair, pipe, &down)?,
                None => None,
            };
            n = match moved {
                Some(moved) => moved,
                None if buffers::excess() == 0 => match large(RELAY_COPY) {
                    Some(large) => move_by_copy(pair, large, &mut down)?,
                    None => n,
                },
                None => n,
            };
            linger(&pair.far, None);
        }
        if n == 0 {
            if let Way::Lane(lane) = &down.way {
                lane.farewell(&pair.client);
            }
            let _ = pair.client.shutdown(Shutdown::Write);
            return Ok(());
        }
    }
}

/// Passes on the first `n` bytes behind room for a head. They fit any record.
fn pass_small_down(pair: &Pair, small: &mut [u8], n: usize, down: &mut Down) -> Half {
    let (head, behind) = small
        .split_first_chunk_mut::<MAX_HEAD>()
        .ok_or(CLIENT_LOST)?;
    let body = &mut behind[..n];
    decipher(down, body);
    passed_down(pair, n, down)?;
    let sent = match &mut down.way {
        _ if n == 0 => Ok(()),
        Way::Lane(lane) => lane.send(&pair.client, body, &|| pair.step()),
        Way::Wrapped(wrap) => {
            let start = wrap.single(n, head);
            (&pair.client).write_all(&small[start..MAX_HEAD + n])
        }
    };
    sent.map_err(|_| CLIENT_LOST)?;
    down.traffic.account.pace(n);
    Ok(())
}

fn decipher(down: &mut Down, bytes: &mut [u8]) {
    if let Some(cipher) = &mut down.cipher {
        cipher.apply(bytes);
    }
}

/// Counts `n` bytes that are about to be passed on.
fn passed_down(pair: &Pair, n: usize, down: &Down) -> Half {
    let spent = down.traffic.account.spend(n);
    spent.map_err(Broken::Client)?;
    pair.step();
    down.traffic.direct_down_bytes.add(n as u64);
    Ok(())
}

/// Moves bytes until a step moves few or none come for a while; returns how many, 0 at the end. None, and
/// nothing is moved, if the system doesn't let pipes be used so.
fn move_by_pipe(pair: &Pair, pipe: Pipe, down: &Down) -> Result<Option<usize>, Broken> {
    loop {
        let n = match pipe.fill(&pair.far, down.traffic.account.step(RELAY_STEP)) {
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                keep_pipe(pipe);
                return Ok(Some(1));
            }
            Err(e) if sys::is_forbidden(&e) => {
                NO_PIPES.store(true, Ordering::Relaxed);
                return Ok(None);
            }
            result => result.map_err(|_| DC_LOST)?,
        };
        passed_down(pair, n, down)?;
        let empty = |mut left| {
            while left > 0 {
                match pipe.empty(&pair.client, left)? {
                    0 => return Err(ErrorKind::WriteZero.into()),
                    gone => left -= gone,
                }
                pair.step();
            }
            Ok(())
        };
        let sent: io::Result<()> = match &down.way {
            Way::Wrapped(_) => empty(n),
            Way::Lane(lane) => lane.pieces(&pair.client, n, &mut |front, len| {
                sys::send_with_more(&pair.client, &front.map(IoSlice::new))?;
                empty(len)
            }),
        };
        sent.map_err(|_| CLIENT_LOST)?;
        down.traffic.account.pace(n);
        if n < RELAY_BUSY {
            keep_pipe(pipe);
            return Ok(Some(n));
        }
    }
}

/// As [`move_by_pipe`], but through a buffer. Not inlined: idle clients' threads keep the stack.
#[inline(never)]
fn move_by_copy(pair: &Pair, mut large: Buffer, down: &mut Down) -> Result<usize, Broken> {
    loop {
        // One piece of a lane.
        let room = match down.way {
            Way::Lane(_) => large.len().min(WEB_PIECE),
            Way::Wrapped(_) => large.len(),
        };
        let step = down.traffic.account.step(room);
        let Some(n) = read_soon(&pair.far, &mut large[..step], DC_LOST)? else {
            return Ok(1);
        };
        decipher(down, &mut large[..n]);
        passed_down(pair, n, down)?;
        let sent: io::Result<()> = match &mut down.way {
            Way::Lane(lane) => lane.send(&pair.client, &large[..n], &|| pair.step()),
            Way::Wrapped(Wrap::Nothing) => (&pair.client).write_all(&large[..n]),
            Way::Wrapped(wrap) => wrap.cut(&large[..n], |parts| {
                pair.step();
                net::write_all(&pair.client, parts)
            }),
        };
        sent.map_err(|_| CLIENT_LOST)?;
        down.traffic.account.pace(n);
        if n < RELAY_BUSY {
            return Ok(n);
        }
    }
}

fn large(bytes: usize) -> Option<Buffer> {
    Buffer::of(Account::Clients, bytes)
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
    net::read_soon(from, buf).map_err(|_| lost)
}

/// Reads what is there; 0 at the end.
fn read(from: &TcpStream, buf: &mut [u8], lost: Broken) -> Result<usize, Broken> {
    net::read(from, buf).map_err(|_| lost)
}

/// Pipes that are empty and wait for their next use.
static PIPES: Mutex<Vec<Pipe>> = Mutex::new(Vec::new());

/// A container's filter forbids it: everything is copied from then on.
static NO_PIPES: AtomicBool = AtomicBool::new(false);

fn take_pipe() -> Option<Pipe> {
    if NO_PIPES.load(Ordering::Relaxed) {
        return None;
    }
    let kept = PIPES.lock().pop();
    kept.or_else(|| Pipe::new(RELAY_STEP).ok())
}

fn keep_pipe(pipe: Pipe) {
    let mut pipes = PIPES.lock();
    if pipes.len() < PIPES_KEPT {
        pipes.push(pipe);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::Layer;
    use mtproxy::crypto::ctr::StreamKey;
    use mtproxy::limits::READ_SMALL;
    use mtproxy::proto::faketls::record::Sizer;
    use mtproxy::proto::obfuscated2::Accepted;
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
        crate::stats::traffic_of(&crate::stats::OPEN, DcId(2), Some(Transport::Abridged))
    }

    /// Relays a client whose stream is cipher 1, over a stream to the data centre of cipher 2.
    fn relay(client: TcpStream, dc: TcpStream) -> Close {
        let mut accepted = Accepted::clear(Transport::Abridged, DcId(2));
        accepted.receive = cipher(1);
        let up = Up {
            stream: ClientStream {
                layers: Layers::new(Box::new(accepted), Layer::Nothing),
                small: &mut [0; READ_SMALL],
                pending: 0..0,
            },
            send: cipher(2),
        };
        let peer = client.peer_addr().unwrap();
        let guest = Guest::enter(
            (&crate::stats::OPEN, None),
            peer,
            DcId(2),
            Some(Transport::Abridged),
        );
        run(client, dc, up, None, &mut guest.unwrap()).0
    }

    /// Sends `bytes` through `relay` from one socket to another and returns what arrives.
    fn through(bytes: Vec<u8>, relay: impl FnOnce(&Pair) + Send + 'static) -> Vec<u8> {
        let ((client, mut far_client), (dc, mut far_dc)) = (pair(), pair());
        let relaying = thread::spawn(move || relay(&Pair::new(client, dc, None)));
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
                    way: Way::Wrapped(match tls {
                        true => Wrap::Tls(Sizer::new()),
                        false => Wrap::Nothing,
                    }),
                    traffic: traffic(),
                };
                let down = move |pair: &Pair| assert!(relay_down(pair, new()).is_ok());
                let got = through(bytes.clone(), down);
                assert!(payload(got, tls) == bytes, "{len} bytes");
                let by_copy = move |pair: &Pair| {
                    let mut down = new();
                    let large = || large(RELAY_STEP).unwrap();
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
        let relaying = thread::spawn(move || relay(client, dc));
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
        let relaying = thread::spawn(move || relay(client, dc));
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
