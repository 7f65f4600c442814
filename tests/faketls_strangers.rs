//! Whoever is not a client with the secret talks to the site behind the mask, which gets every byte as it
//! was sent: other protocols, hellos that are wrong in any way, and clients' own hellos that come again.

use crate::support::framing::TRANSPORTS;
use crate::support::mask_site::{GOODBYE, MaskSite, silent};
use crate::support::obfuscated2::Header;
use crate::support::proxy::Event;
use crate::support::random::{Stream, random_bytes};
use crate::support::rig::SECRET;
use crate::support::sockets::{dial, expect_bytes, read_to_end, say_and_end};
use crate::support::tls_client::handshake;
use crate::support::tls_hello::{Kind, in_records, now, sign};
use crate::support::tls_rig::{DOMAIN, MODES, Mode, TlsRig};
use std::io::Write;
use std::thread;

const REASONS: [&str; 8] = [
    "tls_refused_not_tls",
    "tls_refused_malformed",
    "tls_refused_unknown_name",
    "tls_refused_wrong_name",
    "tls_refused_bad_digest",
    "tls_refused_skew",
    "tls_refused_replay",
    "tls_refused_incomplete",
];

/// A stranger, the reason that counts it, and what it says.
type Stranger = (&'static str, &'static str, Vec<u8>);

fn rig(mode: Mode, arguments: &[&str]) -> TlsRig {
    TlsRig::before(MaskSite::with(silent()), mode, arguments)
}

/// The site hears what the stranger says while that waits for more, and the two talk on.
fn talks_to_the_site(rig: &TlsRig, name: &str, said: &[u8]) {
    let mut stream = dial(rig.address());
    stream
        .write_all(said)
        .unwrap_or_else(|error| panic!("{name}: {error}"));
    let visit = rig.site.wait_for(name, |visit| visit.received == said);
    let answer = Stream::new(u32::from_le_bytes(random_bytes())).take(1_000);
    rig.site.say(visit, &answer);
    expect_bytes(&stream, &answer, name);
    say_and_end(&stream, b"more");
    assert_eq!(read_to_end(&stream), GOODBYE, "{name}");
    rig.site.wait_for_all(&[said, b"more"].concat());
}

/// The site hears exactly this from a stranger that ends its direction behind it, who hears the site's end.
fn is_passed_on(rig: &TlsRig, said: &[u8]) {
    let stream = dial(rig.address());
    say_and_end(&stream, said);
    assert_eq!(read_to_end(&stream), GOODBYE);
    rig.site.wait_for_all(said);
}

fn refused(summary: &Event) -> Vec<(&'static str, u64)> {
    let counts = REASONS.map(|reason| (reason, summary.count(reason)));
    counts.into_iter().filter(|(_, count)| *count > 0).collect()
}

fn hello() -> Vec<u8> {
    Kind::Today.signed(DOMAIN, &SECRET)
}

/// A hello of now with other bytes at one place, and a right digest over them.
fn changed(at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut hello = Kind::Old.unsigned(DOMAIN);
    hello[at..at + bytes.len()].copy_from_slice(bytes);
    sign(hello, &SECRET, now())
}

fn stamped(time: u32) -> Vec<u8> {
    sign(Kind::Today.unsigned(DOMAIN), &SECRET, time)
}

fn other_protocols() -> Vec<Stranger> {
    let http = b"GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: a browser\r\n\r\n";
    let reason = "tls_refused_not_tls";
    let mut strangers: Vec<Stranger> = vec![
        ("HTTP", reason, http.to_vec()),
        ("HEAD", reason, b"HEAD / HTTP/1.0\r\n\r\n".to_vec()),
        ("a byte", reason, vec![0x80]),
        (
            "SSH",
            reason,
            b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n".to_vec(),
        ),
        (
            "garbage",
            reason,
            [&[0xc3][..], &Stream::new(5).take(5_000)].concat(),
        ),
        ("an alert", reason, vec![0x15, 3, 1, 0, 2, 2, 40]),
        (
            "another version",
            reason,
            [&[0x16, 3, 0], &hello()[3..]].concat(),
        ),
        (
            "another message",
            reason,
            [&[0x16, 3, 1, 0, 200, 2], &[0; 199][..]].concat(),
        ),
        ("an empty record", reason, vec![0x16, 3, 1, 0, 0]),
        ("a record of 16385", reason, vec![0x16, 3, 1, 0x40, 0x01]),
        (
            "plain abridged",
            reason,
            [&[0xef, 10][..], &[7; 40]].concat(),
        ),
        (
            "plain intermediate",
            reason,
            [[0xee; 4].as_slice(), &[7; 60]].concat(),
        ),
    ];
    for transport in TRANSPORTS {
        let header = Header::random(transport, 2, Some(&SECRET)).wire;
        strangers.push(("obfuscated2 without TLS", reason, header.to_vec()));
    }
    strangers
}

fn wrong_hellos() -> Vec<Stranger> {
    let unsigned = sign(Kind::Today.unsigned(DOMAIN), &random_bytes(), now());
    let digest = "tls_refused_bad_digest";
    let malformed = "tls_refused_malformed";
    let skew = "tls_refused_skew";
    let name = "tls_refused_wrong_name";
    let nobody = "tls_refused_unknown_name";
    let more = |bytes: &[u8]| [&hello(), bytes].concat();
    vec![
        ("a wrong secret", digest, unsigned),
        ("a browser's random", digest, Kind::Today.unsigned(DOMAIN)),
        ("an old hello's", digest, Kind::Old.unsigned(DOMAIN)),
        ("a byte behind", malformed, more(&[0x14])),
        ("a record behind", malformed, more(&[0x14, 3, 3, 0, 1, 1])),
        ("two hellos", malformed, more(&hello())),
        ("a session of 31 bytes", malformed, changed(43, &[31])),
        ("another inner version", malformed, changed(9, &[3, 1])),
        (
            "no cipher of TLS 1.3",
            malformed,
            changed(80, &[0xc0, 0x2b, 0xc0, 0x2c, 0xc0, 0x2f]),
        ),
        ("601 s ago", skew, stamped(now() - 601)),
        ("a day ago", skew, stamped(now() - 86_400)),
        ("10 s ahead", skew, stamped(now() + 10)),
        ("a day ahead", skew, stamped(now() + 86_400)),
        ("no time", skew, stamped(0)),
        ("a second of uptime", skew, stamped(1)),
        ("a day of uptime", skew, stamped(86_400)),
        ("1000 days of uptime", skew, stamped(86_400_000)),
        ("a negative time", skew, stamped(u32::MAX)),
        ("a time of 1970 to come", skew, stamped(0x8000_0000)),
        (
            "another name",
            name,
            Kind::Today.signed("www.example.com", &SECRET),
        ),
        (
            "a longer name",
            name,
            Kind::Today.signed("localhost.example", &SECRET),
        ),
        ("a name within", name, Kind::Old.signed("localhos", &SECRET)),
        ("two dots", name, Kind::Old.signed("localhost..", &SECRET)),
        (
            "another name, no secret",
            nobody,
            Kind::Today.unsigned("www.example.com"),
        ),
    ]
}

/// Each reason counts its own; and all of them at once, without waiting for any deadline.
#[test]
fn talk_to_the_site() {
    for mode in MODES {
        let rig = rig(mode, &[]);
        let strangers = [other_protocols(), wrong_hellos()].concat();
        thread::scope(|scope| {
            for (name, _, said) in &strangers {
                let rig = &rig;
                scope.spawn(move || talks_to_the_site(rig, name, said));
            }
        });
        assert_eq!(rig.served.forwarded(), 0);
        let summary = rig.stop();
        for reason in REASONS {
            let wanted = strangers
                .iter()
                .filter(|(_, why, _)| *why == reason)
                .count();
            assert_eq!(summary.count(reason), wanted as u64, "{mode:?}: {reason}");
        }
        assert_eq!(summary.count("mask_connections"), strangers.len() as u64);
        assert_eq!(summary.count("closed_masked"), strangers.len() as u64);
        assert_eq!(summary.count("tls_hellos_accepted"), 0);
    }
}

/// Signed right, but nothing that counts says which way they are wrong.
#[test]
fn hellos_beyond_what_clients_send() {
    let rig = rig(Mode::Direct, &[]);
    let nameless = sign(Kind::Today.nameless(), &SECRET, now());
    let strangers = [nameless, in_records(&hello(), 11), in_records(&hello(), 30)];
    for said in &strangers {
        talks_to_the_site(&rig, "a hello", said);
    }
    let summary = rig.stop();
    assert_eq!(summary.count("mask_connections"), 3);
    let counts: u64 = refused(&summary).iter().map(|(_, count)| count).sum();
    assert_eq!(counts, 3);
}

/// A hello serves once, in whatever records it comes; a client with one of its own is served again.
#[test]
fn a_replayed_hello_sees_the_site() {
    for mode in MODES {
        let rig = rig(mode, &[]);
        let mut strangers = 0;
        for kind in [Kind::Old, Kind::Today] {
            let hello = kind.signed(DOMAIN, &SECRET);
            handshake(&dial(rig.address()), &hello, &SECRET);
            talks_to_the_site(&rig, "a replay", &hello);
            talks_to_the_site(&rig, "a replay in records", &in_records(&hello, 3));
            strangers += 2;
            rig.dial().echo(10);
        }
        let summary = rig.stop();
        assert_eq!(refused(&summary), [("tls_refused_replay", strangers)]);
        assert_eq!(summary.count("tls_hellos_accepted"), 4);
    }
}

/// A digest under a wrong secret must not use up the hello: whoever has seen one can't shut its sender out.
#[test]
fn refused_hellos_are_not_remembered() {
    let rig = rig(Mode::Direct, &[]);
    let hello = hello();
    let mut broken = hello.clone();
    *broken.last_mut().expect("a byte") ^= 1;
    talks_to_the_site(&rig, "a broken copy", &broken);
    handshake(&dial(rig.address()), &hello, &SECRET);
}

/// One bit of every byte: the stamp's lowest byte changes by 128 s, which a window of 60 s doesn't take.
#[test]
fn a_flipped_bit_in_any_byte() {
    let cases = [(Mode::Direct, Kind::Old, 1), (Mode::Middle, Kind::Today, 5)];
    for (mode, kind, step) in cases {
        let rig = rig(mode, &["--tls-skew", "60"]);
        let hello = kind.signed(DOMAIN, &SECRET);
        let flipped = (0..hello.len()).step_by(step).map(|at| {
            let mut flipped = hello.clone();
            flipped[at] ^= if (39..43).contains(&at) {
                0x80
            } else {
                1 << (at % 8)
            };
            flipped
        });
        let count = pass_on_all(&rig, flipped.collect());
        let summary = rig.stop();
        assert_eq!(summary.count("tls_hellos_accepted"), 0);
        let counts: u64 = refused(&summary).iter().map(|(_, count)| count).sum();
        assert_eq!((counts, summary.count("mask_connections")), (count, count));
    }
}

/// Every length from one byte to one byte short. Who says nothing at all and goes is none of them.
#[test]
fn a_hello_cut_anywhere() {
    let cases = [(Mode::Middle, Kind::Old, 1), (Mode::Direct, Kind::Today, 5)];
    for (mode, kind, step) in cases {
        let rig = rig(mode, &[]);
        let hello = kind.signed(DOMAIN, &SECRET);
        let cut = (1..hello.len())
            .step_by(step)
            .map(|at| hello[..at].to_vec());
        let count = pass_on_all(&rig, cut.collect());
        let summary = rig.stop();
        assert_eq!(refused(&summary), [("tls_refused_incomplete", count)]);
        assert_eq!(summary.count("mask_connections"), count);
    }
}

/// Several at a time; gives how many there are.
fn pass_on_all(rig: &TlsRig, strangers: Vec<Vec<u8>>) -> u64 {
    const THREADS: usize = 8;
    thread::scope(|scope| {
        for group in strangers.chunks(strangers.len().div_ceil(THREADS)) {
            scope.spawn(move || group.iter().for_each(|said| is_passed_on(rig, said)));
        }
    });
    strangers.len() as u64
}
