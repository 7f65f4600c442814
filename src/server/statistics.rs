//! What the statistics need of the start, and the threads that serve them.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::time::Instant;

use super::Fatal;
use crate::access::Secrets;
use crate::admin_http::{self, Facts, Site};
use crate::client::Rules;
use crate::dcs::Dcs;
use crate::direct::table::Table;
use crate::options::Config;
use crate::{clock, stats, threads};

/// What they say of the start; the rest is filled in as it is known.
pub fn facts(config: &Config) -> Facts {
    Facts {
        started: Instant::now(),
        start_time: clock::unix(),
        address: config.address.unwrap_or(Ipv4Addr::UNSPECIFIED),
        port: 0,
        config: None,
        clusters: 0,
        proxy_secret: None,
        sets: Vec::new(),
        window_clamp: config.window_clamp,
        has_tag: config.ad_tag.is_some(),
        most_clients: 0,
        replays: None,
    }
}

/// Says what clients are told apart by.
pub fn set_up(secrets: &Secrets, dcs: Option<&Dcs>, table: Option<&Table>) {
    let served = match dcs {
        Some(dcs) => Some(dcs.served()),
        None => table.map(Table::served),
    };
    let (served, default) = served.unwrap_or_default();
    stats::set_up(&secrets.entries, served, default);
}

/// Serves them, if that is asked for.
pub fn start(
    config: &Config,
    sockets: &[Arc<TcpListener>],
    mut facts: Facts,
    rules: &Rules,
) -> Result<(), Fatal> {
    if !config.http_stats {
        return Ok(());
    }
    facts.clusters = rules.dcs.as_ref().map_or(0, Dcs::clusters);
    facts.replays = rules.tls.as_ref().map(|tls| tls.replays.clone());
    facts.sets = rules.sets().cloned().collect();
    let site = Arc::new(Site::new(facts, config.stats_nets.clone()));
    for socket in sockets {
        let (socket, site) = (socket.clone(), site.clone());
        // A panic must not end the service.
        threads::spawn("stats", move || {
            while !threads::guarded(|| admin_http::run(&socket, &site)) {}
        })
        .map_err(|e| Fatal(format!("can't start a thread: {e}")))?;
    }
    Ok(())
}
