//! The answer to a client is shaped after the site's own, which the proxy learns from probes; and a site
//! that is dead or of no use delays nobody and is said so once.

use crate::support::mask_site::{MaskSite, Script, answering, tls_server};
use crate::support::random::random_bytes;
use crate::support::tls_flight::{Look, extensions, first_cipher, is_hello};
use crate::support::tls_hello::{KINDS, Kind};
use crate::support::tls_rig::{DOMAIN, MODES, Mode, Served, TlsRig, ask};
use crate::support::wait::until;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::thread;

fn before(site: Script, mode: Mode, arguments: &[&str]) -> TlsRig {
    let rig = TlsRig::before(MaskSite::with(site), mode, arguments);
    rig.wait_until_probed();
    rig
}

#[test]
fn the_answer_looks_like_the_sites() {
    let looks = [
        Look::default(),
        Look {
            versions_first: true,
            hybrid: true,
            ..Look::default()
        },
        Look {
            cipher: Some(0x1302),
            records: vec![4_000],
            ..Look::default()
        },
        Look {
            cipher: Some(0x1303),
            hybrid: true,
            records: vec![23, 23, 6_000, 300, 69],
            ..Look::default()
        },
    ];
    thread::scope(|scope| {
        for (look, mode) in looks.iter().flat_map(|look| MODES.map(|mode| (look, mode))) {
            scope.spawn(move || looks_like(look, mode));
        }
    });
}

fn looks_like(look: &Look, mode: Mode) {
    let rig = before(tls_server(look.clone()), mode, &[]);
    for kind in KINDS {
        let (_, flight) = ask(rig.address(), kind, DOMAIN);
        let hybrid = look.hybrid && kind.is_hybrid();
        let order = if look.versions_first {
            [0x2b, 0x33]
        } else {
            [0x33, 0x2b]
        };
        assert_eq!(
            flight.cipher,
            look.cipher.unwrap_or(kind.ciphers()[0]),
            "{kind:?}"
        );
        assert_eq!(flight.group, if hybrid { 0x11ec } else { 0x1d }, "{kind:?}");
        assert_eq!(flight.share.len(), if hybrid { 1_120 } else { 32 });
        assert_eq!(flight.extensions, order);
        // One record with as many bytes on the wire as the site's several.
        let site: usize = look.records.iter().map(|length| 5 + length).sum();
        assert_eq!(5 + flight.records[0], site, "{kind:?} of {look:?}");
    }
}

/// A site's certificate proof differs in length from time to time, and so does our record.
#[test]
fn lengths_vary_as_the_sites_do() {
    let site = answering(
        |hello| {
            let [random] = random_bytes();
            let records = vec![3_000 + usize::from(random % 8)];
            vec![
                Look {
                    records,
                    ..Look::default()
                }
                .answer(hello),
            ]
        },
        false,
    );
    let rig = before(site, Mode::Direct, &[]);
    let lengths: BTreeSet<usize> = (0..60)
        .map(|number| {
            ask(rig.address(), KINDS[number % KINDS.len()], DOMAIN)
                .1
                .records[0]
        })
        .collect();
    assert!(
        lengths.iter().all(|length| (3_000..3_008).contains(length)),
        "{lengths:?}"
    );
    assert!(lengths.len() > 1, "always {lengths:?}");
}

/// Shares, randoms and records are new each time.
#[test]
fn no_two_answers_share_their_random_bytes() {
    let look = Look {
        hybrid: true,
        ..Look::default()
    };
    let rig = before(tls_server(look), Mode::Direct, &[]);
    for kind in [Kind::Today, Kind::NoHybrid] {
        let mut seen = BTreeSet::new();
        for _ in 0..40 {
            let (answer, flight) = ask(rig.address(), kind, DOMAIN);
            let record = answer.bytes[answer.bytes.len() - 64..].to_vec();
            let tail = flight.share[flight.share.len() - 32..].to_vec();
            seen.extend([flight.random, flight.share, tail, record]);
        }
        // An X25519 share is its own tail.
        assert_eq!(seen.len(), if kind.is_hybrid() { 160 } else { 120 });
    }
}

/// The first part as a server may write it, then the rest: a client's first read may find them apart. A cut
/// anywhere else is the network's.
#[test]
fn a_flight_in_two_segments() {
    thread::scope(|scope| {
        for split in [127, 133, 1_024] {
            scope.spawn(move || {
                // A probe or a client that reads late finds all of it at once: several tries of both.
                until("an answer in two segments", || {
                    let rig = before(in_two(split), Mode::Direct, &[]);
                    let found = (0..100).any(|_| first_read(&rig) == split);
                    found.then_some(())
                });
            });
        }
    });
    let rig = before(in_two(1_000), Mode::Direct, &[]);
    assert!((0..1_000).all(|_| first_read(&rig) != 1_000));
}

/// Answers with a flight whose first so many bytes come a while before the rest.
fn in_two(split: usize) -> Script {
    let answer = move |hello: &[u8]| {
        let flight = Look::default().answer(hello);
        vec![flight[..split].to_vec(), flight[split..].to_vec()]
    };
    answering(answer, false)
}

fn first_read(rig: &TlsRig) -> usize {
    ask(rig.address(), Kind::NoHybrid, DOMAIN).0.first_read
}

#[test]
fn a_flight_in_one_segment() {
    let rig = before(tls_server(Look::default()), Mode::Direct, &[]);
    for _ in 0..40 {
        let (answer, _) = ask(rig.address(), Kind::NoHybrid, DOMAIN);
        assert_eq!(answer.first_read, answer.bytes.len());
    }
}

#[test]
fn a_hybrid_share_only_where_it_is_wanted() {
    let hybrid_at = |(value, group): (&str, u16)| {
        let look = Look {
            hybrid: true,
            ..Look::default()
        };
        let rig = before(tls_server(look), Mode::Direct, &["--tls-hybrid", value]);
        assert_eq!(ask(rig.address(), Kind::Today, DOMAIN).1.group, group);
        assert_eq!(ask(rig.address(), Kind::Old, DOMAIN).1.group, 0x1d);
        rig.dial().echo(100);
    };
    thread::scope(|scope| {
        for case in [("on", 0x11ec), ("off", 0x1d)] {
            scope.spawn(move || hybrid_at(case));
        }
    });
}

#[test]
fn every_domain_has_a_look_of_its_own() {
    let looks = [false, true].map(|versions_first| Look {
        versions_first,
        records: vec![if versions_first { 2_222 } else { 3_333 }],
        ..Look::default()
    });
    let [one, two] = looks.clone().map(tls_server);
    let second = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
    let sites = [MaskSite::with(one), MaskSite::start_on(second, two)];
    let domains = [sites[0].as_domain(DOMAIN), sites[1].as_domain("127.0.0.2")];
    let served = Served::start(Mode::Direct, &["-D", &domains[0], "-D", &domains[1]]);
    for (site, name) in sites.iter().zip([DOMAIN, "127.0.0.2"]) {
        let line = served.wait_until_probed(name);
        assert!(line.contains(&format!("site={}", site.address)), "{line}");
    }
    for (look, name) in looks.iter().zip([DOMAIN, "127.0.0.2"]) {
        let (_, flight) = ask(served.address(), Kind::Today, name);
        assert_eq!(flight.records, look.records);
        assert_eq!(flight.extensions[0] == 0x2b, look.versions_first);
    }
}

/// A real server would answer the probes with what it answers today's clients.
#[test]
fn probes_are_like_todays_clients() {
    let rig = before(tls_server(Look::default()), Mode::Direct, &[]);
    let probes: Vec<Vec<u8>> = rig.site.with_state(|state| {
        state
            .visits
            .iter()
            .map(|visit| visit.received.clone())
            .collect()
    });
    let mut kinds = BTreeSet::new();
    let mut randoms = BTreeSet::new();
    for probe in probes.iter().filter(|probe| !probe.is_empty()) {
        let length = 5 + usize::from(u16::from_be_bytes([probe[3], probe[4]]));
        let (hello, behind) = probe.split_at(length.min(probe.len()));
        assert!(is_hello(hello), "a probe of {} bytes", hello.len());
        // Some find out what the site does with a record that its keys don't fit.
        let finished = [0x14, 3, 3, 0, 1, 1, 0x17, 3, 3, 0, 53];
        let is_finished = behind.len() == finished.len() + 53 && behind.starts_with(&finished);
        assert!(behind.is_empty() || is_finished, "{behind:02x?}");
        let extensions = extensions(hello);
        let of = |id: u16| {
            extensions
                .iter()
                .find(|(found, _)| *found == id)
                .map(|(_, body)| body)
        };
        assert_eq!(of(0).expect("a name")[5..], *DOMAIN.as_bytes());
        let shares = of(0x33).expect("key shares");
        let hybrid = shares
            .windows(4)
            .position(|four| four == [0x11, 0xec, 0x04, 0xc0]);
        if let Some(at) = hybrid {
            check_encapsulation_key(&shares[at + 4..at + 4 + 1_184]);
        }
        kinds.insert((hybrid.is_some(), first_cipher(hello)));
        randoms.insert(hello[11..43].to_vec());
    }
    assert_eq!(randoms.len(), probes.len(), "no two probes are alike");
    assert!(
        kinds.contains(&(true, 0x1301)) && kinds.contains(&(false, 0x1301)),
        "{kinds:?}"
    );
    assert!(
        probes.len() > kinds.len(),
        "several of each: {} of {kinds:?}",
        probes.len()
    );
}

/// A server refuses coefficients that aren't reduced.
fn check_encapsulation_key(key: &[u8]) {
    for three in key[..1_152].chunks(3) {
        let pair = u32::from_le_bytes([three[0], three[1], three[2], 0]);
        assert!(
            pair & 0xfff < 3_329 && pair >> 12 < 3_329,
            "an unreduced coefficient"
        );
    }
}
