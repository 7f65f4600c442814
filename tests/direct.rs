//! Direct mode carries every client to its data centre: transports, data-centre ids, secrets, the header
//! that the proxy sends, and long streams both ways by hash.

use crate::support::crypto::{as_array, sha256};
use crate::support::dc::{Behaviour, DataCentre};
use crate::support::direct_rig::{DirectRig, direct_proxy, use_service};
use crate::support::framing::{TRANSPORTS, Transport};
use crate::support::message::Message;
use crate::support::obfuscated2::Header;
use crate::support::proxy::{Proxy, run_to_end};
use crate::support::rig::{SECRET, dialer};
use crate::support::sockets::{dial, read_bytes};
use crate::support::transfers::echo_interleaved;
use crate::support::vectors::to_hex;
use std::collections::HashSet;
use std::io::Write;
use std::net::{IpAddr, Ipv6Addr};
use std::thread;

const MIB: usize = 1 << 20;

/// Ids that have an address, and the row that they belong to: media addresses are the row's own.
const KNOWN: [(i16, i16); 14] = [
    (1, 1),
    (2, 2),
    (3, 3),
    (4, 4),
    (5, 5),
    (-1, 1),
    (-2, 2),
    (-3, 3),
    (-4, 4),
    (-5, 5),
    (203, 203),
    (-203, 203),
    (10_002, 10_002),
    (-10_002, 10_002),
];

/// Ids that have none. A client that leaves them random sends any number.
const UNKNOWN: [i16; 8] = [0, 6, -7, 202, 9_999, -30_000, i16::MAX, i16::MIN];

/// The rows, each with a data centre of its own.
const ROWS: [i16; 7] = [1, 2, 3, 4, 5, 203, 10_002];

struct World {
    proxy: Proxy,
    centres: Vec<DataCentre>,
}

impl World {
    fn start(secret: &str) -> World {
        let centres: Vec<DataCentre> = ROWS
            .iter()
            .map(|_| DataCentre::start(Behaviour::Serve))
            .collect();
        let mut arguments = vec!["--direct".to_owned(), "-H".to_owned(), "0".to_owned()];
        arguments.extend(["-S".to_owned(), secret.to_owned()]);
        for (row, centre) in ROWS.iter().zip(&centres) {
            arguments.extend(["--dc-override".to_owned(), centre.as_dc(*row)]);
        }
        World {
            proxy: Proxy::start_with(&arguments),
            centres,
        }
    }

    /// A client of `dc` gets its answers from the data centre of `row`, which sees its transport and id.
    fn check(&self, transport: Transport, dc: i16, row: i16) {
        let index = ROWS.iter().position(|known| *known == row).expect("a row");
        let centre = &self.centres[index];
        let before = centre.with(|state| state.headers.len());
        let mut dialer = dialer(self.proxy.address(), transport);
        dialer.dc = dc;
        let mut client = dialer.dial();
        for body in [0, 100, 70_000] {
            client.echo(body);
        }
        let header = centre.header(before);
        assert_eq!((header.transport, header.dc), (transport, dc));
    }
}

#[test]
fn every_transport_reaches_every_data_centre() {
    let world = World::start(&to_hex(&SECRET));
    for transport in TRANSPORTS {
        for (dc, row) in KNOWN {
            world.check(transport, dc, row);
        }
        for dc in UNKNOWN {
            world.check(transport, dc, 2);
        }
    }
    let summary = world.proxy.stop();
    let unknown = (TRANSPORTS.len() * UNKNOWN.len()) as u64;
    let all = unknown + (TRANSPORTS.len() * KNOWN.len()) as u64;
    assert_eq!(summary.count("direct_unknown_dcs"), unknown);
    assert_eq!(summary.count("direct_connects"), all);
    assert_eq!(summary.count("ext_connections_created"), all);
}

/// Links with dd ask clients for the padded transport; the key is the same 16 bytes.
#[test]
fn a_dd_secret_reaches_every_data_centre() {
    let world = World::start(&format!("dd{}", to_hex(&SECRET)));
    for (dc, row) in KNOWN {
        world.check(Transport::Padded, dc, row);
    }
    for dc in UNKNOWN {
        world.check(Transport::Padded, dc, 2);
    }
}

#[test]
fn no_configuration_means_direct_mode() {
    let centre = DataCentre::start(Behaviour::Serve);
    let secret = to_hex(&SECRET);
    let dc = centre.as_dc(2);
    let arguments = ["-H", "0", "-S", &secret, "--dc-override", &dc];
    let proxy = Proxy::start_with(&arguments);
    assert!(
        proxy.lines()[0].contains("direct mode"),
        "{:?}",
        proxy.lines()
    );
    dialer(proxy.address(), Transport::Padded).dial().echo(10);
}

#[test]
fn raw_keys_are_served_when_open_to_everybody() {
    let centre = DataCentre::start(Behaviour::Serve);
    let dc = centre.as_dc(2);
    let arguments = ["--direct", "-H", "0", "--open", "--dc-override", &dc];
    let proxy = Proxy::start_with(&arguments);
    for transport in TRANSPORTS {
        let mut dialer = dialer(proxy.address(), transport);
        dialer.secret = None;
        let mut client = dialer.dial();
        client.echo(10);
        client.echo(300_000);
    }
}

#[test]
fn clients_and_data_centres_of_ipv6() {
    let centre = DataCentre::start_on(IpAddr::V6(Ipv6Addr::LOCALHOST), Behaviour::Serve);
    let proxy = direct_proxy(&[&centre.as_dc(2)], &["-6"]);
    for transport in TRANSPORTS {
        dialer(proxy.address_v6(), transport).dial().echo(100);
        dialer(proxy.address(), transport).dial().echo(100);
    }
}

/// An ad tag needs middle proxies: a start that can't do what it was told says so.
#[test]
fn an_ad_tag_is_refused() {
    let (secret, tag) = (to_hex(&SECRET), "0".repeat(31) + "1");
    for mode in [&["--direct"][..], &[]] {
        let mut arguments = vec!["-H", "0", "-S", &secret, "-P", &tag];
        arguments.extend(mode);
        let refusal = run_to_end(&arguments);
        assert_eq!(refusal.code, Some(2), "{}", refusal.text);
        let says_why = |line: &str| {
            line.starts_with("mtproxy: ") && line.contains("-P") && line.contains("direct")
        };
        assert!(refusal.text.lines().any(says_why), "{}", refusal.text);
    }
}

/// The key that the data centre writes with is the one that the client reads with, so that the proxy has
/// nothing to do with these bytes (design.md 3). Derived here from the client's header and the secret alone.
#[test]
fn the_header_to_the_data_centre_carries_the_clients_key() {
    let rig = DirectRig::start(Behaviour::HandOver);
    for transport in TRANSPORTS {
        let header = Header::random(transport, 2, Some(&SECRET));
        let mut stream = dial(rig.proxy.address());
        stream.write_all(&header.wire).expect("send the header");
        let mut link = rig.centre.take();

        let reversed: Vec<u8> = header.wire[8..56].iter().rev().copied().collect();
        let key = sha256(&[&reversed[..32], &SECRET].concat());
        let mut wanted = [&key, &reversed[32..]].concat();
        wanted.reverse();
        assert_eq!(link.header.wire[8..56], wanted, "{transport:?}");

        // And so the same bytes run on both legs.
        assert!(link.send_raw(b"sixteen bytes up"));
        let mut received = read_bytes(&stream, 16, "an answer");
        let mut receive = header.receive;
        receive.apply(&mut received);
        assert_eq!(received, b"sixteen bytes up");
    }
}

/// The link itself refuses forbidden beginnings; here the random ones must differ.
#[test]
fn headers_to_the_data_centre_begin_at_random() {
    const CLIENTS: usize = 64;
    let rig = DirectRig::start(Behaviour::Serve);
    for number in 0..CLIENTS {
        rig.dial(TRANSPORTS[number % 3]).echo(0);
    }
    let headers = rig.centre.with(|state| state.headers.clone());
    let beginnings: HashSet<[u8; 8]> = headers
        .iter()
        .map(|header| as_array(&header.wire))
        .collect();
    assert_eq!(beginnings.len(), CLIENTS);
}

/// Header and first packet in one segment, and each byte in its own.
#[test]
fn however_the_first_bytes_are_cut() {
    let rig = DirectRig::start(Behaviour::Serve);
    for transport in TRANSPORTS {
        let mut dialer = dialer(rig.proxy.address(), transport);
        let message = Message::echo(1_000).encode();
        let mut hasty = dialer.dial_saying(&transport.frame(&message, false, &[]));
        assert!(hasty.packet() == message, "{transport:?}");
        hasty.echo(10);

        dialer.one_byte_writes = true;
        let mut slow = dialer.dial();
        slow.echo(300);
        slow.echo(10);
    }
}

#[test]
fn packets_acks_and_errors_of_the_service() {
    let rig = DirectRig::start(Behaviour::Serve);
    for transport in TRANSPORTS {
        use_service(&mut rig.dial(transport));
    }
}

#[test]
fn bulk_one_byte() {
    for transport in TRANSPORTS {
        bulk(transport, 1);
    }
}

#[test]
fn bulk_1mib() {
    for transport in TRANSPORTS {
        bulk(transport, MIB);
    }
}

#[test]
fn bulk_64mib() {
    bulk(Transport::Abridged, 64 * MIB);
}

/// So many bytes down, up, and then both ways at once.
fn bulk(transport: Transport, total: usize) {
    let rig = DirectRig::start(Behaviour::HandOver);
    let mut ends = rig.ends(transport);
    ends.pass_down(total);
    ends.pass_up(total);
    ends.pass_both_ways(total);
}

#[test]
fn a_hundred_clients_get_their_own_answers() {
    const THREADS: usize = 4;
    const EACH: usize = 25;
    let rig = DirectRig::start(Behaviour::Serve);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let clients = (0..EACH).map(|number| rig.dial(TRANSPORTS[number % 3]));
                echo_interleaved(clients.collect(), 20, 20);
            });
        }
    });
    assert_eq!(
        rig.centre.with(|state| state.headers.len()),
        THREADS * EACH,
        "one connection a client"
    );
    // Each of them goes with its client.
    rig.centre.wait_for_ends(THREADS * EACH);
}
