//! What the running server gives up: all that it does not need. Entered at start, when ports and files are
//! open and the user is changed, before the first other thread; --no-sandbox leaves it out.
//!
//! What the kernel doesn't have, or a sandbox around this one forbids, is gone without, and said: kernels of
//! routers often lack seccomp. Any other error ends the start.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use crate::base::sys::{self, Reach};
use crate::operator::{Fatal, options::Config, reload};

/// Where the system says how names are looked up and what this process has.
const SYSTEM: [&str; 4] = ["/etc", "/proc", "/sys/fs/cgroup", "/run/systemd/resolve"];

const CAP_NET_ADMIN: u32 = 1 << 12;

/// Enters it with this thread and those that it starts; what it consists of.
pub fn enter(config: &Config) -> Result<String, Fatal> {
    if config.no_sandbox {
        return Ok("none (--no-sandbox)".into());
    }
    let failed = |e| {
        Fatal(format!(
            "the sandbox can't be entered ({e}); --no-sandbox goes without"
        ))
    };
    // Marks are set at each connection.
    let kept = if config.mark > 0 { CAP_NET_ADMIN } else { 0 };
    let capabilities = tolerated(sys::drop_capabilities(kept)).map_err(failed)?;
    let files = tolerated(limit_files(config)).map_err(failed)?;
    let calls = tolerated(sys::filter_calls()).map_err(failed)?;
    let capabilities = match capabilities {
        Ok(()) => "no capabilities".into(),
        Err(e) => format!("capabilities as before ({e})"),
    };
    let files = match files {
        Ok(Some(version)) => format!("its own files only (Landlock {version})"),
        Ok(None) => "all files (no Landlock)".into(),
        Err(e) => format!("all files (no Landlock: {e})"),
    };
    let calls = match calls {
        Ok(()) => "its own system calls only (seccomp)".into(),
        Err(e) => format!("all system calls (no filter: {e})"),
    };
    Ok(format!("{capabilities}, {files}, {calls}"))
}

/// Tells what the kernel doesn't have or allow, the inner error, from what went wrong.
fn tolerated<T>(result: io::Result<T>) -> io::Result<io::Result<T>> {
    use ErrorKind::{InvalidInput, PermissionDenied, Unsupported};
    let is_refusal =
        |e: &io::Error| matches!(e.kind(), InvalidInput | PermissionDenied | Unsupported);
    match result {
        Err(e) if !is_refusal(&e) => Err(e),
        result => Ok(result),
    }
}

fn limit_files(config: &Config) -> io::Result<Option<u32>> {
    let files = reload::files(config);
    let resolver = PathBuf::from("/etc/resolv.conf");
    let mut read = directories(&mut files.iter().chain([&resolver]));
    read.extend(SYSTEM.map(PathBuf::from));
    let written = directories(&mut [&config.state, &config.log_file].into_iter().flatten());
    let mut reaches: Vec<Reach> = read.iter().map(|path| Reach::Read(path)).collect();
    reaches.extend(written.iter().map(|path| Reach::Write(path)));
    reaches.push(Reach::Write(Path::new("/dev/null")));
    sys::limit_files(&reaches)
}

/// The directories of files, and of those behind links: name servers' addresses often are.
fn directories(files: &mut dyn Iterator<Item = &PathBuf>) -> Vec<PathBuf> {
    let both = files.flat_map(|file| [Some(file.clone()), fs::canonicalize(file).ok()]);
    both.flatten().filter_map(|file| directory(&file)).collect()
}

/// The directory of a file, which a new one of its name may replace.
fn directory(file: &Path) -> Option<PathBuf> {
    let directory = file.parent()?;
    match directory.as_os_str().is_empty() {
        true => Some(PathBuf::from(".")),
        false => Some(directory.to_owned()),
    }
}
