//! How a handshake in fake TLS ends that proves no secret behind the ServerHello: as the site behind the mask ends
//! it, which its probes have found out.

use crate::support::rig::SECRET;
use crate::support::sockets::{Accepting, dial, is_end, listener, read_to_end};
use crate::support::tls_client::{CHANGE_CIPHER_SPEC, handshake, record};
use crate::support::tls_flight::{Look, is_hello};
use crate::support::tls_hello::Kind;
use crate::support::tls_rig::{DOMAIN, Mode, Served};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::thread;

/// What a site does with what comes behind its first flight.
#[derive(Clone, Copy, Debug)]
enum Ending {
    /// Sends this and closes.
    Says(&'static [u8]),
    /// Resets the connection.
    Resets,
}

/// A decode error, in the clear.
const PLAIN_ALERT: &[u8] = &[0x15, 3, 3, 0, 2, 2, 50];
/// An encrypted alert of a cipher with a longer tag than usual.
const LONG_ALERT: &[u8] = &[
    0x17, 3, 3, 0, 23, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21,
    22, 23,
];

fn serve(mut stream: TcpStream, ending: Ending) {
    let mut received = Vec::new();
    let mut some = [0; 4096];
    while !is_hello(&received) {
        match stream.read(&mut some) {
            Ok(n @ 1..) => received.extend(&some[..n]),
            _ => return,
        }
    }
    let flight = Look::default().answer(&received);
    if stream.write_all(&flight).is_err() {
        return;
    }
    match ending {
        Ending::Says(bytes) => {
            if stream.read(&mut some).is_ok_and(|n| n > 0) {
                let _ = stream.write_all(bytes);
            }
        }
        // Bytes that are unread at the end make the kernel reset.
        Ending::Resets => {
            let _ = stream.peek(&mut some);
        }
    }
}

#[test]
fn a_wrong_first_record_ends_as_at_the_site() {
    for ending in [
        Ending::Says(PLAIN_ALERT),
        Ending::Says(LONG_ALERT),
        Ending::Says(&[]),
        Ending::Resets,
    ] {
        let site = Accepting::start(listener(IpAddr::V4(Ipv4Addr::LOCALHOST)), move |stream| {
            thread::spawn(move || serve(stream, ending));
        });
        let domain = format!("{DOMAIN}:{}", site.address.port());
        let served = Served::start(Mode::Direct, &["-D", &domain]);
        served.wait_until_probed(DOMAIN);
        let mut stream = dial(served.address());
        let hello = Kind::Today.signed(DOMAIN, &SECRET);
        handshake(&stream, &hello, &SECRET);
        stream
            .write_all(&[&CHANGE_CIPHER_SPEC[..], &record(&[7; 53])].concat())
            .expect("a record that fits nothing");
        match ending {
            Ending::Says(bytes) => {
                let heard = read_to_end(&stream);
                assert_eq!(heard.len(), bytes.len(), "{ending:?}: {heard:02x?}");
                let clear = if bytes.first() == Some(&0x17) {
                    5
                } else {
                    bytes.len()
                };
                assert_eq!(heard[..clear], bytes[..clear], "{ending:?}");
                assert!(
                    clear == bytes.len() || heard != bytes,
                    "another payload each time"
                );
            }
            Ending::Resets => {
                let error = stream.read(&mut [0; 64]).expect_err("a reset");
                assert!(is_end(&error), "{error}");
            }
        }
        let summary = served.stop();
        assert_eq!(
            summary.count("closed_no_secret_fits") + summary.count("closed_bad_record"),
            1
        );
    }
}
