//! The way to the site behind the mask: both directions to their last byte whoever ends first, bounds, and the
//! PROXY header.

use crate::support::crypto::sha256;
use crate::support::mask_site::{End, GOODBYE, MaskSite, Reply, Script, silent};
use crate::support::random::{Stream, random_bytes};
use crate::support::sockets::{dial, expect_bytes, expect_closed, read_to_end, say_and_end};
use crate::support::tls_rig::{DOMAIN, MODES, Mode, Served, TlsRig};
use crate::support::vectors::to_hex;
use std::io::Write;
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::thread;

const MIB: usize = 1 << 20;

/// One segment, and far more than all sockets on the way hold: the end comes while bytes are in flight.
const LENGTHS: [usize; 2] = [100, 16 * MIB];

/// A visitor that is known by its first word, on its way to the site.
struct Visitor {
    stream: TcpStream,
    visit: usize,
}

fn visit(rig: &TlsRig) -> Visitor {
    let word = to_hex(&random_bytes::<16>());
    let mut stream = dial(rig.address());
    stream.write_all(word.as_bytes()).expect("a word");
    let visit = rig.site.wait_for_bytes(word.as_bytes());
    Visitor { stream, visit }
}

fn rig(mode: Mode, arguments: &[&str]) -> TlsRig {
    TlsRig::before(MaskSite::with(silent()), mode, arguments)
}

/// Sends the first bytes of a seeded stream and ends that direction.
fn say_all(mut stream: &TcpStream, seed: u32, length: usize) {
    let bytes = Stream::new(seed).take(length);
    for piece in bytes.chunks(100_000) {
        stream.write_all(piece).expect("the other side listens");
    }
    stream.shutdown(Shutdown::Write).expect("end one direction");
}

fn expect_all(stream: &TcpStream, seed: u32, length: usize) {
    let bytes = read_to_end(stream);
    assert_eq!(bytes.len(), length);
    assert!(sha256(&bytes) == sha256(&Stream::new(seed).take(length)));
}

/// The site has heard a visitor's word, all of the stream, and its end.
fn site_expects_all(rig: &TlsRig, visit: usize, seed: u32, length: usize) {
    assert_eq!(rig.site.wait_for_end(visit), End::Orderly);
    rig.site.with_state(|state| {
        let heard = &state.visits[visit].received[32..];
        assert_eq!(heard.len(), length);
        assert!(sha256(heard) == sha256(&Stream::new(seed).take(length)));
    });
}

/// An upload: the site hears the end behind the last byte, and still has the word. And the other way round.
#[test]
fn either_side_may_end_its_direction_first() {
    for (mode, length) in MODES
        .into_iter()
        .flat_map(|mode| LENGTHS.map(|length| (mode, length)))
    {
        let rig = rig(mode, &[]);
        let visitor_first = visit(&rig);
        say_all(&visitor_first.stream, 1, length);
        site_expects_all(&rig, visitor_first.visit, 1, length);
        assert_eq!(read_to_end(&visitor_first.stream), GOODBYE);

        let site_first = visit(&rig);
        thread::scope(|scope| {
            scope.spawn(|| say_all(&rig.site.take(site_first.visit), 1, length));
            expect_all(&site_first.stream, 1, length);
        });
        say_all(&site_first.stream, 2, length);
        site_expects_all(&rig, site_first.visit, 2, length);
        assert_eq!(rig.stop().count("closed_masked"), 2);
    }
}

#[test]
fn both_directions_at_once() {
    for mode in MODES {
        let rig = rig(mode, &[]);
        let visitor = visit(&rig);
        let site = rig.site.take(visitor.visit);
        thread::scope(|scope| {
            scope.spawn(|| say_all(&site, 1, 16 * MIB));
            scope.spawn(|| say_all(&visitor.stream, 2, 16 * MIB));
            expect_all(&visitor.stream, 1, 16 * MIB);
        });
        site_expects_all(&rig, visitor.visit, 2, 16 * MIB);
    }
}

/// A page for whoever asks in the way of HTTP, and then the site closes, as with HTTP/1.0.
fn page(page: Vec<u8>) -> Script {
    Box::new(move |received| {
        received.ends_with(b"\r\n\r\n").then(|| Reply {
            writes: vec![page.clone()],
            close: true,
        })
    })
}

/// The tail of a page is not lost when the site closes right behind it.
#[test]
fn pages_of_a_site_that_closes_first() {
    for (length, times) in [(900, 50), (20_000, 20), (6 * MIB, 3)] {
        let wanted = Stream::new(9).take(length);
        for mode in MODES {
            let site = MaskSite::with(page(wanted.clone()));
            let rig = TlsRig::before(site, mode, &[]);
            for time in 0..times {
                let mut stream = dial(rig.address());
                stream.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("ask");
                let heard = read_to_end(&stream);
                assert_eq!(heard.len(), length, "{mode:?}, time {time}");
                assert!(heard == wanted, "another page");
            }
        }
    }
}

/// Whoever goes away takes the other side's connection along, and nobody else's.
#[test]
fn either_side_may_go_away() {
    for mode in MODES {
        let rig = rig(mode, &[]);
        let (stays, leaves, is_left) = (visit(&rig), visit(&rig), visit(&rig));
        drop(leaves.stream);
        rig.site.wait_for_end(leaves.visit);
        rig.site.close(is_left.visit);
        expect_closed(&is_left.stream);
        rig.site.say(stays.visit, b"still here");
        expect_bytes(&stays.stream, b"still here", "the site");
        rig.dial().echo(10);
    }
}

#[test]
fn visitors_too_many_wait_and_a_free_place_is_taken() {
    for places in [1, 3] {
        let rig = rig(Mode::Direct, &["--mask-max", &places.to_string()]);
        let mut visitors: Vec<Visitor> = (0..places).map(|_| visit(&rig)).collect();
        let stream = dial(rig.address());
        say_and_end(&stream, b"one too many");
        // Clients have places of their own.
        rig.dial().echo(10);
        assert!(!rig.site.has_heard(b"one too many"));
        visitors.pop();
        assert!(!read_to_end(&stream).is_empty());
        let summary = rig.stop();
        assert_eq!(summary.count("mask_connections"), places + 1);
        assert_eq!(summary.count("mask_refused_full"), 0);
    }
}

/// PROXY protocol version 2, as HAProxy's document 2.2 has it: both ends of the visitor's connection.
#[test]
fn the_site_learns_who_comes() {
    for mode in MODES {
        let site = MaskSite::with(silent());
        let mask = site.address.to_string();
        let arguments = ["-D", DOMAIN, "--mask", &mask, "--mask-proxy-protocol", "-6"];
        let served = Served::start(mode, &arguments);
        for address in [served.address(), served.proxy.address_v6()] {
            let mut stream = dial(address);
            stream.write_all(b"who am I").expect("send");
            let from = stream.local_addr().expect("an address");
            let wanted = [&proxy_header(from, address)[..], b"who am I"].concat();
            let visit = site.wait_for_bytes(&wanted);
            site.say(visit, b"you");
            expect_bytes(&stream, b"you", "the site");
        }
        served.dial().echo(10);
    }
}

fn proxy_header(from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21".to_vec();
    match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            header.extend([0x11, 0, 12]);
            header.extend([from.octets(), to.octets()].concat());
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            header.extend([0x21, 0, 36]);
            header.extend([from.octets(), to.octets()].concat());
        }
        other => panic!("two families: {other:?}"),
    }
    header.extend(from.port().to_be_bytes());
    header.extend(to.port().to_be_bytes());
    header
}
