//! The proxy's answer against the real one: a hundred handshakes with nginx behind the mask and as many with
//! the proxy in front of it, field by field, as a table on stderr. Where programs are missing: not tested.

use crate::support::nginx::{EC_KEY, NAME, Nginx, RSA_KEY, Site};
use crate::support::programs::show;
use crate::support::rig::SECRET;
use crate::support::sockets::dial;
use crate::support::tls_client::handshake;
use crate::support::tls_flight::Flight;
use crate::support::tls_hello::Kind;
use crate::support::tls_rig::{Mode, Served};
use crate::support::wait::uninterrupted;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::SocketAddr;

const HANDSHAKES: usize = 100;

/// Lengths of Finished, encrypted, with SHA-256 and SHA-384: the last record of a first flight.
const FINISHED: [usize; 2] = [53, 69];

/// How often each value of a field was seen.
type Counts = BTreeMap<String, usize>;

#[derive(Default)]
struct Side {
    fields: BTreeMap<&'static str, Counts>,
    totals: Vec<usize>,
}

impl Side {
    fn note(&mut self, flight: &Flight, first_read: usize) {
        let ids = |ids: &[u16]| {
            ids.iter()
                .map(|id| format!("{id:04x} "))
                .collect::<String>()
        };
        let whole = first_read == flight.total;
        for (name, value) in [
            ("ServerHello record", flight.server_hello.to_string()),
            ("extension order", ids(&flight.extensions)),
            ("cipher", ids(&[flight.cipher])),
            ("group", ids(&[flight.group])),
            ("key share", flight.share.len().to_string()),
            ("session id echoed", flight.session_echoed.to_string()),
            ("ChangeCipherSpec", flight.change_cipher_spec.to_string()),
            ("first read is all", whole.to_string()),
            ("encrypted records", flight.records.len().to_string()),
            ("total bytes", flight.total.to_string()),
        ] {
            *self
                .fields
                .entry(name)
                .or_default()
                .entry(value)
                .or_default() += 1;
        }
        self.totals.push(flight.total);
    }

    /// The value that was seen most often.
    fn usual(&self, name: &str) -> &str {
        let counts = self.fields[name].iter();
        counts
            .max_by_key(|(_, count)| **count)
            .map_or("", |(value, _)| value)
    }

    fn values(&self, name: &str) -> Vec<&String> {
        self.fields[name].keys().collect()
    }
}

/// nginx's own first flight, read to its end.
fn real(address: SocketAddr, hello: &[u8]) -> (Flight, usize) {
    let mut stream = dial(address);
    stream.write_all(hello).expect("the hello");
    let (mut bytes, mut buffer) = (Vec::new(), vec![0; 128 * 1_024]);
    let mut first_read = 0;
    loop {
        let count = uninterrupted(|| stream.read(&mut buffer)).expect("a first flight");
        assert!(count > 0, "nginx ends after {bytes:02x?}");
        bytes.extend(&buffer[..count]);
        first_read = if first_read == 0 { count } else { first_read };
        let flight = Flight::parse(&bytes, hello);
        let is_whole = |flight: &Flight| {
            flight.records.len() > 1
                && flight
                    .records
                    .last()
                    .is_some_and(|length| FINISHED.contains(length))
        };
        if let Some(flight) = flight.filter(is_whole) {
            return (flight, first_read);
        }
    }
}

fn ours(address: SocketAddr, hello: &[u8]) -> (Flight, usize) {
    let answer = handshake(&dial(address), hello, &SECRET);
    let flight = Flight::parse(&answer.bytes, hello).expect("a first flight");
    (flight, answer.first_read)
}

/// A hundred of each, in turn.
fn compare(nginx: &Nginx, served: &Served, kind: Kind) -> [Side; 2] {
    let mut sides = [Side::default(), Side::default()];
    for _ in 0..HANDSHAKES {
        let (flight, first_read) = ours(served.address(), &kind.signed(NAME, &SECRET));
        sides[0].note(&flight, first_read);
        let (flight, first_read) = real(nginx.address, &kind.signed(NAME, &SECRET));
        sides[1].note(&flight, first_read);
    }
    sides
}

fn table(title: &str, [ours, real]: &[Side; 2]) -> String {
    let shown = |counts: &Counts| {
        let values = counts
            .iter()
            .map(|(value, count)| format!("{} x{count}", value.trim()));
        values.collect::<Vec<_>>().join(", ")
    };
    let mut text = format!("{HANDSHAKES} handshakes, {title}\n");
    for (name, counts) in &ours.fields {
        let (ours, real) = (shown(counts), shown(&real.fields[name]));
        let _ = writeln!(text, "  {name:<19} | {ours:<44} | {real}");
    }
    text
}

/// No field tells the two apart, but for the number of encrypted records, which clients force to be one
/// (protocol.md 5.4), with as many bytes in all.
fn check(title: &str, sides: &[Side; 2]) {
    let [ours, real] = sides;
    for name in [
        "ServerHello record",
        "extension order",
        "cipher",
        "group",
        "key share",
        "session id echoed",
        "ChangeCipherSpec",
    ] {
        assert_eq!(ours.values(name), real.values(name), "{title}: {name}");
    }
    assert_eq!(ours.values("encrypted records"), ["1"], "{title}");
    // When a reader wakes up is the kernel's affair: what happens most of the time counts.
    let segments = "first read is all";
    assert_eq!(
        ours.usual(segments),
        real.usual(segments),
        "{title}: segments"
    );
    let range = |side: &Side| {
        (
            side.totals.iter().min().copied(),
            side.totals.iter().max().copied(),
        )
    };
    let ((Some(least), Some(most)), (Some(low), Some(high))) = (range(ours), range(real)) else {
        panic!("no totals");
    };
    // A signature of P-256 takes 70 to 72 bytes, and rarely one or two less.
    let rare = if low == high { 0 } else { 2 };
    assert!(
        least + rare >= low && most <= high,
        "{title}: {least}..={most} for {low}..={high}"
    );
}

#[test]
fn the_answer_is_nginxs_own_as_far_as_clients_let_it() {
    let sites = [
        (
            "a P-256 certificate, the client's cipher",
            Site {
                key: &EC_KEY,
                ..Site::default()
            },
        ),
        (
            "an RSA certificate, the server's cipher",
            Site {
                key: &RSA_KEY,
                protocols: "TLSv1.3",
                directives: "ssl_prefer_server_ciphers on;",
                ..Site::default()
            },
        ),
    ];
    for (what, site) in sites {
        let Some(nginx) = site.start() else { return };
        let served = Served::start(Mode::Direct, &["-D", &nginx.as_domain()]);
        served.wait_until_probed(NAME);
        let mut totals: [BTreeSet<usize>; 2] = Default::default();
        for kind in [Kind::Old, Kind::Today, Kind::Apple, Kind::AppleChaCha] {
            let title = format!("{kind:?} hello, {what}: the proxy | nginx");
            let sides = compare(&nginx, &served, kind);
            show(&table(&title, &sides));
            check(&title, &sides);
            for (totals, side) in totals.iter_mut().zip(&sides) {
                totals.extend(&side.totals);
            }
        }
        // Over all kinds: of one alone the proxy knows few answers at its start.
        let varies = totals.map(|totals| totals.len() > 1);
        assert_eq!(
            varies[0], varies[1],
            "{what}: the totals vary on one side only"
        );
    }
}
