//! The operator's side of the statistics: the facts that the pages tell of the start, what clients are
//! told apart by, and one thread for each address that serves the pages. Called by `server` at start.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::time::Instant;

use crate::base::clock;
use crate::direct::table::Table;
use crate::door::rules::{Road, Rules};
use crate::middle::dcs::Dcs;
use crate::operator::Fatal;
use crate::operator::access::Secrets;
use crate::operator::options::Config;
use crate::operator::pages::{self, Facts};
use crate::stats;

/// What is known of the start so far; the rest is filled in as it becomes known.
pub fn facts(config: &Config) -> Facts {
    Facts {
        started: Instant::now(),
        start_time: clock::unix(),
        address: config.address.unwrap_or(Ipv4Addr::UNSPECIFIED.into()),
        port: 0,
        config: None,
        clusters: 0,
        proxy_secret: None,
        sets: Vec::new(),
        window_clamp: config.window_clamp(),
        has_tag: config.ad_tag.is_some(),
        most_clients: 0,
        replays: None,
    }
}

/// Tells the counters by which secrets and data centres clients are told apart.
pub fn set_up(secrets: &Secrets, dcs: Option<&Dcs>, table: &Table) {
    let (served, default) = match dcs {
        Some(dcs) => dcs.served(),
        None => table.served(),
    };
    stats::set_up(&secrets.entries, served, default);
}

/// Serves the pages, if --http-stats asks for them.
pub fn start(
    config: &Config,
    sockets: &[Arc<TcpListener>],
    mut facts: Facts,
    rules: &Rules,
) -> Result<(), Fatal> {
    if !config.http_stats {
        return Ok(());
    }
    if let Road::Middle(middle, _) = &rules.road {
        facts.clusters = middle.dcs.clusters();
    }
    facts.replays = Some(rules.replays.clone());
    facts.sets = rules.sets().to_vec();
    pages::start(sockets, facts, config.stats_nets.clone())
        .map_err(|e| Fatal(format!("can't start a thread: {e}")))
}
