//! What the kernel's table of connections (Linux, IPv4) says of a connection to the proxy, for tests that
//! need to know how far the proxy has read.

use super::wait::PATIENCE;
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

/// The state, and the length of a queue.
const ESTABLISHED: &str = "01";
const EMPTY: &str = "00000000";

/// Waits until the proxy has read all that was sent, or has closed the connection.
pub fn wait_until_read(stream: &TcpStream) {
    let ours = port(stream.local_addr());
    let theirs = port(stream.peer_addr());
    // Nothing on its way out at our end, nothing unread at the other.
    let is_waiting = |row: &str| {
        let fields: Vec<&str> = row.split_whitespace().collect();
        let joins = |from: &str, to: &str| fields[1].ends_with(from) && fields[2].ends_with(to);
        let (sending, receiving) = fields[4].split_once(':').expect("two queues");
        fields[3] == ESTABLISHED
            && (joins(&ours, &theirs) && sending != EMPTY
                || joins(&theirs, &ours) && receiving != EMPTY)
    };
    let started = Instant::now();
    loop {
        let table = fs::read_to_string("/proc/net/tcp").expect("the table of connections");
        if !table.lines().skip(1).any(is_waiting) {
            return;
        }
        assert!(started.elapsed() < PATIENCE, "the proxy reads no more");
    }
}

/// As the table writes it behind an address.
fn port(address: io::Result<SocketAddr>) -> String {
    format!(":{:04X}", address.expect("an end").port())
}
