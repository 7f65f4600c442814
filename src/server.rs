//! Start order, signals, stop. Everything that can fail at start fails before the first thread, with
//! a sentence that names the file, port or user.

use std::fmt::Display;
use std::io::{ErrorKind, Read};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs};
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Receiver, Sender, unbounded};
use mtproxy::limits;
use mtproxy::proto::config_file::{self, ConfigFile};
use mtproxy::proto::secret::ProxySecret;

use crate::backend::{self, Setup};
use crate::capacity::{self, Capacity};
use crate::client::{Rules, accept};
use crate::dcs::{Dcs, Request};
use crate::nat::NatRules;
use crate::options::Config;
use crate::sys::{self, Signal};
use crate::{buffers, log, registry, stats, threads};

/// Why the server did not start; the whole sentence.
#[derive(Debug)]
pub struct Fatal(pub String);

/// Serves until a signal asks to stop.
pub fn run(config: Config) -> Result<(), Fatal> {
    log::set_verbosity(config.verbosity);
    let file = read_config(&config.config_file)?;
    let listeners = listen(&config)?;
    let stats_socket = bind_stats(&config)?;
    let (requests, inbox) = unbounded();
    let dcs = Dcs::new(&file, config.slots_per_set, &requests);
    let slots = dcs.sets.len() * config.slots_per_set;
    let capacity = capacity::find(
        config.max_clients,
        config.connections,
        (slots + config.ports.len()) as u64,
    );
    let secret = read_proxy_secret(&config)?;
    let identity = drop_privileges(config.user.as_deref())?;
    set_bounds(&config, &capacity);

    log::say(format_args!(
        "mtproxy {}: middle mode, {} data centres in {} sets of targets",
        env!("CARGO_PKG_VERSION"),
        dcs.clusters(),
        dcs.sets.len()
    ));
    for listener in &listeners {
        log::say(format_args!("listening on {}", address_of(listener)?));
    }
    if let Some(socket) = &stats_socket {
        log::say(format_args!("stats on port {}", address_of(socket)?.port()));
    }
    log::say(format_args!(
        "limits: {} clients ({} decides)",
        capacity.clients, capacity.decided_by
    ));
    warn(&config, secret.is_some(), identity, &dcs);

    sys::block_signals();
    let setup = secret.map(|secret| Arc::new(setup(&config, secret)));
    let rules = Arc::new(Rules {
        secrets: config.secrets,
        padded_only: config.padded_only,
        ad_tag: config.ad_tag,
        nat: NatRules(config.nat_rules),
        dcs,
    });
    rules.dcs.sets.iter().for_each(|set| set.start_first());
    start_threads(&listeners, &rules, capacity.clients, requests)
        .map_err(|e| Fatal(format!("can't start a thread: {e}")))?;
    log::say(format_args!("ready"));
    serve(&inbox, &rules, setup.as_ref());
    stop(&listeners, &rules.dcs);
    Ok(())
}

fn read_config(path: &Path) -> Result<ConfigFile, Fatal> {
    let name = path.display();
    let unreadable = |e| Fatal(format!("can't read configuration file {name}: {e}"));
    let mut text = Vec::new();
    let file = std::fs::File::open(path).map_err(unreadable)?;
    // One byte more than the parser takes, so that it says what is wrong.
    file.take(limits::MAX_CONFIG_FILE as u64 + 1)
        .read_to_end(&mut text)
        .map_err(unreadable)?;
    config_file::parse(&text, &mut resolve).map_err(|error| {
        // The C program's lines, for scripts that look for them.
        log::say(format_args!("{}", error.render(&name.to_string())));
        log::say(format_args!("new configuration was not applied"));
        Fatal("config check failed! (code -1)".into())
    })
}

/// A name's first address, IPv4 before IPv6. A name without a dot is only looked for in the hosts
/// file (protocol.md 8.1): the resolver would try it in the machine's own domain.
fn resolve(host: &str, port: u16) -> Option<SocketAddr> {
    let addresses: Vec<SocketAddr> = if host.contains(['.', ':']) {
        (host, port).to_socket_addrs().ok()?.collect()
    } else {
        let hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
        let lines = hosts
            .lines()
            .map(|line| line.split('#').next().unwrap_or_default());
        let fields = lines.map(|line| line.split_whitespace().collect::<Vec<&str>>());
        let named = fields.filter(|f| f.iter().skip(1).any(|name| name.eq_ignore_ascii_case(host)));
        named
            .filter_map(|f| Some(SocketAddr::new(f.first()?.parse().ok()?, port)))
            .collect()
    };
    addresses
        .iter()
        .find(|a| a.is_ipv4())
        .or(addresses.first())
        .copied()
}

fn listen(config: &Config) -> Result<Vec<Arc<TcpListener>>, Fatal> {
    let ip = match config.address {
        _ if config.ipv6 => Ipv6Addr::UNSPECIFIED.into(),
        address => address.unwrap_or(Ipv4Addr::UNSPECIFIED).into(),
    };
    let lifetime = sys::Lifetime {
        idle: limits::KEEPALIVE_IDLE,
        interval: limits::KEEPALIVE_INTERVAL,
        probes: limits::KEEPALIVE_PROBES,
        user_timeout: limits::CLIENT_USER_TIMEOUT,
    };
    let open = |port: u16| {
        let address = SocketAddr::new(ip, port);
        let failed = |e: std::io::Error| Fatal(format!("can't listen on {address}: {e}"));
        let listener = sys::listener(address, config.backlog).map_err(failed)?;
        sys::set_lifetime(&listener, &lifetime).map_err(failed)?;
        if config.window_clamp > 0 {
            sys::set_window_clamp(&listener, config.window_clamp).map_err(failed)?;
        }
        Ok(Arc::new(listener))
    };
    config.ports.iter().map(|port| open(*port)).collect()
}

/// Takes the statistics port; the first free one of a range.
fn bind_stats(config: &Config) -> Result<Option<TcpListener>, Fatal> {
    let Some(mut ports) = config.stats_ports.clone() else {
        return Ok(None);
    };
    let shown = format!("{}:{}", ports.start(), ports.end());
    let socket = ports.find_map(|port| sys::bound((Ipv4Addr::LOCALHOST, port).into()).ok());
    match socket {
        Some(socket) => Ok(Some(socket)),
        None => Err(Fatal(format!(
            "-p {shown}: no port of 127.0.0.1 is free there"
        ))),
    }
}

fn address_of(socket: &TcpListener) -> Result<SocketAddr, Fatal> {
    socket
        .local_addr()
        .map_err(|e| Fatal(format!("can't tell a socket's address: {e}")))
}

/// Without --aes-pwd a missing file is no error, as in the C proxy, but nothing can work then.
fn read_proxy_secret(config: &Config) -> Result<Option<ProxySecret>, Fatal> {
    let name = config.aes_pwd.display();
    let wrong = |why: &dyn Display| {
        Fatal(format!(
            "fatal: cannot load secret definition file {name}: {why}"
        ))
    };
    match std::fs::read(&config.aes_pwd) {
        Ok(bytes) => ProxySecret::new(&bytes).map(Some).map_err(|e| wrong(&e)),
        Err(_) if !config.aes_pwd_given => Ok(None),
        Err(e) => Err(wrong(&e)),
    }
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

fn warn(config: &Config, has_secret: bool, identity: Identity, dcs: &Dcs) {
    let say = |text: &str| log::say(format_args!("warning: {text}"));
    if config.secrets.is_empty() {
        say("no -S is given: the proxy is open to everybody");
    }
    if !has_secret {
        say(
            "no --aes-pwd is given and there is no file named secret: no middle proxy can be reached",
        );
    }
    if matches!(identity, Identity::Root) {
        say("running as root: there is no user mtproxy or nobody to become");
    }
    if std::fs::File::open(&config.config_file).is_err() {
        say("the configuration file can't be read as the user that the server runs as now");
    }
    if config.slots_asked > limits::MAX_SLOTS as u32 {
        say(&format!(
            "-M {} is more than {}: taken as that",
            config.slots_asked,
            limits::MAX_SLOTS
        ));
    }
    if config.stats_ports.is_some() && !config.http_stats {
        say("-p does nothing without --http-stats");
    }
    let oldest = std::fs::metadata(&config.config_file)
        .and_then(|m| m.modified())
        .ok();
    if let Some(days) = oldest
        .and_then(|t| t.elapsed().ok())
        .map(|age| age.as_secs() / 86_400)
        && days >= 7
    {
        say(&format!(
            "{} is {days} days old: Telegram changes it often",
            config.config_file.display()
        ));
    }
    if dcs
        .sets
        .iter()
        .flat_map(|set| &set.targets)
        .all(SocketAddr::is_ipv6)
    {
        say("all middle proxies are IPv6: they are reported to be unreliable");
    }
}

fn setup(config: &Config, secret: ProxySecret) -> Setup {
    Setup {
        secret,
        source: config.address,
        nat: NatRules(config.nat_rules.clone()),
        ping_interval: config.ping_interval,
        checksums: sys::checksums(),
        start_time: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |d| d.as_secs() as u32),
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
                let _ = requests.send(Request::Stop);
            }
            Some(Signal::Other) => log::event(format_args!("signal_ignored")),
            None => {
                registry::sweep();
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
        if let (Some(set), Some(setup)) = (rules.dcs.sets.get(set), setup)
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
fn stop(listeners: &[Arc<TcpListener>], dcs: &Dcs) {
    log::event(format_args!("stopping"));
    listeners.iter().for_each(|l| sys::shut_down_listener(l));
    dcs.sets.iter().for_each(|set| set.stop());
    registry::finish_all();
    let all_gone = registry::wait_empty(limits::STOP_DRAIN);
    log::event(format_args!("stopped drained={all_gone}"));
    log::event(format_args!("{}", stats::summary()));
}
