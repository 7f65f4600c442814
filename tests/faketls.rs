//! Clients in fake TLS get in, in both modes: every kind of hello that official clients send, however it is
//! cut, under every name, secret and time that is to be accepted.

use crate::support::crypto::as_array;
use crate::support::dc::{Behaviour, DataCentre};
use crate::support::framing::{TRANSPORTS, Transport};
use crate::support::mask_site::{MaskSite, silent, tls_server};
use crate::support::obfuscated2::Secret;
use crate::support::proxy::Proxy;
use crate::support::rig::{SECRET, dialer};
use crate::support::sockets::{dial, expect_bytes};
use crate::support::tls_client::{Session, TDLIB, Tls, handshake, read_answer};
use crate::support::tls_flight::Look;
use crate::support::tls_hello::{KINDS, Kind, in_records, now, sign};
use crate::support::tls_rig::{DOMAIN, MODES, Mode, Served, TlsRig, tls_dialer};
use crate::support::vectors::{Vectors, to_hex};
use std::io::Write;

const OTHER: Secret = *b"another 16 bytes";

#[test]
fn every_kind_of_hello_is_served() {
    for mode in MODES {
        let rig = TlsRig::start(mode);
        for kind in KINDS {
            let mut client = rig.served.dialer(kind).dial();
            for body in [0, 100, 70_000, 1_000_000] {
                client.echo(body);
            }
        }
        let summary = rig.stop();
        assert_eq!(summary.count("tls_hellos_accepted"), KINDS.len() as u64);
        assert_eq!(summary.count("ext_connections_created"), KINDS.len() as u64);
        assert_eq!(summary.count("mask_connections"), 0);
    }
}

/// Hello, change of ciphers and everything behind them, each byte in a write of its own.
#[test]
fn however_the_bytes_come() {
    for mode in MODES {
        let rig = TlsRig::start(mode);
        for kind in KINDS {
            let mut dialer = rig.served.dialer(kind);
            dialer.one_byte_writes = true;
            let mut client = dialer.dial();
            client.echo(300);
            client.echo(10);
        }
    }
}

/// The digest is over the hello as one record, and so is the answer's.
#[test]
fn a_hello_in_up_to_ten_records() {
    for mode in MODES {
        let rig = TlsRig::start(mode);
        for kind in KINDS {
            for count in 1..=10 {
                let hello = kind.signed(DOMAIN, &SECRET);
                let stream = dial(rig.address());
                (&stream)
                    .write_all(&in_records(&hello, count))
                    .expect("the hello");
                read_answer(&stream, &hello, &SECRET);
                let dialer = rig.served.dialer(kind);
                dialer
                    .over(stream, Some(Session::new(TDLIB)), &[])
                    .echo(100);
            }
        }
    }
}

#[test]
fn names_differ_in_case_and_a_trailing_dot() {
    let rig = TlsRig::start(Mode::Direct);
    for name in [
        "localhost",
        "LOCALHOST",
        "LocalHost",
        "localhost.",
        "LOCALHOST.",
    ] {
        for kind in [Kind::Old, Kind::Today] {
            let mut dialer = rig.served.dialer(kind);
            dialer.tls = Some(Tls::new(kind, name));
            dialer.dial().echo(10);
        }
    }
    // The other way round: the operator wrote it like this.
    for name in ["LocalHost", "localhost."] {
        let site = MaskSite::start();
        let served = Served::start(Mode::Direct, &["-D", &site.as_domain(name)]);
        served.dial().echo(10);
    }
}

#[test]
fn every_domain_is_served() {
    let sites = MaskSite::three(tls_server(Look::default()));
    let domains = sites.each_ref().map(|(site, name)| site.as_domain(name));
    let arguments: Vec<&str> = domains.iter().flat_map(|text| ["-D", text]).collect();
    for mode in MODES {
        let served = Served::start(mode, &arguments);
        for name in [DOMAIN, "127.0.0.2", "::1"] {
            let mut dialer = served.dialer(Kind::Today);
            dialer.tls = Some(Tls::new(Kind::Today, name));
            dialer.dial().echo(10);
        }
    }
}

/// A secret of the ee form brings its domain with it; the site is then wherever --mask says.
#[test]
fn ee_secrets_bring_their_domain() {
    let site = MaskSite::start();
    let mask = site.address.to_string();
    let secret = format!("ee{}{}", to_hex(&OTHER), to_hex(b"Mask.Example.com"));
    for mode in MODES {
        let served = Served::start(mode, &["-S", &secret, "--mask", &mask]);
        for secret in [OTHER, SECRET] {
            let mut dialer = served.dialer(Kind::Today);
            dialer.tls = Some(Tls::new(Kind::Today, "mask.example.com"));
            dialer.secret = Some(secret);
            dialer.dial().echo(10);
        }
    }
}

/// Any secret for the digest, any for the header: they needn't be the same (protocol.md 3.4).
#[test]
fn every_secret_is_tried() {
    let secrets: Vec<Secret> = (0..15).map(|number| [number + 1; 16]).collect();
    let texts: Vec<String> = secrets.iter().map(|secret| to_hex(secret)).collect();
    let arguments: Vec<&str> = texts.iter().flat_map(|text| ["-S", text]).collect();
    for mode in MODES {
        let rig = TlsRig::with(mode, &arguments);
        for (number, secret) in secrets.iter().enumerate() {
            let hello = Kind::Today.signed(DOMAIN, secret);
            let stream = dial(rig.address());
            handshake(&stream, &hello, secret);
            let mut dialer = rig.served.dialer(Kind::Today);
            dialer.secret = Some(secrets[(number * 7 + 3) % secrets.len()]);
            dialer.over(stream, Some(Session::new(TDLIB)), &[]).echo(10);
        }
    }
}

/// Seconds by which clocks may differ: 600 back and 3 ahead, or as told.
#[test]
fn times_within_the_window() {
    let cases: [(&[&str], &[i64]); 3] = [
        (&[], &[0, -1, -300, -580, 2]),
        (&["--tls-skew", "100000"], &[0, -601, -99_900, 2]),
        (&["--tls-skew", "60,7200"], &[0, -50, 4, 7_190]),
    ];
    for (arguments, offsets) in cases {
        let rig = TlsRig::with(Mode::Direct, arguments);
        for offset in offsets {
            let time = u32::try_from(i64::from(now()) + offset).expect("a time");
            let hello = sign(Kind::Today.unsigned(DOMAIN), &SECRET, time);
            handshake(&dial(rig.address()), &hello, &SECRET);
        }
        let summary = rig.stop();
        assert_eq!(summary.count("tls_hellos_accepted"), offsets.len() as u64);
    }
}

/// The whole connection of the vectors, byte for byte, as far as time and random bytes let it: their hellos
/// signed anew, the client's first flight and what came back.
#[test]
fn the_connection_of_the_vectors() {
    let vectors = Vectors::load("fake_tls");
    let of = |name: &str| vectors.bytes(&format!("after_handshake.{name}"));
    let secret: Secret = as_array(&of("secret"));
    let site = MaskSite::start();
    let mask = site.address.to_string();
    let centre = DataCentre::start(Behaviour::HandOver);
    let (text, dc) = (to_hex(&secret), centre.as_dc(2));
    let arguments = [
        &["--direct", "-H", "0", "-S", &text, "--dc-override", &dc][..],
        &["-D", "example.com", "--mask", &mask],
    ];
    let arguments = arguments.concat();
    let proxy = Proxy::start_with(&arguments);
    for name in ["hello_517", "hello_mlkem768"] {
        let hello = vectors.bytes(&format!("client_hellos.{name}.client_hello"));
        let hello = sign(hello, &secret, now());
        let mut stream = dial(proxy.address());
        let answer = handshake(&stream, &hello, &secret);
        // The cipher that the vectors chose: the client's first.
        assert_eq!(answer.bytes[76..78], [0x13, 0x01]);
        stream.write_all(&of("client_flight")).expect("the flight");
        let (mut sending, mut receiving) = centre.take().halves();
        let mut clear = vec![0; of("client_plain_after_header").len()];
        let mut done = 0;
        while done < clear.len() {
            done += receiving.read_some(&mut clear[done..]);
        }
        assert_eq!(clear, of("client_plain_after_header"));
        sending.send(&of("proxy_plain"));
        // The cipher's bytes, without the lengths of records: those are the server's affair.
        let wanted = of("proxy_records_max_1425");
        let wanted = [&wanted[5..1_430], &wanted[1_435..2_860], &wanted[2_865..]].concat();
        let mut session = Session::new(TDLIB);
        let (mut payload, mut buffer) = (Vec::<u8>::new(), [0; 1_000]);
        while payload.len() < wanted.len() {
            let count = session.read(&stream, &mut buffer).expect("records");
            payload.extend(&buffer[..count]);
        }
        assert!(payload == wanted, "other bytes than the vectors'");
    }
}

/// Header and first packet may share the record behind the change of ciphers, or the header stand alone.
#[test]
fn the_first_packet_with_the_header() {
    for mode in MODES {
        let rig = TlsRig::start(mode);
        for body in [0, 1_000, 100_000] {
            let message = crate::support::message::Message::echo(body).encode();
            let frame = Transport::Padded.frame(&message, false, &[7; 13]);
            let mut client = rig.served.dialer(Kind::Today).dial_saying(&frame);
            assert!(client.packet() == message, "{mode:?} {body}");
            client.echo(10);
        }
    }
}

/// Only when told so is obfuscated2 served without TLS, in every transport and beside fake TLS.
#[test]
fn plain_clients_where_they_are_allowed() {
    for mode in MODES {
        let rig = TlsRig::before(MaskSite::with(silent()), mode, &["--allow-plain"]);
        for transport in TRANSPORTS {
            let mut dialer = dialer(rig.address(), transport);
            dialer.dial().echo(100);
            dialer.one_byte_writes = true;
            dialer.dial().echo(100);
        }
        rig.dial().echo(100);
        // What fits no secret is a stranger.
        let mut dialer = dialer(rig.address(), Transport::Padded);
        dialer.secret = Some(OTHER);
        let client = dialer.dial();
        let visit = rig
            .site
            .wait_for("a header", |visit| visit.received.len() == 64);
        rig.site.say(visit, b"not for you");
        expect_bytes(&client.stream, b"not for you", "the site");
        drop(client);
        assert_eq!(rig.stop().count("mask_connections"), 1);
    }
}

#[test]
fn clients_of_ipv6() {
    for mode in MODES {
        let rig = TlsRig::with(mode, &["-6"]);
        tls_dialer(rig.served.proxy.address_v6(), Kind::Today)
            .dial()
            .echo(100);
        rig.dial().echo(100);
    }
}
