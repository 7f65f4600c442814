//! The sockets that are opened at start, while the server may still be root: client ports and the
//! statistics port.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::sync::Arc;

use mtproxy::limits::STATS_BACKLOG;

use crate::base::{log, sys};
use crate::operator::Fatal;
use crate::operator::options::Config;

/// The client ports.
pub fn listen(config: &Config) -> Result<Vec<Arc<TcpListener>>, Fatal> {
    let ip = match config.address {
        _ if config.ipv6 => Ipv6Addr::UNSPECIFIED.into(),
        address => address.unwrap_or(Ipv4Addr::UNSPECIFIED).into(),
    };
    let open = |port: u16| {
        let address = SocketAddr::new(ip, port);
        let failed = |e: std::io::Error| Fatal(format!("can't listen on {address}: {e}"));
        let listener = sys::listener(address, config.backlog).map_err(failed)?;
        sys::set_lifetime(&listener, &sys::CLIENT_LIFETIME).map_err(failed)?;
        if config.window_clamp > 0 {
            sys::set_window_clamp(&listener, config.window_clamp).map_err(failed)?;
        }
        Ok(Arc::new(listener))
    };
    config.ports.iter().map(|port| open(*port)).collect()
}

/// Takes the statistics port; the first free one of a range. Without --http-stats nobody can connect
/// to it.
pub fn bind_stats(config: &Config) -> Result<Vec<Arc<TcpListener>>, Fatal> {
    let Some(mut ports) = config.stats_ports.clone() else {
        return Ok(Vec::new());
    };
    let shown = format!("{}:{}", ports.start(), ports.end());
    let strangers = !config.stats_nets.is_empty();
    let take = |port| match config.http_stats {
        false => sys::bound((Ipv4Addr::LOCALHOST, port).into()).map(|socket| vec![socket]),
        true if strangers => on_all_addresses(port).map(|socket| vec![socket]),
        true => on_this_machine(port),
    };
    // The kernel chooses a port that is free for IPv4; somebody may have it for IPv6.
    let again = (*ports.end() == 0).then_some(0);
    let sockets = ports.find_map(|port| take(port).ok());
    match sockets.or_else(|| take(again?).ok()) {
        Some(sockets) => Ok(sockets.into_iter().map(Arc::new).collect()),
        None => Err(Fatal(format!(
            "-p {shown}: no port of {} is free there",
            if strangers {
                "all addresses"
            } else {
                "127.0.0.1"
            }
        ))),
    }
}

/// 127.0.0.1, and ::1 if the machine has it.
fn on_this_machine(port: u16) -> std::io::Result<Vec<TcpListener>> {
    let v4 = sys::listener((Ipv4Addr::LOCALHOST, port).into(), STATS_BACKLOG)?;
    let port = v4.local_addr()?.port();
    match sys::listener((Ipv6Addr::LOCALHOST, port).into(), STATS_BACKLOG) {
        Ok(v6) => Ok(vec![v4, v6]),
        Err(e) if e.kind() == ErrorKind::AddrInUse => Err(e),
        Err(_) => Ok(vec![v4]),
    }
}

fn on_all_addresses(port: u16) -> std::io::Result<TcpListener> {
    let on = |address: SocketAddr| sys::listener(address, STATS_BACKLOG);
    on((Ipv6Addr::UNSPECIFIED, port).into()).or_else(|e| match e.kind() {
        ErrorKind::AddrInUse => Err(e),
        _ => on((Ipv4Addr::UNSPECIFIED, port).into()),
    })
}

/// Where the client ports are.
pub fn addresses_of(listeners: &[Arc<TcpListener>]) -> Result<Vec<SocketAddr>, Fatal> {
    listeners.iter().map(|l| address_of(l)).collect()
}

/// A listener's own address.
fn address_of(socket: &TcpListener) -> Result<SocketAddr, Fatal> {
    socket
        .local_addr()
        .map_err(|e| Fatal(format!("can't tell a socket's address: {e}")))
}

/// Says where the server listens; returns the statistics port, 0 if there is none.
pub fn show(listeners: &[SocketAddr], stats: Option<&Arc<TcpListener>>) -> Result<u16, Fatal> {
    for address in listeners {
        log::say(format_args!("listening on {address}"));
    }
    let Some(socket) = stats else { return Ok(0) };
    let port = address_of(socket)?.port();
    log::say(format_args!("stats on port {port}"));
    Ok(port)
}
