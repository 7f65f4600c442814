//! What is the same for every connection: who is let in, and which way clients go.

use std::sync::Arc;

use mtproxy::limits::DEFAULT_DC;
use mtproxy::proto::secret::Secret;
use mtproxy::proto::wire::DcId;

use super::admission::Admission;
use super::replay::Replays;
use super::sites::Sites;
use super::visitors::Visitors;
use crate::base::gauge::Gauge;
use crate::direct::Direct;
use crate::middle::dcs::Set;
use crate::middle::session::Middle;

/// The rules of the house.
pub struct Rules {
    /// Who may come in.
    pub admission: Arc<Admission>,
    /// Secrets of -S; empty: everybody is let in, with raw keys.
    pub secrets: Vec<Secret>,
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
    pub clients: Gauge,
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
    pub visitors: Visitors,
}

impl Rules {
    /// The data centre of clients that name none.
    pub fn default_dc(&self) -> DcId {
        match &self.road {
            Road::Direct(_) => DcId(DEFAULT_DC as i16),
            Road::Middle(middle, _) => middle.dcs.default_dc(),
        }
    }

    /// The sets of middle proxies; none in direct mode.
    pub fn sets(&self) -> &[Arc<Set>] {
        match &self.road {
            Road::Direct(_) => &[],
            Road::Middle(middle, _) => &middle.dcs.sets,
        }
    }
}
