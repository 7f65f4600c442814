//! The replay store: fake-TLS ClientHellos and obfuscated2 headers that were accepted, none of which is
//! accepted again (protocol.md 5.3). Only what proves a secret gets here, so strangers can't fill it.
//! One lock, held for a look-up; a file, if there is one, is written by a thread of its own.
//!
//! Each entry is 32 bits of a keyed hash in a table of twice as many places, which is 8 bytes an entry;
//! the place gives 16 bits more, so one new connection in 2^30 is taken for a replay. Tables are filled
//! one after the other and the oldest is dropped, so what a table holds is forgotten together. The C proxy
//! keeps what came in two days, without bound.
//!
//! The file is a key and then 8 bytes for each entry, appended as they come. When it is full it becomes
//! FILE.old, and a new one begins: so both together hold all that the store does.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mtproxy::limits::{REPLAY_FIRST, REPLAY_QUEUE, REPLAY_TABLE};
use sha2::{Digest, Sha256};

use crate::base::lock::Mutex;
use crate::base::queue::Queue;
use crate::base::sys;

/// What was accepted.
pub struct Replays {
    key: [u8; KEY],
    tables: Mutex<Tables>,
    /// To the thread that writes the file.
    journal: Option<Arc<Queue<u64>>>,
}

impl Replays {
    /// A store of at most `most` tables of `limits::REPLAY_TABLE` entries, at least 1. Nothing is kept over a
    /// restart.
    pub fn new(most: usize) -> io::Result<Replays> {
        Ok(Replays {
            key: sys::random_array()?,
            tables: Mutex::new(Tables::new(most)),
            journal: None,
        })
    }

    /// As [`Replays::new`], with what the file at `path` holds; then what is accepted is to be appended
    /// by [`Journal::run`]. A file that is none of ours is an error, one that ends in the middle of an
    /// entry is not.
    pub fn open(path: &Path, most: usize) -> io::Result<(Replays, Journal)> {
        let old = with_suffix(path);
        let mut tables = Tables::new(most);
        let mut key = None;
        let mut entries = 0;
        for (file, is_old) in [(old.as_path(), true), (path, false)] {
            let mut bytes = Vec::new();
            match File::open(file) {
                Ok(file) => file.take(MAX_FILE).read_to_end(&mut bytes)?,
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return Err(e),
            };
            if !bytes.starts_with(&HEAD[..bytes.len().min(HEAD.len())]) {
                return Err(io::Error::other("it is no file of replays"));
            }
            let Some((head, rest)) = bytes.split_first_chunk::<{ HEAD.len() + KEY }>() else {
                continue; // torn while it was made
            };
            let own = &head[HEAD.len()..];
            // The key is the same in both; if it isn't, the old file is of another store.
            if key.replace(own.to_vec()).is_some_and(|key| key != own) {
                tables = Tables::new(most);
            }
            let (hashes, _) = rest.as_chunks::<8>();
            hashes
                .iter()
                .for_each(|hash| tables.note(u64::from_le_bytes(*hash)));
            entries = if is_old { 0 } else { hashes.len() };
        }
        let key = match key.as_deref().and_then(|key| key.try_into().ok()) {
            Some(key) => key,
            None => sys::random_array()?,
        };
        let queue = Arc::new(Queue::new());
        let journal = Journal {
            path: path.to_owned(),
            key,
            file: append_to(path, &key)?,
            entries,
            most: most.max(1) * REPLAY_TABLE,
            queue: queue.clone(),
        };
        let replays = Replays {
            key,
            tables: Mutex::new(tables),
            journal: Some(queue),
        };
        Ok((replays, journal))
    }

    /// Notes what the sender of these bytes can't change without the secret. False: it was here before.
    pub fn admit(&self, bytes: &[u8]) -> bool {
        let hash = Sha256::new().chain_update(self.key).chain_update(bytes);
        let hash = hash.finalize();
        let hash = hash
            .first_chunk()
            .map_or(0, |hash| u64::from_le_bytes(*hash));
        let is_new = {
            let mut tables = self.tables.lock();
            let is_new = !tables.has(hash);
            if is_new {
                tables.note(hash);
            }
            is_new
        };
        if let Some(journal) = self.journal.as_ref().filter(|_| is_new) {
            // A disk that doesn't keep up loses entries of the file, and nobody waits for it.
            journal.push(hash, REPLAY_QUEUE);
        }
        is_new
    }

    /// How many are remembered, and how many can be.
    pub fn fill(&self) -> (usize, usize) {
        let tables = self.tables.lock();
        let used = tables.all.iter().map(|table| table.used).sum();
        (used, tables.most * REPLAY_TABLE)
    }
}

impl Drop for Replays {
    fn drop(&mut self) {
        if let Some(journal) = &self.journal {
            journal.close();
        }
    }
}

/// Tables, the newest at the front.
struct Tables {
    all: VecDeque<Table>,
    most: usize,
}

impl Tables {
    fn new(most: usize) -> Tables {
        let (all, most) = (VecDeque::new(), most.max(1));
        Tables { all, most }
    }

    fn has(&self, hash: u64) -> bool {
        let mut tables = self.all.iter();
        tables.any(|table| table.slots[table.find(hash)] != EMPTY)
    }

    fn note(&mut self, hash: u64) {
        let is_full = |table: &Table| table.used == table.capacity();
        if self.all.front().is_none_or(is_full) {
            // The first ones are small: on a router few clients come.
            let next = self.all.front().map_or(REPLAY_FIRST, |t| 2 * t.capacity());
            let capacity = next.min(REPLAY_TABLE);
            self.all.truncate(self.most - 1);
            self.all.push_front(Table {
                slots: vec![EMPTY; 2 * capacity].into_boxed_slice(),
                used: 0,
            });
        }
        if let Some(table) = self.all.front_mut() {
            let at = table.find(hash);
            table.used += usize::from(table.slots[at] == EMPTY);
            table.slots[at] = mark(hash);
        }
    }
}

/// Open addressing, at most half full.
struct Table {
    slots: Box<[u32]>,
    used: usize,
}

impl Table {
    fn capacity(&self) -> usize {
        self.slots.len() / 2
    }

    /// The place of an entry, or the empty one where it belongs.
    fn find(&self, hash: u64) -> usize {
        let places = self.slots.len();
        let mut at = hash as usize % places;
        while self.slots[at] != EMPTY && self.slots[at] != mark(hash) {
            at = (at + 1) % places;
        }
        at
    }
}

/// What a slot holds of an entry; never [`EMPTY`].
fn mark(hash: u64) -> u32 {
    ((hash >> 32) as u32).max(1)
}

const EMPTY: u32 = 0;

/// Appends to the file what is accepted.
pub struct Journal {
    path: PathBuf,
    key: [u8; KEY],
    file: File,
    /// Entries of the file.
    entries: usize,
    /// Entries that make it full.
    most: usize,
    queue: Arc<Queue<u64>>,
}

impl Journal {
    /// Runs until the store is gone. An error ends it: what is accepted from then on is forgotten by a
    /// restart.
    pub fn run(&mut self) -> io::Result<()> {
        while let Some(hashes) = self.queue.take() {
            // In one write, so that few entries are torn.
            let bytes: Vec<u8> = hashes.iter().flat_map(|hash| hash.to_le_bytes()).collect();
            if self.entries >= self.most {
                std::fs::rename(&self.path, with_suffix(&self.path))?;
                self.entries = 0;
                self.file = append_to(&self.path, &self.key)?;
            }
            self.file.write_all(&bytes)?;
            self.entries += bytes.len() / 8;
        }
        Ok(())
    }
}

/// Opens a file to append to it, behind its last whole entry; makes it if it isn't there.
fn append_to(path: &Path, key: &[u8; KEY]) -> io::Result<File> {
    let file = OpenOptions::new().append(true).create(true).open(path)?;
    let len = file.metadata()?.len();
    let head = (HEAD.len() + KEY) as u64;
    match len.checked_sub(head) {
        Some(entries) => file.set_len(head + entries / 8 * 8)?,
        None => {
            file.set_len(0)?;
            (&file).write_all(&[HEAD.as_slice(), key].concat())?;
        }
    }
    Ok(file)
}

fn with_suffix(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".old");
    name.into()
}

const KEY: usize = 16;
const HEAD: &[u8; 16] = b"mtproxy replays\n";
/// More is not read.
const MAX_FILE: u64 = 64 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(number: usize) -> [u8; 28] {
        let mut bytes = [7; 28];
        bytes[..8].copy_from_slice(&(number as u64).to_le_bytes());
        bytes
    }

    #[test]
    fn nothing_is_accepted_twice() {
        let replays = Replays::new(2).unwrap();
        for number in 0..1000 {
            assert!(replays.admit(&bytes(number)), "{number}");
        }
        for number in 0..1000 {
            assert!(!replays.admit(&bytes(number)), "{number}");
        }
        assert_eq!(replays.fill(), (1000, 2 * REPLAY_TABLE));
    }

    #[test]
    fn the_oldest_table_is_dropped_when_all_are_full() {
        let replays = Replays::new(2).unwrap();
        // Tables of 4096, 8192, 16384, 32768 and 65536 entries, and then of 65536.
        let small = REPLAY_TABLE - REPLAY_FIRST;
        let all = small + 2 * REPLAY_TABLE;
        for number in 0..=all {
            assert!(replays.admit(&bytes(number)), "{number}");
        }
        assert_eq!(replays.fill().0, REPLAY_TABLE + 1);
        assert!(!replays.admit(&bytes(all - 1)), "of the last but one");
        assert!(!replays.admit(&bytes(all)), "of the last");
        assert!(replays.admit(&bytes(small)), "of the one before");
    }

    /// A directory that is removed at the end.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let name = format!("mtproxy-replay-{name}-{}", std::process::id());
            let path = std::env::temp_dir().join(name);
            std::fs::create_dir_all(&path).unwrap();
            Folder(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    /// Opens the store, accepts these numbers, and writes all to the file.
    fn run(path: &Path, most: usize, numbers: std::ops::Range<usize>) -> Vec<bool> {
        let (replays, mut journal) = Replays::open(path, most).unwrap();
        let writer = std::thread::spawn(move || journal.run().unwrap());
        let results = numbers.map(|number| {
            let is_new = replays.admit(&bytes(number));
            if number % REPLAY_QUEUE == 0 {
                let queue = replays.journal.as_ref().unwrap();
                queue.wait_done(std::time::Duration::from_secs(60));
            }
            is_new
        });
        let results = results.collect();
        drop(replays);
        writer.join().unwrap();
        results
    }

    #[test]
    fn a_restart_forgets_nothing() {
        let folder = Folder::new("restart");
        let path = folder.0.join("state");
        assert!(run(&path, 1, 0..100).iter().all(|is_new| *is_new));
        assert!(run(&path, 1, 0..100).iter().all(|is_new| !*is_new));
        // A torn entry is cut off, and those behind it are whole.
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"torn").unwrap();
        assert!(run(&path, 1, 100..200).iter().all(|is_new| *is_new));
        assert!(run(&path, 1, 0..200).iter().all(|is_new| !*is_new));
        // A full file becomes the old one, which is read as well.
        assert!(
            run(&path, 1, 200..REPLAY_TABLE + 2 * REPLAY_QUEUE)
                .iter()
                .all(|is_new| *is_new)
        );
        assert!(with_suffix(&path).exists());
        assert!(!run(&path, 1, REPLAY_TABLE + 199..REPLAY_TABLE + 200)[0]);
        let sizes = [&path, &with_suffix(&path)].map(|path| path.metadata().unwrap().len());
        assert!(
            sizes
                .iter()
                .all(|size| *size < 32 + 16 * REPLAY_TABLE as u64),
            "{sizes:?}"
        );
    }

    #[test]
    fn what_is_no_file_of_replays_is_an_error_and_stays() {
        let folder = Folder::new("foreign");
        let path = folder.0.join("state");
        for text in [
            "a short one",
            "the operator's own file, which is longer than a head",
        ] {
            std::fs::write(&path, text).unwrap();
            assert!(Replays::open(&path, 1).is_err());
            assert_eq!(std::fs::read(&path).unwrap(), text.as_bytes());
        }
    }
}
