//! What is the same for every connection: who is let in, and which way clients go. A reload replaces the rules
//! ([`LiveRules`], one lock, held for a clone of a pointer); a connection keeps those that it began with. Another
//! lock is around the lists of addresses, held for a look at them.

use std::net::IpAddr;
use std::sync::Arc;

use mtproxy::formats::cidr::List;
use mtproxy::limits::DEFAULT_DC;
use mtproxy::proto::secret::Secret;
use mtproxy::proto::wire::DcId;

use super::admission::Admission;
use super::proxied::Fronts;
use super::replay::Replays;
use super::sites::Sites;
use super::visitors::Visitors;
use crate::base::bell::Bell;
use crate::base::gauge::Gauge;
use crate::base::lock::Mutex;
use crate::direct::Direct;
use crate::middle::dcs::{Dcs, Set};
use crate::middle::session::Middle;
use crate::stats::{Account, OPEN, Owner};

/// The rules of the house.
pub struct Rules {
    /// Who may come in.
    pub admission: Arc<Admission>,
    /// --proxy-protocol: who passes connections on and says whose they are; empty: nobody.
    pub fronts: Fronts,
    /// Secrets of -S; empty: everybody is let in, with raw keys.
    pub secrets: Vec<Secret>,
    /// Their accounts, in the same order.
    pub accounts: Vec<&'static Account>,
    /// Addresses that may come in, and those that may not: always those of now, because these can be large and
    /// the rules of a client that stays for long stay as long.
    pub lists: Arc<Mutex<Lists>>,
    /// -D: fake TLS, and what is needed for it.
    pub tls: Option<FakeTls>,
    /// ClientHellos and headers that were accepted.
    pub replays: Arc<Replays>,
    /// -R
    pub padded_only: bool,
    /// --open: clients whose streams aren't obfuscated are served, too.
    pub clear: bool,
    /// The way to Telegram.
    pub road: Road,
}

/// --ip-allowlist and --ip-blocklist.
#[derive(Default)]
pub struct Lists {
    pub allowed: Option<List>,
    pub blocked: Option<List>,
}

impl Lists {
    fn refuse(&self, ip: IpAddr) -> bool {
        let is_blocked = self.blocked.as_ref().is_some_and(|list| list.contains(ip));
        is_blocked || self.allowed.as_ref().is_some_and(|list| !list.contains(ip))
    }
}

/// The way to Telegram.
pub enum Road {
    /// Each client has its own connection to its data centre.
    Direct(Direct),
    /// Through middle proxies, or direct while those of a client can't be reached.
    Middle(Middle, Option<Fallback>),
}

/// For clients whose middle proxies can't be reached.
pub struct Fallback {
    /// Their way.
    pub direct: Direct,
    /// Those that go it now, and how many may.
    pub clients: Arc<Gauge>,
    pub most: u32,
}

/// What -D and the flags around it ask for.
pub struct FakeTls {
    /// The domains and their sites.
    pub sites: Arc<Sites>,
    /// --tls-skew: seconds that a hello's stamp may lie back and ahead.
    pub skew: (u32, u32),
    /// --tls-hybrid
    pub hybrid: bool,
    /// --allow-plain
    pub allow_plain: bool,
    /// --any-sni: the name that a client asks for doesn't matter.
    pub any_sni: bool,
    /// Who is shown the sites; at most --mask-max.
    pub visitors: Arc<Visitors>,
}

/// The rules of now.
pub struct LiveRules {
    current: Mutex<Arc<Rules>>,
    /// For the mask thread: there are others.
    pub changed: Bell,
}

impl LiveRules {
    /// Those at the start.
    pub fn new(rules: Rules) -> LiveRules {
        LiveRules {
            current: Mutex::new(Arc::new(rules)),
            changed: Bell::default(),
        }
    }

    /// Those that a connection begins with now.
    pub fn current(&self) -> Arc<Rules> {
        self.current.lock().clone()
    }

    /// From now on connections begin with these.
    pub fn replace(&self, rules: Arc<Rules>) {
        *self.current.lock() = rules;
        self.changed.ring();
    }

    /// The sites of fake TLS now.
    pub fn sites(&self) -> Option<Arc<Sites>> {
        let rules = self.current();
        rules.tls.as_ref().map(|tls| tls.sites.clone())
    }
}

impl Rules {
    /// The account of the secret at this position.
    pub fn account(&self, secret: usize) -> &'static Account {
        self.accounts.get(secret).copied().unwrap_or(&OPEN)
    }

    /// Whether an address is refused.
    pub fn refuse(&self, ip: IpAddr) -> bool {
        self.lists.lock().refuse(ip)
    }

    /// Whose clients by the secret at this position are.
    pub fn owner(&self, secret: usize) -> Owner {
        (self.account(secret), self.secrets.get(secret).copied())
    }

    /// The data centre of clients that name none.
    pub fn default_dc(&self) -> DcId {
        match &self.road {
            Road::Direct(_) => DcId(DEFAULT_DC as i16),
            Road::Middle(middle, _) => middle.dcs.default_dc(),
        }
    }

    /// Where middle proxies are; None in direct mode.
    pub fn dcs(&self) -> Option<&Dcs> {
        match &self.road {
            Road::Direct(_) => None,
            Road::Middle(middle, _) => Some(&middle.dcs),
        }
    }

    /// The sets of middle proxies; none in direct mode.
    pub fn sets(&self) -> &[Arc<Set>] {
        self.dcs().map_or(&[], |dcs| &dcs.sets)
    }

    /// Whether a set is one of these.
    pub fn has_set(&self, set: &Arc<Set>) -> bool {
        self.sets().iter().any(|own| Arc::ptr_eq(own, set))
    }
}
