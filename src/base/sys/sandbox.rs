//! What the process gives up for good once it serves: capabilities, and files and ports (Landlock); system calls
//! are in `seccomp`. Called at start by `operator::sandbox`, before the first other thread: all threads inherit it.

use std::ffi::{CString, c_int, c_long, c_void};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;

use super::consts::{CLOEXEC, LANDLOCK, check};

const PR_SET_NO_NEW_PRIVS: c_int = 38;
const O_PATH: c_int = 0o10_000_000;

unsafe extern "C" {
    fn open(path: *const std::ffi::c_char, flags: c_int, ...) -> c_int;
    fn prctl(option: c_int, ...) -> c_int;
    fn capset(header: *mut [u32; 2], data: *const [u32; 6]) -> c_int;
    fn syscall(number: c_long, ...) -> c_long;
}

/// Gives up all capabilities but those of `kept` (a bit each), and that programs may bring any.
pub fn drop_capabilities(kept: u32) -> io::Result<()> {
    const VERSION_3: u32 = 0x2008_0522;
    // The kernel may write to it, and qemu-user makes sure that it could.
    let mut header = [VERSION_3, 0];
    // SAFETY: numbers; then pointers to the two structures that version 3 has.
    unsafe {
        check(prctl(
            PR_SET_NO_NEW_PRIVS,
            1_usize,
            0_usize,
            0_usize,
            0_usize,
        ))?;
        check(capset(&mut header, &[kept, kept, 0, 0, 0, 0])).map(drop)
    }
}

/// What is reached below a path.
pub enum Reach<'a> {
    /// Files are read, directories are listed.
    Read(&'a Path),
    /// Files are made, written, renamed and removed, too.
    Write(&'a Path),
}

/// Lets only these files be reached, and no TCP port be bound but one of the kernel's choice. Returns the
/// version of Landlock; None where the kernel has none. Paths that aren't there are left out.
pub fn limit_files(reaches: &[Reach]) -> io::Result<Option<u32>> {
    const READ: u64 = 1 << 2 | 1 << 3;
    const WRITE: u64 = READ | 1 << 1 | 1 << 5 | 1 << 8;
    const TRUNCATE: u64 = 1 << 14; // since version 3
    const ALL: u64 = (1 << 13) - 1;
    const BIND_TCP: u64 = 1; // since version 4
    let [create, add_rule, restrict] = LANDLOCK;
    // SAFETY: asks for the version; nothing is read or written.
    let version = unsafe { syscall(create, ptr::null::<c_void>(), 0_usize, 1_u32) };
    let Ok(version @ 1..) = u32::try_from(version) else {
        return Ok(None);
    };
    let since = |first: u32, right: u64| if version >= first { right } else { 0 };
    let truncate = since(3, TRUNCATE);
    let handled = [ALL | truncate, since(4, BIND_TCP)];
    let size: usize = if version >= 4 { 16 } else { 8 };
    // SAFETY: the kernel reads `size` bytes of the array.
    let rules = check(unsafe { syscall(create, handled.as_ptr(), size, 0_u32) } as c_int)?;
    // SAFETY: a descriptor of ours that nobody else has.
    let rules = unsafe { File::from_raw_fd(rules) };
    let allow = |kind: u32, rule: *const c_void| {
        let (fd, none) = (rules.as_raw_fd(), 0_u32);
        // SAFETY: `rule` is one of this kind's layout; see below.
        check(unsafe { syscall(add_rule, fd, kind, rule, none) } as c_int).map(drop)
    };
    for reach in reaches {
        let (path, rights) = match reach {
            Reach::Read(path) => (path, READ),
            Reach::Write(path) => (path, WRITE | truncate),
        };
        let name = CString::new(path.as_os_str().as_bytes())?;
        // SAFETY: a C string.
        let fd = unsafe { open(name.as_ptr(), O_PATH | CLOEXEC) };
        if fd < 0 {
            continue;
        }
        // SAFETY: as above.
        let place = unsafe { File::from_raw_fd(fd) };
        // A file has no directory's rights.
        let is_directory = place.metadata().is_ok_and(|found| found.is_dir());
        let rights = if is_directory {
            rights
        } else {
            rights & (1 << 1 | 1 << 2 | truncate)
        };
        let mut rule = [0; 12]; // rights: u64, descriptor: i32, packed
        rule[..8].copy_from_slice(&rights.to_ne_bytes());
        rule[8..].copy_from_slice(&place.as_raw_fd().to_ne_bytes());
        allow(1, rule.as_ptr().cast())?;
    }
    if version >= 4 {
        // Rights and port: 0 stands for what the kernel chooses.
        allow(2, [BIND_TCP, 0].as_ptr().cast())?;
    }
    // SAFETY: numbers.
    let restricted = unsafe { syscall(restrict, rules.as_raw_fd(), 0_u32) };
    check(restricted as c_int).map(|_| Some(version))
}
