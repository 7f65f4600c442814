//! Clients that have proven a secret, and what they moved, by what they have in common: the secret, the
//! data centre and the transport. There is one set of counters for each combination that occurred, for
//! the life of the process; totals, and figures by secret or data centre, are sums of these. So a packet
//! costs as many additions as if there were totals only.
//!
//! Combinations are bounded: ids that are not served count for the data centre that serves them.

use std::fmt::Display;
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use mtproxy::proto::{transport::Transport, wire::DcId};

use super::account::{Account, Owner, Seat};
use super::close::Close;
use super::present::Present;
use super::row::{Row, add};
use crate::base::gauge::{Counter, Gauge, Place};
use crate::base::lock::Mutex;
use crate::base::{log, sys};

macro_rules! traffic {
    ($($field:ident $name:ident: $help:literal,)*) => {
        /// Clients of one secret, data centre and transport.
        pub struct Traffic {
            /// The account of their secret.
            pub account: &'static Account,
            /// The data centre that serves them.
            pub dc: DcId,
            /// How they frame packets; None over HTTP.
            pub transport: Option<Transport>,
            /// How many are connected now.
            pub open: Gauge,
            $(#[doc = $help] pub $field: Counter,)*
        }

        impl Traffic {
            const fn new(
                account: &'static Account,
                dc: DcId,
                transport: Option<Transport>,
            ) -> Traffic {
                Traffic { account, dc, transport, open: Gauge::new(), $($field: Counter::new(),)* }
            }
        }

        /// The sum of each of these counters.
        pub fn rows() -> Vec<Row> {
            let (all, mut rows) = (all(), Vec::with_capacity(64));
            $(add(
                &mut rows,
                concat!(stringify!($name), "\n", $help),
                sum(&all, &|_| true, |traffic| traffic.$field.value()),
            );)*
            rows
        }
    };
}

traffic! {
    clients ext_connections_created: "clients whose handshake was accepted",
    queries tot_forwarded_queries: "client packets forwarded to middle proxies",
    answers tot_forwarded_responses: "responses forwarded to clients",
    query_bytes forwarded_query_bytes: "bytes of client packets forwarded",
    answer_bytes forwarded_response_bytes: "bytes of responses forwarded",
    direct_up_bytes direct_up_bytes: "bytes relayed to data centres",
    direct_down_bytes direct_down_bytes: "bytes relayed from data centres",
}

/// A figure of one combination.
pub type Figure = fn(&Traffic) -> u64;

impl Traffic {
    /// Whether it is of this account.
    pub fn is_of(&self, account: &Account) -> bool {
        std::ptr::eq(self.account, account)
    }

    /// Bytes upwards, whatever the road.
    pub fn up_bytes(&self) -> u64 {
        self.query_bytes.value() + self.direct_up_bytes.value()
    }

    /// Bytes downwards, whatever the road.
    pub fn down_bytes(&self) -> u64 {
        self.answer_bytes.value() + self.direct_down_bytes.value()
    }
}

/// Sums a figure over the combinations that fit.
#[inline(never)] // small, not fast
pub fn sum(all: &[&Traffic], fits: &dyn Fn(&Traffic) -> bool, figure: Figure) -> u64 {
    let fitting = all.iter().filter(|traffic| fits(traffic));
    fitting.map(|traffic| figure(traffic)).sum()
}

/// The data centres that are served, and which of them serves clients of all others.
static SERVED: Mutex<(Vec<DcId>, DcId)> = Mutex::new((Vec::new(), DcId(0)));
static ALL: Mutex<Vec<&Traffic>> = Mutex::new(Vec::new());

/// Says which data centres are served, and which of them serves clients of all others.
pub fn set_served(served: (Vec<DcId>, DcId)) {
    *SERVED.lock() = served;
}

/// Every combination that occurred so far.
pub fn all() -> Vec<&'static Traffic> {
    ALL.lock().clone()
}

/// The counters of a combination.
pub fn of(account: &'static Account, dc: DcId, transport: Option<Transport>) -> &'static Traffic {
    let dc = served(dc);
    let mut all = ALL.lock();
    let same = |t: &&&Traffic| t.is_of(account) && t.dc == dc && t.transport == transport;
    if let Some(traffic) = all.iter().find(same) {
        return traffic;
    }
    let traffic = Box::leak(Box::new(Traffic::new(account, dc, transport)));
    all.push(traffic);
    traffic
}

/// The data centre that serves clients of this one.
fn served(dc: DcId) -> DcId {
    let served = SERVED.lock();
    match served.0.is_empty() || served.0.contains(&dc) {
        true => dc,
        false => served.1,
    }
}

/// A client that has proven a secret, counted among those of its secret and of its combination until it
/// is dropped.
pub struct Guest {
    /// Counts what it moves.
    pub traffic: &'static Traffic,
    /// Whose client it is.
    pub owner: Owner,
    peer: SocketAddr,
    since: Instant,
    is_counted: bool,
    _seat: Seat,
    _present: Present,
    _place: Place<&'static Gauge>,
}

impl Guest {
    /// Enters, from an address; the error is why not.
    #[inline(never)] // an idle client's thread keeps the stack of what is inlined
    pub fn enter(
        owner: Owner,
        peer: SocketAddr,
        dc: DcId,
        transport: Option<Transport>,
    ) -> Result<Guest, Close> {
        let account = owner.0;
        let seat = account.enter(peer.ip())?;
        let traffic = of(account, dc, transport);
        traffic.clients.add(1);
        let guest = Guest {
            traffic,
            owner,
            peer,
            since: Instant::now(),
            is_counted: false,
            _seat: seat,
            _present: Present::new(peer.ip()),
            _place: Gauge::enter(&traffic.open),
        };
        if log::verbosity() > 1 {
            guest.log("client_opened", &"");
        }
        Ok(guest)
    }

    /// Counts why it ended. To be called before the client can see it, with its connection if that is there.
    pub fn ended(&mut self, reason: Close, socket: Option<&TcpStream>) {
        self.is_counted = true;
        reason.counted();
        if log::verbosity() > 0 {
            let (up, down) = socket.and_then(sys::moved).unwrap_or_default();
            let (reason, seconds) = (reason.word(), self.since.elapsed().as_secs());
            let more =
                format_args!(" reason={reason} bytes_up={up} bytes_down={down} seconds={seconds}");
            self.log("client_closed", &more);
        }
    }

    /// A line about it. Not inlined: see [`Guest::enter`].
    #[inline(never)]
    fn log(&self, event: &str, more: &dyn Display) {
        let Guest { traffic, peer, .. } = self;
        let (label, dc) = (&traffic.account.label, traffic.dc.0);
        log::event(format_args!(
            "{event} peer={peer} label={label} dc={dc}{more}"
        ));
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        if !self.is_counted {
            Close::Panicked.counted();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mtproxy::formats::secret::SecretEntry;
    use std::net::Ipv4Addr;

    #[test]
    fn guests_come_and_go_and_a_limit_holds() {
        let key = "00112233445566778899aabbccddeeff";
        let entries =
            ["", ":bob:2"].map(|tail| SecretEntry::parse(&format!("{key}{tail}")).unwrap());
        set_served((vec![DcId(1), DcId(2)], DcId(2)));
        let [nameless, bob] = [0, 1].map(|i| Account::of(&entries[i]));
        let peer = (Ipv4Addr::LOCALHOST, 1).into();
        let enter = |dc| Guest::enter((bob, None), peer, DcId(dc), Some(Transport::Abridged));
        let (first, second) = (enter(1).unwrap(), enter(77).unwrap());
        assert_eq!((first.traffic.dc, second.traffic.dc), (DcId(1), DcId(2)));
        assert_eq!(enter(1).err(), Some(Close::SecretFull));
        assert_eq!((bob.label.as_str(), bob.refused[0].value()), ("bob", 1));
        drop(first);
        assert_eq!(bob.open.value(), 1);
        let third = enter(-300).unwrap();
        assert!(std::ptr::eq(third.traffic, second.traffic));
        assert_eq!(third.traffic.open.value(), 2);
        assert_eq!(third.traffic.clients.value(), 2);
        third.traffic.query_bytes.add(5);
        third.traffic.direct_up_bytes.add(6);
        assert_eq!(
            (third.traffic.up_bytes(), third.traffic.down_bytes()),
            (11, 0)
        );
        // The first secret has no limit.
        let many: Vec<Guest> = (0..5)
            .map(|_| {
                Guest::enter((nameless, None), peer, DcId(2), Some(Transport::Abridged)).unwrap()
            })
            .collect();
        assert_eq!(nameless.open.value(), many.len() as u32);
        // A reload finds both again, and gives Bob a place more.
        let again = SecretEntry::parse("ffffffffffffffffffffffffffffffff:bob:3").unwrap();
        let _third = {
            assert!(std::ptr::eq(Account::of(&again), bob) && bob.limit() == Some(3));
            enter(1).unwrap()
        };
        assert!(std::ptr::eq(Account::of(&entries[0]), nameless));
        assert_eq!(enter(1).err(), Some(Close::SecretFull));
    }
}
