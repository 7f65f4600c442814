//! Start order, signals, stop. Everything that can fail at start fails before the first thread, with
//! a sentence that names the file, port or user.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, unbounded};
use mtproxy::limits;
use mtproxy::proto::secret::ProxySecret;

use crate::base::clock::{self, Every};
use crate::base::sys::{self, Signal};
use crate::base::{buffers, gauge::Gauge, log, threads};
use crate::direct::{Direct, table::Table};
use crate::door::admission::{Admission, Caps};
use crate::door::rules::{FakeTls, Fallback, Road, Rules};
use crate::door::sites::{Domain, LeadsBack, Sites};
use crate::door::{accept, closing, probe, replay::Replays, visitors::Visitors};
use crate::middle::dcs::{Dcs, MainTask};
use crate::middle::{dial::Dialer, nat::NatRules, registry, session::Middle, slot};
use crate::operator::access::{self, Secrets};
use crate::operator::capacity::{self, Capacity, Demand};
use crate::operator::pages::{self, Facts};
use crate::operator::{Fatal, links, options::Config, report::Report, start};
use crate::stats;

/// Serves until a signal asks to stop.
pub fn run(config: Config) -> Result<(), Fatal> {
    let (started, start_time) = (Instant::now(), clock::unix());
    log::set_verbosity(config.verbosity);
    let (requests, inbox) = unbounded();
    let (file, config_file) = start::read_config(&config)?.unzip();
    let dcs = file.map(|file| Dcs::new(&file, config.slots_per_set(), &requests));
    let table = start::table(&config)?;
    let secrets = access::load(&config)?;
    let domains = access::domains(&config, &secrets.entries);
    let served = dcs.as_ref().map_or_else(|| table.served(), Dcs::served);
    stats::set_up(&secrets.entries, served);
    let listeners = start::listen(&config)?;
    let stats_sockets = start::bind_stats(&config)?;
    let addresses = start::addresses_of(&listeners)?;
    let has_tls = !domains.is_empty();
    let capacity = capacity::find(&demand(&config, dcs.as_ref(), &secrets, has_tls));
    let tls = fake_tls(&config, &domains, &addresses, capacity.strangers)?;
    let (proxy_secret, secret_file) = start::read_proxy_secret(&config)?.unzip();
    start::drop_privileges(&config)?;
    set_bounds(&config, &capacity);

    let stats_addresses = start::addresses_of(&stats_sockets)?;
    let stats_port = stats_addresses.first().map_or(0, SocketAddr::port);
    Report {
        config: &config,
        dcs: dcs.as_ref(),
        addresses: &addresses,
        stats_port,
        capacity: &capacity,
        proxy_secret: proxy_secret.as_ref(),
        fake_tls: has_tls,
    }
    .say();
    let port = addresses.first().map_or(0, SocketAddr::port);
    links::show_at_start(&config, &secrets, port);

    sys::block_signals();
    log::start().map_err(no_thread)?;
    let dialer = proxy_secret.map(|secret| Arc::new(dialer(&config, secret)));
    let road = road(&config, dcs, table, capacity.fallbacks);
    let rules = Arc::new(rules(&config, &secrets, tls, road, &capacity)?);
    rules.sets().iter().for_each(|set| set.start_first());
    if config.http_stats {
        let facts = Facts {
            started,
            start_time,
            port: stats_port,
            config,
            config_file,
            proxy_secret: secret_file,
            rules: rules.clone(),
            most_clients: capacity.clients,
        };
        pages::start(&stats_sockets, facts).map_err(no_thread)?;
    }
    start_threads(&listeners, &rules, requests).map_err(no_thread)?;
    log::say(format_args!("ready"));
    serve(&inbox, &rules, dialer.as_ref());
    stop(&listeners, &rules);
    Ok(())
}

fn no_thread(e: std::io::Error) -> Fatal {
    Fatal(format!("can't start a thread: {e}"))
}

fn demand<'a>(
    config: &'a Config,
    dcs: Option<&Dcs>,
    secrets: &Secrets,
    fake_tls: bool,
) -> Demand<'a> {
    let limits = secrets.entries.iter().filter_map(|entry| entry.limit);
    let slots = dcs.map_or(0, |dcs| dcs.sets.len() * config.slots_per_set());
    Demand {
        config,
        slots: (slots + config.ports.len()) as u64,
        limited: limits.map(u64::from).sum(),
        fake_tls,
    }
}

/// What fake TLS needs, if there are domains.
fn fake_tls(
    config: &Config,
    domains: &[Domain],
    ours: &[SocketAddr],
    strangers: u32,
) -> Result<Option<FakeTls>, Fatal> {
    if domains.is_empty() {
        return Ok(None);
    }
    let flags = (config.mask_proxy_protocol, config.mask_private);
    let sites = Sites::new(domains, config.mask.as_ref(), flags, ours);
    Ok(Some(FakeTls {
        sites: Arc::new(sites.map_err(|LeadsBack(text)| Fatal(text))?),
        skew: (config.skew_back.0, config.skew_ahead.0),
        hybrid: !config.no_hybrid,
        allow_plain: config.allow_plain,
        any_sni: config.any_sni,
        visitors: Visitors::new(strangers),
    }))
}

/// A replay store of the machine's size, with what the file of --state remembers.
fn replays(config: &Config, memory: u64) -> Result<Arc<Replays>, Fatal> {
    let table = 8 * limits::REPLAY_TABLE as u64;
    let most = (memory / limits::REPLAY_SHARE / table) as usize;
    let most = most.min(limits::REPLAY_TABLES);
    let Some(path) = &config.state else {
        let failed = |e| Fatal(format!("can't draw random bytes: {e}"));
        return Ok(Arc::new(Replays::new(most).map_err(failed)?));
    };
    let failed = |e| Fatal(format!("--state {}: {e}", path.display()));
    let (replays, mut journal) = Replays::open(path, most).map_err(failed)?;
    let write = move || {
        if let Err(e) = journal.run() {
            log::event(format_args!("state_failed error=\"{e}\""));
        }
    };
    threads::spawn("state", write).map_err(failed)?;
    Ok(Arc::new(replays))
}

/// The way to Telegram: middle mode with data centres, else direct mode.
fn road(config: &Config, dcs: Option<Dcs>, table: Table, fallbacks: u32) -> Road {
    let direct = Direct {
        table,
        source: config.source(),
    };
    let Some(dcs) = dcs else {
        return Road::Direct(direct);
    };
    let middle = Middle {
        dcs,
        nat: NatRules(config.nat_rules.clone()),
        ad_tag: config.ad_tag,
    };
    let fallback = config.has_fallback().then_some(Fallback {
        direct,
        clients: Gauge::new(),
        most: fallbacks,
    });
    Road::Middle(middle, fallback)
}

/// To be called when the budget of buffers is set.
fn rules(
    config: &Config,
    secrets: &Secrets,
    tls: Option<FakeTls>,
    road: Road,
    capacity: &Capacity,
) -> Result<Rules, Fatal> {
    let seed = sys::random_array().map_err(|e| Fatal(format!("no random bytes: {e}")))?;
    let caps = Caps {
        unproven: capacity.unauthenticated,
        held: buffers::strangers_share(),
        clients: capacity.clients,
    };
    Ok(Rules {
        admission: Arc::new(Admission::new(caps, &seed)),
        secrets: secrets.entries.iter().map(|entry| entry.secret).collect(),
        tls,
        replays: replays(config, capacity.memory)?,
        padded_only: config.padded_only,
        clear: config.open,
        road,
    })
}

fn set_bounds(config: &Config, capacity: &Capacity) {
    let default = limits::BUFFER_BUDGET.min(capacity.memory / 4);
    let budget = config.buffer_bytes.unwrap_or(default);
    buffers::set_budget(usize::try_from(budget).unwrap_or(usize::MAX));
    threads::set_most(capacity.threads);
}

fn dialer(config: &Config, secret: ProxySecret) -> Dialer {
    Dialer {
        secret,
        source: config.source(),
        nat: NatRules(config.nat_rules.clone()),
        ping_interval: config.ping_interval(),
        checksums: sys::checksums(),
        start_time: clock::unix() as u32,
    }
}

fn start_threads(
    listeners: &[Arc<TcpListener>],
    rules: &Arc<Rules>,
    requests: Sender<MainTask>,
) -> std::io::Result<()> {
    for listener in listeners {
        let (listener, rules) = (listener.clone(), rules.clone());
        // A panic must not end the service.
        let run = move || while !threads::guarded(|| accept::run(&listener, &rules)) {};
        threads::spawn("accept", run)?;
    }
    if let Some(tls) = &rules.tls {
        let sites = tls.sites.clone();
        let run = move || while !threads::guarded(|| probe::run(&sites)) {};
        threads::spawn("mask", run)?;
    }
    threads::spawn("signal", move || watch_signals(&requests))
}

fn watch_signals(requests: &Sender<MainTask>) {
    let mut stopping = false;
    let mut shown = 0;
    let mut minute = Every::new(limits::SUMMARY_INTERVAL);
    loop {
        match sys::wait_signal(minute.left()) {
            Some(Signal::Stop) if stopping => std::process::exit(1),
            Some(Signal::Stop) => {
                stopping = true;
                // There is always room; `send`, which could wait, is a lot of code.
                let _ = requests.try_send(MainTask::Stop);
            }
            Some(Signal::Ignored(name)) => log::event(format_args!("signal_ignored name={name}")),
            None => {}
        }
        if minute.is_due() {
            registry::sweep();
            buffers::trim();
            let (sum, line) = stats::refused();
            if sum != shown {
                log::event(format_args!("{line}"));
                shown = sum;
            }
        }
    }
}

/// Does what other threads ask for until the server is to stop.
fn serve(inbox: &Receiver<MainTask>, rules: &Rules, dialer: Option<&Arc<Dialer>>) {
    for request in inbox {
        let MainTask::StartSlot { set, slot } = request else {
            return;
        };
        if let (Some(set), Some(dialer)) = (rules.sets().get(set), dialer)
            && let Err(e) = slot::start_slot(set.clone(), slot, dialer.clone())
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
    closing::begin();
    rules.sets().iter().for_each(|set| set.stop());
    let drained = closing::wait(limits::STOP_DRAIN);
    // Many clients at once may have filled the log's queue: these two lines are not to be lost.
    log::flush();
    log::event(format_args!("stopped drained={drained}"));
    log::event(format_args!("{}", stats::summary()));
}
