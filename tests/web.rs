//! Proxy type WEB end to end: streams of the usual clients in lanes, in both modes.

use crate::support::client::Client;
use crate::support::dc::Behaviour;
use crate::support::direct_rig::DirectRig;
use crate::support::framing::Transport;
use crate::support::middle_proxy::Options;
use crate::support::rig::{Rig, SECRET, dialer};
use crate::support::transfers::{Ends, download, echo_interleaved, upload};
use crate::support::web::{Carrier, HOST, Page};

const TRANSPORTS: [Transport; 3] = [
    Transport::Abridged,
    Transport::Intermediate,
    Transport::Padded,
];
const WEB: [&str; 4] = ["--web", HOST, "--web-listen", "127.0.0.1:0"];

fn dial(carrier: &Carrier, transport: Transport) -> Client {
    dialer(carrier.address, transport).dial()
}

#[test]
fn middle_mode_serves_lanes() {
    let rig = Rig::with(&WEB, Options::default());
    for padded in [false, true] {
        let carrier = Carrier::start(&Page::of(&rig.proxy), &SECRET, padded);
        for transport in TRANSPORTS {
            let mut client = dial(&carrier, transport);
            client.echo(40);
            client.echo(300_000);
            upload(&mut client, 6 << 20, &[100_000]);
            download(&mut client, 10 << 20, 500_000);
        }
        let clients = (0..8).map(|_| dial(&carrier, Transport::Padded));
        echo_interleaved(clients.collect(), 5, 3000);
    }
}

#[test]
fn direct_mode_serves_lanes() {
    let rig = DirectRig::with(Behaviour::HandOver, &WEB);
    let carrier = Carrier::start(&Page::of(&rig.proxy), &SECRET, false);
    for transport in TRANSPORTS {
        let mut ends = Ends::new(dial(&carrier, transport), rig.centre.take());
        ends.pass_up(10 << 20);
        ends.pass_down(10 << 20);
        ends.pass_both_ways(10 << 20);
    }
}
