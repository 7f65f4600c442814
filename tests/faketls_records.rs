//! The record layer of fake TLS after the answer (protocol.md 5.7): any records from clients, records like
//! a web server's to them, nothing lost or mixed up, and alerts that end a connection.

use crate::support::client::Client;
use crate::support::dc::Behaviour;
use crate::support::direct_rig::use_service;
use crate::support::framing::Transport;
use crate::support::mask_site::MaskSite;
use crate::support::message::{Command, Message};
use crate::support::sockets::hears_nothing;
use crate::support::tls_client::{CHANGE_CIPHER_SPEC, Cut, TDLIB, record};
use crate::support::tls_flight::alert;
use crate::support::tls_hello::Kind;
use crate::support::tls_rig::{DOMAIN, Far, MODES, Mode, Served, TlsRig};
use crate::support::transfers::{Ends, PIECES, download, echo_interleaved, upload};
use std::thread;
use std::time::Duration;

const MIB: usize = 1 << 20;

/// Payload of the first record in a row and the step to the next: a segment with its headers.
const SEGMENT: usize = 1_369;

/// Payload of a full record: 2^14 bytes, their type and their seal.
const FULL: usize = 16_401;

fn client(rig: &TlsRig, cut: Cut) -> Client {
    let mut dialer = rig.served.dialer(Kind::Today);
    dialer.tls.as_mut().expect("fake TLS").cut = cut;
    dialer.dial()
}

#[test]
fn bulk_1mib() {
    both_ways(MIB, &[TDLIB]);
}

#[test]
fn bulk_16mib() {
    both_ways(16 * MIB, &[TDLIB, Cut::Varied, Cut::Every(65_535)]);
}

#[test]
fn records_of_one_byte() {
    both_ways(100_000, &[Cut::Every(1)]);
}

fn both_ways(total: usize, cuts: &[Cut]) {
    for mode in MODES {
        let rig = TlsRig::start(mode);
        thread::scope(|scope| {
            for cut in cuts {
                let rig = &rig;
                scope.spawn(move || {
                    let mut client = client(rig, *cut);
                    upload(&mut client, total, &PIECES);
                    download(&mut client, total, MIB);
                    download(&mut client, total.min(4 * MIB), 4_096);
                });
            }
        });
    }
}

/// A proxy in direct mode whose data centre leaves its streams to the test.
fn raw_streams() -> (Served, MaskSite) {
    let site = MaskSite::start();
    let domain = site.as_domain(DOMAIN);
    let served = Served::handing_over(Mode::Direct, &["-D", &domain], Behaviour::HandOver);
    (served, site)
}

fn ends(served: &Served) -> Ends {
    Ends::new(served.dial(), served.centre().take())
}

#[test]
fn raw_streams_of_direct_mode() {
    let (served, _site) = raw_streams();
    let mut ends = ends(&served);
    for total in [1, MIB, 32 * MIB] {
        ends.pass_down(total);
        ends.pass_up(total);
        ends.pass_both_ways(total);
    }
}

/// The end of one direction is passed on behind the last byte while the other goes on.
#[test]
fn either_end_of_direct_mode_may_finish_first() {
    for length in [100, 16 * MIB] {
        let (served, _site) = raw_streams();
        let mut client_first = ends(&served);
        client_first.end_up(length);
        client_first.end_down(length);
        let mut centre_first = ends(&served);
        centre_first.end_down(length);
        centre_first.end_up(length);
    }
}

#[test]
fn packets_acks_and_errors_of_the_service() {
    let rig = TlsRig::start(Mode::Direct);
    use_service(&mut rig.dial());
}

#[test]
fn a_hundred_clients_get_their_own_answers() {
    for mode in MODES {
        let rig = TlsRig::start(mode);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let cuts = [TDLIB, Cut::Varied, Cut::Every(100)];
                    let clients = (0..25).map(|number| client(&rig, cuts[number % 3]));
                    echo_interleaved(clients.collect(), 10, 40);
                });
            }
        });
    }
}

/// A record of 40 kB with the header in front, empty ones between, a frame over many and many in one.
#[test]
fn records_that_are_unlike_frames() {
    for mode in MODES {
        let rig = TlsRig::start(mode);
        let message = Message::echo(45_000).encode();
        let frame = Transport::Padded.frame(&message, false, &[]);
        let mut dialer = rig.served.dialer(Kind::Today);
        dialer.tls.as_mut().expect("fake TLS").cut = Cut::Varied;
        let mut client = dialer.dial_saying(&frame);
        assert!(client.packet() == message, "{mode:?}");
        client.write_raw(&[record(&[]), record(&[])].concat());
        client.echo(10);
        let short: Vec<Vec<u8>> = (0..100).map(|_| Message::echo(8).encode()).collect();
        let frames: Vec<Vec<u8>> = short
            .iter()
            .map(|message| Transport::Padded.frame(message, false, &[1]))
            .collect();
        client.send_raw(&frames.concat());
        for message in &short {
            assert!(client.packet() == *message, "{mode:?}");
        }
    }
}

/// Whatever is no record of data ends the connection without a word.
#[test]
fn other_records_end_the_connection() {
    for mode in MODES {
        let rig = TlsRig::start(mode);
        let endings: [&[u8]; 7] = [
            &[0x15, 3, 3, 0, 2, 1, 0],
            &alert(40),
            &[0x15, 3, 3, 0, 19, 7, 7],
            &[0x16, 3, 3, 0, 4, 1, 0, 0, 0],
            &CHANGE_CIPHER_SPEC,
            &[0x17, 3, 1, 0, 4, 1, 2, 3, 4],
            &[0; 64],
        ];
        for ending in endings {
            let mut client = rig.dial();
            client.echo(100);
            client.write_raw(ending);
            client.expect_closed();
        }
        let summary = rig.stop();
        assert_eq!(summary.count("closed_bad_record"), endings.len() as u64);
        assert_eq!(summary.count("mask_connections"), 0);
    }
}

/// What came in front of an alert arrives.
#[test]
fn an_alert_right_behind_a_packet() {
    for mode in MODES {
        let rig = TlsRig::start(mode);
        let mut client = rig.dial();
        let mut bytes = Message::new(Command::Swallow, 77).encode();
        bytes = Transport::Padded.frame(&bytes, false, &[]);
        client.echo(10);
        let before = rig.served.forwarded();
        client.send_and_end(&bytes, &alert(0));
        client.expect_closed();
        if let Far::Middle(middle) = &rig.served.far {
            middle.wait_for("the packet", |state| {
                (state.requests.len() > before).then_some(())
            });
        }
    }
}

/// Never longer than the k-th record in a row may be, and full ones before long on a busy stream.
#[test]
fn records_to_the_client_grow() {
    for mode in MODES {
        let rig = TlsRig::start(mode);
        let mut client = rig.dial();
        let first = lengths(&mut client, 4 * MIB);
        check_growth(mode, &first);
        assert!(first.contains(&FULL), "{mode:?}: {first:?}");
        // A pause of more than a second: they start again.
        hears_nothing(&client.stream, Duration::from_millis(1_500));
        check_growth(mode, &lengths(&mut client, 4 * MIB));
    }
}

/// Payloads of the records of one download.
fn lengths(client: &mut Client, total: usize) -> Vec<usize> {
    let session = client.session.as_mut().expect("fake TLS");
    session.lengths.clear();
    download(client, total, MIB);
    client.session.as_ref().expect("fake TLS").lengths.clone()
}

fn check_growth(mode: Mode, lengths: &[usize]) {
    for (number, length) in lengths.iter().enumerate() {
        let most = ((number + 1) * SEGMENT).min(FULL);
        assert!(*length <= most, "{mode:?}: record {number} of {lengths:?}");
    }
    let like_the_original = lengths.iter().filter(|length| **length == 1_425);
    assert!(like_the_original.count() <= 1, "{mode:?}: {lengths:?}");
}
