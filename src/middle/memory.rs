//! Memory that clients take in middle mode, and what happens when it is short. A long packet has a
//! reservation before its buffer grows, and its reader waits for that, so that TCP holds the sender back
//! and nobody is closed; what is left unread is bounded by closing whoever holds most. Called by clients'
//! readers and by whoever delivers to a client. Two locks: reservations, and one thread at a time that
//! looks for whom to close.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar};
use std::time::Instant;

use mtproxy::limits::{UPLOAD_LOOK, UPLOAD_PATIENCE, UPLOAD_RATE};

use super::registry::{self, Client};
use crate::base::buffers;
use crate::base::lock::{self, Mutex};
use crate::stats::{Close, STATS};

/// One thread at a time looks for clients to close.
static RELIEVING: Mutex<()> = Mutex::new(());

static UPLOADS: Mutex<Uploads> = Mutex::new(Uploads {
    reserved: 0,
    holders: Vec::new(),
    waiting: VecDeque::new(),
    tickets: 0,
});
/// Notified when a reservation is given back, or the first of those that wait has gone.
static ROOM: Condvar = Condvar::new();

/// Reservations for long packets.
struct Uploads {
    /// Bytes, all together.
    reserved: usize,
    holders: Vec<Holder>,
    /// Those that wait, first come, first served.
    waiting: VecDeque<u64>,
    tickets: u64,
}

struct Holder {
    client: Arc<Client>,
    bytes: usize,
    /// How much had come, and when.
    begun: (u32, Instant),
}

/// The packet that a client is sending takes `bytes` of buffer now; none when it has gone on.
pub fn receiving(client: &Client, bytes: usize) {
    client.receiving.store(bytes, Ordering::Relaxed);
    if bytes > 0 {
        relieve();
    } else if client.upload.swap(0, Ordering::Relaxed) > 0 {
        let mut uploads = UPLOADS.lock();
        let of_client = |holder: &Holder| std::ptr::eq(&*holder.client, client);
        if let Some(at) = uploads.holders.iter().position(of_client) {
            uploads.reserved -= uploads.holders.swap_remove(at).bytes;
        }
        drop(uploads);
        ROOM.notify_all();
    }
}

/// Waits until a packet of so many bytes may come in, of which `came` have. While others make no progress, one of them is closed
/// for it. A client that is ending needn't wait.
#[inline(never)] // an idle client's thread keeps the deepest stack that it ever used
pub fn reserve(client: &Arc<Client>, came: usize, bytes: usize) {
    let begun = Instant::now();
    let mut uploads = UPLOADS.lock();
    uploads.tickets += 1;
    let ticket = uploads.tickets;
    uploads.waiting.push_back(ticket);
    while client.ending().is_none() {
        let is_first = uploads.waiting.front() == Some(&ticket);
        if is_first && uploads.has_room(bytes) {
            uploads.reserved += bytes;
            uploads.holders.push(Holder {
                client: client.clone(),
                bytes,
                begun: (came as u32, Instant::now()),
            });
            client.upload.store(came as u32, Ordering::Relaxed);
            break;
        }
        if is_first
            && begun.elapsed() >= UPLOAD_PATIENCE
            && let Some(stalled) = uploads.stalled()
        {
            drop(uploads);
            STATS.connections_failed_lru.add(1);
            stalled.end(Close::Evicted);
            uploads = UPLOADS.lock();
        }
        (uploads, _) = lock::wait_for(&ROOM, uploads, UPLOAD_LOOK);
    }
    uploads.waiting.retain(|waiting| *waiting != ticket);
    drop(uploads);
    ROOM.notify_all();
}

impl Uploads {
    /// One may always come in.
    fn has_room(&self, bytes: usize) -> bool {
        self.reserved == 0 || self.reserved + bytes <= buffers::uploads_share()
    }

    /// The largest of those whose packet comes too slowly, and of these the one that has taken longest.
    fn stalled(&self) -> Option<Arc<Client>> {
        let is_slow = |holder: &&Holder| {
            let (before, since) = holder.begun;
            let came = holder.client.upload.load(Ordering::Relaxed);
            let came = came.saturating_sub(before);
            u64::from(came) < since.elapsed().as_secs() * UPLOAD_RATE
                && holder.client.ending().is_none()
        };
        let slow = self.holders.iter().filter(is_slow);
        let key = |holder: &&Holder| (holder.bytes, Reverse(holder.begun.1));
        slow.max_by_key(key).map(|holder| holder.client.clone())
    }
}

/// If clients hold more than three quarters of the budget, closes those that hold most until enough is given
/// back. Cheap when there is room.
pub fn relieve() {
    let excess = buffers::excess();
    if excess == 0 {
        return;
    }
    let Some(_one) = RELIEVING.try_lock() else {
        return;
    };
    let clients = registry::all();
    let holders = clients
        .iter()
        .map(|client| (client.holds(), client))
        .filter(|(bytes, client)| *bytes > 0 && client.ending().is_none())
        .collect();
    // Clients that were told before, whose threads have not run since, are about to give theirs back.
    let evicted = clients
        .iter()
        .filter(|client| client.ending() == Some(Close::Evicted));
    let freed: usize = evicted.map(|client| client.holds()).sum();
    for client in largest(holders, excess.saturating_sub(freed)) {
        STATS.connections_failed_lru.add(1);
        client.end(Close::Evicted);
    }
}

/// Those that hold most, as many as it takes to give `bytes` back.
fn largest<T>(mut holders: Vec<(usize, T)>, mut bytes: usize) -> impl Iterator<Item = T> {
    holders.sort_unstable_by_key(|(held, _)| Reverse(*held));
    holders.into_iter().map_while(move |(held, holder)| {
        let wanted = bytes > 0;
        bytes = bytes.saturating_sub(held);
        wanted.then_some(holder)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_holds_most_goes_first_and_no_more_than_it_takes() {
        let holders = vec![(10, "small"), (300, "most"), (200, "much"), (10, "other")];
        for (bytes, wanted) in [
            (0, &[][..]),
            (1, &["most"]),
            (300, &["most"]),
            (301, &["most", "much"]),
        ] {
            let gone: Vec<&str> = largest(holders.clone(), bytes).collect();
            assert_eq!(gone, wanted, "{bytes}");
        }
        assert_eq!(largest(holders, usize::MAX).count(), 4);
    }
}
