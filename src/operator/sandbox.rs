//! What the running server gives up: all that it does not need. Entered at start, when ports and files are
//! open and the user is changed, before the first other thread; --no-sandbox leaves it out.

use std::fs;
use std::path::{Path, PathBuf};

use crate::base::log;
use crate::base::sys::{self, Reach};
use crate::operator::Fatal;
use crate::operator::options::Config;

/// Where the system says how names are looked up and what this process has.
const SYSTEM: [&str; 4] = ["/etc", "/proc", "/sys/fs/cgroup", "/run/systemd/resolve"];

/// Enters it, and says what it consists of.
pub fn enter(config: &Config) -> Result<(), Fatal> {
    if config.no_sandbox {
        log::say(format_args!("sandbox: none (--no-sandbox)"));
        return Ok(());
    }
    let failed = |e| {
        Fatal(format!(
            "the sandbox can't be entered ({e}); --no-sandbox goes without"
        ))
    };
    sys::drop_capabilities(0).map_err(failed)?;
    let files = limit_files(config).map_err(failed)?;
    let calls = sys::filter_calls().map_err(failed)?;
    let files = files.map_or("all files (no Landlock)".into(), |version| {
        format!("its own files only (Landlock {version})")
    });
    let calls = if calls {
        "its own system calls only (seccomp)"
    } else {
        "all system calls (no filter for this processor)"
    };
    log::say(format_args!("sandbox: no capabilities, {files}, {calls}"));
    Ok(())
}

fn limit_files(config: &Config) -> std::io::Result<Option<u32>> {
    let read = config.files_read().into_iter().filter_map(directory);
    // Name servers' addresses are often behind a link.
    let resolver = fs::canonicalize("/etc/resolv.conf").ok();
    let resolver = resolver.as_deref().and_then(directory);
    let written = config.files_written().into_iter().filter_map(directory);
    let read: Vec<PathBuf> = read
        .chain(resolver)
        .chain(SYSTEM.map(PathBuf::from))
        .collect();
    let written: Vec<PathBuf> = written.chain([PathBuf::from("/dev/null")]).collect();
    let mut reaches: Vec<Reach> = read.iter().map(|path| Reach::Read(path)).collect();
    reaches.extend(written.iter().map(|path| Reach::Write(path)));
    sys::limit_files(&reaches)
}

/// The directory of a file, which a new one of its name may replace.
fn directory(file: &Path) -> Option<PathBuf> {
    let directory = file.parent()?;
    match directory.as_os_str().is_empty() {
        true => Some(PathBuf::from(".")),
        false => Some(directory.to_owned()),
    }
}
