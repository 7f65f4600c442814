//! Numbers of the kernel's interface, as C programs print them on each target, and how its functions
//! report an error.

use std::ffi::c_int;
use std::io;

#[cfg(not(any(
    target_arch = "x86_64",
    target_arch = "x86",
    target_arch = "aarch64",
    target_arch = "arm",
    target_arch = "riscv64",
    target_arch = "mips",
)))]
compile_error!("the kernel's numbers are not known for this processor: see src/base/sys/consts.rs");

// glibc has smaller limits and times there.
#[cfg(all(target_pointer_width = "32", target_env = "gnu"))]
compile_error!("on 32-bit machines build with musl");

pub const AF_UNIX: u16 = 1;
pub const AF_INET: u16 = 2;
pub const AF_INET6: u16 = 10;
pub const CLOEXEC: i32 = 0o2_000_000;
pub const IPPROTO_IP: i32 = 0;
pub const IP_BIND_ADDRESS_NO_PORT: i32 = 24;
pub const IPPROTO_TCP: i32 = 6;
pub const IPPROTO_IPV6: i32 = 41;
pub const IPV6_V6ONLY: i32 = 26;
pub const TCP_NODELAY: i32 = 1;
pub const TCP_KEEPIDLE: i32 = 4;
pub const TCP_KEEPINTVL: i32 = 5;
pub const TCP_KEEPCNT: i32 = 6;
pub const TCP_WINDOW_CLAMP: i32 = 10;
pub const TCP_INFO: i32 = 11;
pub const TCP_USER_TIMEOUT: i32 = 18;
pub const MSG_DONTWAIT: i32 = 0x40;
pub const MSG_NOSIGNAL: i32 = 0x4000;
pub const MSG_MORE: i32 = 0x8000;
pub const RLIMIT_CORE: i32 = 4;
pub const PR_SET_DUMPABLE: i32 = 4;
pub const PR_CAPBSET_DROP: i32 = 24;
pub const F_GETFD: i32 = 1;
pub const F_SETFD: i32 = 2;
pub const FD_CLOEXEC: i32 = 1;
pub const SO_MARK: i32 = 36;
pub const SIGHUP: i32 = 1;
pub const SIGINT: i32 = 2;
pub const SIGPIPE: i32 = 13;
pub const SIGTERM: i32 = 15;
pub const SIG_IGN: usize = 1;
pub const O_RDWR: i32 = 2;
pub const SHUT_RD: i32 = 0;
pub const F_SETPIPE_SZ: i32 = 1031;
pub const SPLICE_F_MOVE: u32 = 1;
pub const EINTR: i32 = 4;

// MIPS has its own numbers for these.
pub const SOL_SOCKET: i32 = if MIPS { 0xffff } else { 1 };
pub const SO_REUSEADDR: i32 = if MIPS { 4 } else { 2 };
pub const SO_RCVBUF: i32 = if MIPS { 4098 } else { 8 };
pub const SO_KEEPALIVE: i32 = if MIPS { 8 } else { 9 };
pub const SO_TYPE: i32 = if MIPS { 0x1008 } else { 3 };
pub const SO_REUSEPORT: i32 = if MIPS { 0x200 } else { 15 };
pub const SO_ACCEPTCONN: i32 = if MIPS { 0x1009 } else { 30 };
pub const SO_DOMAIN: i32 = if MIPS { 0x1029 } else { 39 };
pub const SOCK_STREAM: i32 = if MIPS { 2 } else { 1 };
pub const RLIMIT_NOFILE: i32 = if MIPS { 5 } else { 7 };
pub const RLIMIT_NPROC: i32 = if MIPS { 8 } else { 6 };
pub const SIG_BLOCK: i32 = if MIPS { 1 } else { 0 };
pub const SIGPOLL: i32 = if MIPS { 22 } else { 29 };
pub const SIGRTMAX: i32 = if MIPS { 127 } else { 64 };
pub const SIGUSR1: i32 = if MIPS { 16 } else { 10 };
pub const SIGUSR2: i32 = if MIPS { 17 } else { 12 };
pub const SIOCOUTQ: usize = if MIPS { 0x7472 } else { 0x5411 };
pub const EINPROGRESS: i32 = if MIPS { 150 } else { 115 };
/// Its calls: create a set of rules, add one, restrict oneself.
pub const LANDLOCK: [std::ffi::c_long; 3] = if MIPS {
    [4444, 4445, 4446]
} else {
    [444, 445, 446]
};
const MIPS: bool = cfg!(target_arch = "mips");

/// The result of a C function that returns -1 for an error and leaves its number in errno.
pub fn check(result: c_int) -> io::Result<c_int> {
    match result {
        0.. => Ok(result),
        _ => Err(io::Error::last_os_error()),
    }
}
