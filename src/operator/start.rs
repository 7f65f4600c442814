//! What is read and opened at start, in the main thread, before the first other one: Telegram's files, the
//! ports, and then root's rights are dropped.
//!
//! Called by `server`. Nothing here is from strangers, but any bytes of a file are taken; what can't be used
//! ends the start with a sentence that names the file, port or user.

use std::fmt::Display;
use std::fs::{File, Permissions};
use std::io::{self, ErrorKind, PipeWriter, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mtproxy::formats::config_file::{self, ConfigFile};
use mtproxy::limits::{MAX_CONFIG_FILE, STATS_BACKLOG};
use mtproxy::proto::secret::ProxySecret;

use crate::base::{log, net, net::Listener, outgoing, sys};
use crate::direct::table::Table;
use crate::operator::files::read_file;
use crate::operator::options::{Config, DcOverride, Listen};
use crate::operator::{Fatal, notify, pages::FileFacts};

/// -l, -d and --nice, before anything else: the log's file, and whom to tell that the server is ready, which
/// then is [`ready`].
pub fn background(config: &Config) -> Result<(Option<File>, Option<PipeWriter>), Fatal> {
    let open = |path: &PathBuf| {
        log::set_file(path);
        let name = path.display();
        log::open(path).map_err(|e| Fatal(format!("-l {name}: can't open the log: {e}")))
    };
    let log_file = config.log_file.as_ref().map(open).transpose()?;
    let starter = config.daemonize.then(sys::daemonize).transpose();
    let starter = starter.map_err(|e| Fatal(format!("-d: can't start a process: {e}")))?;
    if config.nice != 0
        && let Err(e) = sys::add_niceness(config.nice)
    {
        log::say(format_args!("warning: --nice {}: {e}", config.nice));
    }
    Ok((log_file, starter))
}

/// Says that clients are served, and with -d leaves the terminal.
pub fn ready(starter: Option<PipeWriter>) -> Result<(), Fatal> {
    log::say(format_args!("ready"));
    notify::say("READY=1");
    let Some(mut starter) = starter else {
        return Ok(());
    };
    log::flush();
    let left = sys::leave_terminal().and_then(|()| starter.write_all(&[0]));
    left.map_err(|e| Fatal(format!("-d: can't leave the terminal: {e}")))
}

/// Telegram's configuration, for middle mode. An error in it is told as the C program does, at start.
pub fn read_config(
    config: &Config,
    at_start: bool,
) -> Result<Option<(ConfigFile, FileFacts)>, Fatal> {
    let path = match &config.config_file {
        Some(path) if !config.is_direct() => path,
        _ => return Ok(None),
    };
    let name = path.display();
    let text = read_file(path, MAX_CONFIG_FILE)
        .map_err(|e| Fatal(format!("can't read configuration file {name}: {e}")))?;
    let parsed = config_file::parse(&name.to_string(), &text, &mut resolve).map_err(|line| {
        if !at_start {
            // The C program's first line has neither name nor number.
            let is_named = line.starts_with(&format!("{name}:"));
            let place = if is_named { "" } else { &format!("{name}:0: ") };
            return Fatal(format!("{place}{line}"));
        }
        // The C program's lines, for scripts that look for them.
        log::say(format_args!("{line}"));
        log::say(format_args!("new configuration was not applied"));
        Fatal("config check failed! (code -1)".into())
    })?;
    Ok(Some((parsed, FileFacts::new(path, &text))))
}

/// A name's first address, IPv4 before IPv6. A name without a dot is only looked for in the hosts
/// file (protocol.md 8.1): the resolver would try it in the machine's own domain.
fn resolve(host: &str, port: u16) -> Option<SocketAddr> {
    let addresses: Vec<SocketAddr> = if host.contains(['.', ':']) {
        (host, port).to_socket_addrs().ok()?.collect()
    } else {
        let found = net::hosts_file(host).into_iter();
        found.map(|ip| SocketAddr::new(ip, port)).collect()
    };
    let ipv4 = addresses.iter().find(|address| address.is_ipv4());
    ipv4.or(addresses.first()).copied()
}

/// Telegram's proxy-secret, for middle mode. Without --aes-pwd a missing file is no error, as in the C proxy,
/// but nothing can work then.
pub fn read_proxy_secret(config: &Config) -> Result<Option<(ProxySecret, FileFacts)>, Fatal> {
    if config.is_direct() {
        return Ok(None);
    }
    let path = config.proxy_secret_file();
    let (name, cannot) = (path.display(), "cannot load secret definition file");
    let wrong = |why: &dyn Display| Fatal(format!("fatal: {cannot} {name}: {why}"));
    let bytes = match std::fs::read(path) {
        Err(_) if config.aes_pwd.is_none() => return Ok(None),
        read => read.map_err(|e| wrong(&e))?,
    };
    let facts = FileFacts::new(path, &bytes);
    let secret = ProxySecret::new(bytes).map_err(|e| wrong(&e))?;
    Ok(Some((secret, facts)))
}

/// Where data centres are: the names of --dc-override are resolved.
pub fn table(config: &Config) -> Result<Table, Fatal> {
    let address = |(id, (host, port)): &DcOverride| match resolve(host, *port) {
        Some(address) => Ok((*id, address)),
        None => Err(Fatal(format!("--dc-override: can't resolve {host}"))),
    };
    let overrides = config.dc_overrides.iter().map(address);
    Ok(Table {
        overrides: overrides.collect::<Result<_, _>>()?,
        prefer_ipv6: config.prefer_ipv6,
    })
}

/// For clients, and for the web server in front.
type Listeners = (Vec<Arc<Listener>>, Option<Arc<Listener>>);

/// Opens all sockets for clients: those of -H and --listen, and those that the process was started with; and
/// the one for the web server in front, if there are pages.
pub fn listen(config: &Config) -> Result<Listeners, Fatal> {
    let ip = match config.address {
        Some(address) => address,
        None if config.ipv6 => Ipv6Addr::UNSPECIFIED.into(),
        None => Ipv4Addr::UNSPECIFIED.into(),
    };
    let mut listeners = Vec::new();
    for fd in sys::passed_descriptors() {
        let passed = sys::passed_listener(fd).map_err(|_| {
            let what = "of those that this process was started with (LISTEN_FDS)";
            Fatal(format!(
                "descriptor {fd}, {what}, is no listening stream socket"
            ))
        });
        listeners.push(passed?);
    }
    let ports = config
        .ports
        .iter()
        .map(|port| Listen::Tcp((ip, *port).into()));
    for place in ports.collect::<Vec<_>>().iter().chain(&config.listen) {
        let listener = open(place, config, config.reuse_port).map_err(|e| cannot_open(place, &e));
        listeners.push(listener?);
    }
    for listener in &listeners {
        set_options(listener, config).map_err(|e| cannot_listen(listener, &e))?;
    }
    let listeners = listeners.into_iter().map(Arc::new).collect();
    Ok((listeners, listen_web(config)?))
}

fn cannot_open(place: &Listen, e: &io::Error) -> Fatal {
    match place {
        Listen::Tcp(address) => cannot_listen(address, e),
        Listen::Unix(path) => cannot_listen(&path.display(), e),
    }
}

fn cannot_listen(place: &dyn Display, e: &io::Error) -> Fatal {
    let how = match e.kind() {
        ErrorKind::PermissionDenied => FOR_LOW_PORTS,
        _ => "",
    };
    Fatal(format!("can't listen on {place}: {e}{how}"))
}

/// What accepted sockets inherit.
fn set_options(listener: &Listener, config: &Config) -> io::Result<()> {
    if let Listener::Unix(_) = listener {
        return Ok(());
    }
    sys::set_lifetime(listener, &sys::CLIENT_LIFETIME)?;
    if config.window_clamp() > 0 {
        sys::set_window_clamp(listener, config.window_clamp())?;
    }
    Ok(())
}

/// A unix socket that everybody on this machine may connect to who may enter its directory, as with a port.
/// One that an earlier run has left behind is replaced.
fn on_path(path: &Path) -> io::Result<Listener> {
    let left_behind = || {
        // Other files refuse connections, too.
        let is_socket = std::fs::metadata(path).is_ok_and(|found| found.file_type().is_socket());
        let answer = UnixStream::connect(path);
        is_socket && answer.is_err_and(|e| e.kind() == ErrorKind::ConnectionRefused)
    };
    let listener = match UnixListener::bind(path) {
        Err(e) if e.kind() == ErrorKind::AddrInUse && left_behind() => {
            std::fs::remove_file(path)?;
            UnixListener::bind(path)?
        }
        bound => bound?,
    };
    std::fs::set_permissions(path, Permissions::from_mode(0o666))?;
    Ok(Listener::Unix(listener))
}

/// --socks5 and --fwmark: how connections to the outside are made from now on. To be called as the user that
/// makes them.
pub fn set_way_out(config: &Config) -> Result<(), Fatal> {
    if config.mark > 0 {
        sys::set_mark(config.mark).map_err(|e| {
            Fatal(format!(
                "--fwmark: this process may not mark connections: {e}; give it CAP_NET_ADMIN, in a unit \
                 AmbientCapabilities=CAP_NET_ADMIN with User=, or start it as root with -u root"
            ))
        })?;
    }
    let Some(flag) = &config.socks5 else {
        return Ok(());
    };
    let flag = Box::leak(Box::new(flag.clone()));
    match outgoing::go_through(flag) {
        true => Ok(()),
        false => Err(Fatal(format!("--socks5: can't resolve {}", flag.server.0))),
    }
}

/// Listens for the web server in front, if there are pages.
fn listen_web(config: &Config) -> Result<Option<Arc<Listener>>, Fatal> {
    if config.web.is_empty() {
        return Ok(None);
    }
    let place = config.web_address();
    let open = || {
        let listener = open(&place, config, false)?;
        if let Listener::Tcp(_) = &listener {
            sys::set_lifetime(&listener, &sys::CLIENT_LIFETIME)?;
        }
        Ok(Some(Arc::new(listener)))
    };
    open().map_err(|e| cannot_open(&place, &e))
}

fn open(place: &Listen, config: &Config, shared: bool) -> io::Result<Listener> {
    match place {
        Listen::Tcp(address) => {
            sys::listener(*address, config.backlog.0 as i32, shared).map(Listener::Tcp)
        }
        Listen::Unix(path) => on_path(path),
    }
}

/// What gives the right to a port below 1024.
const FOR_LOW_PORTS: &str = "; start as root (-u says whom it becomes then), or allow this port once with \
                             `setcap cap_net_bind_service=+ep` and the program's path, or take one from \
                             1024 on";

/// Takes the statistics port; the first free one of a range. Without --http-stats nobody can connect
/// to it.
pub fn bind_stats(config: &Config) -> Result<Vec<Arc<TcpListener>>, Fatal> {
    let Some(mut ports) = config.stats_ports.clone() else {
        return Ok(Vec::new());
    };
    let (first, last) = (*ports.start(), *ports.end());
    let others_may_ask = !config.stats_nets.is_empty();
    let take = |port| match config.http_stats {
        false => sys::bound((Ipv4Addr::LOCALHOST, port).into()).map(|socket| vec![socket]),
        true if others_may_ask => on_all_addresses(port).map(|socket| vec![socket]),
        true => on_this_machine(port),
    };
    let taken = ports.find_map(|port| take(port).ok());
    // The kernel chooses a port that is free for IPv4; somebody may have it for IPv6.
    let again = || (last == 0).then(|| take(0).ok()).flatten();
    let Some(sockets) = taken.or_else(again) else {
        let place = match others_may_ask {
            true => "all addresses",
            false => "127.0.0.1",
        };
        let text = format!("-p {first}:{last}: no port of {place} is free there");
        return Err(Fatal(text));
    };
    Ok(sockets.into_iter().map(Arc::new).collect())
}

/// 127.0.0.1, and ::1 if the machine has it.
fn on_this_machine(port: u16) -> io::Result<Vec<TcpListener>> {
    let v4 = sys::listener((Ipv4Addr::LOCALHOST, port).into(), STATS_BACKLOG, false)?;
    let port = v4.local_addr()?.port();
    match sys::listener((Ipv6Addr::LOCALHOST, port).into(), STATS_BACKLOG, false) {
        Ok(v6) => Ok(vec![v4, v6]),
        Err(e) if e.kind() == ErrorKind::AddrInUse => Err(e),
        Err(_) => Ok(vec![v4]),
    }
}

fn on_all_addresses(port: u16) -> io::Result<TcpListener> {
    let on = |address: SocketAddr| sys::listener(address, STATS_BACKLOG, false);
    on((Ipv6Addr::UNSPECIFIED, port).into()).or_else(|e| match e.kind() {
        ErrorKind::AddrInUse => Err(e),
        _ => on((Ipv4Addr::UNSPECIFIED, port).into()),
    })
}

/// If started as root, becomes the user of -u, or without -u mtproxy or nobody, and says whom. Stays root if
/// neither exists.
pub fn drop_privileges(config: &Config) -> Result<Option<&str>, Fatal> {
    let chroot = config.chroot.as_deref();
    let enter_root = || {
        let entered = chroot.map_or(Ok(()), sys::enter_root);
        entered.map_err(|e| Fatal(format!("--chroot: {e}")))
    };
    if !sys::is_root() {
        return enter_root().map(|()| None);
    }
    let user = config.user.as_deref();
    let candidates = user.map_or(vec!["mtproxy", "nobody"], |user| vec![user]);
    for name in candidates {
        match sys::become_user(name, chroot) {
            Ok(true) => return Ok(Some(name)),
            Ok(false) => {}
            // A container may not let root become somebody else; then it isn't much of a root.
            Err(e) if user.is_none() && e.kind() == ErrorKind::PermissionDenied => return Ok(None),
            Err(e) => return Err(Fatal(format!("can't become user {name}: {e}"))),
        }
    }
    match user {
        Some(user) => Err(Fatal(format!("-u {user}: there is no such user"))),
        None => enter_root().map(|()| None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_without_a_dot_are_looked_for_in_the_hosts_file() {
        let address = resolve("localhost", 7).expect("every hosts file has it");
        assert!(address.ip().is_loopback() && address.port() == 7);
        assert_eq!(resolve("no-such-host-here", 7), None);
    }
}
