//! The record layer of fake TLS after the answer (protocol.md 5.7): any records from clients, records like
//! a web server's to them, nothing lost or mixed up, and alerts that end a connection.

use crate::support::client::{Client, Half};
use crate::support::crypto::{RunningHash, sha256};
use crate::support::dc::Behaviour;
use crate::support::direct_rig::{
    expect_stream, expect_stream_and_end, send_stream, send_stream_and_end, use_service,
};
use crate::support::framing::{MAX_UP, Transport};
use crate::support::mask_site::MaskSite;
use crate::support::message::{Command, Message};
use crate::support::random::{Stream, random_bytes};
use crate::support::service::receipt;
use crate::support::sockets::hears_nothing;
use crate::support::tls_client::{CHANGE_CIPHER_SPEC, Cut, TDLIB, record};
use crate::support::tls_flight::alert;
use crate::support::tls_hello::Kind;
use crate::support::tls_rig::{DOMAIN, Far, MODES, Mode, Served, TlsRig};
use std::thread;
use std::time::Duration;

const MIB: usize = 1 << 20;

/// Payload of the first record in a row and the step to the next: a segment with its headers.
const SEGMENT: usize = 1_369;

/// Payload of a full record: 2^14 bytes, their type and their seal.
const FULL: usize = 16_401;

/// Bodies of an upload, over and over: from the shortest to the largest that fits with padding.
const PIECES: [usize; 6] = [MAX_UP - 28 - 16, 1, 57_001, 333_333, 40, 128 * 1_024];

fn client(rig: &TlsRig, cut: Cut) -> Client {
    let mut dialer = rig.served.dialer(Kind::Today);
    dialer.tls.as_mut().expect("fake TLS").cut = cut;
    dialer.dial()
}

fn upload(client: &mut Client, total: usize) {
    let bytes = Stream::new(3).take(total);
    let mut rest = &bytes[..];
    for piece in PIECES.iter().cycle() {
        let (body, after) = rest.split_at((*piece).min(rest.len()));
        let command = if after.is_empty() {
            Command::UploadEnd
        } else {
            Command::Upload
        };
        let body = body.to_vec();
        client.send(
            &Message {
                body,
                ..Message::new(command, 0)
            }
            .encode(),
        );
        rest = after;
        if rest.is_empty() {
            break;
        }
    }
    assert_eq!(client.packet(), receipt(&bytes));
}

fn download(client: &mut Client, total: usize, packet: usize) {
    client.send(&Message::stream(11, total, packet).encode());
    let (mut hash, mut left) = (RunningHash::default(), total);
    while left > 0 {
        let payload = client.packet();
        assert_eq!(payload.len(), left.min(packet));
        left -= payload.len();
        hash.add(&payload);
    }
    assert_eq!(hash.finish(), sha256(&Stream::new(11).take(total)));
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
                    upload(&mut client, total);
                    download(&mut client, total, MIB);
                    download(&mut client, total.min(4 * MIB), 4_096);
                    client.echo(64);
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

/// A client's two halves, and the data centre's.
fn halves(served: &Served) -> [Half; 4] {
    let (up, down) = served.dial().halves();
    let Far::Direct(centre) = &served.far else {
        panic!("a data centre is the far side");
    };
    let (sending, receiving) = centre.take().halves();
    [up, down, sending, receiving]
}

#[test]
fn raw_streams_of_direct_mode() {
    let (served, _site) = raw_streams();
    let [mut up, mut down, mut sending, mut receiving] = halves(&served);
    for total in [1, MIB, 32 * MIB] {
        one_way(&mut sending, &mut down, total);
        one_way(&mut up, &mut receiving, total);
        thread::scope(|scope| {
            scope.spawn(|| one_way(&mut sending, &mut down, total));
            one_way(&mut up, &mut receiving, total);
        });
    }
}

fn one_way(from: &mut Half, to: &mut Half, total: usize) {
    let seed = u32::from_le_bytes(random_bytes());
    thread::scope(|scope| {
        scope.spawn(|| send_stream(from, seed, total));
        expect_stream(to, seed, total);
    });
}

/// The end of one direction is passed on behind the last byte while the other goes on.
#[test]
fn either_end_of_direct_mode_may_finish_first() {
    for length in [100, 16 * MIB] {
        for client_first in [false, true] {
            let (served, _site) = raw_streams();
            let [mut up, mut down, mut sending, mut receiving] = halves(&served);
            if client_first {
                thread::scope(|scope| {
                    scope.spawn(|| send_stream_and_end(&mut up, 1, length));
                    expect_stream_and_end(&mut receiving, 1, length);
                });
            }
            thread::scope(|scope| {
                scope.spawn(|| send_stream_and_end(&mut sending, 2, length));
                expect_stream_and_end(&mut down, 2, length);
            });
            if !client_first {
                thread::scope(|scope| {
                    scope.spawn(|| send_stream_and_end(&mut up, 1, length));
                    expect_stream_and_end(&mut receiving, 1, length);
                });
            }
        }
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
                scope.spawn(|| interleaved(&rig, 25));
            }
        });
    }
}

/// So many clients ask before the first of them reads, round by round.
fn interleaved(rig: &TlsRig, count: usize) {
    let cuts = [TDLIB, Cut::Varied, Cut::Every(100)];
    let mut clients: Vec<Client> = (0..count)
        .map(|number| client(rig, cuts[number % 3]))
        .collect();
    for round in 0..10 {
        let messages: Vec<Vec<u8>> = (0..count)
            .map(|number| Message::echo(number * round * 40).encode())
            .collect();
        for (client, message) in clients.iter_mut().zip(&messages) {
            client.send(message);
        }
        for (client, message) in clients.iter_mut().zip(&messages) {
            assert!(client.packet() == *message, "somebody else's answer");
        }
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
