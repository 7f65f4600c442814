//! Fake TLS (protocol.md 5): a client's ClientHello, our ServerHello, and the first record behind it.
//! Called by the door for every connection when there is a domain.
//!
//! Whoever has not proven a secret before our ServerHello is a stranger and is shown the site. What goes
//! wrong later comes from somebody who has, and is answered as the site answers a record that its keys don't
//! fit.

use std::cell::RefCell;
use std::io::{ErrorKind, IoSlice};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use mtproxy::crypto::random::Random;
use mtproxy::limits::{
    CLIENT_HANDSHAKE, FIRST_RECORD, HEADER_LEN, MAX_HELLO, MAX_HELLO_RECORDS, READ_SMALL,
};
use mtproxy::proto::faketls::client_hello::{self, ClientHello, Progress, as_one_record, progress};
use mtproxy::proto::faketls::record::{self, Deframer};
use mtproxy::proto::faketls::server_hello;
use mtproxy::proto::secret::Secret;

use super::admission::Newcomer;
use super::header::{Found, Opened, Received, Stranger, discard, open, plain, read_before};
use super::limited;
use super::proxied;
use super::rules::{FakeTls, Rules};
use super::sites::{Rejection, Site};
use crate::base::buffers::{Account, Buffer};
use crate::base::clock::{self, Rarely};
use crate::base::gauge::Counter;
use crate::base::{log, net, sys};
use crate::stats::{Close, HELLO_SKEW, STATS};
use crate::stream::Layer;

/// What the phase up to our ServerHello has found.
enum HelloPhase<'a> {
    /// A ClientHello that proves a secret; our ServerHello is sent, as of this site.
    Answered(&'a Site),
    /// Bytes that are no ClientHello and may be a client without fake TLS.
    NotTls,
    /// A stranger: what counts it, and the site that it named.
    Stranger(&'static Counter, Option<&'a Site>),
    /// The connection is to be closed.
    Ended(Close),
}

/// Finds out whose connection it is.
pub fn enter<'a>(
    newcomer: &mut Newcomer,
    rules: &Rules,
    tls: &'a FakeTls,
    small: &'a mut [u8; READ_SMALL],
) -> Found<'a> {
    let mut received = Received::new(small);
    let deadline = Instant::now() + CLIENT_HANDSHAKE;
    let (counter, site) = match hello_phase(newcomer, rules, tls, &mut received, deadline) {
        HelloPhase::Answered(site) => {
            let small = received.small;
            return match first_record(newcomer, rules, small, site) {
                Ok(opened) => opened.client(small),
                Err(reason) => Found::Ended(reason),
            };
        }
        HelloPhase::NotTls => {
            match plain(newcomer, rules, received.small, &mut received.len, deadline) {
                Ok(Some(opened)) => return opened.client(received.small),
                Ok(None) | Err(Close::HandshakeTimeout) => {}
                Err(Close::ClientGone) => received.ended = true,
                Err(reason) => return Found::Ended(reason),
            }
            (&STATS.tls_refused_not_tls, None)
        }
        HelloPhase::Stranger(counter, site) => (counter, site),
        HelloPhase::Ended(reason) => return Found::Ended(reason),
    };
    counter.add(1);
    proxied::warn_of_header(newcomer, received.bytes());
    match site.or(tls.sites.default()) {
        Some(site) => Found::Stranger(Stranger { site, received }),
        None => Found::Ended(Close::Masked),
    }
}

/// Reads until it shows whether a ClientHello comes, judges it, and answers it if it proves a secret.
#[inline(never)] // see `live`
fn hello_phase<'a>(
    newcomer: &mut Newcomer,
    rules: &Rules,
    tls: &'a FakeTls,
    received: &mut Received,
    deadline: Instant,
) -> HelloPhase<'a> {
    loop {
        match progress(received.bytes()) {
            Progress::Complete(len) => return judge(newcomer, rules, tls, received.bytes(), len),
            Progress::NotAHello
                if tls.allow_plain
                    && received.large.is_none()
                    && !rules.refuse(newcomer.peer.ip()) =>
            {
                return HelloPhase::NotTls;
            }
            Progress::NotAHello => return HelloPhase::Stranger(&STATS.tls_refused_not_tls, None),
            Progress::Incomplete => {}
        }
        match received.read_more(
            newcomer,
            deadline,
            MAX_HELLO + MAX_HELLO_RECORDS * record::HEADER,
        ) {
            Ok(()) => continue,
            Err(Close::ClientGone) if received.len > 0 => received.ended = true,
            Err(Close::HandshakeTimeout) => {}
            Err(reason) => return HelloPhase::Ended(reason),
        }
        let name = client_hello::server_name(received.bytes());
        let site = name.and_then(|name| tls.sites.named(name));
        return HelloPhase::Stranger(&STATS.tls_refused_incomplete, site);
    }
}

/// Judges a ClientHello, the first `len` bytes of `received`, and answers it if it proves a secret.
fn judge<'a>(
    newcomer: &mut Newcomer,
    rules: &Rules,
    tls: &'a FakeTls,
    received: &[u8],
    len: usize,
) -> HelloPhase<'a> {
    let record = as_one_record(&received[..len]).unwrap_or_default();
    let name = client_hello::server_name(&record);
    let site = name.and_then(|name| tls.sites.named(name));
    // Nobody speaks TLS on port 80 (protocol.md 5.1).
    let is_80 = newcomer
        .socket()
        .local_addr()
        .is_ok_and(|ours| ours.port() == 80);
    let hello = ClientHello::parse(&record).filter(|_| len == received.len() && !is_80);
    let Some(hello) = hello else {
        return HelloPhase::Stranger(&STATS.tls_refused_malformed, site);
    };
    if rules.refuse(newcomer.peer.ip()) {
        return HelloPhase::Stranger(&STATS.tls_refused_address, site);
    }
    let ((index, secret), site) = match (proven_secret(rules, tls, &hello), site) {
        (Ok(proven), Some(site)) => (proven, site),
        (Err(counter), Some(_)) => return HelloPhase::Stranger(counter, site),
        (Err(_), None) => {
            return HelloPhase::Stranger(&STATS.tls_refused_unknown_name, None);
        }
        (Ok(proven), None) => match tls.sites.default().filter(|_| tls.any_sni) {
            Some(site) => (proven, site),
            None => {
                warn_of_name(name.unwrap_or_default());
                return HelloPhase::Stranger(&STATS.tls_refused_wrong_name, None);
            }
        },
    };
    let account = rules.account(index);
    if limited::is_full(account) || !account.admits(newcomer.peer.ip()) {
        return HelloPhase::Stranger(&STATS.tls_refused_allowance, Some(site));
    }
    // The digest doesn't cover the time stamp, the last 4 bytes: a replay may bear any.
    if !rules.replays.admit(&hello.random[..28]) {
        return HelloPhase::Stranger(&STATS.tls_refused_replay, Some(site));
    }
    STATS.tls_hellos_accepted.add(1);
    if let Err(reason) = newcomer.prove() {
        return HelloPhase::Ended(reason);
    }
    match send_server_hello(newcomer.socket(), tls, &hello, secret, site) {
        Ok(()) => HelloPhase::Answered(site),
        Err(_) => HelloPhase::Ended(Close::ClientLost),
    }
}

/// The secret that a ClientHello proves, and its place; the error is what counts it.
#[inline(never)] // see `live`
fn proven_secret<'a>(
    rules: &'a Rules,
    tls: &FakeTls,
    hello: &ClientHello,
) -> Result<(usize, &'a Secret), &'static Counter> {
    let mut tries = rules.secrets.iter().enumerate();
    let fitting = tries.find_map(|proven| Some((proven, hello.verify(proven.1)?)));
    let (proven, stamp) = fitting.ok_or(&STATS.tls_refused_bad_digest)?;
    let now = u32::try_from(clock::unix()).unwrap_or(u32::MAX);
    HELLO_SKEW.note(stamp, now);
    let age = i64::from(now) - i64::from(stamp);
    let (back, ahead) = tls.skew;
    if age >= i64::from(back) || age < -i64::from(ahead) {
        return Err(&STATS.tls_refused_skew);
    }
    Ok(proven)
}

/// Once a minute: somebody knows a secret and asks for a name that isn't served, as yesterday's links do.
fn warn_of_name(name: &[u8]) {
    static WRONG: Rarely = Rarely::new();
    if WRONG.is_due() {
        log::event(format_args!(
            "wrong_name name=\"{}\" hint=\"right secret, but -D doesn't give this name: an old link?\"",
            name.escape_ascii()
        ));
    }
}

/// Sends a ServerHello and what follows it, as the site would.
#[inline(never)] // see `live`
fn send_server_hello(
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
    let len = server_hello::first_flight_len(&choice.look, choice.flight);
    let mut buffer = Buffer::of(Account::Clients, len).ok_or(ErrorKind::OutOfMemory)?;
    let key = server_hello::public_key(sys::random_array()?);
    let mut fill = |bytes: &mut [u8]| random.fill(bytes);
    let out = &mut buffer[..len];
    let made = server_hello::put_first_flight(out, hello, secret, &choice.look, &key, &mut fill);
    RANDOM.set(Some(random));
    made.ok_or(ErrorKind::InvalidData)?;
    let (first, second) = out.split_at(choice.split.unwrap_or(len).min(len));
    send_all(socket, first)?;
    send_all(socket, second)
}

/// A new connection's send buffer takes all of this at once; one that doesn't must not hold the thread.
fn send_all(socket: &TcpStream, bytes: &[u8]) -> std::io::Result<()> {
    let sent = sys::send_now(socket, &[IoSlice::new(bytes)])?;
    if sent < bytes.len() {
        net::write_before(Instant::now() + CLIENT_HANDSHAKE, socket, &bytes[sent..])?;
        socket.set_write_timeout(None)?;
    }
    Ok(())
}

/// The header in the first record behind our ServerHello. Phones open connections before they need them,
/// so this has a longer deadline of its own.
fn first_record(
    newcomer: &mut Newcomer,
    rules: &Rules,
    small: &mut [u8; READ_SMALL],
    site: &Site,
) -> Result<Opened, Close> {
    let deadline = Instant::now() + FIRST_RECORD;
    let mut tls = Deframer::new();
    let mut len = 0;
    let mut reason = Close::NoSecretFits;
    while len < HEADER_LEN {
        let n = read_before(deadline, newcomer, &mut small[len..])?;
        len += tls.deframe(&mut small[len..len + n]);
        if len < HEADER_LEN && tls.is_broken() {
            reason = Close::BadRecord;
            break;
        }
    }
    if let Some(opened) = open(newcomer, rules, &mut small[..len], Layer::Tls(tls))? {
        return Ok(opened);
    }
    // Closing with bytes unread would be a reset.
    discard(newcomer, Instant::now() + Duration::from_millis(1), small);
    reject(newcomer.socket(), site).map_err(|_| Close::ClientLost)?;
    Err(reason)
}

/// Ends as the site does when a record fits no keys.
#[inline(never)] // see `live`
fn reject(socket: &TcpStream, site: &Site) -> std::io::Result<()> {
    let Rejection {
        mut records,
        reset,
        delay,
    } = site.rejection();
    std::thread::sleep(delay);
    // A plain alert is sent as it is, of an encrypted one only the length is known.
    if let Some((&mut [0x17, ..], payload)) = records.split_first_chunk_mut::<{ record::HEADER }>()
    {
        Random::new(&sys::random_array()?).fill(payload);
    }
    send_all(socket, &records)?;
    match reset {
        true => sys::reset(socket),
        false => socket.shutdown(Shutdown::Write)?,
    }
    Ok(())
}

thread_local! {
    /// Fills records: nobody checks these bytes, but they must look random.
    static RANDOM: RefCell<Option<Box<Random>>> = const { RefCell::new(None) };
}
