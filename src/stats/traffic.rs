//! Clients and what they moved, by what they have in common: the secret that they know, their data
//! centre and their transport. One set of counters for each combination that has come, for the life
//! of the process; totals, and figures by secret or by data centre, are sums of these. So a packet
//! costs as many additions as if there were totals only.
//!
//! Combinations are bounded: ids that are not served count for the data centre that serves them.

use crate::base::lock::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{MutexGuard, OnceLock};

use mtproxy::formats::secret::SecretEntry;
use mtproxy::proto::transport::Transport;
use mtproxy::proto::wire::DcId;

use super::{Close, Row, add_rows};
use crate::base::gauge::Counter;

macro_rules! traffic {
    ($($field:ident $name:ident: $help:literal,)*) => {
        /// Clients of one secret, data centre and transport.
        pub struct Traffic {
            /// The number of their secret, from 0 on.
            pub secret: usize,
            /// The data centre that serves them.
            pub dc: DcId,
            /// How they frame packets; None over HTTP.
            pub transport: Option<Transport>,
            /// How many are connected now.
            pub open: AtomicU32,
            $(#[doc = $help] pub $field: Counter,)*
        }

        impl Traffic {
            const fn new(secret: usize, dc: DcId, transport: Option<Transport>) -> Traffic {
                let open = AtomicU32::new(0);
                Traffic { secret, dc, transport, open, $($field: Counter::new(),)* }
            }
        }

        /// Name, meaning and sum of each of these counters.
        pub fn sums() -> Vec<Row> {
            let mut sums = [$(stringify!($field),)*].map(|_| 0);
            for traffic in kinds().iter() {
                for (sum, value) in sums.iter_mut().zip([$(traffic.$field.value(),)*]) {
                    *sum += value;
                }
            }
            let mut rows = Vec::with_capacity(64);
            add_rows(&mut rows, concat!($(stringify!($name), "\n", $help, "\n",)*), &sums);
            rows
        }
    };
}

traffic! {
    clients ext_connections_created: "clients whose handshake was accepted",
    queries tot_forwarded_queries: "client packets forwarded to middle proxies",
    answers tot_forwarded_responses: "answers forwarded to clients",
    query_bytes forwarded_query_bytes: "bytes of client packets forwarded",
    answer_bytes forwarded_response_bytes: "bytes of answers forwarded",
    direct_up_bytes direct_up_bytes: "bytes relayed to data centres",
    direct_down_bytes direct_down_bytes: "bytes relayed from data centres",
}

impl Traffic {
    /// Bytes upwards, whatever the way.
    pub fn up_bytes(&self) -> u64 {
        self.query_bytes.value() + self.direct_up_bytes.value()
    }

    /// Bytes downwards, whatever the way.
    pub fn down_bytes(&self) -> u64 {
        self.answer_bytes.value() + self.direct_down_bytes.value()
    }
}

/// A secret, and who uses it.
pub struct Label {
    /// Its label; may be empty.
    pub name: String,
    /// How many clients at a time it is for.
    pub limit: Option<u32>,
    /// How many are connected now.
    pub open: AtomicU32,
    /// Clients refused because of the limit.
    pub refused: Counter,
}

struct Setup {
    labels: Vec<Label>,
    served: Vec<DcId>,
    default: DcId,
}

static SETUP: OnceLock<Setup> = OnceLock::new();
static KINDS: Mutex<Vec<&Traffic>> = Mutex::new(Vec::new());

fn kinds() -> MutexGuard<'static, Vec<&'static Traffic>> {
    KINDS.lock()
}

/// Says what secrets there are, in their order, which data centres are served, and which of them
/// serves clients of all others. To be called once, before the first client.
pub fn set_up(secrets: &[SecretEntry], served: Vec<DcId>, default: DcId) {
    let label = |entry: &SecretEntry| Label {
        name: entry.label.clone().unwrap_or_default(),
        limit: entry.limit,
        open: AtomicU32::new(0),
        refused: Counter::new(),
    };
    let labels = secrets.iter().map(label).collect();
    let _ = SETUP.set(Setup {
        labels,
        served,
        default,
    });
}

/// The secrets, in their order.
pub fn labels() -> &'static [Label] {
    SETUP.get().map_or(&[], |setup| &setup.labels)
}

/// Every combination that has come so far.
pub fn all() -> Vec<&'static Traffic> {
    kinds().clone()
}

/// The counters of a combination.
pub fn of(secret: usize, dc: DcId, transport: Option<Transport>) -> &'static Traffic {
    let dc = match SETUP.get() {
        Some(setup) if !setup.served.contains(&dc) => setup.default,
        _ => dc,
    };
    let mut kinds = kinds();
    let same = |t: &&&Traffic| t.secret == secret && t.dc == dc && t.transport == transport;
    if let Some(traffic) = kinds.iter().find(same) {
        return traffic;
    }
    let traffic = Box::leak(Box::new(Traffic::new(secret, dc, transport)));
    kinds.push(traffic);
    traffic
}

/// A client whose handshake is done, among those that are like it. Leaves when dropped.
pub struct Guest {
    /// Counts what it moves.
    pub traffic: &'static Traffic,
    counted: bool,
}

impl Guest {
    /// Enters; None, and counted as refused, if the secret's limit of clients is reached.
    #[inline(never)] // an idle client's thread keeps the stack of what is inlined
    pub fn enter(secret: usize, dc: DcId, transport: Option<Transport>) -> Option<Guest> {
        if let Some(label) = labels().get(secret) {
            let more = |open: u32| {
                let open = open.checked_add(1)?;
                label.limit.is_none_or(|most| open <= most).then_some(open)
            };
            let result = label
                .open
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
            if result.is_err() {
                label.refused.add(1);
                return None;
            }
        }
        let traffic = of(secret, dc, transport);
        traffic.open.fetch_add(1, Ordering::Relaxed);
        traffic.clients.add(1);
        Some(Guest {
            traffic,
            counted: false,
        })
    }

    /// Counts why it ended. To be called before the client can see it.
    pub fn ended(&mut self, reason: Close) -> Close {
        self.counted = true;
        reason.counted()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        if !self.counted {
            Close::Panicked.counted();
        }
        self.traffic.open.fetch_sub(1, Ordering::Relaxed);
        if let Some(label) = labels().get(self.traffic.secret) {
            label.open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guests_come_and_go_and_a_limit_holds() {
        let key = "00112233445566778899aabbccddeeff";
        let entries =
            ["", ":bob:2"].map(|tail| SecretEntry::parse(&format!("{key}{tail}")).unwrap());
        set_up(&entries, vec![DcId(1), DcId(2)], DcId(2));
        let enter = |dc| Guest::enter(1, DcId(dc), Some(Transport::Abridged));
        let (first, second) = (enter(1).unwrap(), enter(77).unwrap());
        assert_eq!((first.traffic.dc, second.traffic.dc), (DcId(1), DcId(2)));
        let bob = &labels()[1];
        assert!(enter(1).is_none());
        assert_eq!((bob.name.as_str(), bob.refused.value()), ("bob", 1));
        drop(first);
        assert_eq!(bob.open.load(Ordering::Relaxed), 1);
        let third = enter(-300).unwrap();
        assert!(std::ptr::eq(third.traffic, second.traffic));
        assert_eq!(third.traffic.open.load(Ordering::Relaxed), 2);
        assert_eq!(third.traffic.clients.value(), 2);
        third.traffic.query_bytes.add(5);
        third.traffic.direct_up_bytes.add(6);
        assert_eq!(
            (third.traffic.up_bytes(), third.traffic.down_bytes()),
            (11, 0)
        );
        // The first secret has no limit.
        let many: Vec<Guest> = (0..5)
            .map(|_| Guest::enter(0, DcId(2), Some(Transport::Abridged)).unwrap())
            .collect();
        assert_eq!(labels()[0].open.load(Ordering::Relaxed), many.len() as u32);
    }
}
