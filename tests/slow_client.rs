//! A client that asks for much and never reads: the others don't notice, memory stays bounded, and the slow
//! one is closed when its queue is full.

use crate::support::client::Client;
use crate::support::framing::TRANSPORTS;
use crate::support::framing::Transport;
use crate::support::message::Message;
use crate::support::rig::Rig;
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

/// Slow, but alive: as long as the cap isn't reached everything arrives.
#[test]
fn gets_all_of_a_queue_below_the_cap() {
    let rig = Rig::start();
    let mut slow = rig.dial(Transport::Abridged);
    slow.send(&Message::stream(3, 12 * MIB, 256 * 1_024).encode());
    let first = slow.packet();
    let mut bystander = rig.dial(Transport::Abridged);
    bystander.echo(1_000);
    let mut received = first.len();
    while received < 12 * MIB {
        received += slow.packet().len();
    }
    slow.echo(10);
    assert_eq!(rig.proxy.stop().count("connections_failed_flood"), 0);
}
