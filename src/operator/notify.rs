//! Tells the service manager how far this process is, if the manager has said where it listens
//! (NOTIFY_SOCKET, as systemd's sd_notify does it). Called by `start`, `reload` and `server`. Nothing is read, and nothing depends
//! on it.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Sends a state: `READY=1`, `RELOADING=1`, `STOPPING=1`.
pub fn say(state: &str) {
    let Some(place) = std::env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    let address = match place.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        _ => SocketAddr::from_pathname(&place),
    };
    // Nobody is there to be told that this failed.
    let socket = UnixDatagram::unbound();
    if let (Ok(address), Ok(socket)) = (address, socket) {
        let _ = socket.send_to_addr(state.as_bytes(), &address);
    }
}
