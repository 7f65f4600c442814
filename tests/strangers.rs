//! Whoever doesn't speak first as a holder of a secret hears nothing, and is closed when the handshake's
//! deadline of 10 s is over: not before, so that nothing shows which bytes were wrong, and not later,
//! however slowly more bytes come.

use crate::support::framing::Transport;
use crate::support::middle_proxy::MiddleProxy;
use crate::support::obfuscated2::{Header, Secret};
use crate::support::proxy::{Proxy, Setup};
use crate::support::random::{Stream, random_bytes};
use crate::support::rig::{Rig, SECRET};
use crate::support::sockets::{dial, expect_closed, is_over, set_read_deadline};
use crate::support::wait::uninterrupted;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

/// Timers of the proxy can't fire early; a little is left for clocks that are read at other moments.
const NOT_BEFORE: Duration = Duration::from_secs(9);

#[test]
fn hear_nothing_and_are_closed_at_the_deadline() {
    let rig = Rig::start();
    let strangers: Vec<(&str, Vec<u8>)> = vec![
        ("silence", Vec::new()),
        ("one byte", vec![0xef]),
        (
            "half a header",
            header(Transport::Padded, Some(&SECRET))[..63].to_vec(),
        ),
        (
            "a wrong secret",
            header(Transport::Padded, Some(&random_bytes())),
        ),
        ("no secret", header(Transport::Intermediate, None)),
        (
            "a wrong secret and much more",
            [
                header(Transport::Abridged, None),
                Stream::new(7).take(300_000),
            ]
            .concat(),
        ),
        ("plain abridged", [vec![0xef], vec![0x0a; 200]].concat()),
        (
            "plain intermediate",
            [vec![0xee; 4], vec![0x28; 200]].concat(),
        ),
        ("plain padded", [vec![0xdd; 4], vec![0x28; 200]].concat()),
        (
            "HTTP",
            b"GET / HTTP/1.1\r\nHost: example.com\r\nUser-Agent: a browser of some length\r\n\r\n"
                .to_vec(),
        ),
        (
            "TLS",
            [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[0x55; 506]].concat(),
        ),
    ];
    hear_nothing(rig.proxy.address(), strangers);
    assert_eq!(rig.middle.with(|state| state.requests.len()), 0);
}

#[test]
fn hear_nothing_when_only_padded_is_served() {
    let rig = Rig::with(&["-R"], Default::default());
    hear_nothing(
        rig.proxy.address(),
        vec![
            ("abridged", header(Transport::Abridged, Some(&SECRET))),
            (
                "intermediate",
                header(Transport::Intermediate, Some(&SECRET)),
            ),
        ],
    );
}

#[test]
fn hear_nothing_when_raw_keys_are_served() {
    let middle = MiddleProxy::serving();
    let proxy = Proxy::start(&Setup::new(middle.config_line(2)));
    hear_nothing(
        proxy.address(),
        vec![("a secret", header(Transport::Padded, Some(&SECRET)))],
    );
}

#[test]
fn a_byte_a_second_does_not_move_the_deadline() {
    let rig = Rig::start();
    let mut stream = dial(rig.proxy.address());
    set_read_deadline(&stream, Duration::from_secs(1));
    // The right header would be complete after 64 s.
    for (sent, byte) in header(Transport::Padded, Some(&SECRET)).iter().enumerate() {
        if stream.write_all(&[*byte]).is_err() || closed_within_a_second(&mut stream) {
            assert!(sent >= 8, "closed after {sent} bytes already");
            return;
        }
        assert!(sent < 40, "still open after {sent} s");
    }
}

fn closed_within_a_second(mut stream: impl Read) -> bool {
    match uninterrupted(|| stream.read(&mut [0; 16])) {
        Ok(0) => true,
        Ok(count) => panic!("{count} bytes for a stranger"),
        Err(error) => !is_over(&error),
    }
}

fn header(transport: Transport, secret: Option<&Secret>) -> Vec<u8> {
    Header::random(transport, 2, secret).wire.to_vec()
}

/// All of them at once, each with a connection of its own.
fn hear_nothing(address: SocketAddr, strangers: Vec<(&'static str, Vec<u8>)>) {
    thread::scope(|scope| {
        for (name, bytes) in strangers {
            scope.spawn(move || {
                let started = Instant::now();
                let mut stream = dial(address);
                stream
                    .write_all(&bytes)
                    .unwrap_or_else(|error| panic!("{name}: {error}"));
                expect_closed(&stream);
                let after = started.elapsed();
                assert!(
                    after >= NOT_BEFORE,
                    "{name}: closed after {after:?} already"
                );
            });
        }
    });
}
