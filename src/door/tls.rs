//! Fake TLS: a client's hello, our answer, and the first record behind it (protocol.md 5). Who has not
//! proven to know a secret before our answer is a stranger; what goes wrong later has proven it,
//! and is read and discarded like any header that fits nothing.

use std::cell::RefCell;
use std::io::{ErrorKind, IoSlice, Write};
use std::net::TcpStream;
use std::time::Instant;

use mtproxy::crypto::random::Random;
use mtproxy::limits::{
    CLIENT_HANDSHAKE, FIRST_RECORD, HEADER_LEN, MAX_HELLO, MAX_HELLO_RECORDS, READ_SMALL,
};
use mtproxy::proto::faketls::client_hello::{self, ClientHello, Progress, as_one_record, progress};
use mtproxy::proto::faketls::record::{self, Deframer};
use mtproxy::proto::faketls::server_hello;
use mtproxy::proto::secret::Secret;

use super::header::{Found, Opened, Received, Stranger, discard, open, plain, read_before};
use super::replay::Verdict;
use super::rules::{FakeTls, Rules};
use super::sites::Site;
use crate::base::buffers::{self, Buffer};
use crate::base::gauge::Counter;
use crate::base::{clock, sys};
use crate::stats::{Close, STATS};

/// How the first phase ended.
enum First<'a> {
    /// Our answer is sent.
    Answered,
    /// It isn't TLS, and may be a client without it.
    Plain,
    /// A stranger: why, to which site if not the first, and whether it has ended its half.
    Stranger(&'static Counter, Option<&'a Site>, bool),
    /// The connection is gone.
    Gone(Close),
}

/// Takes a client in, or says who it is instead.
pub fn enter<'a>(
    socket: &TcpStream,
    rules: &Rules,
    tls: &'a FakeTls,
    small: &'a mut [u8; READ_SMALL],
) -> Found<'a> {
    let mut received = Received {
        small,
        large: None,
        len: 0,
    };
    let deadline = Instant::now() + CLIENT_HANDSHAKE;
    let (counter, site, ended) = match first_phase(socket, rules, tls, &mut received, deadline) {
        First::Answered => {
            let small = received.small;
            return match first_record(socket, rules, small) {
                Ok(opened) => opened.client(small),
                Err(reason) => Found::Ended(reason),
            };
        }
        First::Plain => match plain(socket, rules, received.small, &mut received.len, deadline) {
            Ok(Some(opened)) => return opened.client(received.small),
            Ok(None) | Err(Close::HandshakeTimeout) => (&STATS.tls_refused_not_tls, None, false),
            Err(Close::ClientGone) => (&STATS.tls_refused_not_tls, None, true),
            Err(reason) => return Found::Ended(reason),
        },
        First::Stranger(counter, site, ended) => (counter, site, ended),
        First::Gone(reason) => return Found::Ended(reason),
    };
    counter.add(1);
    let Some(site) = site.or(tls.sites.default()) else {
        return Found::Ended(Close::Masked);
    };
    Found::Stranger(Stranger {
        site,
        received,
        ended,
    })
}

/// Reads more behind what has come.
fn read_more(received: &mut Received, socket: &TcpStream, deadline: Instant) -> Result<(), Close> {
    let room = received
        .large
        .as_ref()
        .map_or(READ_SMALL, |large| large.len());
    if received.len == room {
        // It is held for 10 s at most, but many may come.
        if buffers::excess() > 0 {
            return Err(Close::Evicted);
        }
        // No more than a hello takes, so this ends.
        let mut larger =
            Buffer::new((2 * room).min(MAX_HELLO + MAX_HELLO_RECORDS * record::HEADER));
        larger[..room].copy_from_slice(received.bytes());
        received.large = Some(larger);
    }
    let place = match &mut received.large {
        Some(large) => &mut large[received.len..],
        None => &mut received.small[received.len..],
    };
    received.len += read_before(deadline, socket, place)?;
    Ok(())
}

#[inline(never)] // see `live`
fn first_phase<'a>(
    socket: &TcpStream,
    rules: &Rules,
    tls: &'a FakeTls,
    received: &mut Received,
    deadline: Instant,
) -> First<'a> {
    loop {
        match progress(received.bytes()) {
            Progress::Complete(len) => {
                let result = answer(socket, rules, tls, received.bytes(), len);
                return result.map_or_else(|first| first, |()| First::Answered);
            }
            Progress::NotAHello if tls.allow_plain && received.large.is_none() => {
                return First::Plain;
            }
            Progress::NotAHello => {
                return First::Stranger(&STATS.tls_refused_not_tls, None, false);
            }
            Progress::Incomplete => {}
        }
        let ended = match read_more(received, socket, deadline) {
            Ok(()) => continue,
            Err(Close::ClientGone) if received.len > 0 => true,
            Err(Close::HandshakeTimeout) => false,
            Err(reason) => return First::Gone(reason),
        };
        let asked = client_hello::server_name(received.bytes());
        let site = asked.and_then(|name| tls.sites.named(name));
        return First::Stranger(&STATS.tls_refused_incomplete, site, ended);
    }
}

/// Judges a hello, and answers it if its sender knows a secret.
fn answer<'a>(
    socket: &TcpStream,
    rules: &Rules,
    tls: &'a FakeTls,
    received: &[u8],
    len: usize,
) -> Result<(), First<'a>> {
    let no = |counter, site| First::Stranger(counter, site, false);
    let record = as_one_record(&received[..len]).unwrap_or_default();
    let asked = client_hello::server_name(&record);
    let site = asked.and_then(|name| tls.sites.named(name));
    // Nobody speaks TLS on port 80 (protocol.md 5.1).
    let is_80 = socket.local_addr().is_ok_and(|ours| ours.port() == 80);
    let hello = ClientHello::parse(&record).filter(|_| len == received.len() && !is_80);
    let hello = hello.ok_or(no(&STATS.tls_refused_malformed, site))?;
    let site = site.ok_or(no(&STATS.tls_refused_unknown_name, None))?;
    let secret = judge(rules, tls, &hello).map_err(|counter| no(counter, Some(site)))?;
    STATS.tls_hellos_accepted.add(1);
    send_answer(socket, tls, &hello, secret, site).map_err(|_| First::Gone(Close::ClientLost))
}

/// The secret that a hello proves; else what to count.
#[inline(never)] // see `live`
fn judge<'a>(
    rules: &'a Rules,
    tls: &FakeTls,
    hello: &ClientHello,
) -> Result<&'a Secret, &'static Counter> {
    let mut tries = rules.secrets.iter();
    let fitting = tries.find_map(|secret| Some((secret, hello.verify(secret)?)));
    let (secret, stamp) = fitting.ok_or(&STATS.tls_refused_bad_digest)?;
    let now = u32::try_from(clock::unix()).unwrap_or(u32::MAX);
    let age = i64::from(now) - i64::from(stamp);
    let (back, ahead) = tls.skew;
    if age >= i64::from(back) || age < -i64::from(ahead) {
        return Err(&STATS.tls_refused_skew);
    }
    let [key, _] = hello.random().as_chunks::<16>().0 else {
        return Err(&STATS.tls_refused_bad_digest);
    };
    let mut seen = tls.replays.lock();
    // A clock that is ahead doesn't make others too old.
    match seen.admit(key, stamp.min(now)) {
        Verdict::Fresh => Ok(secret),
        Verdict::Seen => Err(&STATS.tls_refused_replay),
        Verdict::TooOld => Err(&STATS.tls_refused_skew),
    }
}

/// Answers as the site would.
#[inline(never)] // see `live`
fn send_answer(
    socket: &TcpStream,
    tls: &FakeTls,
    hello: &ClientHello,
    secret: &Secret,
    site: &Site,
) -> std::io::Result<()> {
    let mut random = RANDOM.with_borrow_mut(|slot| match slot.take() {
        Some(random) => Ok(random),
        None => sys::random_array().map(|seed| Box::new(Random::new(&seed))),
    })?;
    let choice = site.choose(hello, tls.hybrid, random.next_u32());
    let len = server_hello::answer_len(&choice.look, choice.flight);
    let mut buffer = Buffer::new(len);
    let key = server_hello::public_key(sys::random_array()?);
    let mut fill = |bytes: &mut [u8]| random.fill(bytes);
    let out = &mut buffer[..len];
    let made = server_hello::answer(out, hello, secret, &choice.look, &key, &mut fill);
    RANDOM.set(Some(random));
    made.ok_or(ErrorKind::InvalidData)?;
    let (first, second) = out.split_at(choice.split.unwrap_or(len).min(len));
    send_all(socket, first)?;
    send_all(socket, second)
}

/// A new connection takes all of this at once; one that doesn't must not hold the thread for long.
fn send_all(mut socket: &TcpStream, bytes: &[u8]) -> std::io::Result<()> {
    let sent = sys::send_now(socket, &[IoSlice::new(bytes)])?;
    if sent < bytes.len() {
        socket.set_write_timeout(Some(CLIENT_HANDSHAKE))?;
        socket.write_all(&bytes[sent..])?;
        socket.set_write_timeout(None)?;
    }
    Ok(())
}

/// The header in the first record behind our answer. Phones open connections early, so this has a
/// longer deadline of its own.
fn first_record(
    socket: &TcpStream,
    rules: &Rules,
    small: &mut [u8; READ_SMALL],
) -> Result<Opened, Close> {
    let deadline = Instant::now() + FIRST_RECORD;
    let mut tls = Deframer::new();
    let mut len = 0;
    while len < HEADER_LEN {
        let n = read_before(deadline, socket, &mut small[len..])?;
        len += tls.deframe(&mut small[len..len + n]);
        if len < HEADER_LEN && tls.is_broken() {
            discard(socket, deadline, small);
            return Err(Close::BadRecord);
        }
    }
    if let Some(opened) = open(socket, rules, &mut small[..len], Some(tls))? {
        return Ok(opened);
    }
    discard(socket, deadline, small);
    Err(Close::NoSecretFits)
}

thread_local! {
    /// Fills records: nobody checks these bytes, but they must look random.
    static RANDOM: RefCell<Option<Box<Random>>> = const { RefCell::new(None) };
}
