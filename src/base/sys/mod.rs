//! What std does not offer: the few C functions that the daemon needs, each wrapped in a safe one. This
//! folder holds all unsafe code of the program. The declarations stand in for the libc
//! crate; types and constants were compared on all targets that `consts` lets through.

use std::ffi::{CStr, OsString, c_char, c_int};
use std::os::unix::ffi::OsStringExt;

use crate::base::log;

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "arm"))]
mod calls;
mod consts;
mod machine;
mod pipe;
mod process;
mod sandbox;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "arm"))]
mod seccomp;
mod signal;
mod socket;
pub mod time;

pub use machine::{checksums, random_array, use_one_heap};
pub use pipe::{Pipe, is_forbidden};
pub use process::{
    Resource, add_niceness, become_user, daemonize, enter_root, is_root, leave_terminal,
    passed_descriptors, raise_limit,
};
pub use sandbox::{Reach, drop_capabilities, limit_files};
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "arm"))]
pub use seccomp::filter_calls;
pub use signal::{Signal, block_signals, wait_signal};
pub use socket::{
    CLIENT_LIFETIME, Lifetime, bound, dial, listener, moved, passed_listener, reset, send_now,
    send_with_more, set_lifetime, set_mark, set_window_clamp, shut_down_listener, silence,
    unconfirmed,
};

/// There is no filter of system calls for this processor.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "arm")))]
pub fn filter_calls() -> std::io::Result<()> {
    Err(std::io::ErrorKind::Unsupported.into())
}

/// The C entry point. std's own would install an alternate signal stack for each thread, which
/// doubles the memory mappings of a thread and so halves the number of clients. What matters of std's
/// is done here: SIGPIPE is ignored, descriptors 0 to 2 are open.
#[cfg_attr(not(test), unsafe(no_mangle))]
#[cfg_attr(test, allow(dead_code))] // the test harness has its own
extern "C" fn main(argc: c_int, argv: *const *const c_char) -> c_int {
    signal::ignore();
    process::forbid_dumps();
    if !process::open_standard_descriptors() {
        log::say(format_args!(
            "mtproxy: descriptors 0 to 2 have to be open, and /dev/null can't be opened in their place"
        ));
        return 1;
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
