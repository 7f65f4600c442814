//! The filter of system calls (seccomp), for processors whose numbers `calls` knows. Called at start by
//! `operator::sandbox`, before the first other thread.
//!
//! A call that takes over a process or the machine ends this one. A call that nobody foresaw fails with
//! ENOSYS, so that a libc that tries a new one first goes on with the old one (as with clone3, whose
//! arguments no filter can see).

use std::ffi::{c_int, c_long};
use std::io;

use super::calls::{ALLOWED, CLONE, DEADLY, MMAP, MMAP2, MPROTECT, PRCTL, SECCOMP, SOCKET};
use super::consts::check;

const PR_SET_SECCOMP: c_int = 22;

unsafe extern "C" {
    fn prctl(option: c_int, ...) -> c_int;
    fn syscall(number: c_long, ...) -> c_long;
}

#[repr(C)]
struct Instruction {
    code: u16,
    if_true: u8,
    if_false: u8,
    value: u32,
}

#[repr(C)]
struct Program {
    len: u16,
    first: *const Instruction,
}

/// Allows only the system calls that the server makes, in this thread and in those that it starts. Fails with
/// EINVAL if the kernel has no filters.
pub fn filter_calls() -> io::Result<()> {
    const SET_MODE_FILTER: usize = 1; // for seccomp(2), since Linux 3.17
    const SECCOMP_MODE_FILTER: usize = 2; // for prctl
    /// Since Linux 4.17. Without it, kernels before 5.16 slow down each filtered thread by mitigations of
    /// speculation that are meant for programs that run code of strangers.
    const SPEC_ALLOW: usize = 1 << 2;
    let code = filter();
    let program = Program {
        len: code.len() as u16,
        first: code.as_ptr(),
    };
    let (call, program) = (SECCOMP as c_long, &raw const program);
    // SAFETY: the program and its instructions have the kernel's layout, and outlive both calls, which copy them.
    unsafe {
        match syscall(call, SET_MODE_FILTER, SPEC_ALLOW, program) {
            0 => Ok(()),
            _ => check(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program)).map(drop),
        }
    }
}

const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const EQUALS: u16 = 0x15;
const RETURN: u16 = 0x06;
const ALLOW: u32 = 0x7fff_0000;
const KILL: u32 = 0x8000_0000;
const NO_SUCH_CALL: u32 = 0x0005_0000 | 38;
const NOT_PERMITTED: u32 = 0x0005_0000 | 1;
/// AUDIT_ARCH_*: who calls with another processor's numbers is no part of this program.
const ARCHITECTURE: u32 = if cfg!(target_arch = "x86_64") {
    0xc000_003e
} else if cfg!(target_arch = "aarch64") {
    0xc000_00b7
} else {
    0x4000_0028
};

/// The filter, in the kernel's language (classic BPF over `struct seccomp_data`).
fn filter() -> Vec<Instruction> {
    /// CLONE_VM and CLONE_THREAD: a thread, no process.
    const THREAD: u32 = 0x1_0100;
    const PROT_EXEC: u32 = 4;
    const PR_SET_NAME: u32 = 15;

    let mut filter = Vec::with_capacity(400);
    let mut add = |code: u16, value: u32, if_true: u8, if_false: u8| {
        filter.push(Instruction {
            code,
            if_true,
            if_false,
            value,
        });
    };
    // Offsets: 0 the call's number, 4 the processor, 16 and on the arguments, of which the lower halves count.
    let argument = |index: u32| 16 + 8 * index;
    add(LOAD, 4, 0, 0);
    add(EQUALS, ARCHITECTURE, 1, 0);
    add(RETURN, KILL, 0, 0);
    add(LOAD, 0, 0, 0);
    for (list, verdict) in [(ALLOWED, ALLOW), (DEADLY, KILL)] {
        for &call in list.iter().filter(|call| **call >= 0) {
            add(EQUALS, call as u32, 0, 1);
            add(RETURN, verdict, 0, 0);
        }
    }
    // (call, argument, mask, the value that is allowed)
    let loader = cfg!(target_env = "gnu"); // glibc looks names up with libraries that it loads
    let map_mask = if loader { 0 } else { PROT_EXEC };
    for (call, index, mask, wanted, otherwise) in [
        (CLONE, 0, THREAD, THREAD, KILL),
        (MMAP, 2, map_mask, 0, NOT_PERMITTED),
        (MMAP2, 2, map_mask, 0, NOT_PERMITTED),
        (MPROTECT, 2, map_mask, 0, NOT_PERMITTED),
        (PRCTL, 0, u32::MAX, PR_SET_NAME, NOT_PERMITTED),
    ] {
        if call >= 0 {
            add(EQUALS, call as u32, 0, 5);
            add(LOAD, argument(index), 0, 0);
            add(AND, mask, 0, 0);
            add(EQUALS, wanted, 0, 1);
            add(RETURN, ALLOW, 0, 0);
            add(RETURN, otherwise, 0, 0);
        }
    }
    // Sockets: streams and datagrams of unix, IPv4 and IPv6, and netlink, which glibc asks for addresses.
    for (code, value, if_true, if_false) in [
        (EQUALS, SOCKET as u32, 0, 10),
        (LOAD, argument(0), 0, 0),
        (EQUALS, 16, 7, 0),
        (EQUALS, 1, 2, 0),
        (EQUALS, 2, 1, 0),
        (EQUALS, 10, 0, 5),
        (LOAD, argument(1), 0, 0),
        (AND, 0xf, 0, 0),
        (EQUALS, 1, 1, 0),
        (EQUALS, 2, 0, 1),
        (RETURN, ALLOW, 0, 0),
        (RETURN, NO_SUCH_CALL, 0, 0),
    ] {
        add(code, value, if_true, if_false);
    }
    filter
}

#[cfg(test)]
#[cfg(target_arch = "x86_64")]
mod tests {
    use super::*;

    const PR_SET_NO_NEW_PRIVS: c_int = 38;

    unsafe extern "C" {
        fn fork() -> c_int;
        fn waitpid(child: c_int, status: *mut c_int, options: c_int) -> c_int;
        fn _exit(code: c_int) -> !;
    }

    /// Runs `act` in a process of its own inside a filter; what waitpid says of its end.
    fn inside(program: &[Instruction], act: fn() -> c_int) -> c_int {
        let mut status = 0;
        // SAFETY: the child makes system calls and allocates, nothing else: another thread's locks may be
        // taken there, but those of malloc.
        unsafe {
            let program = Program {
                len: program.len() as u16,
                first: program.as_ptr(),
            };
            let child = fork();
            if child == 0 {
                prctl(PR_SET_NO_NEW_PRIVS, 1_usize, 0_usize, 0_usize, 0_usize);
                if prctl(PR_SET_SECCOMP, 2_usize, &raw const program) != 0 {
                    _exit(99);
                }
                _exit(act());
            }
            assert!(waitpid(child, &mut status, 0) == child);
        }
        status
    }

    fn call(number: c_long, first: usize, second: usize, third: usize) -> c_int {
        // SAFETY: numbers only; where the kernel takes one for an address it is null.
        let result = unsafe { syscall(number, first, second, third, 0_usize, 0_usize, 0_usize) };
        if result >= 0 {
            0
        } else {
            io::Error::last_os_error().raw_os_error().unwrap_or(77)
        }
    }

    #[test]
    fn what_is_not_foreseen_fails_and_what_is_deadly_ends_the_process() {
        const KILLED: c_int = 31; // SIGSYS
        type Case = (&'static str, fn() -> c_int, c_int);
        let cases: [Case; 12] = [
            ("getpid", || call(39, 0, 0, 0), 0),
            ("a TCP socket", || call(41, 2, 1, 0), 0),
            ("a UDP socket of IPv6", || call(41, 10, 2, 0), 0),
            ("a raw socket", || call(41, 2, 3, 0), 38 << 8),
            ("a packet socket", || call(41, 17, 2, 0), 38 << 8),
            ("a name", || call(157, 15, c"x".as_ptr() as usize, 0), 0),
            ("another prctl", || call(157, 4, 1, 0), 1 << 8),
            ("swapon", || call(167, 0, 0, 0), 38 << 8),
            ("fork by clone", || call(56, 17, 0, 0), KILLED),
            ("execve", || call(59, 0, 0, 0), KILLED),
            ("ptrace", || call(101, 0, 0, 0), KILLED),
            ("clone3", || call(435, 0, 0, 0), 38 << 8),
        ];
        for (what, act, wanted) in cases {
            assert_eq!(inside(&filter(), act) & 0xff7f, wanted, "{what}");
        }
    }

    #[test]
    fn kernels_of_all_ages() {
        const INVALID: u32 = 0x0005_0000 | 22;
        const NONE: u32 = 999;
        // The flags that seccomp(2) takes, a call that fails; then what swapon ends with, which no filter allows.
        for (what, flags, refused, wanted) in [
            ("of today", 4, PRCTL as u32, 38 << 8),
            ("before that flag", NONE, NONE, 38 << 8),
            ("without filters", NONE, PRCTL as u32, 22 << 8),
        ] {
            let kernel = [
                (LOAD, 0, 0, 0),
                (EQUALS, SECCOMP as u32, 0, 2),
                (LOAD, 24, 0, 0),
                (EQUALS, flags, 2, 1),
                (EQUALS, refused, 0, 1),
                (RETURN, INVALID, 0, 0),
                (RETURN, ALLOW, 0, 0),
            ]
            .map(|(code, value, if_true, if_false)| Instruction {
                code,
                if_true,
                if_false,
                value,
            });
            let ends = inside(&kernel, || match filter_calls() {
                Ok(()) => call(167, 0, 0, 0),
                Err(e) => e.raw_os_error().unwrap_or(77),
            });
            assert_eq!(ends, wanted, "a kernel {what}");
        }
    }
}
