//! Networks as phones and routers have them: packets are lost, late, out of order, or cut small, and a far side
//! that falls silent for a minute. Transfers end whole, or with a closed connection, within the times below, in
//! both modes. Minutes long: `make faults`.

use crate::support::bad_network::{Faults, Wire, wire};
use crate::support::client::{Client, Dialer};
use crate::support::dc::Behaviour;
use crate::support::direct_rig::DirectRig;
use crate::support::framing::Transport;
use crate::support::message::Message;
use crate::support::middle_proxy::Options;
use crate::support::rig::{Rig, dialer};
use crate::support::sockets::set_read_deadline;
use crate::support::tls_rig::{MODES, Mode};
use std::thread;
use std::time::{Duration, Instant};

/// How long a transfer may take that meets one of the faults: tens of round trips.
const WHOLE_WITHIN: Duration = Duration::from_secs(60);
/// A far side is silent for so long.
const SILENCE: Duration = Duration::from_secs(60);
/// From its beginning, a transfer is whole or its connection is closed after at most so long: by then the kernel,
/// which waits twice as long each time, has tried again.
const OVER_WITHIN: Duration = Duration::from_secs(150);
/// A client is closed, if it is, at most so long after the beginning: a write to a middle proxy that gets nowhere is
/// given up after 40 s, with all clients of the connection.
const TOLD_WITHIN: Duration = Duration::from_secs(60);

/// A proxy with what it needs, and the port of its far side.
enum Served {
    Middle(Rig),
    Direct(DirectRig),
}

impl Served {
    fn start(mode: Mode) -> Served {
        // As often as by default, where the tests have longer times.
        let arguments = ["-T", "60"];
        match mode {
            Mode::Middle => Served::Middle(Rig::with(&arguments, Options::default())),
            Mode::Direct => Served::Direct(DirectRig::with(Behaviour::Serve, &[])),
        }
    }

    fn dialer(&self) -> Dialer {
        let proxy = match self {
            Served::Middle(rig) => &rig.proxy,
            Served::Direct(rig) => &rig.proxy,
        };
        dialer(proxy.address(), Transport::Padded)
    }

    fn far_port(&self) -> u16 {
        let text = match self {
            Served::Middle(rig) => rig.middle.config_line(2),
            Served::Direct(rig) => rig.centre.as_dc(2),
        };
        let digits = text.trim_end_matches([';', '\n']).rsplit(':').next();
        digits.and_then(|text| text.parse().ok()).expect("a port")
    }

    fn stop(self) {
        match self {
            Served::Middle(rig) => rig.proxy.stop(),
            Served::Direct(rig) => rig.proxy.stop(),
        };
    }
}

/// One fault for all packets: echoes of all sizes come back whole.
fn transfers_under(test: &str, set: impl Fn(&Wire)) {
    let Some(wire) = wire(test) else { return };
    set(&wire);
    for mode in MODES {
        let served = Served::start(mode);
        let begun = Instant::now();
        let transfers = [1_usize, 3_000, 100_000, 900_000].map(|length| {
            let dialer = served.dialer();
            thread::spawn(move || dialer.dial().echo(length))
        });
        for transfer in transfers {
            transfer.join().expect("a whole echo");
        }
        let took = begun.elapsed();
        println!("{test} {mode:?}: whole after {took:.1?}");
        assert!(took < WHOLE_WITHIN, "{mode:?} took {took:?}");
        served.stop();
    }
    assert!(wire.carried() > 1_000, "another way than the wire");
}

#[test]
#[ignore = "a network of its own with faults: make faults"]
fn five_of_a_hundred_packets_are_lost() {
    let faults = Faults {
        lost: 5,
        ..Faults::default()
    };
    transfers_under("faults::five_of_a_hundred_packets_are_lost", |wire| {
        wire.set(faults)
    });
}

#[test]
#[ignore = "a network of its own with faults: make faults"]
fn each_packet_takes_300_ms() {
    let faults = Faults {
        delay: Duration::from_millis(300),
        ..Faults::default()
    };
    transfers_under("faults::each_packet_takes_300_ms", |wire| wire.set(faults));
}

#[test]
#[ignore = "a network of its own with faults: make faults"]
fn a_quarter_of_the_packets_overtakes() {
    let faults = Faults {
        delay: Duration::from_millis(20),
        early: 25,
        ..Faults::default()
    };
    transfers_under("faults::a_quarter_of_the_packets_overtakes", |wire| {
        wire.set(faults)
    });
}

#[test]
#[ignore = "a network of its own with faults: make faults"]
fn packets_have_576_bytes_at_most() {
    transfers_under("faults::packets_have_576_bytes_at_most", |wire| {
        wire.set_mtu(576)
    });
}

/// Sends a message; whether it comes back whole, or the connection ends, and after how long.
fn outcome(client: &mut Client, begun: Instant) -> (&'static str, Duration) {
    set_read_deadline(&client.stream, OVER_WITHIN * 2);
    let message = Message::echo(50_000).encode();
    client.send(&message);
    let word = match client.receive_or_end() {
        Some(crate::support::framing::Item::Packet(answer)) if answer == message => "whole",
        Some(other) => panic!("neither the echo nor an end: {other:?}"),
        None => "closed",
    };
    (word, begun.elapsed())
}

/// How long such an outcome may take.
fn most(word: &str) -> Duration {
    match word {
        "closed" => TOLD_WITHIN,
        _ => OVER_WITHIN,
    }
}

fn a_minute_of_silence(test: &str, mode: Mode) {
    let Some(wire) = wire(test) else { return };
    let served = Served::start(mode);
    let mut client = served.dialer().dial();
    client.echo(1_000);
    let begun = Instant::now();
    let swallowed = Some(served.far_port());
    wire.set(Faults {
        swallowed,
        ..Faults::default()
    });
    let before = thread::spawn(move || outcome(&mut client, begun));
    let dialer = served.dialer();
    let during = thread::spawn(move || outcome(&mut dialer.dial(), begun));
    thread::sleep(SILENCE);
    wire.set(Faults::default());
    let lifted = Instant::now();
    // Whoever comes behind is served; where a connection is being made anew, within the longest back-off.
    let after = loop {
        let (word, _) = outcome(&mut served.dialer().dial(), lifted);
        if word == "whole" {
            break lifted.elapsed();
        }
        assert!(lifted.elapsed() < OVER_WITHIN, "nobody is served any more");
    };
    println!("{test}: served again {after:.1?} after its end");
    let (word, took) = before.join().expect("an outcome");
    println!("{test}: a client from before: {word} after {took:.1?}");
    assert!(took < most(word), "{word} after {took:?}");
    let (word, took) = during.join().expect("an outcome");
    println!("{test}: a client that came during it: {word} after {took:.1?}");
    assert!(took < most(word), "{word} after {took:?}");
    served.stop();
}

#[test]
#[ignore = "a network of its own with faults: make faults"]
fn a_middle_proxy_is_silent_for_a_minute() {
    a_minute_of_silence(
        "faults::a_middle_proxy_is_silent_for_a_minute",
        Mode::Middle,
    );
}

#[test]
#[ignore = "a network of its own with faults: make faults"]
fn a_data_centre_is_silent_for_a_minute() {
    a_minute_of_silence("faults::a_data_centre_is_silent_for_a_minute", Mode::Direct);
}
