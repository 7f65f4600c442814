//! Recycled buffers, so that no packet costs an allocation: musl's malloc takes 1 to 10 µs when one
//! thread frees what another one reserved. Size classes (`limits::BUFFER_CLASSES`), one free list
//! each behind its own lock.
//!
//! Every buffer in use is on the account of those that it is held for, and each account has its share of
//! one byte budget. Only what clients hold makes clients be closed.

use std::alloc::{Layout, handle_alloc_error};
use std::io::{self, ErrorKind};
use std::ops::{Deref, DerefMut, Range};
use std::sync::atomic::{AtomicUsize, Ordering};

use mtproxy::limits::{
    BACKENDS_SHARE, BUFFER_CLASSES, MAX_OUTBOX, MIN_OUTBOX, MIN_STRANGERS_SHARE, POOL_SHARE,
    STRANGERS_SHARE, UPLOADS_SHARE, USUAL_FRAME,
};

use crate::base::lock::Mutex;

static POOLS: [Mutex<Pool>; BUFFER_CLASSES.len()] =
    [const { Mutex::new(Pool::EMPTY) }; BUFFER_CLASSES.len()];
/// Bytes in use, by account.
static IN_USE: [AtomicUsize; 3] = [const { AtomicUsize::new(0) }; 3];
/// Buffers that there are, and the most that there ever were. Recycling changes neither.
static ALLOCATED: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);
static BUDGET: AtomicUsize = AtomicUsize::new(usize::MAX);

/// Buffers of one size class.
struct Pool {
    free: Vec<Box<[u8]>>,
    used: usize,
}

impl Pool {
    const EMPTY: Pool = Pool {
        free: Vec::new(),
        used: 0,
    };
}

/// For whom bytes are held.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub enum Account {
    /// A client that has proven a secret: closing it gives them back.
    #[default]
    Clients,
    /// Whoever has proven none.
    Strangers,
    /// A middle proxy: frames that come from it, packets that wait for it.
    Backends,
}

/// What buffers take.
#[derive(Default)]
pub struct Usage {
    /// Bytes in use: those that count against the budget.
    pub bytes: usize,
    /// The budget.
    pub budget: usize,
    /// Buffers in use.
    pub used: usize,
    /// Bytes that wait for their next use.
    pub free_bytes: usize,
    /// Buffers that wait so.
    pub free: usize,
    /// The most buffers that there ever were.
    pub most: usize,
}

/// What buffers take now.
pub fn usage() -> Usage {
    let mut usage = Usage {
        bytes: IN_USE.iter().map(|n| n.load(Ordering::Relaxed)).sum(),
        budget: BUDGET.load(Ordering::Relaxed),
        most: MOST.load(Ordering::Relaxed),
        ..Usage::default()
    };
    for (class, size) in BUFFER_CLASSES.iter().enumerate() {
        let pool = lock(class);
        usage.used += pool.used;
        usage.free += pool.free.len();
        usage.free_bytes += pool.free.len() * size;
    }
    usage
}

/// Sets how many bytes all buffers in use may take.
pub fn set_budget(bytes: usize) {
    BUDGET.store(bytes, Ordering::Relaxed);
}

/// Bytes that one client's outbox may hold: 32 MiB, less when the budget is small, but as long as
/// that allows it two of the longest answers.
pub fn outbox_cap() -> usize {
    let budget = BUDGET.load(Ordering::Relaxed);
    (budget / 8).clamp(MIN_OUTBOX, MAX_OUTBOX).min(budget / 2)
}

/// Bytes that clients hold above three quarters of the budget: so much has to be given back.
pub fn excess() -> usize {
    let line = BUDGET.load(Ordering::Relaxed) / 4 * 3;
    IN_USE[Account::Clients as usize]
        .load(Ordering::Relaxed)
        .saturating_sub(line)
}

/// Bytes that connections may hold that have proven no secret, all together.
pub fn strangers_share() -> usize {
    (BUDGET.load(Ordering::Relaxed) / STRANGERS_SHARE).max(MIN_STRANGERS_SHARE)
}

/// Bytes that packets may take which clients are sending, if they are long.
pub fn uploads_share() -> usize {
    BUDGET.load(Ordering::Relaxed) / UPLOADS_SHARE
}

/// Whether a backend's buffer may grow from `before` to `after` bytes: backends have a share together, but
/// frames of usual length are always taken.
pub fn may_receive(before: usize, after: usize) -> bool {
    let others = IN_USE[Account::Backends as usize].load(Ordering::Relaxed);
    let all = others.saturating_sub(before).saturating_add(after);
    after <= USUAL_FRAME || all <= BUDGET.load(Ordering::Relaxed) / BACKENDS_SHARE
}

/// Counts memory that is not pooled: a backend's buffer grew from `before` to `after` bytes, or shrank.
pub fn resized(before: usize, after: usize) {
    let in_use = &IN_USE[Account::Backends as usize];
    in_use.fetch_add(after, Ordering::Relaxed);
    in_use.fetch_sub(before, Ordering::Relaxed);
}

/// Gives half of the free buffers back to the system. To be called once a minute.
pub fn trim() {
    for class in 0..BUFFER_CLASSES.len() {
        let mut pool = lock(class);
        let half = pool.free.len() / 2;
        let given_back = pool.free.split_off(half);
        pool.free.shrink_to_fit();
        drop(pool);
        ALLOCATED.fetch_sub(given_back.len(), Ordering::Relaxed);
    }
}

/// Bytes of a size class, and which part of them is filled. Goes back to its pool when dropped.
#[derive(Default)]
pub struct Buffer {
    bytes: Box<[u8]>,
    account: Account,
    /// What is filled; the owner keeps it.
    pub filled: Range<usize>,
}

impl Buffer {
    /// A small buffer for a client, without which the process can't go on.
    pub fn new(capacity: usize) -> Buffer {
        let buffer = Buffer::of(Account::Clients, capacity);
        buffer.unwrap_or_else(|| handle_alloc_error(Layout::new::<[u8; 1 << 9]>()))
    }

    /// A buffer of at least `capacity` bytes (at most the largest class), nothing filled. Its bytes are
    /// those of an earlier packet. None: there is no memory.
    pub fn of(account: Account, capacity: usize) -> Option<Buffer> {
        let class = BUFFER_CLASSES
            .iter()
            .position(|size| *size >= capacity)
            .unwrap_or(BUFFER_CLASSES.len() - 1);
        let recycled = lock(class).free.pop();
        let bytes = match recycled {
            Some(bytes) => bytes,
            None => allocate(BUFFER_CLASSES[class])?,
        };
        lock(class).used += 1;
        IN_USE[account as usize].fetch_add(bytes.len(), Ordering::Relaxed);
        Some(Buffer {
            bytes,
            account,
            filled: 0..0,
        })
    }

    /// From now on it is held for somebody else.
    pub fn charge_to(&mut self, account: Account) {
        IN_USE[account as usize].fetch_add(self.len(), Ordering::Relaxed);
        IN_USE[self.account as usize].fetch_sub(self.len(), Ordering::Relaxed);
        self.account = account;
    }

    /// A small buffer with `bytes` filled from `at` on.
    pub fn with_bytes(at: usize, bytes: &[u8]) -> Buffer {
        let end = at + bytes.len();
        let mut buffer = Buffer::new(end + mtproxy::proto::middle::frame::SEAL_ROOM);
        buffer[at..end].copy_from_slice(bytes);
        buffer.filled = at..end;
        buffer
    }

    /// Becomes a buffer of at least `capacity` bytes with the same first `keep` bytes. None: there is no
    /// memory.
    pub fn grow(&mut self, keep: usize, capacity: usize) -> Option<()> {
        let mut larger = Buffer::of(self.account, capacity)?;
        larger[..keep].copy_from_slice(&self[..keep]);
        larger.filled = self.filled.clone();
        *self = larger;
        Some(())
    }

    /// Fills `more` in behind what is filled; an empty buffer takes none from the pool for nothing.
    #[inline(never)] // in the middle of small frames
    pub fn append(&mut self, more: &[u8]) -> io::Result<()> {
        let (at, end) = (self.filled.end, self.filled.end + more.len());
        if end > self.len() {
            self.grow(at, end).ok_or(ErrorKind::OutOfMemory)?;
        }
        self[at..end].copy_from_slice(more);
        self.filled.end = end;
        Ok(())
    }

    /// What is filled.
    pub fn filled(&self) -> &[u8] {
        &self.bytes[self.filled.clone()]
    }

    /// What is filled.
    pub fn filled_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.filled.clone()]
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        give_back(std::mem::take(&mut self.bytes), self.account);
    }
}

fn allocate(size: usize) -> Option<Box<[u8]>> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(size).ok()?;
    bytes.resize(size, 0);
    let before = ALLOCATED.fetch_add(1, Ordering::Relaxed);
    MOST.fetch_max(before + 1, Ordering::Relaxed);
    Some(bytes.into_boxed_slice())
}

#[inline(never)] // buffers are dropped in many places
fn give_back(bytes: Box<[u8]>, account: Account) {
    let Some(class) = BUFFER_CLASSES.iter().position(|size| *size == bytes.len()) else {
        return;
    };
    IN_USE[account as usize].fetch_sub(bytes.len(), Ordering::Relaxed);
    let keep = BUDGET.load(Ordering::Relaxed) / POOL_SHARE / bytes.len();
    let mut pool = lock(class);
    pool.used -= 1;
    if pool.free.len() < keep {
        pool.free.push(bytes);
    } else {
        ALLOCATED.fetch_sub(1, Ordering::Relaxed);
    }
}

#[inline(never)] // else a loop over the classes has it six times
fn lock(class: usize) -> std::sync::MutexGuard<'static, Pool> {
    POOLS[class].lock()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_and_filling() {
        assert_eq!(Buffer::new(0).len(), BUFFER_CLASSES[0]);
        assert_eq!(Buffer::new(BUFFER_CLASSES[0] + 1).len(), BUFFER_CLASSES[1]);
        assert_eq!(
            Buffer::new(BUFFER_CLASSES[BUFFER_CLASSES.len() - 1]).len(),
            BUFFER_CLASSES[BUFFER_CLASSES.len() - 1]
        );
        let mut buffer = Buffer::with_bytes(8, b"abcd");
        assert_eq!(buffer.filled(), b"abcd");
        buffer.filled_mut()[0] = b'x';
        assert_eq!(&buffer[8..12], b"xbcd");
    }

    #[test]
    fn the_largest_class_holds_the_longest_packet() {
        let head =
            mtproxy::proto::middle::frame::FRAME_HEAD + mtproxy::proto::rpc::MAX_REQUEST_HEAD;
        let tail = mtproxy::proto::middle::frame::SEAL_ROOM;
        assert!(
            BUFFER_CLASSES[BUFFER_CLASSES.len() - 1]
                >= head + mtproxy::limits::MAX_CLIENT_PACKET + tail
        );
    }

    #[test]
    fn usage_follows_buffers() {
        // Other tests of this process use buffers too: only bounds hold.
        let held: Vec<Buffer> = (0..3).map(|_| Buffer::new(1 << 18)).collect();
        let usage = usage();
        assert!(usage.used >= 3 && usage.bytes >= 3 << 18, "{}", usage.used);
        assert!(usage.most >= usage.used.min(3));
        drop(held);
        let free = lock(4).free.len();
        assert!(free <= BUDGET.load(Ordering::Relaxed) / POOL_SHARE / (1 << 18));
    }

    #[test]
    fn what_others_hold_is_no_excess_of_clients() {
        let in_use = |account: Account| IN_USE[account as usize].load(Ordering::Relaxed);
        // No other test of this process has strangers' buffers of this size.
        let before = in_use(Account::Strangers);
        let mut held = Buffer::of(Account::Strangers, 1 << 20).unwrap();
        assert!(in_use(Account::Strangers) >= before + (1 << 20));
        held.charge_to(Account::Backends);
        assert!(in_use(Account::Strangers) < before + (1 << 20));
        assert!(in_use(Account::Backends) >= 1 << 20);
    }

    #[test]
    fn classes_fit_what_comes() {
        let class = |bytes| Buffer::new(bytes).len();
        let hello = mtproxy::limits::MAX_HELLO + 5 * mtproxy::limits::MAX_HELLO_RECORDS;
        assert!(class(hello) < 20 << 10);
        // An upload's part, with all that is around it.
        assert!(class((512 << 10) + 1024) < 600 << 10);
    }
}
