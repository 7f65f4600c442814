//! Sockets against real deadlines. A socket's own timeout starts anew with each call, so before each
//! one it is set to what is left: a byte a second extends nothing. Calls that a stopped and continued
//! process finds interrupted are repeated.

use std::fmt::{self, Display};
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, Instant};

/// What is left until `deadline`; None if nothing is.
pub fn left(deadline: Instant) -> Option<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    (!left.is_zero()).then_some(left)
}

/// A socket on which clients are accepted.
pub enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// Where a client of a unix socket comes from: this machine.
pub const UNKNOWN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

impl Listener {
    /// Accepts a connection; None once the listener is shut down. One of a unix socket is carried as if it
    /// were TCP's: the options of that fail, and addresses aren't known.
    pub fn accept(&self) -> io::Result<Option<(TcpStream, SocketAddr)>> {
        match self {
            Listener::Tcp(listener) => accept(listener),
            Listener::Unix(listener) => accepted(&|| {
                let (socket, _) = listener.accept()?;
                Ok((OwnedFd::from(socket).into(), UNKNOWN))
            }),
        }
    }

    /// Where it listens; None for a unix socket.
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Listener::Tcp(listener) => listener.local_addr().ok(),
            Listener::Unix(_) => None,
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Listener::Tcp(listener) => listener.as_fd(),
            Listener::Unix(listener) => listener.as_fd(),
        }
    }
}

/// The address or path, for messages.
impl Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match (self, self.address()) {
            (_, Some(address)) => address.fmt(f),
            (Listener::Unix(listener), _) => {
                let own = listener.local_addr().ok();
                let path = own.as_ref().and_then(|own| own.as_pathname());
                path.unwrap_or(Path::new("a unix socket")).display().fmt(f)
            }
            (Listener::Tcp(_), None) => f.write_str("a socket"),
        }
    }
}

/// Our end of a client's connection.
pub fn own_address(socket: &TcpStream) -> SocketAddr {
    socket.local_addr().unwrap_or(UNKNOWN)
}

/// Accepts a connection; None once the listener is shut down.
pub fn accept(listener: &TcpListener) -> io::Result<Option<(TcpStream, SocketAddr)>> {
    accepted(&|| listener.accept())
}

fn accepted(
    accept: &dyn Fn() -> io::Result<(TcpStream, SocketAddr)>,
) -> io::Result<Option<(TcpStream, SocketAddr)>> {
    loop {
        match accept() {
            // The peer has gone already.
            Err(e)
                if matches!(
                    e.kind(),
                    ErrorKind::Interrupted | ErrorKind::ConnectionAborted
                ) => {}
            Err(e) if e.kind() == ErrorKind::InvalidInput => return Ok(None),
            result => return result.map(Some),
        }
    }
}

/// Reads what is there, 0 at the end. `WouldBlock` if the socket has a timeout and it passed.
pub fn read(mut socket: &TcpStream, buf: &mut [u8]) -> io::Result<usize> {
    loop {
        match socket.read(buf) {
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// As [`read`], but `TimedOut` if nothing comes before the deadline.
#[inline(never)] // an idle thread's stack keeps what is inlined above it
pub fn read_before(deadline: Instant, socket: &TcpStream, buf: &mut [u8]) -> io::Result<usize> {
    socket.set_read_timeout(Some(left(deadline).ok_or(ErrorKind::TimedOut)?))?;
    read(socket, buf).map_err(|e| match e.kind() {
        ErrorKind::WouldBlock => ErrorKind::TimedOut.into(),
        _ => e,
    })
}

/// As [`read_before`], but `UnexpectedEof` at the end.
pub fn read_more(deadline: Instant, socket: &TcpStream, buf: &mut [u8]) -> io::Result<usize> {
    match read_before(deadline, socket, buf)? {
        0 => Err(ErrorKind::UnexpectedEof.into()),
        n => Ok(n),
    }
}

/// Reads what is there, 0 at the end; None if nothing comes within the socket's timeout.
pub fn read_soon(from: &TcpStream, buf: &mut [u8]) -> io::Result<Option<usize>> {
    match read(from, buf) {
        Err(e) if e.kind() == ErrorKind::WouldBlock => Ok(None),
        result => result.map(Some),
    }
}

/// Writes everything before the deadline, `TimedOut` otherwise.
pub fn write_before(deadline: Instant, mut socket: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        socket.set_write_timeout(Some(left(deadline).ok_or(ErrorKind::TimedOut)?))?;
        match socket.write(bytes) {
            Ok(n) => bytes = &bytes[n..],
            Err(e) if matches!(e.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Writes some of the parts; `WouldBlock` if the socket has a timeout and it passed.
pub fn write_some(mut socket: &TcpStream, parts: &[IoSlice]) -> io::Result<usize> {
    loop {
        match socket.write_vectored(parts) {
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            result => return result,
        }
    }
}

/// Writes all parts.
pub fn write_all(socket: &TcpStream, mut parts: &mut [IoSlice]) -> io::Result<()> {
    IoSlice::advance_slices(&mut parts, 0); // empty ones in front
    while !parts.is_empty() {
        let n = write_some(socket, parts)?;
        IoSlice::advance_slices(&mut parts, n);
    }
    Ok(())
}

/// Addresses that the machine's hosts file gives a name, in its order.
pub fn hosts_file(name: &str) -> Vec<IpAddr> {
    let text = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
    named_in(&text, name)
}

fn named_in(hosts: &str, name: &str) -> Vec<IpAddr> {
    let address = |line: &str| {
        let mut words = line.split('#').next()?.split_whitespace();
        let address = words.next()?.parse().ok()?;
        let is_named = words.any(|word| word.eq_ignore_ascii_case(name));
        is_named.then_some(address)
    };
    hosts.lines().filter_map(address).collect()
}

/// Whether everybody on the internet can reach the address, as far as its number tells (RFC 6890).
pub fn is_global(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let [a, b, c, _] = ip.octets();
            let special = ip.is_private()
                || ip.is_loopback()
                || ip.is_link_local()
                || ip.is_documentation()
                || matches!((a, b, c), (0 | 224.., ..) | (100, 64..128, _))
                || matches!((a, b, c), (192, 0, 0) | (198, 18..20, _));
            !special
        }
        // All global unicast addresses there are begin with 001; 2001:db8 is for documentation.
        IpAddr::V6(ip) => {
            let [a, b, ..] = ip.segments();
            a >> 13 == 1 && (a, b) != (0x2001, 0xdb8)
        }
    }
}

/// What counts as one source. None for this machine: it may pass on connections for everybody.
pub fn source_of(ip: IpAddr) -> Option<IpAddr> {
    match ip.to_canonical() {
        IpAddr::V4(Ipv4Addr::LOCALHOST) | IpAddr::V6(Ipv6Addr::LOCALHOST) => None,
        IpAddr::V4(ip) => Some(ip.into()),
        IpAddr::V6(ip) => {
            let network = ip.to_bits() & !u128::from(u64::MAX);
            Some(Ipv6Addr::from_bits(network).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_that_has_passed_is_late_whatever_waits() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (near, _) = listener.accept().unwrap();
        far.write_all(b"here").unwrap();
        let late = read_before(Instant::now(), &near, &mut [0; 4]).unwrap_err();
        assert_eq!(late.kind(), ErrorKind::TimedOut);
        let soon = Instant::now() + Duration::from_millis(1);
        let mut buf = [0; 8];
        let long = Instant::now() + Duration::from_secs(60);
        assert_eq!(read_before(long, &near, &mut buf).unwrap(), 4);
        let silent = read_before(soon, &near, &mut buf).unwrap_err();
        assert_eq!(silent.kind(), ErrorKind::TimedOut);
        drop(far);
        assert_eq!(read_before(long, &near, &mut buf).unwrap(), 0);
    }

    #[test]
    fn the_hosts_file_names_addresses() {
        let text = "127.0.0.1\tlocalhost # here\n# 10.0.0.1 old\n::1 localhost6 Localhost\n\nx y\n";
        let found = |name| named_in(text, name);
        assert_eq!(found("LOCALHOST").len(), 2);
        assert_eq!(found("localhost6"), ["::1".parse::<IpAddr>().unwrap()]);
        for name in ["old", "here", "127.0.0.1", "y", ""] {
            assert!(found(name).is_empty(), "{name}");
        }
    }

    #[test]
    fn global_addresses_are_told_from_others() {
        let is_global = |text: &str| is_global(text.parse().unwrap());
        for text in [
            "149.154.167.51",
            "1.1.1.1",
            "192.0.1.1",
            "100.63.0.1",
            "2001:67c:4e8:f002::a",
            "100.128.0.1",
            "198.20.0.1",
            "223.255.255.255",
            "2c0f::1",
        ] {
            assert!(is_global(text), "{text}");
        }
        for text in [
            "192.168.1.1",
            "100.127.255.255",
            "192.0.0.1",
            "198.19.255.255",
            "10.1.2.3",
            "172.16.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "100.64.0.1",
            "192.0.2.1",
            "198.51.100.1",
            "203.0.113.9",
            "198.18.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "fd00::1",
            "ff02::1",
            "2001:db8::1",
            "::ffff:192.168.1.1",
        ] {
            assert!(!is_global(text), "{text}");
        }
    }
}
