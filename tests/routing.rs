//! A client reaches the target of its data centre: the exact id, negative ones and 203 included, else the
//! default.

use crate::support::framing::TRANSPORTS;
use crate::support::message::Message;
use crate::support::middle_proxy::MiddleProxy;
use crate::support::proxy::Proxy;
use crate::support::rig::{dialer, proxy_with};
use std::fmt::Write;

const IDS: [i16; 11] = [1, 2, 3, 4, 5, -1, -2, -3, -4, -5, 203];

/// Ids that the configuration doesn't have; the test environment's are among them (protocol.md 3.5).
const UNKNOWN: [i16; 6] = [0, 7, -203, 10_002, -10_002, i16::MIN];

/// An id that only the default directive names.
const DEFAULT: i16 = 77;

#[test]
fn every_data_centre_by_every_transport() {
    let (middles, proxy) = start();
    for transport in TRANSPORTS {
        for (id, middle) in &middles {
            let mut dialer = dialer(proxy.address(), transport);
            dialer.dc = *id;
            let message = Message::echo(0);
            dialer.dial().send(&message.encode());
            middle.request(message.tag);
        }
    }
}

#[test]
fn unknown_ids_reach_the_default() {
    let (middles, proxy) = start();
    let (_, default) = middles.last().expect("the default");
    for transport in TRANSPORTS {
        for id in UNKNOWN {
            let mut dialer = dialer(proxy.address(), transport);
            dialer.dc = id;
            let message = Message::echo(0);
            dialer.dial().send(&message.encode());
            default.request(message.tag);
        }
    }
}

/// A target for each id, the default's last.
fn start() -> (Vec<(i16, MiddleProxy)>, Proxy) {
    let mut config = format!("default {DEFAULT};\n");
    let mut middles = Vec::new();
    for id in IDS.into_iter().chain([DEFAULT]) {
        let middle = MiddleProxy::serving();
        write!(config, "{}", middle.config_line(id)).expect("a string");
        middles.push((id, middle));
    }
    let proxy = proxy_with(config, &[]);
    (middles, proxy)
}
