//! Attacks by strangers, of any size.

use super::client::Dialer;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

/// Connections that say `bytes` and then nothing, `each` after the other; those that were refused at once
/// are among them.
pub fn hold(address: SocketAddr, count: usize, bytes: &[u8], each: Duration) -> Vec<TcpStream> {
    let mut held = Vec::new();
    for _ in 0..count {
        let mut stream = TcpStream::connect(address).expect("the listener's queue has room");
        // Whoever is dropped early may see a reset here.
        let _ = stream.write_all(bytes);
        held.push(stream);
        thread::sleep(each);
    }
    held
}

/// How many of them are still open.
pub fn still_open(held: &[TcpStream]) -> usize {
    let is_open = |mut stream: &TcpStream| {
        stream.set_nonblocking(true).expect("non-blocking");
        matches!(stream.read(&mut [0; 1]), Err(e) if e.kind() == ErrorKind::WouldBlock)
    };
    held.iter().filter(|stream| is_open(stream)).count()
}

/// New clients come in, one after the other, and are served.
pub fn get_in(dialer: &Dialer, count: usize) {
    for _ in 0..count {
        dialer.dial().echo(100);
    }
}
