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
use crate::door::admission::{Admission, Caps};
use crate::door::rules::{LiveRules, Rules};
use crate::door::{accept, closing, probe, replay::Replays, visitors::Visitors};
use crate::middle::dcs::{Dcs, MainTask};
use crate::middle::{dial::Dialer, nat::NatRules, registry, slot};
use crate::operator::capacity::{self, Capacity, Demand};
use crate::operator::load::{self, Files, Lasting};
use crate::operator::pages::{self, Facts};
use crate::operator::{Fatal, links, options::Config, report::Report, sandbox, start};
use crate::stats;

/// Serves until a signal asks to stop.
pub fn run(config: Config) -> Result<(), Fatal> {
    let (started, start_time) = (Instant::now(), clock::unix());
    log::set_verbosity(config.verbosity);
    let (log_file, starter) = start::background(&config)?;
    let (requests, inbox) = unbounded();
    let mut files = load::read(&config, &requests, None)?;
    let dcs = files.dcs.as_ref();
    let served = dcs.map_or_else(|| files.table.served(), Dcs::served);
    stats::set_served(served);
    let listeners = start::listen(&config)?;
    let stats_sockets = start::bind_stats(&config)?;
    let addresses = start::addresses_of(&listeners)?;
    let capacity = capacity::find(&demand(&config, &files));
    let sites = load::sites(&config, &files.domains, &addresses)?;
    let (proxy_secret, secret_file) = start::read_proxy_secret(&config)?.unzip();
    start::drop_privileges(&config)?;
    set_bounds(&config, &capacity);

    let stats_addresses = start::addresses_of(&stats_sockets)?;
    let stats_port = stats_addresses.first().map_or(0, SocketAddr::port);
    Report {
        config: &config,
        dcs,
        addresses: &addresses,
        stats_port,
        capacity: &capacity,
        proxy_secret: proxy_secret.as_ref(),
        fake_tls: sites.is_some(),
    }
    .say();
    let port = addresses.first().map_or(0, SocketAddr::port);
    links::show_at_start(&config, &files.secrets, port);

    sandbox::enter(&config)?;
    sys::block_signals();
    log::start(log_file).map_err(no_thread)?;
    let dialer = proxy_secret.map(|secret| Arc::new(dialer(&config, secret)));
    let config_file = files.config_file.take();
    let rules = load::rules(&config, files, sites, &lasting(&config, &capacity)?);
    rules.sets().iter().for_each(|set| set.start_first());
    let rules = Arc::new(LiveRules::new(rules));
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
    start::ready(starter)?;
    serve(&inbox, &rules, dialer.as_ref());
    stop(&listeners, &rules.current());
    Ok(())
}

fn no_thread(e: std::io::Error) -> Fatal {
    Fatal(format!("can't start a thread: {e}"))
}

fn demand<'a>(config: &'a Config, files: &Files) -> Demand<'a> {
    let entries = files.secrets.entries.iter();
    let limits = entries.filter_map(|entry| entry.limit);
    let sets = files.dcs.as_ref().map_or(0, |dcs| dcs.sets.len());
    let slots = sets * config.slots_per_set();
    Demand {
        config,
        slots: (slots + config.ports.len()) as u64,
        limited: limits.map(u64::from).sum(),
        fake_tls: !files.domains.is_empty(),
    }
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

/// To be called when the budget of buffers is set.
fn lasting(config: &Config, capacity: &Capacity) -> Result<Lasting, Fatal> {
    let seed = sys::random_array().map_err(|e| Fatal(format!("no random bytes: {e}")))?;
    let caps = Caps {
        unproven: capacity.unauthenticated,
        held: buffers::strangers_share(),
        clients: capacity.clients,
        per_second: config.accept_rate,
    };
    Ok(Lasting {
        admission: Arc::new(Admission::new(caps, &seed)),
        replays: replays(config, capacity.memory)?,
        visitors: Arc::new(Visitors::new(capacity.strangers)),
        fallbacks: (Arc::new(Gauge::new()), capacity.fallbacks),
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
        force_dh: config.force_dh,
        ping_interval: config.ping_interval(),
        checksums: sys::checksums(),
        start_time: clock::unix() as u32,
    }
}

fn start_threads(
    listeners: &[Arc<TcpListener>],
    rules: &Arc<LiveRules>,
    requests: Sender<MainTask>,
) -> std::io::Result<()> {
    for listener in listeners {
        let (listener, rules) = (listener.clone(), rules.clone());
        // A panic must not end the service.
        let run = move || while !threads::guarded(|| accept::run(&listener, &rules)) {};
        threads::spawn("accept", run)?;
    }
    if let Some(tls) = &rules.current().tls {
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
            Some(Signal::Reopen) if log::reopen() => {}
            Some(Signal::Reopen) => log::event(format_args!("signal_ignored name=SIGUSR1")),
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
fn serve(inbox: &Receiver<MainTask>, rules: &LiveRules, dialer: Option<&Arc<Dialer>>) {
    for request in inbox {
        let MainTask::StartSlot { set, slot } = request else {
            return;
        };
        let rules = rules.current();
        let set = rules.sets().iter().find(|known| known.number == set);
        if let (Some(set), Some(dialer)) = (set, dialer)
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
