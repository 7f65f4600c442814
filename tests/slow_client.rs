//! A client that asks for much and never reads: the others don't notice, memory stays bounded, and the slow
//! one is closed when its queue is full.

use crate::support::client::Client;
use crate::support::crypto::{RunningHash, sha256};
use crate::support::framing::{TRANSPORTS, Transport};
use crate::support::message::Message;
use crate::support::random::Stream;
use crate::support::rig::Rig;
use crate::support::rpc;
use std::thread;

const MIB: usize = 1 << 20;

/// The cap of one client's queue is 32 MiB; the rest is room for 100 others and for the program.
const PEAK_MEMORY: u64 = 128 << 20;

#[test]
fn is_closed_at_the_cap_and_hurts_nobody() {
    let rig = Rig::start();
    let mut others: Vec<Client> = (0..100)
        .map(|number| rig.dial(TRANSPORTS[number % 3]))
        .collect();
    for other in &mut others {
        other.echo(1_000);
    }
    let mut slow = rig.dial(Transport::Padded);
    let message = Message::stream(1, 512 * MIB, MIB);
    slow.send(&message.encode());
    let conn_id = rig.middle.request(message.tag).conn_id;
    thread::scope(|scope| {
        for group in others.chunks_mut(25) {
            scope.spawn(move || {
                for round in 0..20 {
                    group.iter_mut().for_each(|other| other.echo(round * 500));
                }
            });
        }
    });
    // The proxy tells the backend that the slow one is gone, without being asked again.
    rig.middle.wait_for_close(conn_id);
    slow.drain_until_closed();
    others.iter_mut().for_each(|other| other.echo(1_000));
    let peak = rig.proxy.peak_memory();
    assert!(peak < PEAK_MEMORY, "{peak} bytes at the peak");
    let summary = rig.proxy.stop();
    assert_eq!(summary.count("connections_failed_flood"), 1);
}

/// Slow, but alive: as long as the cap isn't reached everything arrives, in order.
#[test]
fn gets_all_of_a_queue_below_the_cap() {
    const TOTAL: usize = 12 * MIB;
    let rig = Rig::start();
    for transport in TRANSPORTS {
        let mut slow = rig.dial(transport);
        slow.echo(10);
        let conn_id = rig
            .middle
            .with(|state| state.requests.last().map(|request| request.conn_id));
        let conn_id = conn_id.expect("the echo");
        let link = rig.middle.link_of(conn_id);
        let mut stream = Stream::new(3);
        let mut left = TOTAL;
        for size in [16, 300_000, 1_000, 40, 70_000].into_iter().cycle() {
            let piece = stream.take(left.min(size));
            left -= piece.len();
            assert!(link.send(&[&rpc::answer(conn_id, 0, &piece)]));
            if left == 0 {
                break;
            }
        }
        // Once the PONG is here the proxy has all of it, far more than the sockets hold.
        rig.middle.ping(&link, conn_id.to_le_bytes());
        rig.dial(transport).echo(1_000);
        let mut hash = RunningHash::default();
        let mut received = 0;
        while received < TOTAL {
            let packet = slow.packet();
            received += packet.len();
            hash.add(&packet);
        }
        assert_eq!(
            hash.finish(),
            sha256(&Stream::new(3).take(TOTAL)),
            "{transport:?}"
        );
        slow.echo(10);
    }
    assert_eq!(rig.proxy.stop().count("connections_failed_flood"), 0);
}
