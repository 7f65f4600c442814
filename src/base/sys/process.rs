//! What the process may: its limits, its user, its standard descriptors.

use std::ffi::{CStr, CString, c_char, c_int};
use std::fs::OpenOptions;
use std::io::{self, PipeWriter, Read};
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;
use std::sync::OnceLock;

use mtproxy::proto::wire::decimal;

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
    fn fcntl(fd: c_int, command: c_int, ...) -> c_int;
    fn dup2(from: c_int, to: c_int) -> c_int;
    fn fork() -> c_int;
    fn setsid() -> c_int;
    fn waitpid(child: c_int, status: *mut c_int, options: c_int) -> c_int;
    fn getpriority(kind: c_int, whose: u32) -> c_int;
    fn setpriority(kind: c_int, whose: u32, niceness: c_int) -> c_int;
    fn prctl(option: c_int, ...) -> c_int;
    fn getrlimit(resource: c_int, limit: *mut Rlimit) -> c_int;
    fn setrlimit(resource: c_int, limit: *const Rlimit) -> c_int;
    fn getpwnam(name: *const c_char) -> *const Passwd;
    fn getpwuid(uid: u32) -> *const Passwd;
    fn setgroups(count: usize, groups: *const u32) -> c_int;
    fn initgroups(name: *const c_char, gid: u32) -> c_int;
    fn setgid(gid: u32) -> c_int;
    fn setuid(uid: u32) -> c_int;
    fn chroot(path: *const c_char) -> c_int;
    fn getuid() -> u32;
    fn geteuid() -> u32;
    fn getgid() -> u32;
    fn getegid() -> u32;
}

/// The highest capability that a kernel may know.
const CAPABILITIES: usize = 63;

/// Opens /dev/null in place of each of the descriptors 0 to 2 that is closed: the first socket must not
/// become somebody's standard output. False if that is not possible.
pub fn open_standard_descriptors() -> bool {
    // SAFETY: a query that takes no argument; the path is a C string. The lowest free number is taken.
    (0..=2).all(|fd| unsafe {
        fcntl(fd, F_GETFD) >= 0 || open(c"/dev/null".as_ptr(), O_RDWR | CLOEXEC) == fd
    })
}

/// Goes on in a new process, in a session of its own. The old one waits until a byte is written to what is
/// returned, and exits with 0, or for the new one's end, and exits with its code. Only before the first
/// thread.
pub fn daemonize() -> io::Result<PipeWriter> {
    let (mut done, ready) = io::pipe()?;
    // SAFETY: no pointers. There is no other thread, whose locks the new process would find taken.
    let child = check(unsafe { fork() })?;
    if child == 0 {
        // SAFETY: no arguments.
        check(unsafe { setsid() })?;
        return Ok(ready);
    }
    drop(ready);
    if done.read_exact(&mut [0]).is_ok() {
        std::process::exit(0);
    }
    let mut status = 0;
    // SAFETY: the pointer is to an int.
    let ended = unsafe { waitpid(child, &mut status, 0) };
    // A signal's number is in the lower seven bits.
    let has_exited = ended == child && status & 0x7f == 0;
    std::process::exit(if has_exited { status >> 8 & 0xff } else { 1 });
}

/// Has the descriptors 0 to 2 lead nowhere.
pub fn leave_terminal() -> io::Result<()> {
    let null = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")?;
    // SAFETY: no pointers; what these descriptors were is owned by nobody.
    (0..=2).try_for_each(|fd| check(unsafe { dup2(null.as_raw_fd(), fd) }).map(drop))
}

/// Adds to the niceness of this thread and of those that it starts.
pub fn add_niceness(step: i32) -> io::Result<()> {
    // SAFETY: no pointers. -1 may be an error or a niceness; the kernel cuts what is out of range.
    check(unsafe { setpriority(0, 0, getpriority(0, 0) + step) }).map(drop)
}

/// Keys stay in memory: no core file, and no other process of the same user looks at it.
pub fn forbid_dumps() {
    let none = Rlimit { soft: 0, hard: 0 };
    // SAFETY: `none` has the layout that the first one takes; the second one takes numbers.
    unsafe {
        setrlimit(RLIMIT_CORE, &none);
        prctl(PR_SET_DUMPABLE, 0_usize);
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

/// Descriptors that whoever started this process has opened for it (systemd's socket activation: the
/// environment says which process they are for, and how many there are from 3 on). To be asked for the first
/// time before -d makes it another process.
pub fn passed_descriptors() -> Range<c_int> {
    static COUNT: OnceLock<c_int> = OnceLock::new();
    3..3 + *COUNT.get_or_init(passed_count)
}

fn passed_count() -> c_int {
    let number = |name| decimal::<u16>(std::env::var(name).ok()?.as_bytes());
    let is_ours =
        std::env::var("LISTEN_PID").is_ok_and(|pid| pid == std::process::id().to_string());
    number("LISTEN_FDS").filter(|_| is_ours).unwrap_or(0).into()
}

/// Whether this process may do everything.
pub fn is_root() -> bool {
    // SAFETY: no arguments, cannot fail.
    unsafe { geteuid() == 0 }
}

/// The process sees this directory as the whole file system. Needs root.
pub fn enter_root(directory: &Path) -> io::Result<()> {
    let path = CString::new(directory.as_os_str().as_bytes())?;
    // SAFETY: a C string.
    let entered = check(unsafe { chroot(path.as_ptr()) });
    let entered = entered.and_then(|_| std::env::set_current_dir("/"));
    entered.map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", directory.display())))
}

/// No program that is started could have capabilities; to be called while they are there.
fn empty_bounding_set() {
    for capability in 0..=CAPABILITIES {
        // SAFETY: numbers. Without root it fails, and there is nothing to be dropped.
        unsafe { prctl(PR_CAPBSET_DROP, capability, 0_usize, 0_usize, 0_usize) };
    }
}

/// Becomes a user for good: groups, gid, uid, each checked. `user` is a name or a number; a number that no
/// user has is taken for the group, too, and has no further groups. `Ok(false)`: there is no such user.
/// In between, when the user is known, `root` becomes the root of the file system. Only before the first thread.
pub fn become_user(user: &str, root: Option<&Path>) -> io::Result<bool> {
    let name = CString::new(user).map_err(|_| io::ErrorKind::InvalidInput)?;
    let number = decimal(user.as_bytes());
    empty_bounding_set();
    // SAFETY: the names are C strings; what is needed of a record is copied before any call that could
    // replace it, and there is no other thread yet.
    unsafe {
        let named = getpwnam(name.as_ptr()).as_ref();
        let known = named.or_else(|| getpwuid(number?).as_ref());
        let (uid, gid) = match (known, number) {
            (Some(known), _) => {
                let (name, uid, gid) =
                    (CStr::from_ptr(known.name).to_owned(), known.uid, known.gid);
                check(initgroups(name.as_ptr(), gid))?;
                (uid, gid)
            }
            (None, Some(number)) => {
                check(setgroups(0, ptr::null()))?;
                (number, number)
            }
            (None, None) => return Ok(false),
        };
        if let Some(root) = root {
            enter_root(root)?;
        }
        check(setgid(gid))?;
        check(setuid(uid))?;
        let became = getuid() == uid && geteuid() == uid && getgid() == gid && getegid() == gid;
        // What could be taken back was not dropped.
        if !became || (uid != 0 && setuid(0) == 0) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
    }
    // The system may have taken it back with the change.
    forbid_dumps();
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
