//! What happens before the first client and around the clients: links are dialled, pings go both ways, the
//! start block says what runs.

use crate::support::client::Client;
use crate::support::framing::Transport;
use crate::support::middle_proxy::{MiddleProxy, Options, proxy_secret};
use crate::support::proxy::{Proxy, Setup};
use crate::support::rig::{Rig, SECRET, dialer, proxy_with};

#[test]
fn the_first_slot_of_each_set_is_dialled_before_any_client() {
    let middles = [MiddleProxy::serving(), MiddleProxy::serving()];
    let config =
        middles[0].config_line(1) + &middles[1].config_line(2) + &middles[1].config_line(3);
    let proxy = proxy_with(config, &[]);
    for middle in &middles {
        let link = middle.link(0);
        let local = link.peer.to_string();
        proxy.wait_for_line("backend_ready", |line| {
            line.contains(" backend_ready ")
                && line.contains(&format!("target={} ", middle.address))
                && line.ends_with(&format!("local={local}"))
        });
    }
}

/// -M is the number of connections to a set; more than the first come when there are clients for them.
#[test]
fn further_slots_come_with_the_clients_up_to_the_given_number() {
    let rig = Rig::with(&["-M", "3"], Options::default());
    let mut clients: Vec<Client> = Vec::new();
    // 64 clients on each link call for the next one; 100 more each time are enough.
    for links in 1..=3 {
        rig.middle.wait_for("the next link", |state| {
            (state.links.len() == links).then_some(())
        });
        clients.extend((0..100).map(|_| rig.dial(Transport::Padded)));
        clients.iter_mut().for_each(|client| client.echo(10));
    }
    assert_eq!(rig.middle.with(|state| state.accepted), 3);
}

#[test]
fn pings_of_the_backend_are_answered() {
    let rig = Rig::start();
    let link = rig.middle.link(0);
    for eight in [*b"\0\0\0\0\0\0\0\0", *b"abcdefgh", [0xff; 8]] {
        rig.middle.ping(&link, eight);
    }
}

#[test]
fn the_backend_is_pinged_at_the_given_interval() {
    let rig = Rig::with(&["-T", "1", "-M", "1"], Options::default());
    rig.middle.wait_for("three PINGs", |state| {
        (state.pings.len() >= 3).then_some(())
    });
    assert_eq!(
        rig.middle.with(|state| state.accepted),
        1,
        "answered pings keep the link"
    );
    rig.dial(Transport::Padded).echo(10);
}

#[test]
fn secret_files_of_every_allowed_size_work() {
    for size in [32, 33, 128, 256] {
        let rig = Rig::with(
            &[],
            Options {
                proxy_secret: proxy_secret(size),
                ..Options::default()
            },
        );
        rig.dial(Transport::Padded).echo(10);
    }
}

#[test]
fn the_start_block_says_what_runs() {
    let middles = [MiddleProxy::serving(), MiddleProxy::serving()];
    let config =
        middles[0].config_line(1) + &middles[1].config_line(2) + &middles[1].config_line(-2);
    let proxy = proxy_with(config, &["-p", "0", "--http-stats"]);
    let lines = proxy.lines();
    let first = format!("mtproxy {}: middle mode", env!("CARGO_PKG_VERSION"));
    assert!(lines[0].starts_with(&first), "{lines:#?}");
    assert!(lines[0].contains("3 data centres in 2 sets"), "{lines:#?}");
    let address = lines
        .iter()
        .find_map(|line| line.strip_prefix("listening on "))
        .expect("a listener");
    assert!(
        address.starts_with("0.0.0.0:") && !address.ends_with(":0"),
        "{lines:#?}"
    );
    let port = lines
        .iter()
        .find_map(|line| line.strip_prefix("stats on port "))
        .expect("the stats port");
    assert!(port.parse::<u16>().is_ok_and(|port| port > 0), "{lines:#?}");
    assert!(
        lines.iter().any(|line| line.starts_with("limits: ")),
        "{lines:#?}"
    );
}

#[test]
fn every_port_serves() {
    let middle = MiddleProxy::serving();
    let mut setup = Setup::new(middle.config_line(2));
    setup.ports = "0,0,0".to_owned();
    setup.secrets = vec![SECRET];
    let proxy = Proxy::start(&setup);
    assert_eq!(proxy.listening().len(), 3);
    for listening in proxy.listening() {
        let mut address = proxy.address();
        address.set_port(listening.port());
        dialer(address, Transport::Padded).dial().echo(10);
    }
}

#[test]
fn ipv6_listeners_say_so() {
    let rig = Rig::with(&["-6"], Options::default());
    assert!(rig.proxy.listening()[0].is_ipv6());
    assert!(
        rig.proxy
            .lines()
            .iter()
            .any(|line| line.starts_with("listening on [::]:"))
    );
}
