//! What the process takes from its surroundings: signals, descriptors, a container's filter for system
//! calls, and what it lets others see of its memory.

use crate::support::dc::{Behaviour, DataCentre};
use crate::support::direct_rig::DirectRig;
use crate::support::framing::Transport;
use crate::support::message::Message;
use crate::support::proxy::program;
use crate::support::random::Stream;
use crate::support::unread::Unread;
use std::ffi::c_int;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

#[test]
fn signals_without_a_meaning_are_named_and_end_nothing() {
    let rig = DirectRig::start(Behaviour::Serve);
    let mut client = rig.dial(Transport::Padded);
    for signal in ["HUP", "USR1", "USR2"] {
        rig.proxy.signal(signal);
        let line = format!("signal_ignored name=SIG{signal}");
        rig.proxy
            .wait_for_line(&line, |logged| logged.ends_with(&line));
        client.echo(100);
    }
}

/// Else the first sockets would be standard output and standard error, and clients would get the log.
#[test]
fn closed_descriptors_that_cannot_be_opened_end_the_start() {
    let own = program();
    // No more than one descriptor: /dev/null can be opened once.
    let script = "exec 0<&- 1>&-; ulimit -n 1; exec \"$0\" \"$@\"";
    let output = Command::new("sh")
        .args(["-c", script])
        .arg(own.get_program())
        .args(own.get_args())
        .args(["-H", "0", "--open"])
        .output()
        .expect("sh");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("/dev/null can't be opened"), "{text}");
}

#[test]
fn memory_is_not_for_others() {
    let rig = DirectRig::start(Behaviour::Serve);
    let process = format!("/proc/{}", rig.proxy.status("Pid")[0]);
    let limits = fs::read_to_string(format!("{process}/limits")).expect("its limits");
    let core = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max core file size"));
    let words: Vec<&str> = core.expect("a limit").split_whitespace().collect();
    assert_eq!(words[..2], ["0", "0"]);
    // What the kernel keeps of a process that can't be dumped is root's, whoever runs it.
    let owner = fs::metadata(format!("{process}/environ")).expect("a file");
    assert_eq!(owner.uid(), 0);
}

#[test]
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
fn downloads_are_whole_where_splice_is_forbidden() {
    const LENGTH: usize = 600_000;
    const PACKET: usize = 100_000;
    let centre = DataCentre::start(Behaviour::Serve);
    // EPERM, EINVAL, ENOSYS
    for error in [1, 22, 38] {
        let mut command = program();
        // SAFETY: between fork and exec nothing but two system calls is made.
        unsafe { command.pre_exec(move || forbid_splice(error)) };
        let run = Unread::start(command, &["--direct", "--dc-override", &centre.as_dc(2)]);
        for tag in [7, 8] {
            let mut client = run.dial(2);
            client.send(&Message::stream(tag, LENGTH, PACKET).encode());
            let got: Vec<u8> = (0..LENGTH / PACKET).flat_map(|_| client.packet()).collect();
            assert!(got == Stream::new(tag).take(LENGTH), "errno {error}");
            client.echo(100);
        }
        run.stop();
    }
}

unsafe extern "C" {
    fn prctl(option: c_int, ...) -> c_int;
}

/// A step of the kernel's packet filter language, in which such filters are written.
#[repr(C)]
struct Step(u16, u8, u8, u32);

#[repr(C)]
struct Filter {
    len: u16,
    steps: *const Step,
}

/// From now on splice() fails so in this process.
fn forbid_splice(errno: u32) -> io::Result<()> {
    const SPLICE: u32 = if cfg!(target_arch = "x86_64") {
        275
    } else {
        76
    };
    let steps = [
        Step(0x20, 0, 0, 0),                   // load the number of the call
        Step(0x15, 0, 1, SPLICE),              // skip one unless it is this one
        Step(0x06, 0, 0, 0x0005_0000 | errno), // fail
        Step(0x06, 0, 0, 0x7fff_0000),         // allow
    ];
    let filter = Filter {
        len: 4,
        steps: steps.as_ptr(),
    };
    // SAFETY: PR_SET_NO_NEW_PRIVS takes numbers; PR_SET_SECCOMP a mode and a filter, which it copies.
    let failed = unsafe {
        prctl(38, 1_usize, 0_usize, 0_usize, 0_usize) != 0
            || prctl(22, 2_usize, &raw const filter) != 0
    };
    match failed {
        true => Err(io::Error::last_os_error()),
        false => Ok(()),
    }
}
