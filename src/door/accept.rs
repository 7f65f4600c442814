//! Listeners, one thread each. Every accepted connection gets a thread of the pool and is served by the
//! door, or by that for web pages; if it is not admitted, or no thread can be had, it is closed and counted.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use mtproxy::limits::ACCEPT_PAUSE;

use super::admission::Newcomer;
use super::proxied;
use super::rules::{LiveRules, Rules};
use crate::base::gauge::Gauge;
use crate::base::net::{Listener, UNKNOWN};
use crate::base::{log, threads};
use crate::stats::{CLIENTS, STATS};

/// What serves connections of a listener.
#[derive(Clone)]
pub struct Serve {
    /// Whether those of --proxy-protocol may come through it only.
    pub is_fronted: bool,
    /// Serves one to its end.
    pub job: Arc<Job>,
}

type Job = dyn Fn(&Rules, Newcomer) + Send + Sync;

/// Accepts connections until the listener is shut down.
pub fn run(listener: &Listener, rules: &LiveRules, serve: &Serve) {
    let mut failing = false;
    loop {
        match listener.accept() {
            Ok(Some((socket, peer))) => {
                failing = false;
                admit(socket, peer, rules, serve);
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

fn admit(socket: TcpStream, peer: SocketAddr, rules: &LiveRules, serve: &Serve) {
    STATS.inbound_connections_accepted.add(1);
    let rules = rules.current();
    let mut source = peer;
    if serve.is_fronted && !rules.fronts.is_empty() {
        if !proxied::is_front(&rules.fronts, peer.ip()) {
            return STATS.proxy_untrusted.add(1);
        }
        // A front has no share; its header will say whose connection this is.
        source = UNKNOWN;
    }
    let mut newcomer = match rules.admission.enter(socket, source) {
        Ok(newcomer) => newcomer,
        Err(counter) => return counter.add(1),
    };
    newcomer.peer = peer;
    let (job, place) = (serve.job.clone(), Gauge::enter(&CLIENTS));
    let job = move || {
        let _place = place;
        job(&rules, newcomer);
    };
    if !threads::run(Box::new(job)) {
        STATS.accept_thread_failed.add(1);
    }
}
