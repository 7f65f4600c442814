//! Bytes that move from socket to socket within the kernel.

use std::ffi::{c_int, c_uint, c_void};
use std::io;
use std::net::TcpStream;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;

use super::consts::*;

unsafe extern "C" {
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
        // SAFETY: room for two descriptors, which have no other owner; a size is no pointer.
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
