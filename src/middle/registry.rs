//! The clients by connection id: where client threads and middle-proxy threads meet. One lock guards
//! the table; nothing is sent or written under it.
//!
//! An id is a place in the table in the low 22 bits and the place's use count above, as in the C proxy,
//! so ids never repeat (protocol.md 7.3). A client gets one when it is pinned to a middle-proxy
//! connection, and is found by that connection only.

use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, MutexGuard, OnceLock};
use std::thread::{self, Thread};
use std::time::Duration;

use mtproxy::proto::middle::frame::FRAME_HEAD;
use mtproxy::proto::rpc;
use mtproxy::proto::wire::ConnId;

use super::link::Link;
use super::outbox::Outbox;
use crate::base::buffers::Buffer;
use crate::base::lock::{self, Mutex};
use crate::base::sys;
use crate::stats::{Close, Owner, STATS, Traffic};

const PLACE_BITS: u32 = 22;

/// A client whose handshake is done.
pub struct Client {
    /// Its place in the table, which no other client has while it is there.
    pub place: u32,
    /// Its connection.
    pub socket: TcpStream,
    /// Counts what it moves.
    pub traffic: &'static Traffic,
    owner: Owner,
    /// The thread that reads from it.
    reader: Thread,
    outbox: Mutex<Outbox>,
    /// Why it is ending; the first reason counts.
    reason: OnceLock<Close>,
    /// Bytes that have come of a packet that has a reservation (see `memory`), else 0.
    pub upload: AtomicU32,
    /// Bytes of buffer that the packet takes which it is sending.
    pub receiving: AtomicUsize,
}

impl Client {
    /// What waits for this client.
    pub fn outbox(&self) -> MutexGuard<'_, Outbox> {
        self.outbox.lock()
    }

    /// Ends the connection now. The first reason counts.
    pub fn end(&self, reason: Close) {
        let _ = self.reason.set(reason);
        self.outbox().discard();
        let _ = self.socket.shutdown(Shutdown::Both);
        self.wake();
    }

    /// Ends the connection when what waits has been written.
    pub fn finish(&self, reason: Close) {
        let _ = self.reason.set(reason);
        let drained = self.outbox().close();
        if drained {
            self.close_drained();
        }
        self.wake();
    }

    /// Lets its reader look what has changed, should it wait for room in a link, or be parked.
    pub fn wake(&self) {
        self.reader.unpark();
        let link = table().of(self).and_then(|entry| entry.link.clone());
        if let Some(link) = link {
            link.wake();
        }
    }

    /// Everything is written. The client is told that nothing more comes, and may still say
    /// something: closing at once would make the kernel drop what is under way to it. Whoever does
    /// not close in time is closed by [`sweep`].
    pub fn close_drained(&self) {
        self.outbox().farewell(&self.socket);
        let _ = self.socket.shutdown(Shutdown::Write);
    }

    /// Why the connection is ending, if it is.
    pub fn ending(&self) -> Option<Close> {
        self.reason.get().copied()
    }

    /// Bytes of buffers that ending this client gives back.
    pub fn holds(&self) -> usize {
        self.outbox().bytes() + self.receiving.load(Ordering::Relaxed)
    }
}

/// A place in the table.
#[derive(Default)]
struct Entry {
    /// How often a client here was pinned.
    uses: u64,
    link: Option<Arc<Link>>,
    client: Option<Arc<Client>>,
}

impl Entry {
    fn id(&self, place: u32) -> ConnId {
        ConnId(self.uses << PLACE_BITS | u64::from(place))
    }

    fn is_pinned_to(&self, link: &Link) -> bool {
        let own = self.link.as_deref();
        own.is_some_and(|own| std::ptr::eq(own, link))
    }
}

struct Table {
    entries: Vec<Entry>,
    free: Vec<u32>,
    stopped: bool,
}

static TABLE: Mutex<Table> = Mutex::new(Table {
    entries: Vec::new(),
    free: Vec::new(),
    stopped: false,
});
/// Notified when the last client leaves.
static EMPTY: Condvar = Condvar::new();
/// Packets of clients that are being closed.
static IGNORED: AtomicU32 = AtomicU32::new(0);

fn table() -> MutexGuard<'static, Table> {
    TABLE.lock()
}

impl Table {
    fn of(&mut self, client: &Client) -> Option<&mut Entry> {
        let entry = self.entries.get_mut(client.place as usize)?;
        let own = entry.client.as_deref();
        own.is_some_and(|own| std::ptr::eq(own, client))
            .then_some(entry)
    }

    fn is_empty(&self) -> bool {
        self.free.len() == self.entries.len()
    }
}

/// Enters a client, whose thread this is. None if the server stops, or all 2^22 places are taken.
pub fn insert(
    socket: TcpStream,
    (traffic, owner): (&'static Traffic, Owner),
    outbox: Outbox,
) -> Option<Arc<Client>> {
    let mut table = table();
    if table.stopped {
        return None;
    }
    let place = match table.free.pop() {
        Some(place) => place,
        None if table.entries.len() >= 1 << PLACE_BITS => return None,
        None => {
            table.entries.push(Entry::default());
            table.entries.len() as u32 - 1
        }
    };
    let client = Arc::new(Client {
        place,
        socket,
        traffic,
        owner,
        reader: thread::current(),
        outbox: Mutex::new(outbox),
        reason: OnceLock::new(),
        upload: AtomicU32::new(0),
        receiving: AtomicUsize::new(0),
    });
    table.entries[place as usize].client = Some(client.clone());
    Some(client)
}

/// Pins a client to a middle-proxy connection, which counts it already; returns its id there.
pub fn pin(client: &Client, link: &Arc<Link>) -> ConnId {
    let mut table = table();
    let Some(entry) = table.of(client) else {
        return ConnId(0); // it has left
    };
    entry.uses += 1;
    entry.link = Some(link.clone());
    entry.id(client.place)
}

/// The client of that id, if it is pinned to that connection.
pub fn find(id: ConnId, link: &Link) -> Option<Arc<Client>> {
    let place = id.0 as u32 & ((1 << PLACE_BITS) - 1);
    let table = table();
    let entry = table.entries.get(place as usize)?;
    let client = entry.client.as_ref()?;
    (entry.id(place) == id && entry.is_pinned_to(link)).then(|| client.clone())
}

/// Takes a client out, and tells its middle proxy unless that knows.
pub fn remove(client: &Client) {
    unpin(client, None);
    let mut table = table();
    if let Some(entry) = table.of(client) {
        entry.client = None;
        table.free.push(client.place);
    }
    if table.is_empty() {
        EMPTY.notify_all();
    }
}

/// Takes a client from its middle-proxy connection, `only` if its id there is this one, and tells the
/// middle proxy unless that knows. The id is never used again.
pub fn unpin(client: &Client, only: Option<ConnId>) {
    let pinned = table().of(client).and_then(|entry| {
        let id = entry.id(client.place);
        let link = entry.link.take_if(|_| only.is_none_or(|only| only == id))?;
        Some((link, id))
    });
    let Some((link, id)) = pinned else { return };
    link.clients.fetch_sub(1, Ordering::Relaxed);
    if !matches!(
        client.ending(),
        Some(Close::BackendClosed | Close::BackendLost)
    ) {
        // If this finds no room the other side learns from our answer to the next packet that it has
        // for this client.
        let gone = Buffer::with_bytes(FRAME_HEAD, &rpc::close_conn(id));
        if !link.try_send(gone) {
            STATS.backend_replies_dropped.add(1);
        }
    }
}

/// Waits until there is no client; false if some are left after `wait`.
pub fn wait_empty(wait: Duration) -> bool {
    lock::wait_while(&EMPTY, table(), wait, |t| !t.is_empty()).is_empty()
}

/// The clients of a middle-proxy connection, but for those that are being closed already and still
/// fetch what waits for them.
pub fn clients_of(link: &Link) -> Vec<Arc<Client>> {
    clients(|entry, client| entry.is_pinned_to(link) && client.ending().is_none())
}

fn clients(wanted: impl Fn(&Entry, &Client) -> bool) -> Vec<Arc<Client>> {
    let table = table();
    let entries = table.entries.iter();
    let found = entries.filter_map(|e| e.client.as_ref().filter(|c| wanted(e, c)));
    found.cloned().collect()
}

/// A client that is being closed has said something; nobody is told.
pub fn ignored() {
    IGNORED.fetch_add(1, Ordering::Relaxed);
}

/// Every client.
pub fn all() -> Vec<Arc<Client>> {
    clients(|_, _| true)
}

/// Bytes that wait: of packets that clients are sending, and of answers that clients have not
/// fetched.
pub fn queued() -> (u64, u64) {
    let each = all().into_iter().map(|client| {
        let up = client.receiving.load(Ordering::Relaxed) as u64;
        (up, client.outbox().bytes() as u64)
    });
    each.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
}

/// Bytes that wait for clients, and a figure that changes while clients take something or speak though
/// they are being closed.
pub fn movement() -> (u64, u64) {
    let unconfirmed = |client: Arc<Client>| sys::unconfirmed(&client.socket);
    let sum: u64 = all().into_iter().map(unconfirmed).sum();
    let ignored = IGNORED.load(Ordering::Relaxed);
    (queued().1, sum.wrapping_add(u64::from(ignored) << 32))
}

/// Lets nobody in any more, and ends all clients as soon as their outboxes are drained.
pub fn finish_all() {
    table().stopped = true;
    all().iter().for_each(|c| c.finish(Close::Stopping));
}

/// Ends the clients of some owners now.
pub fn end_of(is_one: &dyn Fn(Owner) -> bool, reason: Close) {
    let own = clients(|_, client| is_one(client.owner));
    own.iter().for_each(|client| client.end(reason));
}

/// Ends all clients now, whatever waits for them.
pub fn end_all() {
    all().iter().for_each(|c| c.end(Close::Stopping));
}

/// Ends clients that should have gone by now. To be called once a minute.
pub fn sweep() {
    for client in all() {
        let overdue = client.outbox().is_overdue();
        if overdue {
            client.end(Close::Stalled);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::records::Wrap;
    use mtproxy::crypto::ctr::{Ctr, StreamKey};
    use mtproxy::proto::transport::Transport;
    use mtproxy::proto::wire::DcId;
    use std::net::TcpListener;

    fn client() -> Arc<Client> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let outbox = Outbox::new(
            Ctr::new(&StreamKey {
                key: [0; 32],
                iv: [0; 16],
            }),
            Wrap::Nothing,
        );
        let traffic =
            crate::stats::traffic_of(&crate::stats::OPEN, DcId(1), Some(Transport::Abridged));
        insert(socket, (traffic, (&crate::stats::OPEN, None)), outbox).unwrap()
    }

    fn link() -> Arc<Link> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = listener.local_addr().unwrap();
        let socket = TcpStream::connect(target).unwrap();
        crate::middle::link::new(0, socket, target).0
    }

    #[test]
    fn a_client_is_found_by_its_connection_only_and_its_id_never_returns() {
        let (first, seven, eight) = (client(), link(), link());
        seven.clients.store(2, Ordering::Relaxed);
        let id = pin(&first, &seven);
        assert!(find(id, &seven).is_some() && find(id, &eight).is_none());
        unpin(&first, Some(ConnId(id.0 + 1)));
        assert!(find(id, &seven).is_some(), "that was another id");
        unpin(&first, Some(id));
        assert!(find(id, &seven).is_none());
        let mut ids = vec![id, pin(&first, &seven)];
        remove(&first);
        assert_eq!(seven.clients.load(Ordering::Relaxed), 0);
        for _ in 0..10 {
            let next = client();
            assert!(ids.iter().all(|id| find(*id, &eight).is_none()));
            eight.clients.fetch_add(1, Ordering::Relaxed);
            ids.push(pin(&next, &eight));
            remove(&next);
        }
        let count = ids.len();
        ids.sort_by_key(|id| id.0);
        ids.dedup();
        assert_eq!(ids.len(), count);
    }

    #[test]
    fn the_clients_of_a_connection_are_those_that_are_not_ending() {
        let (one, ending, other) = (client(), client(), client());
        let (lost, well) = (link(), link());
        for (client, link) in [(&one, &lost), (&ending, &lost), (&other, &well)] {
            link.clients.fetch_add(1, Ordering::Relaxed);
            pin(client, link);
        }
        ending.finish(Close::BackendClosed);
        ending.end(Close::ClientLost);
        assert_eq!(
            ending.ending(),
            Some(Close::BackendClosed),
            "the first reason counts"
        );
        let [found] = &clients_of(&lost)[..] else {
            panic!("not one client")
        };
        assert!(Arc::ptr_eq(found, &one));
        [one, ending, other]
            .iter()
            .for_each(|client| remove(client));
    }
}
