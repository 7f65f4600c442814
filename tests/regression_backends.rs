//! Faults around middle proxies that were found and mended: one that fails as soon as it is ready doesn't keep
//! clients from the next, one that stops reading doesn't keep the places of clients that left, and silence
//! counts only where it used to be broken.

use crate::support::client::Client;
use crate::support::framing::Transport;
use crate::support::message::Message;
use crate::support::middle_proxy::{Behaviour, MiddleProxy, Options};
use crate::support::proxy::Proxy;
use crate::support::rig::{client_of, dialer, proxy_with};
use crate::support::transfers::upload_until_held;
use crate::support::wait::until;
use std::thread;

/// The most clients at a time, in the test of their places.
const PLACES: usize = 20;

#[test]
fn a_target_that_closes_when_ready_does_not_keep_clients_from_the_next() {
    let dead = MiddleProxy::start(Options {
        behaviour: Behaviour::CloseWhenReady,
        ..Options::default()
    });
    let alive = MiddleProxy::serving();
    let config = dead.config_line(2) + &alive.config_line(2);
    let proxy = proxy_with(config, &["-M", "1"]);
    for round in 0..3 {
        alive.link(round);
        dialer(proxy.address(), Transport::Padded).dial().echo(100);
        // After this the dead one has its turn.
        alive.kill_links();
    }
    let turns = dead.with(|state| state.accepted);
    assert!(turns >= 3, "{turns} turns in three rounds");
}

#[test]
fn clients_that_leave_a_stalled_backend_give_back_their_places_at_once() {
    let crowd = Crowd::start();
    let mut idle = crowd.enter();
    let mut uploading = idle.split_off(PLACES - 4);
    crowd.stall(&mut uploading);
    drop(idle);
    crowd.serves_others();
    let lines = crowd.proxy.lines();
    assert!(
        !lines.iter().any(|line| line.contains(" backend_lost ")),
        "only once the link was given up: {lines:#?}"
    );
}

/// Nobody reads from these clients any more, so nobody sees them leave before the link is given up.
#[test]
fn clients_that_left_while_held_back_do_not_keep_their_places() {
    let crowd = Crowd::start();
    let mut uploading = crowd.enter();
    crowd.stall(&mut uploading);
    drop(uploading);
    crowd.proxy.wait_for_events("backend_lost", 1);
    crowd.serves_others();
}

#[test]
fn silence_ends_a_link_only_if_it_has_answered_pings() {
    let start = |pongs: usize| {
        MiddleProxy::start(Options {
            pongs,
            ..Options::default()
        })
    };
    let (fallen_silent, always_silent) = (start(1), start(0));
    let config = fallen_silent.config_line(2) + &always_silent.config_line(3);
    let proxy = proxy_with(config, &["-M", "1", "-T", "1"]);
    let lost = proxy.wait_for_events("backend_lost", 1).remove(0);
    assert_eq!(lost.text("target"), fallen_silent.address.to_string());
    assert_eq!(lost.text("reason"), "silent");
    // Its silence began earlier.
    client_of(&proxy, 3).echo(100);
    assert_eq!(always_silent.with(|state| state.accepted), 1);
    // A new link takes the place of the other one.
    client_of(&proxy, 2).echo(100);
    assert_eq!(fallen_silent.with(|state| state.links.len()), 2);
}

/// DC 2 is to stall, DC 3 isn't; there are places for a few clients.
struct Crowd {
    proxy: Proxy,
    stalled: MiddleProxy,
    _other: MiddleProxy,
}

impl Crowd {
    fn start() -> Crowd {
        let (stalled, other) = (MiddleProxy::serving(), MiddleProxy::serving());
        let proxy = proxy_with(
            format!("{}{}", stalled.config_line(2), other.config_line(3)),
            &["-M", "1", "-C", &PLACES.to_string()],
        );
        Crowd {
            proxy,
            stalled,
            _other: other,
        }
    }

    /// Clients of DC 2 in all places.
    fn enter(&self) -> Vec<Client> {
        let mut clients: Vec<Client> = (0..PLACES).map(|_| client_of(&self.proxy, 2)).collect();
        clients.iter_mut().for_each(|client| client.echo(10));
        client_of(&self.proxy, 3).expect_closed();
        clients
    }

    /// DC 2 stops reading; these send until the proxy takes no more.
    fn stall(&self, clients: &mut [Client]) {
        self.stalled.stall(true);
        thread::scope(|scope| {
            for client in clients {
                scope.spawn(|| upload_until_held(client, 100_000));
            }
        });
    }

    /// A client of DC 3 finds a place, some time after others have left; one too many is closed at once.
    fn serves_others(&self) {
        until("a free place", || {
            let mut client = client_of(&self.proxy, 3);
            client.send(&Message::echo(10).encode());
            client.receive_or_end()
        });
    }
}
