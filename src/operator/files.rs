//! The operator's files: read, at most so many bytes of them, and watched. Called at start and by the reload's
//! thread.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use mtproxy::crypto::middle_key;
use mtproxy::limits::MAX_CONFIG_FILE;

/// Reads a file. Of one longer than `most` bytes, one byte more than that: the caller sees that it is too long.
pub fn read_file(path: &Path, most: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = File::open(path)?;
    file.take(most as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What tells one state of a file from another without reading it: when it was written, how long it is, and
/// which file it is. None: it isn't there.
type Stamp = Option<(i64, i64, u64, u64)>;

/// Files, and how each was when it was last looked at.
#[derive(Clone, PartialEq)]
pub struct Watch(Vec<(PathBuf, Stamp)>);

impl Watch {
    /// Looks at them now.
    pub fn new(paths: Vec<PathBuf>) -> Watch {
        let look = |path: PathBuf| {
            let stamp = fs::metadata(&path).ok();
            let stamp =
                stamp.map(|file| (file.mtime(), file.mtime_nsec(), file.size(), file.ino()));
            (path, stamp)
        };
        Watch(paths.into_iter().map(look).collect())
    }

    /// Looks at the same files now.
    pub fn again(&self) -> Watch {
        Watch::new(self.paths().cloned().collect())
    }

    /// Files that were looked at before are as they were then.
    pub fn since(mut self, before: &Watch) -> Watch {
        for (path, stamp) in &mut self.0 {
            if let Some((_, known)) = before.0.iter().find(|(known, _)| known == path) {
                *stamp = *known;
            }
        }
        self
    }

    /// The files.
    pub fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        self.0.iter().map(|(path, _)| path)
    }

    /// What is in them, as one number.
    pub fn fingerprint(&self) -> [u8; 16] {
        let contents = self.paths().map(|path| {
            let bytes = read_file(path, MAX_CONFIG_FILE).unwrap_or_default();
            middle_key::fingerprint(&bytes)
        });
        middle_key::fingerprint(&contents.collect::<Vec<_>>().concat())
    }
}
