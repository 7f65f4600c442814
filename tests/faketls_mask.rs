//! The way to the site behind the mask: the right site for each name, both directions to their last byte
//! whoever ends first, bounds, the PROXY header, and sites that can't be reached or are the proxy itself.

use crate::support::crypto::sha256;
use crate::support::dc::Refusing;
use crate::support::mask_site::{End, GOODBYE, MaskSite, Reply, Script, silent};
use crate::support::proxy::run_to_end;
use crate::support::random::{Stream, random_bytes};
use crate::support::rig::SECRET;
use crate::support::sockets::{dial, expect_bytes, expect_closed, free_address, read_to_end};
use crate::support::tls_hello::{Kind, end_of_name};
use crate::support::tls_rig::{DOMAIN, MODES, Mode, Served, TlsRig};
use crate::support::vectors::to_hex;
use crate::support::wait::until;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream};
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

/// A hello that a client with another secret sends.
fn foreign(name: &str) -> Vec<u8> {
    Kind::Today.signed(name, &random_bytes())
}

#[test]
fn every_name_leads_to_its_own_site() {
    let second = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
    for mode in MODES {
        let sites = [
            MaskSite::with(silent()),
            MaskSite::start_on(second, silent()),
            MaskSite::start_on(IpAddr::V6(Ipv6Addr::LOCALHOST), silent()),
        ];
        let domains = [
            sites[0].as_domain(DOMAIN),
            sites[1].as_domain("127.0.0.2"),
            sites[2].as_domain("[::1]"),
        ];
        let arguments: Vec<&str> = domains.iter().flat_map(|text| ["-D", text]).collect();
        let served = Served::start(mode, &arguments);
        let whole = [
            (0, foreign(DOMAIN)),
            (0, foreign("LOCALHOST.")),
            (1, foreign("127.0.0.2")),
            (2, foreign("::1")),
            (0, foreign("www.example.com")),
            (0, Kind::Today.nameless()),
            (0, b"GET / HTTP/1.0\r\n\r\n".to_vec()),
        ];
        let cut = cut_around_the_name("127.0.0.2");
        let visitors = [&whole[..], &cut].concat();
        for (number, said) in &visitors {
            let mut stream = dial(served.address());
            stream.write_all(said).expect("send");
            stream.shutdown(Shutdown::Write).expect("end one direction");
            sites[*number].wait_for_all(said);
            assert_eq!(read_to_end(&stream), GOODBYE);
            let others = sites.iter().filter(|site| site.has_heard(said));
            assert_eq!(others.count(), 1, "one site for {number}");
        }
        let summary = served.stop();
        assert_eq!(summary.count("mask_connections"), visitors.len() as u64);
        assert_eq!(summary.count("tls_refused_incomplete"), cut.len() as u64);
    }
}

/// Hellos that end early, and the number of the site that each leads to: until the last byte of the name has come
/// nobody knows it, from then on it counts. The name stands anywhere in a hello as of today.
fn cut_around_the_name(name: &str) -> [(usize, Vec<u8>); 6] {
    [
        (Kind::Today, 0, -1),
        (Kind::Today, 1, 0),
        (Kind::Old, 0, -1),
        (Kind::Old, 1, 0),
        (Kind::Old, 1, 1),
        (Kind::Old, 1, isize::MAX),
    ]
    .map(|(kind, number, further)| {
        let mut hello = kind.signed(name, &random_bytes());
        let end = end_of_name(&hello, name).saturating_add_signed(further);
        hello.truncate(end.min(hello.len() - 1));
        (number, hello)
    })
}

#[test]
fn one_site_for_all_names() {
    let site = MaskSite::with(silent());
    let mask = site.address.to_string();
    let served = Served::start(
        Mode::Direct,
        &[
            "-D",
            "one.example",
            "-D",
            "two.example:8443",
            "--mask",
            &mask,
        ],
    );
    for name in ["one.example", "two.example", "three.example"] {
        let said = foreign(name);
        let mut stream = dial(served.address());
        stream.write_all(&said).expect("send");
        site.wait_for_bytes(&said);
    }
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

/// An upload: the site hears the end behind the last byte, and still has the word.
#[test]
fn the_visitor_ends_its_direction_first() {
    for mode in MODES {
        for length in LENGTHS {
            let rig = rig(mode, &[]);
            let visitor = visit(&rig);
            say_all(&visitor.stream, 1, length);
            site_expects_all(&rig, visitor.visit, 1, length);
            assert_eq!(read_to_end(&visitor.stream), GOODBYE);
            assert_eq!(rig.stop().count("closed_masked"), 1);
        }
    }
}

#[test]
fn the_site_ends_its_direction_first() {
    for mode in MODES {
        for length in LENGTHS {
            let rig = rig(mode, &[]);
            let visitor = visit(&rig);
            thread::scope(|scope| {
                scope.spawn(|| say_all(&rig.site.take(visitor.visit), 1, length));
                expect_all(&visitor.stream, 1, length);
            });
            say_all(&visitor.stream, 2, length);
            site_expects_all(&rig, visitor.visit, 2, length);
        }
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
fn visitors_too_many_are_closed_and_a_free_place_is_taken() {
    for (arguments, places) in [(&["--mask-max", "3"][..], 3), (&[], 64)] {
        let rig = rig(Mode::Direct, arguments);
        let mut visitors: Vec<Visitor> = (0..places).map(|_| visit(&rig)).collect();
        for _ in 0..2 {
            let mut stream = dial(rig.address());
            stream.write_all(b"one too many").expect("send");
            expect_closed(&stream);
        }
        assert!(!rig.site.has_heard(b"one too many"));
        // Clients have places of their own.
        rig.dial().echo(10);
        visitors.pop();
        // The place is free some time after the connection has ended.
        let mut attempts = 0;
        until("a free place", || {
            attempts += 1;
            let mut stream = dial(rig.address());
            stream.write_all(b"the next one").expect("send");
            stream.shutdown(Shutdown::Write).expect("end one direction");
            (!read_to_end(&stream).is_empty()).then_some(())
        });
        let summary = rig.stop();
        assert_eq!(summary.count("mask_connections"), places + 1);
        assert_eq!(summary.count("mask_refused_full"), 2 + attempts - 1);
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

/// Strangers are closed without a word; clients are served all the same.
#[test]
fn a_site_that_refuses_connections() {
    for mode in MODES {
        let nobody = Refusing::new();
        let domain = format!("{DOMAIN}:{}", nobody.address.port());
        let served = Served::start(mode, &["-D", &domain]);
        served.dial().echo(10);
        let mut stream = dial(served.address());
        stream.write_all(b"is anybody there?").expect("send");
        expect_closed(&stream);
        served.dial().echo(10);
        let summary = served.stop();
        assert_eq!(summary.count("mask_unreachable"), 1);
        assert_eq!(summary.count("tls_refused_not_tls"), 1);
    }
}

/// Whatever leads back to the port that strangers come to would go round for ever. Names are looked up only
/// after the start; they are faketls_names' affair.
#[test]
fn an_address_that_is_the_proxys_own_is_refused() {
    let secret = to_hex(&SECRET);
    for place in [
        "127.0.0.1",
        "127.0.0.2",
        "0.0.0.0",
        "[::1]",
        "[::ffff:127.0.0.1]",
    ] {
        for by_mask in [false, true] {
            let port = free_address().port().to_string();
            let site = format!("{place}:{port}");
            let mut arguments = vec!["--direct", "-6", "-H", &port, "-S", &secret];
            if by_mask {
                arguments.extend(["-D", "www.example.com", "--mask", &site]);
            } else {
                arguments.extend(["-D", &site]);
            }
            let arguments: Vec<String> = arguments.into_iter().map(str::to_owned).collect();
            let refusal = run_to_end(&arguments);
            assert_eq!(refusal.code, Some(1), "{site}: {}", refusal.text);
            let flag = if by_mask { "--mask" } else { "-D" };
            let says_why = |line: &str| line.starts_with("mtproxy: ") && line.contains(flag);
            assert!(refusal.text.lines().any(says_why), "{}", refusal.text);
        }
    }
}
