//! The two deadlines of a handshake in fake TLS, each real: 10 s for the hello, then the site behind the
//! mask takes over; 30 s from the ServerHello to the first record, then the connection is closed. A wrong first
//! record is rejected at once, as a server does whose keys don't fit. And a thousand that use up their deadline
//! hurt nobody.

use crate::support::client::Client;
use crate::support::framing::Transport;
use crate::support::mask_site::Visit;
use crate::support::obfuscated2::Secret;
use crate::support::programs::{file_limit, not_tested};
use crate::support::random::random_bytes;
use crate::support::rig::{SECRET, dialer};
use crate::support::sockets::{dial, expect_bytes, expect_closed, hears_nothing, read_to_end};
use crate::support::tls_client::{CHANGE_CIPHER_SPEC, Session, TDLIB, handshake, record};
use crate::support::tls_hello::Kind;
use crate::support::tls_rig::{DOMAIN, MODES, Mode, TlsRig, tls_dialer};
use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

/// Timers of the proxy can't fire early; a little is left for clocks that are read at other moments.
const HELLO_NOT_BEFORE: Duration = Duration::from_secs(9);
const RECORD_NOT_BEFORE: Duration = Duration::from_secs(29);

#[test]
fn half_a_hello_goes_to_the_site_at_the_deadline() {
    let hello = Kind::Today.signed(DOMAIN, &SECRET);
    let halves = [0, 1, 700, hello.len() - 1].map(|length| &hello[..length]);
    thread::scope(|scope| {
        for (half, mode) in halves
            .iter()
            .flat_map(|half| MODES.map(|mode| (half, mode)))
        {
            scope.spawn(move || {
                let rig = TlsRig::start(mode);
                // The proxy's own visits, which the test's could be taken for, are over.
                rig.wait_until_probed();
                goes_to_the_site(&rig, half);
                let summary = rig.stop();
                assert_eq!(summary.count("tls_refused_incomplete"), 1);
                assert_eq!(summary.count("mask_connections"), 1);
            });
        }
    });
}

fn goes_to_the_site(rig: &TlsRig, half: &[u8]) {
    let mut stream = dial(rig.address());
    stream.write_all(half).expect("send");
    hears_nothing(&stream, HELLO_NOT_BEFORE);
    let has_come = |visit: &Visit| visit.received == half && visit.end.is_none();
    let early = rig
        .site
        .with_state(|state| state.visits.iter().any(has_come));
    assert!(!early, "the site hears {} bytes early", half.len());
    let visit = rig.site.wait_for("what came before the deadline", has_come);
    rig.site.say(visit, b"too late");
    expect_bytes(&stream, b"too late", "the site");
    let word = random_bytes::<16>();
    stream.write_all(&word).expect("a word");
    rig.site.wait_for_bytes(&[half, &word].concat());
}

#[test]
fn a_byte_a_second_does_not_move_the_deadline() {
    let rig = TlsRig::start(Mode::Direct);
    let hello = Kind::Old.signed(DOMAIN, &SECRET);
    let mut stream = dial(rig.address());
    for sent in 1.. {
        stream.write_all(&hello[sent - 1..sent]).expect("a byte");
        // A probe of the proxy's own is another hello.
        let has_come =
            |visit: &Visit| !visit.received.is_empty() && hello.starts_with(&visit.received);
        if rig
            .site
            .with_state(|state| state.visits.iter().any(has_come))
        {
            assert!(sent >= 8, "the site hears {sent} bytes already");
            break;
        }
        assert!(sent < 40, "still nothing at the site after {sent} s");
        hears_nothing(&stream, Duration::from_secs(1));
    }
}

/// What a peer does after our answer that is no client's header.
#[derive(Clone, Debug)]
enum Wrong {
    /// These bytes.
    Bytes(Vec<u8>),
    /// A header that fits no secret, or no transport that clients have in fake TLS.
    Header(Transport, Option<Secret>),
}

/// Beginnings that might still become right.
fn incomplete() -> [Vec<u8>; 4] {
    let first = [&CHANGE_CIPHER_SPEC[..], &record(&random_bytes::<64>())].concat();
    [0, 3, 6, 60].map(|length| first[..length].to_vec())
}

/// Beginnings that can't.
fn broken() -> [Vec<u8>; 8] {
    let long = record(&random_bytes::<64>());
    let behind = |bytes: &[u8]| [&CHANGE_CIPHER_SPEC, bytes].concat();
    [
        long.clone(),
        behind(&record(&random_bytes::<63>())),
        behind(&record(&[])),
        behind(&behind(&long)),
        behind(&[0x15, 3, 3, 0, 2, 1, 0]),
        behind(&[0x16, 3, 3, 0, 100]),
        [&[0x14, 3, 3, 0, 1, 2], &long[..]].concat(),
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
    ]
}

#[test]
fn behind_the_server_hello_silence_is_closed_and_a_wrong_record_rejected() {
    thread::scope(|scope| {
        for mode in MODES {
            scope.spawn(move || {
                let rig = TlsRig::start(mode);
                let headers = [
                    Wrong::Header(Transport::Abridged, Some(SECRET)),
                    Wrong::Header(Transport::Intermediate, Some(SECRET)),
                    Wrong::Header(Transport::Padded, Some(random_bytes())),
                    Wrong::Header(Transport::Padded, None),
                ];
                let wrongs: Vec<Wrong> = broken().into_iter().map(Wrong::Bytes).collect();
                thread::scope(|scope| {
                    for half in incomplete() {
                        let address = rig.address();
                        scope.spawn(move || hears_nothing_until_the_deadline(address, &half));
                    }
                    for wrong in wrongs.iter().chain(&headers) {
                        let address = rig.address();
                        scope.spawn(move || is_rejected(address, wrong));
                    }
                    scope.spawn(|| speaks_late(&rig));
                });
                assert_eq!(rig.served.forwarded(), 1, "one client among them");
                let summary = rig.stop();
                assert_eq!(summary.count("mask_connections"), 0);
                for (reason, count) in [
                    ("closed_handshake_timeout", 4),
                    ("closed_bad_record", 8),
                    ("closed_no_secret_fits", 4),
                ] {
                    assert_eq!(summary.count(reason), count, "{mode:?}: {reason}");
                }
            });
        }
    });
}

fn hears_nothing_until_the_deadline(address: SocketAddr, half: &[u8]) {
    let mut stream = dial(address);
    let hello = Kind::Today.signed(DOMAIN, &SECRET);
    handshake(&stream, &hello, &SECRET);
    let answered = Instant::now();
    stream.write_all(half).expect("send");
    expect_closed(&stream);
    let after = answered.elapsed();
    assert!(after >= RECORD_NOT_BEFORE, "closed after {after:?}");
}

/// Hears an encrypted alert and an orderly end, as from a server that can't decrypt the record.
fn is_rejected(address: SocketAddr, wrong: &Wrong) {
    let mut stream = dial(address);
    let hello = Kind::Today.signed(DOMAIN, &SECRET);
    handshake(&stream, &hello, &SECRET);
    match wrong {
        Wrong::Bytes(bytes) => stream.write_all(bytes).expect("send"),
        Wrong::Header(transport, secret) => {
            let mut dialer = dialer(address, *transport);
            dialer.secret = *secret;
            let copy = stream.try_clone().expect("a second handle");
            dialer.over(copy, Some(Session::new(TDLIB)), &[]);
        }
    }
    let heard = read_to_end(&stream);
    assert_eq!(heard[..5], [0x17, 3, 3, 0, 19], "{wrong:?}");
    assert_eq!(heard.len(), 5 + 19, "{wrong:?}");
}

/// Phones open sockets early: the hello's deadline doesn't count any more, and nothing comes meanwhile.
fn speaks_late(rig: &TlsRig) {
    let stream = dial(rig.address());
    let hello = Kind::Today.signed(DOMAIN, &SECRET);
    handshake(&stream, &hello, &SECRET);
    hears_nothing(&stream, Duration::from_secs(15));
    let dialer = tls_dialer(rig.address(), Kind::Today);
    let mut client: Client = dialer.over(stream, Some(Session::new(TDLIB)), &[]);
    client.echo(10);
}

/// A byte a second from each for a few seconds; then a client is served while all of them are still open.
#[test]
fn a_thousand_half_open_hellos_hold_nobody_up() {
    const THREADS: usize = 4;
    const SECONDS: usize = 3;
    let count = how_many(1_000);
    let rig = TlsRig::with(Mode::Direct, &["--max-unauthenticated", "4096"]);
    let hello = Kind::Today.signed(DOMAIN, &SECRET);
    let started = Instant::now();
    let connect =
        |count: usize| -> Vec<TcpStream> { (0..count).map(|_| dial(rig.address())).collect() };
    thread::scope(|scope| {
        let groups: Vec<_> = (0..THREADS)
            .map(|_| scope.spawn(|| half_open(connect(count / THREADS), &hello[..SECONDS])))
            .collect();
        let groups = groups
            .into_iter()
            .map(|group| group.join().expect("a group"));
        let streams: Vec<TcpStream> = groups.flatten().collect();
        for kind in [Kind::Today, Kind::Old] {
            rig.served.dialer(kind).dial().echo(1_000);
        }
        let open = streams.iter().filter(|stream| is_open(stream)).count();
        // On a machine that is so busy the first may have met their deadline meanwhile.
        if started.elapsed() < HELLO_NOT_BEFORE {
            assert_eq!(open, streams.len(), "the hellos that are still waited for");
        }
    });
}

/// Each sends one of these bytes a second.
fn half_open(mut streams: Vec<TcpStream>, bytes: &[u8]) -> Vec<TcpStream> {
    for byte in bytes.chunks(1) {
        for stream in &mut streams {
            // Whoever is late may be closed already.
            let _ = stream.write_all(byte);
        }
        thread::sleep(Duration::from_secs(1));
    }
    streams
}

fn is_open(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).expect("don't wait");
    matches!(stream.peek(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock)
}

/// So many, or fewer if this process may not open as many descriptors beside those of other tests.
fn how_many(wanted: usize) -> usize {
    const OTHERS: usize = 1_000;
    let limit = file_limit();
    let count = limit.saturating_sub(OTHERS).clamp(100, wanted);
    if count < wanted {
        not_tested(&format!(
            "{wanted} half-open hellos, but {count}: this process may open {limit} files (ulimit -n)"
        ));
    }
    count
}
