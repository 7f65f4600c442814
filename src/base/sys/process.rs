//! What the process may: its limits, its user, its standard descriptors.

use std::ffi::{CString, c_char, c_int};
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use super::consts::*;

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

unsafe extern "C" {
    fn open(path: *const c_char, flags: c_int, ...) -> c_int;
    fn getrlimit(resource: c_int, limit: *mut Rlimit) -> c_int;
    fn setrlimit(resource: c_int, limit: *const Rlimit) -> c_int;
    fn getpwnam(name: *const c_char) -> *const Passwd;
    fn initgroups(name: *const c_char, gid: u32) -> c_int;
    fn setgid(gid: u32) -> c_int;
    fn setuid(uid: u32) -> c_int;
    fn getuid() -> u32;
    fn geteuid() -> u32;
    fn getgid() -> u32;
    fn getegid() -> u32;
}

/// Opens /dev/null in place of each of the descriptors 0 to 2 that is closed: otherwise the first socket
/// would become standard output.
pub fn open_standard_descriptors() {
    loop {
        // SAFETY: the path is a C string; the new descriptor has no other owner.
        unsafe {
            // The lowest free number is taken: nothing is lost if 0 to 2 are open already.
            let fd = open(c"/dev/null".as_ptr(), O_RDWR | CLOEXEC);
            if !(0..=2).contains(&fd) {
                if fd > 2 {
                    drop(OwnedFd::from_raw_fd(fd));
                }
                return;
            }
        }
    }
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
        let passwd = if cfg!(target_pointer_width = "64") {
            48
        } else {
            28
        };
        assert_eq!(size_of::<Passwd>(), passwd);
    }
}
