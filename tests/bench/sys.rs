//! The kernel calls that std does not offer: epoll for one thread that serves every socket, pinning
//! to a core, the descriptor limit, and a signal to one child. Linux only; the bench runs nowhere else.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::OnceLock;
use std::time::Instant;

/// A socket that can be read or written without waiting. A broken one counts as readable: the read
/// then tells what happened.
#[derive(Clone, Copy)]
pub struct Ready {
    pub token: u64,
    pub readable: bool,
    pub writable: bool,
}

/// What a socket is watched for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Interest {
    pub read: bool,
    pub write: bool,
}

impl Interest {
    pub const READ: Interest = Interest {
        read: true,
        write: false,
    };

    fn mask(self) -> u32 {
        let read = if self.read { EPOLLIN } else { 0 };
        read | if self.write { EPOLLOUT } else { 0 }
    }
}

/// One epoll set. A descriptor leaves it by being closed.
pub struct Poller {
    set: OwnedFd,
    events: Vec<EpollEvent>,
}

impl Poller {
    pub fn new() -> io::Result<Poller> {
        let set = checked(epoll_create1(EPOLL_CLOEXEC))?;
        // SAFETY: the descriptor was made just now and nothing else owns it.
        let set = unsafe { OwnedFd::from_raw_fd(set) };
        Ok(Poller {
            set,
            events: vec![
                EpollEvent {
                    events: 0,
                    token: 0
                };
                512
            ],
        })
    }

    pub fn add(&self, socket: &impl AsRawFd, token: u64, interest: Interest) -> io::Result<()> {
        self.control(EPOLL_CTL_ADD, socket.as_raw_fd(), token, interest)
    }

    pub fn change(&self, socket: &impl AsRawFd, token: u64, interest: Interest) -> io::Result<()> {
        self.control(EPOLL_CTL_MOD, socket.as_raw_fd(), token, interest)
    }

    fn control(
        &self,
        operation: i32,
        socket: RawFd,
        token: u64,
        interest: Interest,
    ) -> io::Result<()> {
        let mut event = EpollEvent {
            events: interest.mask(),
            token,
        };
        // SAFETY: the event lives until the call returns, and the kernel only reads it.
        let result = unsafe { epoll_ctl(self.set.as_raw_fd(), operation, socket, &mut event) };
        checked(result).map(|_| ())
    }

    /// Replaces the content of `ready`; waits at most `milliseconds`, -1 without end.
    pub fn wait(&mut self, milliseconds: i32, ready: &mut Vec<Ready>) -> io::Result<()> {
        ready.clear();
        let room = self.events.len() as i32;
        // SAFETY: the kernel writes at most `room` events, which is the length of the vector.
        let result = unsafe {
            epoll_wait(
                self.set.as_raw_fd(),
                self.events.as_mut_ptr(),
                room,
                milliseconds,
            )
        };
        let count = match checked(result) {
            Ok(count) => count as usize,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(error) => return Err(error),
        };
        ready.extend(self.events[..count].iter().map(|event| Ready {
            token: event.token,
            readable: event.events & (EPOLLIN | EPOLLERR | EPOLLHUP) != 0,
            writable: event.events & EPOLLOUT != 0,
        }));
        Ok(())
    }
}

/// Binds the calling thread, and what it starts from now on, to one core.
pub fn pin(core: usize) -> io::Result<()> {
    let mut mask = [0_usize; 1024 / usize::BITS as usize];
    let bits = usize::BITS as usize;
    mask[core / bits] |= 1 << (core % bits);
    // SAFETY: the kernel reads as many bytes of the mask as are given; 0 is the calling thread.
    let result = unsafe { sched_setaffinity(0, size_of_val(&mask), mask.as_ptr()) };
    checked(result).map(|_| ())
}

/// Raises the soft limit of open descriptors to the hard one and returns it.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    let mut limit = Limit { soft: 0, hard: 0 };
    // SAFETY: the kernel writes the two numbers of `limit`.
    checked(unsafe { getrlimit(RLIMIT_NOFILE, &mut limit) })?;
    limit.soft = limit.hard;
    // SAFETY: the kernel reads the two numbers of `limit`.
    checked(unsafe { setrlimit(RLIMIT_NOFILE, &limit) })?;
    #[allow(
        clippy::useless_conversion,
        reason = "the type is narrower on 32-bit glibc"
    )]
    Ok(limit.hard.into())
}

/// Asks one process to end.
pub fn terminate(pid: u32) {
    kill(pid as i32, SIGTERM);
}

/// Nanoseconds since the first call.
pub fn now() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_nanos() as u64
}

fn checked(result: i32) -> io::Result<i32> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

/// As the kernel has it: packed on x86-64 only.
#[repr(C)]
#[cfg_attr(target_arch = "x86_64", repr(packed))]
#[derive(Clone, Copy)]
struct EpollEvent {
    events: u32,
    token: u64,
}

#[cfg(all(target_env = "gnu", target_pointer_width = "32"))]
type LimitNumber = u32;
#[cfg(not(all(target_env = "gnu", target_pointer_width = "32")))]
type LimitNumber = u64;

#[repr(C)]
struct Limit {
    soft: LimitNumber,
    hard: LimitNumber,
}

// SAFETY: the signatures are those of the C library; the two safe ones take plain numbers.
unsafe extern "C" {
    safe fn epoll_create1(flags: i32) -> i32;
    fn epoll_ctl(set: i32, operation: i32, descriptor: i32, event: *mut EpollEvent) -> i32;
    fn epoll_wait(set: i32, events: *mut EpollEvent, room: i32, milliseconds: i32) -> i32;
    fn sched_setaffinity(pid: i32, size: usize, mask: *const usize) -> i32;
    fn getrlimit(resource: i32, limit: *mut Limit) -> i32;
    fn setrlimit(resource: i32, limit: *const Limit) -> i32;
    safe fn kill(pid: i32, signal: i32) -> i32;
}

const EPOLL_CLOEXEC: i32 = 0x80000;
const EPOLL_CTL_ADD: i32 = 1;
const EPOLL_CTL_MOD: i32 = 3;
const EPOLLIN: u32 = 1;
const EPOLLOUT: u32 = 4;
const EPOLLERR: u32 = 8;
const EPOLLHUP: u32 = 16;
const SIGTERM: i32 = 15;
const RLIMIT_NOFILE: i32 = if cfg!(any(target_arch = "mips", target_arch = "mips64")) {
    5
} else {
    7
};
