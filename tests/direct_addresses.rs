//! Direct mode and the addresses of a data centre: tried in order, a bad one costs nothing but its refusal,
//! and a client whose data centre can't be reached is closed and counted.

use crate::support::dc::{Behaviour, DataCentre, Refusing, Unanswering};
use crate::support::direct_rig::direct_proxy;
use crate::support::framing::{TRANSPORTS, Transport};
use crate::support::message::Message;
use crate::support::proxy::Proxy;
use crate::support::rig::dialer;
use crate::support::sockets::free_address;
use std::net::TcpListener;

/// A connection to it fails without a packet sent, before the call returns.
const FAILS_AT_ONCE: &str = "2:255.255.255.255:443";

#[test]
fn a_refusal_closes_the_client_and_is_counted() {
    let refusing = Refusing::new();
    let proxy = direct_proxy(&[&format!("2:{}", refusing.address)], &["-v"]);
    assert_unreachable(proxy);
}

#[test]
fn an_error_at_once_closes_the_client_and_is_counted() {
    assert_unreachable(direct_proxy(&[FAILS_AT_ONCE], &["-v"]));
}

/// Waits for the real deadline of 5 s.
#[test]
fn no_answer_at_all_closes_the_client_and_is_counted() {
    let silent = Unanswering::new();
    let proxy = direct_proxy(&[&format!("2:{}", silent.address)], &["-v"]);
    assert_unreachable(proxy);
}

/// A client of each transport is closed without a byte, others are served meanwhile and after.
fn assert_unreachable(proxy: Proxy) {
    let mut clients = TRANSPORTS.map(|transport| dialer(proxy.address(), transport).dial());
    for client in &mut clients {
        client.send(&Message::echo(100).encode());
    }
    for client in &mut clients {
        client.expect_closed();
    }
    wait_for_unreachable(&proxy, 3);
    let summary = proxy.stop();
    assert_eq!(summary.count("closed_dc_unreachable"), 3);
    assert_eq!(summary.count("direct_connects"), 0);
}

#[test]
fn one_unreachable_data_centre_leaves_the_others_alone() {
    let (refusing, centre) = (Refusing::new(), DataCentre::start(Behaviour::Serve));
    let overrides = [format!("4:{}", refusing.address), centre.as_dc(2)];
    let proxy = direct_proxy(&[&overrides[0], &overrides[1]], &["-v"]);
    let mut bystander = dialer(proxy.address(), Transport::Padded).dial();
    bystander.echo(10);
    let mut unlucky = dialer(proxy.address(), Transport::Padded);
    for dc in [4, -4] {
        unlucky.dc = dc;
        unlucky.dial().expect_closed();
        bystander.echo(10);
    }
    wait_for_unreachable(&proxy, 2);
    // Said once, with the cause: the second one came within a minute.
    let said = proxy.wait_for_events("dc_unreachable", 1);
    assert_eq!(said[0].text("dc"), "4");
    let lines = proxy.lines();
    let warnings = lines
        .iter()
        .filter(|line| line.contains("dc_unreachable dc=4"));
    assert_eq!(warnings.count(), 1, "{lines:?}");
    assert!(
        lines.iter().any(|line| line.contains("refused")),
        "{lines:?}"
    );
    assert_eq!(proxy.stop().count("closed_dc_unreachable"), 2);
}

/// What was said of a data centre that can't be reached is taken back once it can.
#[test]
fn a_data_centre_that_comes_back_is_said_to() {
    // Of a range that the kernel gives nobody, so that the port is still free later.
    let address = free_address();
    let proxy = direct_proxy(&[&format!("2:{address}")], &[]);
    let dialer = dialer(proxy.address(), Transport::Padded);
    dialer.dial().expect_closed();
    proxy.wait_for_events("dc_unreachable", 1);
    let _centre = TcpListener::bind(address).expect("a port that nobody has");
    let _client = dialer.dial();
    proxy.wait_for_events("dc_reachable", 1);
}

/// A client sees its end a moment before it is counted; with -v the line about it comes after that.
fn wait_for_unreachable(proxy: &Proxy, count: usize) {
    for event in proxy.wait_for_events("client_closed", count) {
        assert_eq!(event.text("reason"), "dc_unreachable");
    }
}

#[test]
fn the_next_address_is_tried() {
    let (refusing, centre) = (Refusing::new(), DataCentre::start(Behaviour::Serve));
    let refused = format!("2:{}", refusing.address);
    for before in [
        &[refused.as_str()][..],
        &[FAILS_AT_ONCE],
        &[&refused, FAILS_AT_ONCE],
    ] {
        let right = centre.as_dc(2);
        let proxy = direct_proxy(&[before, &[&right]].concat(), &[]);
        for transport in TRANSPORTS {
            dialer(proxy.address(), transport).dial().echo(1_000);
        }
        let summary = proxy.stop();
        assert_eq!(summary.count("closed_dc_unreachable"), 0, "{before:?}");
        assert_eq!(summary.count("direct_connects"), 3, "{before:?}");
    }
}

#[test]
fn the_first_address_that_answers_is_used() {
    let (first, second) = (
        DataCentre::start(Behaviour::Serve),
        DataCentre::start(Behaviour::Serve),
    );
    let proxy = direct_proxy(&[&first.as_dc(2), &second.as_dc(2)], &[]);
    for transport in TRANSPORTS {
        dialer(proxy.address(), transport).dial().echo(10);
    }
    assert_eq!(first.with(|state| state.headers.len()), TRANSPORTS.len());
    assert_eq!(second.with(|state| state.accepted), 0);
}
