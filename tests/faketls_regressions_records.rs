//! Faults of the record layer of fake TLS that were there once: records of lengths that no web server sends,
//! and wrong ones that nobody looked at.

use crate::support::client::Client;
use crate::support::dc::Behaviour;
use crate::support::framing::Transport;
use crate::support::mask_site::MaskSite;
use crate::support::message::Message;
use crate::support::obfuscated2::Header;
use crate::support::random::Stream;
use crate::support::rig::SECRET;
use crate::support::sockets::{dial, expect_closed};
use crate::support::tls_client::{Session, TDLIB, handshake};
use crate::support::tls_flight::alert;
use crate::support::tls_hello::Kind;
use crate::support::tls_rig::{DOMAIN, MODES, Mode, Served, TlsRig};
use crate::support::transfers::{Ends, expect_stream};
use std::io::Write;

/// Payload of the first record in a row: a segment with its headers.
const SEGMENT: usize = 1_369;

/// Payload of the shortest record that has anything to say: a byte, its type and its seal would be more.
const SHORTEST: usize = 17;

/// What direct mode once made the first record of each burst.
const CONSTANT: usize = 1_019;

/// A data centre's answers. What was a few bytes more than two or three records ended in a record of those.
const ANSWERS: [usize; 5] = [1_500, 3_760, 5_000, 7_865, 40_000];

fn check(mode: Mode, total: usize, lengths: &[usize]) {
    let what = format!("{mode:?}, {total} bytes: {lengths:?}");
    assert!(lengths[0] <= SEGMENT, "a long first record: {what}");
    let is_credible = |length: &usize| *length >= SHORTEST && *length != CONSTANT;
    assert!(lengths.iter().all(is_credible), "{what}");
}

/// One write of the data centre's, on a connection of its own.
fn direct(served: &Served, total: usize) {
    let mut ends = Ends::new(served.dial(), served.centre().take());
    ends.sending.send(&Stream::new(4).take(total));
    expect_stream(&mut ends.down, 4, total);
    let session = ends.down.session.expect("fake TLS");
    check(Mode::Direct, total, &session.lengths);
}

#[test]
fn answers_in_direct_mode() {
    let site = MaskSite::start();
    let domain = site.as_domain(DOMAIN);
    let served = Served::handing_over(Mode::Direct, &["-D", &domain], Behaviour::HandOver);
    // What two, three and four records hold, and up to a whole shortest one.
    let full = [3 * SEGMENT, 6 * SEGMENT, 10 * SEGMENT];
    let around = full.map(|full| [0, 1, 2, 9, 15, 16, 17].map(|more| full + more));
    for total in ANSWERS.into_iter().chain(around.into_iter().flatten()) {
        direct(&served, total);
    }
}

/// One packet of the middle proxy's; padding of 0 to 15 bytes comes behind it.
fn middle(mut client: Client, total: usize) {
    client.send(&Message::stream(4, total, total).encode());
    assert!(client.packet() == Stream::new(4).take(total));
    let session = client.session.expect("fake TLS");
    check(Mode::Middle, total, &session.lengths);
}

#[test]
fn answers_in_middle_mode() {
    let rig = TlsRig::start(Mode::Middle);
    let packets = ANSWERS.map(|total| total.next_multiple_of(4));
    // With their length in front they fill one, two and three records all but for the padding.
    let full = [SEGMENT, 3 * SEGMENT, 6 * SEGMENT].map(|full| (full - 4).next_multiple_of(4));
    for total in packets.into_iter().chain(full) {
        for _ in 0..10 {
            middle(rig.dial(), total);
        }
    }
}

/// Nothing else comes that would make the proxy look at it.
#[test]
fn a_wrong_record_in_the_first_records_segment() {
    for mode in MODES {
        let rig = TlsRig::start(mode);
        let mut stream = dial(rig.address());
        let hello = Kind::Today.signed(DOMAIN, &SECRET);
        handshake(&stream, &hello, &SECRET);
        let header = Header::random(Transport::Padded, 2, Some(&SECRET));
        let first = Session::new(TDLIB).seal(&header.wire);
        stream
            .write_all(&[first, alert(40)].concat())
            .expect("send");
        expect_closed(&stream);
        assert_eq!(rig.stop().count("closed_bad_record"), 1, "{mode:?}");
    }
}
