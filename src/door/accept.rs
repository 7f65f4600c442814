//! Listeners, one thread each. Every accepted connection gets a thread of the pool and is served by the
//! door; if it is not admitted, or no thread can be had, it is closed and counted.

use std::net::{SocketAddr, TcpListener, TcpStream};

use mtproxy::limits::ACCEPT_PAUSE;

use super::rules::LiveRules;
use super::serve;
use crate::base::gauge::Gauge;
use crate::base::{log, net, threads};
use crate::stats::{CLIENTS, STATS};

/// Accepts connections until the listener is shut down.
pub fn run(listener: &TcpListener, rules: &LiveRules) {
    let mut failing = false;
    loop {
        match net::accept(listener) {
            Ok(Some((socket, peer))) => {
                failing = false;
                admit(socket, peer, rules);
            }
            Ok(None) => return,
            Err(e) => {
                STATS.accept_calls_failed.add(1);
                // No descriptors or no memory: the connection stays in the backlog, and trying again
                // at once would only take the processor from those that could free some.
                if !std::mem::replace(&mut failing, true) {
                    log::event(format_args!("accept_failed error=\"{e}\""));
                }
                std::thread::sleep(ACCEPT_PAUSE);
            }
        }
    }
}

fn admit(socket: TcpStream, peer: SocketAddr, rules: &LiveRules) {
    STATS.inbound_connections_accepted.add(1);
    let rules = rules.current();
    let newcomer = match rules.admission.enter(socket, peer) {
        Ok(newcomer) => newcomer,
        Err(counter) => return counter.add(1),
    };
    let place = Gauge::enter(&CLIENTS);
    let job = move || {
        let _place = place;
        serve(&rules, newcomer);
    };
    if !threads::run(Box::new(job)) {
        STATS.accept_thread_failed.add(1);
    }
}
