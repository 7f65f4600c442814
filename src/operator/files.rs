//! The operator's files: read, at most so many bytes of them, and looked at for changes. Called at start and by
//! the reload's thread.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Reads a file. Of one longer than `most` bytes, one byte more than that: the caller sees that it is too long.
pub fn read_file(path: &Path, most: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = File::open(path)?;
    file.take(most as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}
