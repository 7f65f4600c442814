//! Closing time: whoever is in leaves in order. Called by the server's main thread at the end, and for those whom
//! a reload has sent away by its thread.
//!
//! A client that has got everything is told so by the end of our sending; what it still says is read and
//! not answered, because a connection that is closed with bytes unread is reset, and what is on its way
//! to the client is lost. Clients close when they are told, others have a deadline.

use std::time::{Duration, Instant};

use mtproxy::limits::STOP_QUIET;

use crate::base::net;
use crate::middle::registry;
use crate::pair;
use crate::stats::{self, Close, Owner};

/// Lets nobody in, and ends all connections as soon as they have what waits for them.
pub fn begin() {
    registry::finish_all();
    pair::finish_all();
}

/// Waits for them to end: until nobody is left, or those who are have got everything and have gone
/// silent, or `within` has passed; then ends who is left. False if something still waited for somebody.
pub fn wait(within: Duration) -> bool {
    let all_sent = drain(within);
    registry::end_all();
    pair::end_all();
    // They count themselves.
    let _ = registry::wait_empty(STOP_QUIET) && pair::wait_empty(STOP_QUIET);
    all_sent
}

/// Ends the clients of secrets that have expired or used up their quota.
pub fn enforce() {
    for account in stats::accounts() {
        if let Some(reason) = account.over().filter(|_| account.open.value() > 0) {
            end(&|(own, _)| std::ptr::eq(own, account), reason);
        }
    }
}

/// Ends the clients of some owners now.
pub fn end(is_one: &dyn Fn(Owner) -> bool, reason: Close) {
    registry::end_of(is_one, reason);
    pair::end_of(is_one, reason);
}

fn drain(within: Duration) -> bool {
    let deadline = Instant::now() + within;
    let mut before = None;
    loop {
        let now = (registry::movement(), pair::movement());
        let all_sent = now.0.0 == 0 && now.1.0 == 0;
        let is_quiet = all_sent && before == Some(now);
        let Some(left) = net::left(deadline).filter(|_| !is_quiet) else {
            return all_sent;
        };
        let step = left.min(STOP_QUIET);
        if registry::wait_empty(step) && pair::wait_empty(step) {
            return true;
        }
        before = Some(now);
    }
}
