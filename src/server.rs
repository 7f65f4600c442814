//! Start order, signals, stop. Everything that can fail at start fails before the first thread, with
//! a sentence that names the file, port or user.

use std::mem;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, unbounded};
use mtproxy::limits;

use crate::base::bell::Bell;
use crate::base::clock::{self, Every};
use crate::base::lock::Mutex;
use crate::base::sys::{self, Signal};
use crate::base::{buffers, gauge::Gauge, log, net::Listener, threads};
use crate::door::accept::Serve;
use crate::door::admission::{Admission, Caps};
use crate::door::rules::{LiveRules, Rules};
use crate::door::{self, accept, closing, probe, replay::Replays, visitors::Visitors};
use crate::middle::dcs::MainTask;
use crate::middle::{dial::Dialer, registry, slot};
use crate::operator::capacity::{self, Capacity, Demand};
use crate::operator::files::Watch;
use crate::operator::load::{self, Files, Lasting};
use crate::operator::pages::{self, Facts};
use crate::operator::reload::{self, Reload};
use crate::operator::{
    Fatal, links, notify, options::Config, report::Report, sandbox, start, usage::UsageFile,
};
use crate::stats;
use crate::web::Web;

/// Serves until a signal asks to stop.
pub fn run(config: Config) -> Result<(), Fatal> {
    let born = (Instant::now(), clock::unix());
    log::set_verbosity(config.verbosity);
    let (log_file, starter) = start::background(&config)?;
    let (requests, inbox) = unbounded();
    let watch = Watch::new(reload::files(&config));
    let mut files = load::read(&config, &requests, None)?;
    stats::set_served(files.served());
    let (listeners, web_listener) = start::listen(&config)?;
    let stats_sockets = start::bind_stats(&config)?;
    let addresses: Vec<SocketAddr> = listeners.iter().filter_map(|l| l.address()).collect();
    let capacity = capacity::find(&demand(&config, &files));
    let sites = load::sites(&config, &files.domains, &addresses, None)?;
    let user = start::drop_privileges(&config)?;
    start::set_way_out(&config)?;

    Report {
        config: &config,
        dcs: files.dcs.as_ref(),
        listeners: &listeners,
        stats_port: port_of(&stats_sockets),
        capacity: &capacity,
        proxy_secret: files.proxy_secret.as_ref(),
        telegram: &files.telegram,
        watch: &watch,
        user,
    }
    .say();
    links::show_at_start(&config, &files.secrets, &addresses);

    log::say(format_args!("sandbox: {}", sandbox::enter(&config)?));
    sys::block_signals();
    log::start(log_file).map_err(no_thread)?;
    let secret = files.proxy_secret.take();
    let dialer = secret.map(|secret| Arc::new(load::dialer(&config, secret)));
    let lasting = lasting(&config, &capacity)?;
    let (telegram, secrets) = (mem::take(&mut files.telegram), files.secrets.clone());
    let rules = load::rules(&config, files, sites, &lasting);
    // The accounts are there now.
    let mut usage = config.state.as_deref().map(UsageFile::open);
    let rules = Arc::new(LiveRules::new(rules));
    let web = web(&config, web_listener.clone())?;
    let reload = Reload {
        config: Arc::new(config),
        secrets,
        rules: rules.clone(),
        telegram: Arc::new(Mutex::new(Arc::new(telegram))),
        dialer: dialer.clone(),
        watch,
        lasting,
        requests: requests.clone(),
        ours: addresses,
        leaving: Vec::new(),
    };
    let pages = start_pages(&stats_sockets, &reload, born, capacity.clients);
    let bell = pages.and_then(|()| reload.start()).map_err(no_thread)?;
    start_threads(&listeners, web, &rules, (requests, bell)).map_err(no_thread)?;
    start::ready(starter)?;
    serve(&inbox, &rules, dialer.as_ref(), &mut usage);
    stop(listeners.iter().chain(&web_listener), &rules.current());
    usage.iter_mut().for_each(UsageFile::save);
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
    let listeners = config.ports.len() + config.listen.len() + sys::passed_descriptors().len();
    Demand {
        config,
        slots: (slots + listeners + config.web.len().min(1)) as u64,
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

/// What the bounds of this machine allow.
fn lasting(config: &Config, capacity: &Capacity) -> Result<Lasting, Fatal> {
    set_bounds(config, capacity);
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
        lists: Arc::default(),
        fallbacks: (Arc::new(Gauge::new()), capacity.fallbacks),
    })
}

fn set_bounds(config: &Config, capacity: &Capacity) {
    let default = limits::BUFFER_BUDGET.min(capacity.memory / 4);
    let budget = config.buffer_bytes.unwrap_or(default);
    buffers::set_budget(usize::try_from(budget).unwrap_or(usize::MAX));
    threads::set_most(capacity.threads);
}

/// The port of the first of these; 0 if there is none.
fn port_of(listeners: &[Arc<TcpListener>]) -> u16 {
    let first = listeners.first().and_then(|l| l.local_addr().ok());
    first.map_or(0, |address| address.port())
}

/// Starts what serves the statistics, if that is wanted.
fn start_pages(
    sockets: &[Arc<TcpListener>],
    reload: &Reload,
    (started, start_time): (Instant, u64),
    most_clients: u32,
) -> std::io::Result<()> {
    if !reload.config.http_stats {
        return Ok(());
    }
    let facts = Facts {
        started,
        start_time,
        port: port_of(sockets),
        config: reload.config.clone(),
        telegram: reload.telegram.clone(),
        rules: reload.rules.clone(),
        most_clients,
    };
    pages::start(sockets, facts)
}

fn start_threads(
    listeners: &[Arc<Listener>],
    web: Option<(Arc<Listener>, Serve)>,
    rules: &Arc<LiveRules>,
    (requests, bell): (Sender<MainTask>, Option<Arc<Bell>>),
) -> std::io::Result<()> {
    let now = rules.current();
    now.sets().iter().for_each(|set| set.start_first());
    let serve = Serve {
        is_fronted: true,
        job: Arc::new(door::serve),
    };
    let of_ports = listeners.iter().map(|l| (l.clone(), serve.clone()));
    for (listener, serve) in of_ports.chain(web) {
        let rules = rules.clone();
        let run = move || accept::run(&listener, &rules, &serve);
        // A panic must not end the service.
        threads::spawn("accept", move || while !threads::guarded(&run) {})?;
    }
    if rules.sites().is_some() {
        let rules = rules.clone();
        let run = move || while !threads::guarded(|| probe::run(&rules)) {};
        threads::spawn("mask", run)?;
    }
    threads::spawn("signal", move || watch_signals(&requests, bell.as_deref()))
}

fn watch_signals(requests: &Sender<MainTask>, bell: Option<&Bell>) {
    let mut stopping = false;
    let mut shown = 0;
    let mut minute = Every::new(limits::SUMMARY_INTERVAL);
    loop {
        match sys::wait_signal(minute.left().min(stats::until_expiry())) {
            Some(Signal::Stop) if stopping => std::process::exit(1),
            Some(Signal::Stop) => {
                stopping = true;
                // There is always room; `send`, which could wait, is a lot of code.
                let _ = requests.try_send(MainTask::Stop);
            }
            Some(Signal::Reopen) if log::reopen() => {}
            Some(Signal::Reopen) => log::event(format_args!("signal_ignored name=SIGUSR1")),
            Some(Signal::Reload) => match bell {
                Some(bell) => bell.ring(),
                None => log::event(format_args!("signal_ignored name=SIGHUP")),
            },
            Some(Signal::Ignored(name)) => log::event(format_args!("signal_ignored name={name}")),
            None => {}
        }
        closing::enforce();
        if minute.is_due() {
            let _ = requests.try_send(MainTask::Save);
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

/// What serves web pages and their lanes, if there are any.
fn web(
    config: &Config,
    listener: Option<Arc<Listener>>,
) -> Result<Option<(Arc<Listener>, Serve)>, Fatal> {
    let Some(listener) = listener else {
        return Ok(None);
    };
    let (places, nets) = (config.web.clone(), config.web_nets.clone());
    log::say(format_args!("web pages on {listener}"));
    let web = Web::new(places, nets);
    let web = web.map_err(|e| Fatal(format!("no random bytes: {e}")))?;
    let serve = Serve {
        is_fronted: false,
        job: Arc::new(move |rules: &_, newcomer| web.serve(rules, newcomer)),
    };
    Ok(Some((listener, serve)))
}

/// Does what other threads ask for until the server is to stop.
fn serve(
    inbox: &Receiver<MainTask>,
    rules: &LiveRules,
    dialer: Option<&Arc<Dialer>>,
    usage: &mut Option<UsageFile>,
) {
    for request in inbox {
        let (set, slot) = match request {
            MainTask::StartSlot { set, slot } => (set, slot),
            MainTask::Stop => return,
            MainTask::Save => {
                usage.iter_mut().for_each(UsageFile::save);
                continue;
            }
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
fn stop<'a>(listeners: impl Iterator<Item = &'a Arc<Listener>>, rules: &Rules) {
    log::event(format_args!("stopping"));
    notify::say("STOPPING=1");
    listeners.for_each(|l| sys::shut_down_listener(&**l));
    closing::begin();
    rules.sets().iter().for_each(|set| set.stop());
    let drained = closing::wait(limits::STOP_DRAIN);
    // Many clients at once may have filled the log's queue: these two lines are not to be lost.
    log::flush();
    log::event(format_args!("stopped drained={drained}"));
    log::event(format_args!("{}", stats::summary()));
}
