//! What the kernel tells of the machine and of this process: text files of proc(5) and of control groups.
//! Read by `capacity` at start, and by the pages whenever somebody asks. What can't be read, as in a chroot
//! without /proc, is empty.

use std::path::Path;

use mtproxy::proto::wire::decimal;

/// A file's text. A process's name, which is in some of them, may be any bytes.
#[inline(never)] // small, not fast
pub fn text(path: impl AsRef<Path>) -> String {
    let bytes = std::fs::read(path).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The number behind a name at the start of a line.
#[inline(never)]
pub fn number_behind(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    decimal(rest.split_whitespace().next()?.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_their_absence() {
        assert_eq!(number_behind(" 42 kB\n", ""), Some(42));
        assert_eq!(number_behind("max\n", ""), None);
        let status = "Name:\tThreads:\nVmSize:\t   12 kB\nThreads:\t3\n";
        assert_eq!(number_behind(status, "VmSize:"), Some(12));
        assert_eq!(number_behind(status, "Threads:"), Some(3));
        assert_eq!(number_behind(status, "VmRSS:"), None);
        let limits = "Max open files            1024                 524288               files\n\
                      Max address space 61440000 unlimited bytes\n";
        assert_eq!(number_behind(limits, "Max open files"), Some(1_024));
        assert_eq!(number_behind(limits, "Max address space"), Some(61_440_000));
        let unlimited = "Max address space unlimited\n";
        assert_eq!(number_behind(unlimited, "Max address space"), None);
        assert_eq!(text("/nonexistent"), "");
    }
}
