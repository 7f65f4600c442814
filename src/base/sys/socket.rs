//! Sockets: how they are made, what std can't do with them, how long a connection lives without its
//! peer, how much may be in flight.

use std::ffi::{c_int, c_uint, c_void};
use std::io::{self, IoSlice};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use mtproxy::limits;

use super::consts::*;
use crate::base::net::Listener;

/// msghdr. Both counts are narrower in musl, with padding where the upper half is here.
#[repr(C)]
struct Message<'a> {
    name: *const c_void,
    name_len: c_uint,
    parts: *const IoSlice<'a>,
    part_count: usize,
    control: *const c_void,
    control_len: usize,
    flags: c_int,
}

unsafe extern "C" {
    fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int;
    fn bind(fd: c_int, address: *const c_void, len: u32) -> c_int;
    fn connect(fd: c_int, address: *const c_void, len: u32) -> c_int;
    fn listen(fd: c_int, backlog: c_int) -> c_int;
    fn getsockopt(fd: c_int, level: c_int, name: c_int, value: *mut c_void, len: *mut u32)
    -> c_int;
    fn setsockopt(fd: c_int, level: c_int, name: c_int, value: *const c_void, len: u32) -> c_int;
    fn sendmsg(fd: c_int, message: *const Message, flags: c_int) -> isize;
    fn shutdown(fd: c_int, how: c_int) -> c_int;
    fn ioctl(fd: c_int, request: usize, ...) -> c_int;
    fn fcntl(fd: c_int, command: c_int, ...) -> c_int;
}

fn stream_socket(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AF_INET } else { AF_INET6 };
    // SAFETY: no pointers; the new descriptor has no other owner.
    unsafe {
        Ok(OwnedFd::from_raw_fd(check(socket(
            family.into(),
            SOCK_STREAM | CLOEXEC,
            0,
        ))?))
    }
}

fn set_option(fd: &impl AsFd, level: i32, name: i32, value: u32) -> io::Result<()> {
    let raw = fd.as_fd().as_raw_fd();
    // SAFETY: the option is an int, and the pointer is to one.
    check(unsafe { setsockopt(raw, level, name, ptr::from_ref(&value).cast(), 4) }).map(drop)
}

/// How long nothing has come over a connection.
pub fn silence(socket: &TcpStream) -> io::Result<Duration> {
    // The beginning of tcp_info: eight bytes, then numbers of four, of which the last is ours.
    let mut info = [0_u32; 14];
    tcp_info(socket, &mut info)?;
    let [.., millis] = info;
    Ok(Duration::from_millis(millis.into()))
}

/// Bytes that came over a connection, and bytes that its peer's system has confirmed. An end counts as a byte.
/// None from a kernel before 4.1.
pub fn moved(socket: &TcpStream) -> Option<(u64, u64)> {
    // tcp_info up to the numbers of eight bytes that are ours.
    let mut info = [0_u64; 17];
    tcp_info(socket, &mut info).ok()?;
    let [.., sent, received] = info;
    Some((received, sent))
}

/// What the kernel says of a connection, as much of it as there is room for.
fn tcp_info<T: Copy>(socket: &TcpStream, info: &mut [T]) -> io::Result<()> {
    let mut len = size_of_val(info) as u32;
    let (raw, out) = (socket.as_raw_fd(), info.as_mut_ptr().cast());
    // SAFETY: the kernel fills `len` bytes at most, which `info` has; both kinds of number take any bytes.
    check(unsafe { getsockopt(raw, IPPROTO_TCP, TCP_INFO, out, &mut len) }).map(drop)
}

fn bind_to(fd: &OwnedFd, address: SocketAddr) -> io::Result<()> {
    let (raw, len) = socket_address(address);
    // SAFETY: `raw` is a socket address of `len` bytes.
    check(unsafe { bind(fd.as_raw_fd(), raw.as_ptr().cast(), len) }).map(drop)
}

/// A socket bound to an address that no other process has; it doesn't listen yet.
pub fn bound(address: SocketAddr) -> io::Result<TcpListener> {
    let fd = stream_socket(address)?;
    bind_to(&fd, address)?;
    Ok(TcpListener::from(fd))
}

/// A listening socket. On `[::]` it takes IPv4 clients as well.
/// `share`: other processes of this user may listen there, too, and each gets its part of the clients.
pub fn listener(address: SocketAddr, backlog: i32, share: bool) -> io::Result<TcpListener> {
    let fd = stream_socket(address)?;
    set_option(&fd, SOL_SOCKET, SO_REUSEADDR, 1)?;
    if share {
        set_option(&fd, SOL_SOCKET, SO_REUSEPORT, 1)?;
    }
    if address.is_ipv6() {
        set_option(&fd, IPPROTO_IPV6, IPV6_V6ONLY, 0)?;
    }
    bind_to(&fd, address)?;
    // SAFETY: no pointers.
    check(unsafe { listen(fd.as_raw_fd(), backlog) })?;
    Ok(TcpListener::from(fd))
}

/// Makes a listener's blocked accept fail, now and from now on.
pub fn shut_down_listener(listener: &impl AsFd) {
    // SAFETY: no pointers.
    unsafe { shutdown(listener.as_fd().as_raw_fd(), SHUT_RD) };
}

/// A socket that whoever started this process has opened, if it is a listening stream socket; it doesn't
/// outlive an exec. To be called once for each descriptor of [`super::passed_descriptors`].
pub fn passed_listener(fd: c_int) -> io::Result<Listener> {
    let option = |name| {
        let (mut value, mut len): (c_int, u32) = (0, 4);
        // SAFETY: the option is an int, and both pointers are to live variables.
        let got = unsafe {
            getsockopt(
                fd,
                SOL_SOCKET,
                name,
                ptr::from_mut(&mut value).cast(),
                &mut len,
            )
        };
        check(got).map(|_| value)
    };
    if option(SO_TYPE)? != SOCK_STREAM || option(SO_ACCEPTCONN)? == 0 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let domain = option(SO_DOMAIN)?;
    // SAFETY: no pointers; it is open, it was opened for this process, and nothing else here owns it.
    let fd = unsafe {
        fcntl(fd, F_SETFD, FD_CLOEXEC);
        OwnedFd::from_raw_fd(fd)
    };
    let listener = match u16::try_from(domain) {
        Ok(AF_INET | AF_INET6) => Listener::Tcp(fd.into()),
        Ok(AF_UNIX) => Listener::Unix(fd.into()),
        _ => return Err(io::ErrorKind::InvalidInput.into()),
    };
    match &listener {
        Listener::Tcp(socket) => socket.set_nonblocking(false)?,
        Listener::Unix(socket) => socket.set_nonblocking(false)?,
    }
    Ok(listener)
}

/// The mark of connections that are dialled; 0: none.
static MARK: AtomicU32 = AtomicU32::new(0);

/// Marks connections that are dialled from now on, for the system's routing. An error if this process may
/// not.
pub fn set_mark(mark: u32) -> io::Result<()> {
    let probe = stream_socket((Ipv4Addr::UNSPECIFIED, 0).into())?;
    set_option(&probe, SOL_SOCKET, SO_MARK, mark)?;
    MARK.store(mark, Ordering::Relaxed);
    Ok(())
}

/// Connects from `source`, if given, within `timeout`; also the socket's write timeout from then on.
pub fn dial(
    target: SocketAddr,
    source: Option<IpAddr>,
    timeout: Duration,
) -> io::Result<TcpStream> {
    let fd = stream_socket(target)?;
    let mark = MARK.load(Ordering::Relaxed);
    if mark > 0 {
        set_option(&fd, SOL_SOCKET, SO_MARK, mark)?;
    }
    if let Some(source) = source.filter(|source| source.is_ipv4() == target.is_ipv4()) {
        // Else the port is chosen now, when the target that could share it isn't known. Old kernels
        // don't have it.
        let _ = set_option(&fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1);
        bind_to(&fd, SocketAddr::from((source, 0)))?;
    }
    let stream = TcpStream::from(fd);
    // The write timeout bounds connect() as well (socket(7)).
    stream.set_write_timeout(Some(timeout))?;
    let (raw, len) = socket_address(target);
    // SAFETY: `raw` is a socket address of `len` bytes.
    match check(unsafe { connect(stream.as_raw_fd(), raw.as_ptr().cast(), len) }) {
        Err(e) if e.raw_os_error() == Some(EINPROGRESS) => Err(io::ErrorKind::TimedOut.into()),
        result => result.map(|_| stream),
    }
}

/// Sends what the socket takes without blocking; 0 if it takes nothing now.
pub fn send_now(socket: &TcpStream, parts: &[IoSlice]) -> io::Result<usize> {
    use io::ErrorKind::{Interrupted, WouldBlock};
    match send(socket, parts, MSG_DONTWAIT) {
        Err(e) if matches!(e.kind(), WouldBlock | Interrupted) => Ok(0),
        result => result,
    }
}

/// Sends short parts, behind which more is to come at once: the system may wait for that.
pub fn send_with_more(socket: &TcpStream, parts: &[IoSlice]) -> io::Result<()> {
    let whole: usize = parts.iter().map(|part| part.len()).sum();
    loop {
        match send(socket, parts, MSG_MORE) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            // The system takes a few bytes whole.
            Ok(sent) if sent < whole => return Err(io::ErrorKind::WriteZero.into()),
            result => return result.map(drop),
        }
    }
}

fn send(socket: &TcpStream, parts: &[IoSlice], flags: c_int) -> io::Result<usize> {
    let message = Message {
        name: ptr::null(),
        name_len: 0,
        parts: parts.as_ptr(),
        part_count: parts.len(),
        control: ptr::null(),
        control_len: 0,
        flags: 0,
    };
    // SAFETY: the parts are live slices, and std gives an IoSlice the layout of an iovec.
    let sent = unsafe { sendmsg(socket.as_raw_fd(), &message, flags | MSG_NOSIGNAL) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Bytes that were sent and that the peer's system has not confirmed, the end of sending included.
pub fn unconfirmed(socket: &TcpStream) -> u64 {
    let mut bytes: c_int = 0;
    // SAFETY: the request stores an int, and the pointer is to one.
    unsafe { ioctl(socket.as_raw_fd(), SIOCOUTQ, ptr::from_mut(&mut bytes)) };
    u64::try_from(bytes).unwrap_or(0)
}

/// Ends a connection by a reset; what is on its way out is lost.
pub fn reset(socket: &TcpStream) {
    // Connecting to no address family is how TCP disconnects.
    // SAFETY: the pointer is to a socket address of 16 bytes.
    unsafe { connect(socket.as_raw_fd(), ptr::from_ref(&[0_u8; 16]).cast(), 16) };
}

/// How long a TCP connection may stay without a sign of its peer.
pub struct Lifetime {
    /// Seconds of silence before the first keep-alive probe.
    pub idle: u32,
    /// Seconds between probes.
    pub interval: u32,
    /// Unanswered probes that end the connection.
    pub probes: u32,
    /// Unacknowledged data ends the connection after this.
    pub user_timeout: Duration,
}

/// Of connections of clients, and in direct mode to data centres.
pub const CLIENT_LIFETIME: Lifetime = Lifetime {
    idle: limits::KEEPALIVE_IDLE,
    interval: limits::KEEPALIVE_INTERVAL,
    probes: limits::KEEPALIVE_PROBES,
    user_timeout: limits::CLIENT_USER_TIMEOUT,
};

/// Sends small packets at once, and ends dead connections. What a listener is given, the sockets
/// that it accepts inherit.
pub fn set_lifetime(socket: &impl AsFd, lifetime: &Lifetime) -> io::Result<()> {
    let millis = u32::try_from(lifetime.user_timeout.as_millis()).unwrap_or(u32::MAX);
    set_option(socket, SOL_SOCKET, SO_KEEPALIVE, 1)?;
    for (name, value) in [
        (TCP_NODELAY, 1),
        (TCP_KEEPIDLE, lifetime.idle),
        (TCP_KEEPINTVL, lifetime.interval),
        (TCP_KEEPCNT, lifetime.probes),
        (TCP_USER_TIMEOUT, millis),
    ] {
        set_option(socket, IPPROTO_TCP, name, value)?;
    }
    Ok(())
}

/// Bounds the receive window, and so what a peer may have in flight. The clamp alone does not hold
/// while the kernel sizes the buffer by itself (seen with 6.18: it grew tenfold); a buffer of a set
/// size does. The kernel doubles it and gives half to its own bookkeeping.
pub fn set_window_clamp(socket: &impl AsFd, bytes: u32) -> io::Result<()> {
    set_option(socket, SOL_SOCKET, SO_RCVBUF, bytes)?;
    set_option(socket, IPPROTO_TCP, TCP_WINDOW_CLAMP, bytes)
}

/// sockaddr_in or sockaddr_in6, and its length.
fn socket_address(address: SocketAddr) -> ([u8; 28], u32) {
    let mut raw = [0; 28];
    let (family, len) = match address.ip() {
        IpAddr::V4(v4) => {
            raw[4..8].copy_from_slice(&v4.octets());
            (AF_INET, 16)
        }
        IpAddr::V6(v6) => {
            raw[8..24].copy_from_slice(&v6.octets());
            (AF_INET6, 28)
        }
    };
    raw[..2].copy_from_slice(&family.to_ne_bytes());
    raw[2..4].copy_from_slice(&address.port().to_be_bytes());
    (raw, len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_takes_both_families_and_a_dialled_socket_reaches_it() {
        let listener = listener("[::]:0".parse().unwrap(), 4, false).unwrap();
        let port = listener.local_addr().unwrap().port();
        for ip in ["127.0.0.1", "::1"] {
            let target = SocketAddr::new(ip.parse().unwrap(), port);
            let ours = dial(target, None, Duration::from_secs(3)).unwrap();
            let (theirs, _) = listener.accept().unwrap();
            assert_eq!(send_now(&ours, &[IoSlice::new(b"hello")]).unwrap(), 5);
            let mut got = [0; 5];
            io::Read::read_exact(&mut &theirs, &mut got).unwrap();
            assert_eq!(&got, b"hello");
        }
    }

    #[test]
    fn a_full_socket_takes_nothing_and_does_not_block() {
        let listener = listener("127.0.0.1:0".parse().unwrap(), 4, false).unwrap();
        let ours = dial(
            listener.local_addr().unwrap(),
            Some(Ipv4Addr::LOCALHOST.into()),
            Duration::from_secs(3),
        )
        .unwrap();
        let _theirs = listener.accept().unwrap();
        let block = vec![0; 1 << 20];
        let mut sent = 0;
        loop {
            let n = send_now(&ours, &[IoSlice::new(&block)]).unwrap();
            if n == 0 {
                break;
            }
            sent += n;
            assert!(sent < 1 << 30);
        }
        assert!(sent > 0);
    }

    #[test]
    fn a_listener_that_is_shut_down_stops_accepting() {
        let listener = listener("127.0.0.1:0".parse().unwrap(), 4, false).unwrap();
        shut_down_listener(&listener);
        assert!(listener.accept().is_err());
    }
}
