//! The peers of the fake-TLS tests themselves: against the vectors, against a real server, and that they
//! notice what they must not let pass.

use crate::support::crypto::as_array;
use crate::support::nginx::Site;
use crate::support::obfuscated2::Secret;
use crate::support::random::Stream;
use crate::support::rig::SECRET;
use crate::support::sockets::{accept, dial, listener, read_bytes};
use crate::support::tls_client::{Session, TDLIB, check_answer};
use crate::support::tls_flight::{Flight, Look, is_hello, retry_request};
use crate::support::tls_hello::{KINDS, Kind, RANDOM, in_records, sign};
use crate::support::vectors::Vectors;
use std::io::Write;
use std::net::{Ipv4Addr, Shutdown};

const HELLOS: [&str; 2] = ["hello_517", "hello_mlkem768"];

fn of(vectors: &Vectors, hello: &str, name: &str) -> Vec<u8> {
    vectors.bytes(&format!("client_hellos.{hello}.{name}"))
}

#[test]
fn digests_of_the_vectors() {
    let vectors = Vectors::load("fake_tls");
    for name in HELLOS {
        let hello = of(&vectors, name, "client_hello");
        let secret: Secret = as_array(&of(&vectors, name, "secret"));
        assert!(is_hello(&hello));
        assert_eq!(hello[RANDOM], of(&vectors, name, "client_random"));
        let stamp = vectors.number(&format!("client_hellos.{name}.timestamp"));
        let stamp = u32::try_from(stamp).expect("a time");
        assert_eq!(sign(hello.clone(), &secret, stamp), hello);
        assert_ne!(sign(hello.clone(), &secret, stamp + 1), hello);
        assert_ne!(sign(hello.clone(), &SECRET, stamp), hello);
    }
}

#[test]
fn answers_of_the_vectors_and_no_others_pass() {
    let vectors = Vectors::load("fake_tls");
    for name in HELLOS {
        let hello = of(&vectors, name, "client_hello");
        let secret = as_array(&of(&vectors, name, "secret"));
        for (order, extensions) in [
            ("key_share_first", [0x33, 0x2b]),
            ("versions_first", [0x2b, 0x33]),
        ] {
            let answer = of(&vectors, name, &format!("server.{order}.response"));
            assert_eq!(check_answer(&answer, &hello, &secret), Ok(()));
            let flight = Flight::parse(&answer, &hello).expect("a first flight");
            assert_eq!(flight.extensions, extensions);
            assert_eq!((flight.cipher, flight.group), (0x1301, 0x1d));
            assert_eq!(flight.records, [256]);
            for at in 0..answer.len() {
                let mut broken = answer.clone();
                broken[at] ^= 1 << (at % 8);
                assert!(check_answer(&broken, &hello, &secret).is_err(), "byte {at}");
            }
            let more = [&answer[..], &[0x17, 3, 3, 0, 1, 0]].concat();
            assert!(check_answer(&more, &hello, &secret).is_err());
            assert!(check_answer(&answer[..answer.len() - 1], &hello, &secret).is_err());
            assert!(check_answer(&answer, &hello, &SECRET).is_err());
        }
    }
}

/// What a client sends after the answer, and what it reads.
#[test]
fn records_of_the_vectors() {
    let vectors = Vectors::load("fake_tls");
    let of = |name: &str| vectors.bytes(&format!("after_handshake.{name}"));
    let mut session = Session::new(TDLIB);
    let flight = of("client_flight");
    assert_eq!(session.seal(&flight[11..]), flight);

    let listener = listener(Ipv4Addr::LOCALHOST.into());
    let stream = dial(listener.local_addr().expect("its address"));
    let mut far = accept(listener, "its client");
    far.write_all(&of("proxy_records_max_1425"))
        .expect("records");
    far.shutdown(Shutdown::Write).expect("the end");
    let (mut payload, mut buffer) = (Vec::<u8>::new(), [0; 1_000]);
    loop {
        match session
            .read(&stream, &mut buffer)
            .expect("records in order")
        {
            0 => break,
            count => payload.extend(&buffer[..count]),
        }
    }
    assert_eq!(payload.len(), of("proxy_plain").len());
    assert_eq!(session.lengths, [1_425, 1_425, 154]);
}

#[test]
fn hellos_have_the_lengths_of_real_ones() {
    for name in ["a.io", "www.example.com"] {
        assert_eq!(Kind::Old.unsigned(name).len(), 517);
        let mut lengths: Vec<usize> = (0..200)
            .map(|_| Kind::Today.unsigned(name).len() - name.len())
            .collect();
        lengths.sort_unstable();
        lengths.dedup();
        assert_eq!(lengths, [1_710, 1_742, 1_774, 1_806]);
    }
    for kind in KINDS {
        let hello = kind.signed("www.example.com", &SECRET);
        assert!(is_hello(&hello), "{kind:?}");
        let cut = in_records(&hello, 10);
        assert_eq!(cut.len(), hello.len() + 9 * 5);
        let (mut bodies, mut rest) = (Vec::<u8>::new(), &cut[..]);
        while !rest.is_empty() {
            assert_eq!(rest[..3], [0x16, 3, 1]);
            let length = usize::from(u16::from_be_bytes([rest[3], rest[4]]));
            assert!(length > 0, "an empty record");
            bodies.extend(&rest[5..5 + length]);
            rest = &rest[5 + length..];
        }
        assert_eq!(bodies, hello[5..]);
    }
}

#[test]
fn flights_are_read_as_they_were_made() {
    for kind in KINDS {
        let hello = kind.unsigned("www.example.com");
        for hybrid in [false, true] {
            let look = Look {
                cipher: Some(0x1302),
                hybrid,
                versions_first: hybrid,
                records: vec![30, 16_401],
            };
            let flight = Flight::parse(&look.answer(&hello), &hello).expect("a flight");
            let group = if hybrid && kind.is_hybrid() {
                0x11ec
            } else {
                0x1d
            };
            assert_eq!((flight.cipher, flight.group), (0x1302, group));
            assert_eq!(flight.share.len(), if group == 0x1d { 32 } else { 1_120 });
            assert_eq!(flight.extensions[0], if hybrid { 0x2b } else { 0x33 });
            assert_eq!(flight.records, [30, 16_401]);
            assert!(flight.session_echoed && flight.change_cipher_spec);
        }
        assert!(Flight::parse(&retry_request(&hello), &hello).is_some());
        assert!(Flight::parse(&Stream::new(1).take(200), &hello).is_none());
    }
}

/// A real server finds nothing wrong with the hellos: it answers in the way that the kind asks for.
#[test]
fn a_real_server_answers_the_hellos() {
    let site = Site {
        protocols: "TLSv1.3",
        ..Site::default()
    };
    let Some(nginx) = site.start() else { return };
    for kind in KINDS {
        let hello = kind.signed("localhost", &SECRET);
        let mut stream = dial(nginx.address);
        stream.write_all(&hello).expect("the hello");
        let answer = read_bytes(&stream, 11, "an answer");
        assert_eq!((answer[0], answer[5]), (0x16, 2), "{kind:?}: {answer:02x?}");
    }
}
