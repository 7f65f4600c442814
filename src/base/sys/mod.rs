//! Everything that std does not offer: the few C functions that the daemon needs, each behind a safe
//! one. This is the only file with unsafe code. The declarations stand in for the libc crate; types
//! and constants were compared on all targets (MIPS differs, see `consts`).

use std::ffi::{CStr, CString, OsString, c_char, c_int, c_uint, c_void};
use std::io::{self, IoSlice};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::ptr;
use std::time::Duration;

use mtproxy::crypto::crc32::{Checksums, PORTABLE};

mod consts;
mod tcp;

use crate::base::sys::consts::*;
use crate::base::sys::tcp::socket_address;

pub use crate::base::sys::tcp::{CLIENT_LIFETIME, Lifetime, set_lifetime, set_window_clamp};

// glibc has smaller limits and times there.
#[cfg(all(target_pointer_width = "32", target_env = "gnu"))]
compile_error!("on 32-bit machines build with musl");

#[repr(C)]
struct Rlimit {
    soft: u64,
    hard: u64,
}

#[repr(C)]
struct Passwd {
    name: *const c_char,
    password: *const c_char,
    uid: u32,
    gid: u32,
    gecos: *const c_char,
    dir: *const c_char,
    shell: *const c_char,
}

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

/// 128 bytes everywhere.
#[repr(C)]
struct SignalSet([u64; 16]);

#[repr(C)]
struct TimeSpec {
    seconds: isize,
    nanoseconds: isize,
}

unsafe extern "C" {
    fn getrandom(buf: *mut c_void, len: usize, flags: u32) -> isize;
    fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int;
    fn bind(fd: c_int, address: *const c_void, len: u32) -> c_int;
    fn connect(fd: c_int, address: *const c_void, len: u32) -> c_int;
    fn listen(fd: c_int, backlog: c_int) -> c_int;
    fn setsockopt(fd: c_int, level: c_int, name: c_int, value: *const c_void, len: u32) -> c_int;
    fn sendmsg(fd: c_int, message: *const Message, flags: c_int) -> isize;
    fn shutdown(fd: c_int, how: c_int) -> c_int;
    fn pipe2(ends: *mut [c_int; 2], flags: c_int) -> c_int;
    fn fcntl(fd: c_int, command: c_int, ...) -> c_int;
    fn splice(
        from: c_int,
        from_offset: *mut c_void,
        to: c_int,
        to_offset: *mut c_void,
        len: usize,
        flags: c_uint,
    ) -> isize;
    fn getrlimit(resource: c_int, limit: *mut Rlimit) -> c_int;
    fn setrlimit(resource: c_int, limit: *const Rlimit) -> c_int;
    fn sigemptyset(set: *mut SignalSet) -> c_int;
    fn sigaddset(set: *mut SignalSet, signal: c_int) -> c_int;
    fn pthread_sigmask(how: c_int, set: *const SignalSet, old: *mut SignalSet) -> c_int;
    fn sigtimedwait(set: *const SignalSet, info: *mut c_void, timeout: *const TimeSpec) -> c_int;
    fn signal(signal: c_int, handler: usize) -> usize;
    fn getpwnam(name: *const c_char) -> *const Passwd;
    fn initgroups(name: *const c_char, gid: u32) -> c_int;
    fn setgid(gid: u32) -> c_int;
    fn setuid(uid: u32) -> c_int;
    fn getuid() -> u32;
    fn geteuid() -> u32;
    fn getgid() -> u32;
    fn getegid() -> u32;
    fn open(path: *const c_char, flags: c_int, ...) -> c_int;
}

/// The C entry point. std's own would install an alternate signal stack for each thread, which
/// doubles the memory mappings of a thread and so halves the number of clients. What std does there
/// and matters is done here: SIGPIPE ignored, descriptors 0 to 2 open.
#[cfg_attr(not(test), unsafe(no_mangle))]
#[cfg_attr(test, allow(dead_code))] // the test harness has its own
extern "C" fn main(argc: c_int, argv: *const *const c_char) -> c_int {
    // SAFETY: ignoring a signal has no handler that could run; the path is a C string.
    unsafe {
        // The last ones are accepted by the C proxy, which does nothing then. SIGHUP and SIGUSR1 are
        // waited for later; until then they must not end the process.
        let realtime = [0, 1, 4, 8, 9].map(|n| SIGRTMAX - n);
        for number in [SIGPIPE, SIGPOLL, SIGHUP, SIGUSR1]
            .into_iter()
            .chain(realtime)
        {
            signal(number, SIG_IGN);
        }
        // open() takes the lowest free number: nothing is lost if 0 to 2 are open already.
        loop {
            let fd = open(c"/dev/null".as_ptr(), O_RDWR | CLOEXEC);
            if fd > 2 {
                drop(OwnedFd::from_raw_fd(fd));
            }
            if !(0..=2).contains(&fd) {
                break;
            }
        }
    }
    let args = (1..usize::try_from(argc).unwrap_or(0)).map(|i| {
        // SAFETY: the C runtime gives argc pointers to C strings that live as long as the process.
        let arg = unsafe { CStr::from_ptr(*argv.add(i)) };
        OsString::from_vec(arg.to_bytes().to_vec())
    });
    let args = args.collect();
    // A panic may not leave a C function.
    c_int::from(std::panic::catch_unwind(|| crate::start(args)).unwrap_or(1))
}

fn check(result: c_int) -> io::Result<c_int> {
    match result {
        0.. => Ok(result),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Fills `buf` from the system's random generator.
pub fn random(buf: &mut [u8]) -> io::Result<()> {
    let mut at = 0;
    while at < buf.len() {
        let rest = &mut buf[at..];
        // SAFETY: pointer and length are those of a live slice.
        let n = unsafe { getrandom(rest.as_mut_ptr().cast(), rest.len(), 0) };
        match usize::try_from(n) {
            Ok(n) => at += n,
            Err(_) if io::Error::last_os_error().raw_os_error() == Some(EINTR) => {}
            // A kernel before 3.17.
            Err(_) => return io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, rest),
        }
    }
    Ok(())
}

/// `N` random bytes.
pub fn random_array<const N: usize>() -> io::Result<[u8; N]> {
    let mut out = [0; N];
    random(&mut out)?;
    Ok(out)
}

/// The fastest checksums that this processor offers.
pub fn checksums() -> Checksums {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("pclmulqdq") {
        use mtproxy::crypto::crc32::clmul;
        return Checksums {
            // SAFETY: the processor has the instructions, as just asked.
            crc32: |data| unsafe { clmul::crc32(data) },
            // SAFETY: as above.
            crc32c: |data| unsafe { clmul::crc32c(data) },
        };
    }
    #[cfg(target_arch = "aarch64")]
    if std::arch::is_aarch64_feature_detected!("crc") {
        use mtproxy::crypto::crc32::instructions;
        return Checksums {
            // SAFETY: the processor has the instructions, as just asked.
            crc32: |data| unsafe { instructions::crc32(data) },
            // SAFETY: as above.
            crc32c: |data| unsafe { instructions::crc32c(data) },
        };
    }
    PORTABLE
}

fn stream_socket(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AF_INET } else { AF_INET6 };
    // SAFETY: no pointers; the new descriptor is owned by nobody else.
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

fn bind_to(fd: &OwnedFd, address: SocketAddr) -> io::Result<()> {
    let (raw, len) = socket_address(address);
    // SAFETY: `raw` is a socket address of `len` bytes.
    check(unsafe { bind(fd.as_raw_fd(), raw.as_ptr().cast(), len) }).map(drop)
}

/// A socket bound to an address that nobody else has; nobody can connect to it yet.
pub fn bound(address: SocketAddr) -> io::Result<TcpListener> {
    let fd = stream_socket(address)?;
    bind_to(&fd, address)?;
    Ok(TcpListener::from(fd))
}

/// A listening socket. On `[::]` it takes IPv4 clients as well.
pub fn listener(address: SocketAddr, backlog: i32) -> io::Result<TcpListener> {
    let fd = stream_socket(address)?;
    set_option(&fd, SOL_SOCKET, SO_REUSEADDR, 1)?;
    if address.is_ipv6() {
        set_option(&fd, IPPROTO_IPV6, IPV6_V6ONLY, 0)?;
    }
    bind_to(&fd, address)?;
    // SAFETY: no pointers.
    check(unsafe { listen(fd.as_raw_fd(), backlog) })?;
    Ok(TcpListener::from(fd))
}

/// Makes a listener's blocked accept fail, now and from now on.
pub fn shut_down_listener(listener: &TcpListener) {
    // SAFETY: no pointers.
    unsafe { shutdown(listener.as_raw_fd(), SHUT_RD) };
}

/// Connects from `source`, if given, within `timeout`; also the socket's write timeout from then on.
pub fn dial(
    target: SocketAddr,
    source: Option<Ipv4Addr>,
    timeout: Duration,
) -> io::Result<TcpStream> {
    let fd = stream_socket(target)?;
    if let (Some(source), true) = (source, target.is_ipv4()) {
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
    let sent = unsafe { sendmsg(socket.as_raw_fd(), &message, MSG_DONTWAIT | MSG_NOSIGNAL) };
    match usize::try_from(sent).map_err(|_| io::Error::last_os_error()) {
        Err(e) if matches!(e.kind(), WouldBlock | Interrupted) => Ok(0),
        result => result,
    }
}

/// Ends a connection by a reset; what is on its way out is lost.
pub fn reset(socket: &TcpStream) {
    // Connecting to no address family is how TCP disconnects.
    // SAFETY: the pointer is to a socket address of 16 bytes.
    unsafe { connect(socket.as_raw_fd(), ptr::from_ref(&[0_u8; 16]).cast(), 16) };
}

/// A pipe, as a place for bytes that move from socket to socket without being copied.
pub struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
}

impl Pipe {
    /// A pipe with room for about `size` bytes; an error if the system grants less.
    pub fn new(size: usize) -> io::Result<Pipe> {
        let mut ends = [0; 2];
        // SAFETY: room for two descriptors, which nobody else owns then; a size is no pointer.
        unsafe {
            check(pipe2(&mut ends, CLOEXEC))?;
            let pipe = Pipe {
                read: OwnedFd::from_raw_fd(ends[0]),
                write: OwnedFd::from_raw_fd(ends[1]),
            };
            let size = c_int::try_from(size).unwrap_or(c_int::MAX);
            // Beyond a user's share the system gives pipes of two pages: worse than none.
            check(fcntl(ends[1], F_SETPIPE_SZ, size))?;
            Ok(pipe)
        }
    }

    /// Moves what `from` has, at most `len` bytes; waits while it has none. 0: it has ended.
    pub fn fill(&self, from: &TcpStream, len: usize) -> io::Result<usize> {
        move_bytes(from.as_raw_fd(), self.write.as_raw_fd(), len)
    }

    /// Moves at most `len` bytes of the pipe's to `to`; waits while it takes none.
    pub fn empty(&self, to: &TcpStream, len: usize) -> io::Result<usize> {
        move_bytes(self.read.as_raw_fd(), to.as_raw_fd(), len)
    }
}

fn move_bytes(from: c_int, to: c_int, len: usize) -> io::Result<usize> {
    let none = ptr::null_mut();
    // SAFETY: no offsets, as pipes and sockets want it.
    let n = unsafe { splice(from, none, to, none, len, SPLICE_F_MOVE) };
    usize::try_from(n).map_err(|_| io::Error::last_os_error())
}

/// A limit of this process.
#[derive(Clone, Copy)]
pub enum Resource {
    /// Open descriptors.
    Descriptors = RLIMIT_NOFILE as isize,
    /// Threads of this user.
    Threads = RLIMIT_NPROC as isize,
}

/// Raises a limit as far as it may be, and returns it (`u64::MAX`: none).
pub fn raise_limit(resource: Resource) -> io::Result<u64> {
    let mut limit = Rlimit { soft: 0, hard: 0 };
    // SAFETY: `limit` has the layout that both functions take.
    unsafe {
        check(getrlimit(resource as c_int, &mut limit))?;
        limit.soft = limit.hard;
        check(setrlimit(resource as c_int, &limit))?;
    }
    Ok(limit.soft)
}

/// A signal that the daemon takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Signal {
    /// SIGTERM or SIGINT.
    Stop,
    /// SIGHUP or SIGUSR1.
    Other,
}

fn signal_set() -> SignalSet {
    let mut set = SignalSet([0; 16]);
    // SAFETY: the set is as large as the largest that a libc uses.
    unsafe {
        sigemptyset(&mut set);
        for signal in [SIGHUP, SIGINT, SIGTERM, SIGUSR1] {
            sigaddset(&mut set, signal);
        }
    }
    set
}

/// Blocks the daemon's signals in this thread and in all that it starts.
pub fn block_signals() {
    // SAFETY: the set is initialised; the old mask is not asked for.
    unsafe { pthread_sigmask(SIG_BLOCK, &signal_set(), ptr::null_mut()) };
}

/// Waits for a signal that [`block_signals`] blocked; None after `timeout`.
pub fn wait_signal(timeout: Duration) -> Option<Signal> {
    let time = TimeSpec {
        seconds: timeout.as_secs() as isize,
        nanoseconds: timeout.subsec_nanos() as isize,
    };
    // SAFETY: set and time are initialised; the signal's details are not asked for.
    match unsafe { sigtimedwait(&signal_set(), ptr::null_mut(), &time) } {
        SIGTERM | SIGINT => Some(Signal::Stop),
        SIGHUP | SIGUSR1 => Some(Signal::Other),
        _ => None,
    }
}

/// Whether this process may do everything.
pub fn is_root() -> bool {
    // SAFETY: no arguments, cannot fail.
    unsafe { geteuid() == 0 }
}

/// Becomes `name` for good: groups, gid, uid, each checked. `Ok(false)`: there is no such user.
/// Only before the first thread.
pub fn become_user(name: &str) -> io::Result<bool> {
    let name = CString::new(name).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the name is a C string; the record is read before any call that could replace it, and
    // there is no other thread yet.
    let (uid, gid) = unsafe {
        match getpwnam(name.as_ptr()).as_ref() {
            Some(user) => (user.uid, user.gid),
            None => return Ok(false),
        }
    };
    // SAFETY: the name is a C string; the others take numbers.
    unsafe {
        check(initgroups(name.as_ptr(), gid))?;
        check(setgid(gid))?;
        check(setuid(uid))?;
        let became = getuid() == uid && geteuid() == uid && getgid() == gid && getegid() == gid;
        // What could be taken back was not dropped.
        if !became || (uid != 0 && setuid(0) == 0) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts() {
        assert_eq!(size_of::<Rlimit>(), 16);
        assert_eq!(size_of::<SignalSet>(), 128);
        assert_eq!(size_of::<TimeSpec>(), 2 * size_of::<usize>());
        assert_eq!(
            size_of::<Passwd>(),
            if cfg!(target_pointer_width = "64") {
                48
            } else {
                28
            }
        );
    }

    #[test]
    fn machine_checksums_equal_the_tables() {
        let data: Vec<u8> = (0..1000u32).map(|i| ((i * i) >> 3) as u8).collect();
        let fast = checksums();
        for len in (0..300).chain([511, 512, 513, 1000]) {
            for from in [0, 1, 7] {
                let part = &data[from.min(len)..len];
                assert_eq!((fast.crc32)(part), (PORTABLE.crc32)(part), "{from}..{len}");
                assert_eq!(
                    (fast.crc32c)(part),
                    (PORTABLE.crc32c)(part),
                    "{from}..{len}"
                );
            }
        }
    }

    #[test]
    fn random_bytes_differ() {
        let (a, b) = (random_array::<32>().unwrap(), random_array::<32>().unwrap());
        assert_ne!(a, b);
    }

    #[test]
    fn a_listener_takes_both_families_and_a_dialled_socket_reaches_it() {
        let listener = listener("[::]:0".parse().unwrap(), 4).unwrap();
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
        let listener = listener("127.0.0.1:0".parse().unwrap(), 4).unwrap();
        let ours = dial(
            listener.local_addr().unwrap(),
            Some(Ipv4Addr::LOCALHOST),
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
        let listener = listener("127.0.0.1:0".parse().unwrap(), 4).unwrap();
        shut_down_listener(&listener);
        assert!(listener.accept().is_err());
    }
}
