//! --force-dh: middle proxies are spoken to with Diffie-Hellman; one that does it wrong costs its connection
//! and is dialled again.

use crate::support::dh;
use crate::support::framing::Transport;
use crate::support::middle_proxy::{Behaviour, DhFault, MiddleProxy, Options};
use crate::support::rig::{Rig, client_of, proxy_with};
use crate::support::vectors::{Vectors, to_hex};
use std::net::{IpAddr, Ipv6Addr};

/// The arithmetic of the peer that the program is tested with.
#[test]
fn the_peers_own_arithmetic() {
    let vectors = Vectors::load("dh");
    assert_eq!(to_hex(&dh::prime()), vectors.text("prime"));
    let (a, b) = (vectors.bytes("a"), vectors.bytes("b"));
    assert_eq!(to_hex(&dh::public(&a)), vectors.text("g_a"));
    assert_eq!(to_hex(&dh::public(&b)), vectors.text("g_b"));
    let shared = dh::power(&vectors.array("g_a"), &b);
    assert_eq!(to_hex(&shared), vectors.text("shared"));
}

#[test]
fn clients_are_served_over_ipv4_and_ipv6_and_after_a_loss() {
    for ip in [None, Some(IpAddr::V6(Ipv6Addr::LOCALHOST))] {
        let mut options = Options {
            dh: true,
            ..Options::default()
        };
        options.ip = ip.unwrap_or(options.ip);
        let rig = Rig::with(&["--force-dh", "-M", "1"], options);
        rig.dial(Transport::Padded).echo(100_000);
        rig.middle.kill_links();
        rig.middle.link(1);
        rig.dial(Transport::Abridged).echo(100);
    }
}

#[test]
fn a_wrong_answer_costs_the_connection_only() {
    let cases = [
        (DhFault::NotOffered, "schema"),
        (DhFault::OtherGroup, "dh"),
        (DhFault::Zero, "dh"),
        (DhFault::Prime, "dh"),
        (DhFault::AllOnes, "dh"),
        (DhFault::CutOff, "malformed"),
        (DhFault::OtherValue, ""),
    ];
    let start = |fault| {
        MiddleProxy::start(Options {
            behaviour: Behaviour::WrongDh(fault),
            dh: true,
            ..Options::default()
        })
    };
    let middles = cases.map(|(fault, _)| start(fault));
    let rows = (1..).zip(&middles);
    let config: String = rows.map(|(dc, middle)| middle.config_line(dc)).collect();
    let proxy = proxy_with(config, &["--force-dh", "-M", "1"]);
    for (middle, (fault, reason)) in middles.iter().zip(cases) {
        let failed = proxy.wait_for_line(&format!("{fault:?}"), |line| {
            let target = format!(" backend_failed target={} ", middle.address);
            // On a busy machine the first try may take too long; another one follows.
            line.contains(&target) && !line.contains("timeout")
        });
        let wanted = format!(" reason={reason}");
        assert!(failed.contains(&wanted), "{fault:?}: {failed}");
        middle.set_behaviour(Behaviour::Serve);
    }
    for dc in (1..).take(middles.len()) {
        client_of(&proxy, dc).echo(100);
    }
}

/// What a middle proxy answers that knows nothing of it, and doesn't read as far as that.
#[test]
fn without_the_flag_there_is_none() {
    let middle = MiddleProxy::serving();
    let proxy = proxy_with(middle.config_line(2), &["--allow-skip-dh"]);
    client_of(&proxy, 2).echo(100);
}
