//! Sockets whose every wait has a deadline: connecting, accepting, reading and writing. And what the kernel's
//! table of connections (Linux, IPv4) says of a connection to the proxy, for tests that need to know how far
//! the proxy has read.

use super::wait::{ANY_TEST, PATIENCE, joined, uninterrupted, until};
use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process;
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// The state, and the length of a queue.
const ESTABLISHED: &str = "01";
const EMPTY: &str = "00000000";

/// A bare connection, mostly to the proxy, within PATIENCE; reads and writes have as long.
pub fn dial(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)
        .unwrap_or_else(|error| panic!("no connection to {address}: {error}"));
    with_deadlines(&stream, PATIENCE);
    stream
}

/// Whether this is how a connection ends that the other side has closed.
pub fn is_end(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
    )
}

/// All that still comes on a connection until it ends, in order or not.
pub fn read_to_end(mut stream: &TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Ok(_) => {}
        Err(error) if is_end(&error) => {}
        Err(error) => panic!("still open after {} bytes: {error}", bytes.len()),
    }
    bytes
}

/// The other side closes this connection, now or soon, without a byte more.
pub fn expect_closed(stream: &TcpStream) {
    let rest = read_to_end(stream);
    assert!(rest.is_empty(), "{} bytes before the end", rest.len());
}

/// Whether somebody listens there.
pub fn is_listening(address: SocketAddr) -> bool {
    match TcpStream::connect_timeout(&address, PATIENCE) {
        Ok(_) => true,
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => false,
        Err(error) => panic!("{address} neither accepts nor refuses: {error}"),
    }
}

/// A connection's writes have PATIENCE, its reads what is given; nothing is held back to be sent with more.
fn with_deadlines(stream: &TcpStream, reads: Duration) {
    stream.set_nodelay(true).expect("TCP_NODELAY");
    set_read_deadline(stream, reads);
    stream
        .set_write_timeout(Some(PATIENCE))
        .expect("write timeout");
}

pub fn set_read_deadline(stream: &TcpStream, time: Duration) {
    stream.set_read_timeout(Some(time)).expect("read timeout");
}

/// Whether this is how a wait ends whose deadline is over.
pub fn is_over(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// Reads so many bytes; panics with `what` when they don't come.
pub fn read_bytes(mut stream: &TcpStream, length: usize, what: &str) -> Vec<u8> {
    let mut bytes = vec![0; length];
    stream
        .read_exact(&mut bytes)
        .unwrap_or_else(|error| panic!("in vain for {length} bytes, {what}: {error}"));
    bytes
}

/// Says something and ends this direction behind it; the other one goes on.
pub fn say_and_end(mut stream: &TcpStream, bytes: &[u8]) {
    stream.write_all(bytes).expect("send");
    stream.shutdown(Shutdown::Write).expect("end one direction");
}

/// These bytes come next.
pub fn expect_bytes(stream: &TcpStream, wanted: &[u8], what: &str) {
    let heard = read_bytes(stream, wanted.len(), what);
    assert!(heard == wanted, "other bytes than {what}: {heard:02x?}");
}

/// Nothing comes for so long; the connection may not end either.
pub fn hears_nothing(mut stream: &TcpStream, time: Duration) {
    set_read_deadline(stream, time);
    match uninterrupted(|| stream.read(&mut [0; 16])) {
        Err(error) if is_over(&error) => {}
        other => panic!("something within {time:?}: {other:?}"),
    }
    set_read_deadline(stream, PATIENCE);
}

/// Something has come, which is left unread.
pub fn wait_for_a_byte(stream: &TcpStream) {
    uninterrupted(|| stream.peek(&mut [0])).expect("a byte to leave unread");
}

/// On a port of the kernel's choice.
pub fn listener(ip: IpAddr) -> TcpListener {
    TcpListener::bind((ip, 0)).expect("a port to listen on")
}

/// A port of 127.0.0.1 that nobody listens on. It lies below those that the kernel gives away by itself, so that
/// no other connection or listener comes by it meanwhile.
pub fn free_address() -> SocketAddr {
    const FROM: u16 = 10_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").expect("the range");
    let first = range.split_whitespace().next().map(str::parse);
    let count = first.and_then(Result::ok).unwrap_or(32_768_u16) - FROM;
    // Another run of the tests, which may go on beside this one, begins elsewhere.
    let start = process::id().wrapping_mul(97) % u32::from(count);
    until("a free port", || {
        let next = start + u32::from(NEXT.fetch_add(1, Ordering::Relaxed));
        let offset = u16::try_from(next % u32::from(count)).expect("less than all ports");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, FROM + offset));
        TcpListener::bind(address).ok().map(|_| address)
    })
}

/// A listener, and the thread that takes its connections until the peer is dropped or closes it.
pub struct Accepting {
    pub address: SocketAddr,
    /// The same socket once more, as what std can shut down.
    socket: TcpStream,
    thread: Option<JoinHandle<()>>,
}

impl Accepting {
    /// Each connection is handed to `serve`, in the accepting thread: what takes time needs one of its own. Its
    /// reads have ANY_TEST, since it is up to the test when its clients speak.
    pub fn start(
        listener: TcpListener,
        serve: impl Fn(TcpStream) + Send + Sync + 'static,
    ) -> Accepting {
        let address = listener.local_addr().expect("its address");
        let copy = listener.try_clone().expect("a second handle");
        let thread = thread::spawn(move || {
            loop {
                match uninterrupted(|| listener.accept()) {
                    Ok((stream, _)) => {
                        with_deadlines(&stream, ANY_TEST);
                        serve(stream);
                    }
                    Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                    // It has been shut down.
                    Err(error) if error.kind() == ErrorKind::InvalidInput => return,
                    Err(error) => panic!("a peer at {address} accepts no more: {error}"),
                }
            }
        });
        Accepting {
            address,
            socket: TcpStream::from(OwnedFd::from(copy)),
            thread: Some(thread),
        }
    }

    /// No connection is accepted any more. To wake the thread by a connection of our own would fail where
    /// descriptors or ports have run out, and it would wait for ever.
    pub fn close(&mut self) {
        let Some(thread) = self.thread.take() else {
            return;
        };
        self.socket
            .shutdown(Shutdown::Both)
            .expect("stop to listen");
        let what = format!("the end of the accepting thread of {}", self.address);
        if !thread::panicking() {
            joined(&what, thread);
        }
    }
}

impl Drop for Accepting {
    fn drop(&mut self) {
        self.close();
    }
}

/// The next connection to a listener of the test's own, within PATIENCE; reads and writes have as long.
pub fn accept(listener: TcpListener, what: &str) -> TcpStream {
    let copy = listener.try_clone().expect("a second handle");
    // For the kernel it is the same deadline as that of a read.
    set_read_deadline(&TcpStream::from(OwnedFd::from(copy)), PATIENCE);
    let (stream, _) = uninterrupted(|| listener.accept())
        .unwrap_or_else(|error| panic!("in vain for {what} to connect: {error}"));
    with_deadlines(&stream, PATIENCE);
    stream
}

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
    until("the proxy to read", || {
        let table = fs::read_to_string("/proc/net/tcp").expect("the table of connections");
        (!table.lines().skip(1).any(is_waiting)).then_some(())
    });
}

/// As the table writes it behind an address.
fn port(address: io::Result<SocketAddr>) -> String {
    format!(":{:04X}", address.expect("an end").port())
}
