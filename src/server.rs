//! Start order, signals, stop. Everything that can fail at start fails before the first thread, with
//! a sentence that names the file, port or user.

mod files;
mod ports;
mod start_block;
mod statistics;

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};

use crossbeam_channel::{Receiver, Sender, unbounded};
use mtproxy::limits;
use mtproxy::proto::secret::ProxySecret;

use start_block::Found;

use crate::admin_http::FileFacts;
use crate::backend::{self, Setup};
use crate::capacity::{self, Capacity, Demand};
use crate::client::tls::FakeTls;
use crate::client::{Places, Rules, accept};
use crate::dcs::{Dcs, Request};
use crate::direct::{self, table::Table};
use crate::handover::Direct;
use crate::nat::NatRules;
use crate::options::{Config, Domain};
use crate::replay::Seen;
use crate::sites::{self, LeadsBack, Sites};
use crate::sys::{self, Signal};
use crate::{access, buffers, clock, links, log, registry, stats, threads};

/// Why the server did not start; the whole sentence.
#[derive(Debug)]
pub struct Fatal(pub String);

/// Serves until a signal asks to stop.
pub fn run(config: Config) -> Result<(), Fatal> {
    let mut facts = statistics::facts(&config);
    log::set_verbosity(config.verbosity);
    let (requests, inbox) = unbounded();
    let (dcs, read) = middle_mode(&config, &requests)?.unzip();
    facts.config = read;
    let table = direct_table(&config, dcs.is_some())?;
    let secrets = access::load(&config).map_err(Fatal)?;
    let domains = access::domains(&config, &secrets.entries);
    statistics::set_up(&secrets, dcs.as_ref(), table.as_ref());
    let listeners = ports::listen(&config)?;
    let stats_sockets = ports::bind_stats(&config)?;
    let addresses = ports::addresses_of(&listeners)?;
    let tls = fake_tls(&config, &domains, &addresses)?;
    let capacity = capacity::find(&demand(&config, dcs.as_ref(), tls.is_some()));
    let proxy_secret = match &dcs {
        Some(_) => files::read_proxy_secret(&config)?,
        None => None,
    };
    let (proxy_secret, read) = proxy_secret.unzip();
    facts.proxy_secret = read;
    facts.most_clients = capacity.clients;
    let identity = drop_privileges(config.user.as_deref())?;
    set_bounds(&config, &capacity);

    facts.port = start_block::show(dcs.as_ref(), &addresses, stats_sockets.first(), &capacity)?;
    let found = Found {
        proxy_secret: proxy_secret.is_some(),
        identity,
        dcs: dcs.as_ref(),
        tls: tls.is_some(),
    };
    start_block::warn(&config, &found);
    links::show_at_start(
        &config,
        &secrets,
        addresses.first().map_or(0, SocketAddr::port),
    );

    sys::block_signals();
    let setup = proxy_secret.map(|secret| Arc::new(setup(&config, secret)));
    let rules = Arc::new(Rules {
        secrets: secrets.keys(),
        tls,
        padded_only: config.padded_only,
        clear: config.clear,
        ad_tag: config.ad_tag,
        nat: NatRules(config.nat_rules.clone()),
        dcs,
        direct: table.map(|table| direct_mode(&config, table)),
        fallbacks: Places::new(capacity.fallbacks),
    });
    rules.sets().for_each(|set| set.start_first());
    statistics::start(&config, &stats_sockets, facts, &rules)?;
    start_threads(&listeners, &rules, capacity.clients, requests)
        .map_err(|e| Fatal(format!("can't start a thread: {e}")))?;
    log::say(format_args!("ready"));
    serve(&inbox, &rules, setup.as_ref());
    stop(&listeners, &rules);
    Ok(())
}

fn demand(config: &Config, dcs: Option<&Dcs>, tls: bool) -> Demand {
    let slots = dcs.map_or(0, |dcs| dcs.sets.len() * config.slots_per_set);
    Demand {
        clients: config.max_clients,
        descriptors: config.connections,
        slots: (slots + config.ports.len()) as u64,
        direct: dcs.is_none(),
        fallback: config.fallback && config.ad_tag.is_none(),
        strangers: if tls { config.mask_max.into() } else { 0 },
    }
}

/// The data centres of the configuration file.
fn middle_mode(
    config: &Config,
    requests: &Sender<Request>,
) -> Result<Option<(Dcs, FileFacts)>, Fatal> {
    match &config.config_file {
        Some(path) if !config.direct => {
            let (file, read) = files::read_config(path)?;
            Ok(Some((
                Dcs::new(&file, config.slots_per_set, requests),
                read,
            )))
        }
        _ => Ok(None),
    }
}

/// What fake TLS needs, if there are domains.
fn fake_tls(
    config: &Config,
    domains: &[Domain],
    ours: &[SocketAddr],
) -> Result<Option<FakeTls>, Fatal> {
    if domains.is_empty() {
        return Ok(None);
    }
    let sites = Sites::new(
        domains,
        config.mask.as_ref(),
        config.mask_proxy_protocol,
        ours,
    );
    Ok(Some(FakeTls {
        sites: Arc::new(sites.map_err(|LeadsBack(text)| Fatal(text))?),
        replays: Arc::new(Mutex::new(Seen::new(limits::REPLAY_ENTRIES))),
        skew: config.tls_skew,
        hybrid: config.tls_hybrid,
        allow_plain: config.allow_plain,
        places: Places::new(config.mask_max),
    }))
}

/// Where data centres are: for everybody in direct mode, in middle mode for those whose middle proxies
/// can't be reached; not with a sponsored channel, which only middle proxies know.
fn direct_table(config: &Config, middle: bool) -> Result<Option<Table>, Fatal> {
    if middle && (!config.fallback || config.ad_tag.is_some()) {
        return Ok(None);
    }
    Ok(Some(Table {
        overrides: files::overrides(config)?,
        ipv6: direct::has_ipv6(),
        prefer_ipv6: config.prefer_ipv6,
    }))
}

fn direct_mode(config: &Config, table: Table) -> Direct {
    let setup = direct::Setup {
        table,
        source: config.address,
    };
    Box::new(move |client| direct::serve(&setup, client))
}

/// Whom the server runs as.
enum Identity {
    /// As it was started.
    Unchanged,
    /// As root, because there was nobody else to be.
    Root,
}

fn drop_privileges(user: Option<&str>) -> Result<Identity, Fatal> {
    if !sys::is_root() {
        return Ok(Identity::Unchanged);
    }
    let candidates = match user {
        Some(user) => vec![user],
        None => vec!["mtproxy", "nobody"],
    };
    for name in candidates {
        match sys::become_user(name) {
            Ok(true) => return Ok(Identity::Unchanged),
            Ok(false) => {}
            // A container may not let root become somebody else; then it isn't much of a root.
            Err(e) if user.is_none() && e.kind() == ErrorKind::PermissionDenied => {
                return Ok(Identity::Root);
            }
            Err(e) => return Err(Fatal(format!("can't become user {name}: {e}"))),
        }
    }
    match user {
        Some(user) => Err(Fatal(format!("-u {user}: there is no such user"))),
        None => Ok(Identity::Root),
    }
}

fn set_bounds(config: &Config, capacity: &Capacity) {
    let default = limits::BUFFER_BUDGET.min(capacity.memory / 4);
    let budget = config.buffer_bytes.unwrap_or(default);
    buffers::set_budget(usize::try_from(budget).unwrap_or(usize::MAX));
    threads::set_most(capacity.threads);
}

fn setup(config: &Config, secret: ProxySecret) -> Setup {
    Setup {
        secret,
        source: config.address,
        nat: NatRules(config.nat_rules.clone()),
        ping_interval: config.ping_interval,
        checksums: sys::checksums(),
        start_time: clock::unix() as u32,
    }
}

fn start_threads(
    listeners: &[Arc<TcpListener>],
    rules: &Arc<Rules>,
    most: u32,
    requests: Sender<Request>,
) -> std::io::Result<()> {
    for listener in listeners {
        let (listener, rules) = (listener.clone(), rules.clone());
        // A panic must not end the service.
        threads::spawn("accept", move || {
            while !threads::guarded(|| accept::run(&listener, &rules, most)) {}
        })?;
    }
    if let Some(tls) = &rules.tls {
        let sites = tls.sites.clone();
        threads::spawn("mask", move || {
            while !threads::guarded(|| sites::probe::run(&sites)) {}
        })?;
    }
    threads::spawn("signal", move || watch_signals(&requests))
}

fn watch_signals(requests: &Sender<Request>) {
    let mut stopping = false;
    let mut shown = 0;
    loop {
        match sys::wait_signal(limits::SUMMARY_INTERVAL) {
            Some(Signal::Stop) if stopping => std::process::exit(1),
            Some(Signal::Stop) => {
                stopping = true;
                // There is always room; `send`, which could wait, is a lot of code.
                let _ = requests.try_send(Request::Stop);
            }
            Some(Signal::Other) => log::event(format_args!("signal_ignored")),
            None => {
                registry::sweep();
                buffers::trim();
                let (sum, words) = stats::refusals();
                if sum != shown {
                    log::event(format_args!("refused {words}"));
                    shown = sum;
                }
            }
        }
    }
}

/// Does what other threads ask for until the server is to stop.
fn serve(inbox: &Receiver<Request>, rules: &Rules, setup: Option<&Arc<Setup>>) {
    for request in inbox {
        let (set, slot) = match request {
            Request::StartSlot { set, slot } => (set, slot),
            Request::Stop => return,
        };
        if let (Some(set), Some(setup)) = (rules.sets().nth(set), setup)
            && let Err(e) = backend::start_slot(set.clone(), slot, setup.clone())
        {
            set.slot_failed();
            log::event(format_args!(
                "slot_failed set={} slot={slot} error=\"{e}\"",
                set.number
            ));
        }
    }
}

/// Takes no more clients, lets those that are there fetch what waits for them, and sums up.
fn stop(listeners: &[Arc<TcpListener>], rules: &Rules) {
    log::event(format_args!("stopping"));
    listeners.iter().for_each(|l| sys::shut_down_listener(l));
    registry::finish_all();
    rules.sets().for_each(|set| set.stop());
    let all_gone = registry::wait_empty(limits::STOP_DRAIN);
    log::event(format_args!("stopped drained={all_gone}"));
    log::event(format_args!("{}", stats::summary()));
}
