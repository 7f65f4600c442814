//! How connections end in direct mode: an end of one direction is passed on behind the last byte while the
//! other direction goes on, and whatever ends a side ends both.

use crate::support::dc::{Behaviour, DataCentre};
use crate::support::direct_rig::{DirectRig, direct_proxy};
use crate::support::framing::{TRANSPORTS, Transport};
use crate::support::message::Message;
use crate::support::random::{Stream, random_bytes};
use crate::support::rig::{SECRET, dialer};
use crate::support::sockets::{dial, expect_closed, set_read_deadline, wait_for_a_byte};
use crate::support::transfers::{
    centre_until_held, expect_stream_and_end, send_stream, send_stream_and_end, send_until_held,
};
use crate::support::wait::PATIENCE;
use std::io::Write;
use std::thread;

const MIB: usize = 1 << 20;

/// One segment, and far more than all sockets on the way hold: the end comes while bytes are in flight.
const LENGTHS: [usize; 2] = [100, 16 * MIB];

/// Ten held senders could leave 640 MiB.
const PEAK_MEMORY: u64 = 32 << 20;

#[test]
fn either_side_may_end_its_direction_first() {
    for transport in TRANSPORTS {
        for length in LENGTHS {
            let rig = DirectRig::start(Behaviour::HandOver);
            let mut ends = rig.ends(transport);
            ends.end_up(length);
            ends.end_down(length);
            let mut ends = rig.ends(transport);
            ends.end_down(length);
            ends.end_up(length);
        }
    }
}

#[test]
fn both_end_their_direction_with_data_in_flight() {
    for length in LENGTHS {
        let rig = DirectRig::start(Behaviour::HandOver);
        rig.ends(Transport::Padded).end_both_ways(length);
    }
}

/// The whole question and its end are there before the proxy has a connection to the data centre.
#[test]
fn a_client_that_ends_its_direction_at_once_gets_its_answer() {
    let rig = DirectRig::start(Behaviour::HandOver);
    for transport in TRANSPORTS {
        let question = Stream::new(1).take(1_000);
        let (up, mut down) = dialer(rig.proxy.address(), transport)
            .dial_saying(&question)
            .halves();
        up.finish();
        let (mut sending, mut receiving) = rig.centre.take().halves();
        expect_stream_and_end(&mut receiving, 1, 1_000);
        send_stream_and_end(&mut sending, 2, MIB);
        expect_stream_and_end(&mut down, 2, MIB);
    }
}

/// A close in order, with all that was sent before still on its way.
#[test]
fn all_that_was_sent_before_a_close_arrives() {
    for transport in TRANSPORTS {
        for length in LENGTHS {
            let rig = DirectRig::start(Behaviour::HandOver);
            let (mut up, down) = rig.dial(transport).halves();
            let (sending, mut receiving) = rig.centre.take().halves();
            thread::scope(|scope| {
                scope.spawn(move || {
                    send_stream(&mut up, 1, length);
                    drop((up, down));
                });
                expect_stream_and_end(&mut receiving, 1, length);
            });
            drop((sending, receiving));

            let (_up, mut down) = rig.dial(transport).halves();
            let (mut sending, receiving) = rig.centre.take().halves();
            thread::scope(|scope| {
                scope.spawn(move || {
                    send_stream(&mut sending, 2, length);
                    drop((sending, receiving));
                });
                expect_stream_and_end(&mut down, 2, length);
            });
        }
    }
}

/// Waits for the real deadline of 60 s: else connections whose other end has vanished would add up.
#[test]
fn half_a_connection_without_progress_is_ended() {
    let rig = DirectRig::start(Behaviour::HandOver);
    let (_up, mut down) = rig.dial(Transport::Padded).halves();
    let (sending, receiving) = rig.centre.take().halves();
    sending.finish();
    assert_eq!(down.read_some(&mut [0]), 0, "the end was not passed on");
    set_read_deadline(&receiving.stream, 2 * PATIENCE);
    expect_closed(&receiving.stream);
}

/// What a real data centre says when it doesn't know the key: four bytes and the end.
#[test]
fn an_error_and_a_close_reach_the_client() {
    let rig = DirectRig::start(Behaviour::HandOver);
    for transport in TRANSPORTS {
        let mut client = rig.dial(transport);
        let mut link = rig.centre.take();
        assert!(link.send(&(-404_i32).to_le_bytes()));
        drop(link);
        assert_eq!(client.packet(), (-404_i32).to_le_bytes(), "{transport:?}");
        client.expect_closed();
    }
}

#[test]
fn a_client_that_leaves_or_resets_takes_its_connection_along() {
    let rig = DirectRig::start(Behaviour::HandOver);
    for transport in TRANSPORTS {
        let client = rig.dial(transport);
        let link = rig.centre.take();
        client.leave();
        link.wait_for_end();

        // Closing a socket with unread bytes sends a reset.
        let client = rig.dial(transport);
        let mut link = rig.centre.take();
        assert!(link.send_raw(&[1; 100]));
        wait_for_a_byte(&client.stream);
        drop(client);
        link.wait_for_end();
    }
}

#[test]
fn a_data_centre_that_resets_ends_its_client() {
    let rig = DirectRig::start(Behaviour::HandOver);
    for transport in TRANSPORTS {
        let mut client = rig.dial(transport);
        let link = rig.centre.take();
        client.send_raw(&[1; 100]);
        wait_for_a_byte(&link.stream);
        drop(link);
        client.drain_until_closed();
    }
}

/// It accepts and says nothing: that is no business of the proxy's, and ends with the client.
#[test]
fn a_data_centre_that_says_nothing_holds_only_its_own_clients() {
    let (hanging, centre) = (
        DataCentre::start(Behaviour::Hang),
        DataCentre::start(Behaviour::Serve),
    );
    let proxy = direct_proxy(&[&hanging.as_dc(4), &centre.as_dc(2)], &[]);
    let mut waiting = dialer(proxy.address(), Transport::Padded);
    waiting.dc = 4;
    let mut waiting = waiting.dial();
    waiting.send(&Message::echo(10).encode());
    hanging.wait_for("the connection", |state| {
        (state.accepted == 1).then_some(())
    });
    dialer(proxy.address(), Transport::Padded).dial().echo(10);
    waiting.leave();
    assert_eq!(proxy.stop().count("closed_dc_unreachable"), 0);
}

/// TCP holds the data centre back; nothing grows in the proxy, nobody else notices, nothing is lost.
#[test]
fn a_client_that_stalls_holds_its_data_centre_back() {
    const CLIENTS: usize = 10;
    let piece = Stream::new(1).take(MIB);
    let stalled = DataCentre::start(Behaviour::HandOver);
    let centre = DataCentre::start(Behaviour::Serve);
    let proxy = direct_proxy(&[&stalled.as_dc(4), &centre.as_dc(2)], &[]);
    let mut bystander = dialer(proxy.address(), Transport::Padded).dial();
    thread::scope(|scope| {
        let mut stallers = Vec::new();
        for _ in 0..CLIENTS {
            let mut dialer = dialer(proxy.address(), Transport::Abridged);
            dialer.dc = 4;
            let client = dialer.dial();
            let mut link = stalled.take();
            let piece = &piece;
            let held = scope.spawn(move || {
                let held = centre_until_held(&mut link, piece);
                (link, held)
            });
            stallers.push((client, held));
        }
        for (client, held) in stallers {
            let (mut link, held) = held.join().expect("a sender");
            bystander.echo(50_000);
            let total = held.sent + held.rest.len();
            scope.spawn(move || link.stream.write_all(&held.rest).expect("the rest goes"));
            let (_up, mut down) = client.halves();
            let mut received = 0;
            let mut buffer = vec![0; MIB];
            while received < total {
                let count = down.read_some(&mut buffer);
                assert!(count > 0, "{received} of {total} bytes, and the end");
                for byte in &buffer[..count] {
                    assert_eq!(*byte, piece[received % MIB], "at {received}");
                    received += 1;
                }
            }
        }
    });
    let peak = proxy.peak_memory();
    assert!(peak < PEAK_MEMORY, "{peak} bytes at the peak");
}

/// The same the other way round.
#[test]
fn a_data_centre_that_stalls_holds_its_client_back() {
    let rig = DirectRig::start(Behaviour::HandOver);
    let mut client = rig.dial(Transport::Intermediate);
    let link = rig.centre.take();
    send_until_held(&mut client, &vec![0x3c; MIB]);
    let peak = rig.proxy.peak_memory();
    assert!(peak < PEAK_MEMORY, "{peak} bytes at the peak");
    drop(link);
    client.drain_until_closed();
}

/// Nothing is queued in the proxy, so there is nothing to wait for, not even a client that never reads.
#[test]
fn sigterm_ends_with_0_whatever_is_in_flight() {
    let mut rig = DirectRig::start(Behaviour::Serve);
    let mut idle = rig.dial(Transport::Padded);
    idle.echo(10);
    let mut busy = rig.dial(Transport::Intermediate);
    busy.send(&Message::stream(1, 512 * MIB, 64 * 1_024).encode());
    busy.packet();
    let mut stalled = rig.dial(Transport::Abridged);
    stalled.send(&Message::stream(2, 512 * MIB, 64 * 1_024).encode());
    rig.centre.header(2);
    let unconnected = dial(rig.proxy.address());
    rig.proxy.signal("TERM");
    assert_eq!(rig.proxy.wait_for_end().code(), Some(0));
    idle.expect_closed();
    busy.drain_until_closed();
    stalled.drain_until_closed();
    expect_closed(&unconnected);
    rig.centre.wait_for_ends(3);
    assert_eq!(rig.proxy.summary().count("direct_connects"), 3);
}

/// A wrong secret is a stranger's: no byte, no connection to any data centre, closed at the deadline of 10 s.
#[test]
fn a_stranger_gets_nothing() {
    let rig = DirectRig::start(Behaviour::Serve);
    let secrets = [Some(random_bytes()), None, Some(SECRET.map(|byte| !byte))];
    thread::scope(|scope| {
        for (transport, secret) in TRANSPORTS.into_iter().zip(secrets) {
            let mut stranger = dialer(rig.proxy.address(), transport);
            stranger.secret = secret;
            scope.spawn(move || {
                let mut client = stranger.dial();
                client.send(&Message::echo(1_000).encode());
                client.expect_closed();
            });
        }
    });
    assert_eq!(rig.centre.with(|state| state.accepted), 0);
    rig.dial(Transport::Padded).echo(10);
}
