//! The clients by connection id: where client threads and backend threads meet. One lock guards the
//! table; nothing is sent or written under it.
//!
//! An id is a slot number in the low 22 bits and the slot's use count above, as in the C proxy, so
//! ids never repeat (protocol.md 7.3). A client is found only by the middle-proxy connection that it
//! is pinned to.

use crate::base::lock::Mutex;
use std::net::{Shutdown, TcpStream};
use std::ops::Range;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, MutexGuard};
use std::time::Duration;

use mtproxy::limits::CLOSE_DRAIN;
use mtproxy::proto::middle::frame::FRAME_HEAD;
use mtproxy::proto::rpc;
use mtproxy::proto::transport::MAX_QUICK_ACK;
use mtproxy::proto::wire::ConnId;

use crate::base::buffers;
use crate::base::buffers::Buffer;
use crate::base::{clock, lock};
use crate::middle::link::Link;
use crate::middle::outbox::{Outbox, Outcome};
use crate::stats::{Close, STATS, Traffic};

const SLOT_BITS: u32 = 22;
const NOT_CLOSED: u8 = u8::MAX;

/// A client whose handshake is done.
pub struct Client {
    /// Its name towards middle proxies. An HTTP client has it for its first request only.
    pub id: ConnId,
    /// Its connection.
    pub socket: TcpStream,
    /// Counts what it moves.
    pub traffic: &'static Traffic,
    outbox: Mutex<Outbox>,
    start_writer: fn(Arc<Client>) -> bool,
    reason: AtomicU8,
    active: AtomicU32,
    receiving: AtomicUsize,
}

impl Client {
    /// Delivers a packet that lies at `payload` in `frame`, with room around it for the framing.
    /// Never blocks. `random` is for padding.
    pub fn deliver(self: &Arc<Client>, frame: &mut [u8], payload: Range<usize>, random: u32) {
        if let Some(range) = self
            .traffic
            .transport
            .frame_in_place(frame, payload, random)
            && let Some(packet) = frame.get_mut(range)
        {
            self.put(packet);
        }
    }

    /// Delivers a quick ack. Never blocks.
    pub fn acknowledge(self: &Arc<Client>, confirm: u32, random: u32) {
        let mut ack = [0; MAX_QUICK_ACK];
        let len = self.traffic.transport.quick_ack(confirm, random, &mut ack);
        if let Some(ack) = ack.get_mut(..len) {
            self.put(ack);
        }
    }

    pub fn put(self: &Arc<Client>, packet: &mut [u8]) {
        let outcome = self.outbox().deliver(&self.socket, packet);
        self.settle(outcome);
    }

    pub fn settle(self: &Arc<Client>, outcome: Outcome) {
        match outcome {
            Outcome::Done => {}
            Outcome::Queued => relieve(),
            Outcome::StartWriter => {
                if !(self.start_writer)(self.clone()) {
                    self.end(Close::NoThread);
                }
                relieve();
            }
            Outcome::Flood => {
                STATS.connections_failed_flood.add(1);
                self.end(Close::Flood);
            }
            Outcome::Broken => self.end(Close::ClientLost),
        }
    }

    /// What waits for this client.
    pub fn outbox(&self) -> MutexGuard<'_, Outbox> {
        self.outbox.lock()
    }

    /// Ends the connection now. The first reason counts.
    pub fn end(&self, reason: Close) {
        self.note(reason);
        self.outbox().discard();
        let _ = self.socket.shutdown(Shutdown::Both);
        self.wake();
    }

    /// Ends the connection when what waits has been written.
    pub fn finish(&self, reason: Close) {
        self.note(reason);
        let drained = self.outbox().close();
        if drained {
            self.close_drained();
        }
        self.wake();
    }

    /// Its reader may stand in a full channel, or wait for an answer.
    fn wake(&self) {
        self.forget_request();
        let link = table().of(self).and_then(|entry| entry.link.clone());
        if let Some(link) = link {
            link.wake();
        }
    }

    /// Everything is written. The client is told that nothing more comes, and may still say
    /// something: closing at once would make the kernel drop what is under way to it. Whoever does
    /// not close in time is closed by [`sweep`].
    pub fn close_drained(&self) {
        let how = match self.ending() {
            Some(Close::Stopping) => Shutdown::Both,
            _ => Shutdown::Write,
        };
        let _ = self.socket.shutdown(how);
    }

    fn note(&self, reason: Close) {
        let _ = self.reason.compare_exchange(
            NOT_CLOSED,
            reason as u8,
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
    }

    /// Why the connection is ending, if it is.
    pub fn ending(&self) -> Option<Close> {
        Close::from_number(self.reason.load(Ordering::Relaxed))
    }

    /// The client has sent a packet.
    pub fn touch(&self) {
        self.active.store(clock::seconds(), Ordering::Relaxed);
    }

    /// The packet that the client is sending takes `bytes` of buffer now.
    pub fn receiving(&self, bytes: usize) {
        self.receiving.store(bytes, Ordering::Relaxed);
        if bytes > 0 {
            relieve();
        }
    }

    /// Bytes of buffers that ending this client gives back.
    fn holds(&self) -> usize {
        self.outbox().bytes() + self.receiving.load(Ordering::Relaxed)
    }
}

#[derive(Default)]
struct Entry {
    uses: u64,
    link: Option<Arc<Link>>,
    client: Option<Arc<Client>>,
}

impl Entry {
    fn is_pinned_to(&self, link: u64) -> bool {
        self.link.as_ref().is_some_and(|l| l.id == link)
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
/// One thread at a time looks for clients to close when memory is short.
static RELIEVING: Mutex<()> = Mutex::new(());

fn slot_of(id: ConnId) -> usize {
    (id.0 & ((1 << SLOT_BITS) - 1)) as usize
}

fn table() -> MutexGuard<'static, Table> {
    TABLE.lock()
}

impl Table {
    fn entry(&mut self, id: ConnId) -> Option<&mut Entry> {
        self.entries
            .get_mut(slot_of(id))
            .filter(|e| e.uses == id.0 >> SLOT_BITS)
    }

    fn of(&mut self, client: &Client) -> Option<&mut Entry> {
        let entry = self.entries.get_mut(slot_of(client.id))?;
        let own = entry.client.as_deref();
        own.is_some_and(|own| std::ptr::eq(own, client))
            .then_some(entry)
    }

    fn is_empty(&self) -> bool {
        self.free.len() == self.entries.len()
    }

    fn clients(&self) -> impl Iterator<Item = (&Entry, &Arc<Client>)> {
        self.entries
            .iter()
            .filter_map(|e| Some((e, e.client.as_ref()?)))
    }
}

/// Enters a client. None if the server stops, or all 2^22 slots are taken.
pub fn insert(
    socket: TcpStream,
    traffic: &'static Traffic,
    outbox: Outbox,
    start_writer: fn(Arc<Client>) -> bool,
) -> Option<Arc<Client>> {
    let mut table = table();
    if table.stopped {
        return None;
    }
    let slot = match table.free.pop() {
        Some(slot) => slot,
        None if table.entries.len() >= 1 << SLOT_BITS => return None,
        None => {
            table.entries.push(Entry::default());
            table.entries.len() as u32 - 1
        }
    };
    let entry = &mut table.entries[slot as usize];
    entry.uses += 1;
    entry.link = None;
    let client = Arc::new(Client {
        id: ConnId(entry.uses << SLOT_BITS | u64::from(slot)),
        socket,
        traffic,
        outbox: Mutex::new(outbox),
        start_writer,
        reason: AtomicU8::new(NOT_CLOSED),
        active: AtomicU32::new(clock::seconds()),
        receiving: AtomicUsize::new(0),
    });
    entry.client = Some(client.clone());
    Some(client)
}

/// Pins a client to a middle-proxy connection, of which it is one already; says its id there.
pub fn pin(client: &Client, link: &Arc<Link>) -> ConnId {
    let mut table = table();
    let Some(entry) = table.of(client) else {
        return client.id;
    };
    entry.link = Some(link.clone());
    ConnId(entry.uses << SLOT_BITS | slot_of(client.id) as u64)
}

/// The client of that id, if it is pinned to that connection.
pub fn find(id: ConnId, link: u64) -> Option<Arc<Client>> {
    let mut table = table();
    let entry = table.entry(id).filter(|e| e.is_pinned_to(link))?;
    entry.client.clone()
}

/// Takes a client out, and tells its middle proxy unless that knows. Its id is never used again.
pub fn remove(client: &Client) {
    release(client, None);
    let mut table = table();
    if let Some(entry) = table.of(client) {
        entry.client = None;
        table.free.push(slot_of(client.id) as u32);
    }
    if table.is_empty() {
        EMPTY.notify_all();
    }
}

/// Takes a client from its middle-proxy connection: `only` if its id there is this one. Its id is never
/// used again, it has another one next time.
pub fn release(client: &Client, only: Option<ConnId>) {
    let slot = slot_of(client.id) as u64;
    let pinned = table().of(client).and_then(|entry| {
        let id = ConnId(entry.uses << SLOT_BITS | slot);
        let wanted = only.is_none_or(|only| only == id);
        let link = entry.link.take_if(|_| wanted)?;
        entry.uses += 1;
        Some((link, id))
    });
    let Some((link, id)) = pinned else { return };
    link.clients.fetch_sub(1, Ordering::Relaxed);
    if !matches!(
        client.ending(),
        Some(Close::BackendClosed | Close::BackendLost)
    ) {
        // The other side doesn't know yet. If this finds no room it learns from our answer to
        // the next packet that it has for this client.
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

/// Ends all clients of a middle-proxy connection; returns how many.
pub fn end_clients_of(link: u64) -> usize {
    let clients: Vec<Arc<Client>> = table()
        .clients()
        // One that is being closed already still fetches what waits for it.
        .filter(|(e, c)| e.is_pinned_to(link) && c.ending().is_none())
        .map(|(_, c)| c.clone())
        .collect();
    clients.iter().for_each(|c| {
        if !c.fail(Close::BackendLost) {
            c.end(Close::BackendLost);
        }
    });
    clients.len()
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

fn all() -> Vec<Arc<Client>> {
    table().clients().map(|(_, c)| c.clone()).collect()
}

/// Lets nobody in any more, and ends all clients as soon as their outboxes are drained.
pub fn finish_all() {
    table().stopped = true;
    all().iter().for_each(|c| c.finish(Close::Stopping));
}

/// Ends clients that should have gone by now. To be called once a minute.
pub fn sweep() {
    for client in all() {
        let closing = client.outbox().closing_for();
        if closing.is_some_and(|seconds| u64::from(seconds) >= CLOSE_DRAIN.as_secs()) {
            client.end(Close::Stalled);
        }
    }
}

/// If buffers take more than three quarters of the budget, closes the least recently active clients
/// that hold any until enough is given back. Cheap when there is room.
pub fn relieve() {
    let excess = buffers::excess();
    if excess == 0 {
        return;
    }
    let Some(_one) = RELIEVING.try_lock() else {
        return;
    };
    let clients = all();
    let mut holders: Vec<(u32, usize, &Arc<Client>)> = clients
        .iter()
        .map(|c| (c.active.load(Ordering::Relaxed), c.holds(), c))
        .filter(|(_, bytes, c)| *bytes > 0 && c.ending().is_none())
        .collect();
    holders.sort_unstable_by_key(|(active, ..)| *active);
    // Clients that were told before, whose threads have not run since, are about to give theirs back.
    let evicted = clients
        .iter()
        .filter(|c| c.ending() == Some(Close::Evicted));
    let mut freed: usize = evicted.map(|c| c.holds()).sum();
    for (_, bytes, client) in holders {
        if freed >= excess {
            break;
        }
        freed += bytes;
        STATS.connections_failed_lru.add(1);
        client.end(Close::Evicted);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::middle::outbox::Manner;
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
            false,
        );
        let traffic = crate::stats::traffic_of(0, DcId(1), Transport::Abridged);
        insert(socket, traffic, outbox, |_| false).unwrap()
    }

    fn link(id: u64) -> Arc<Link> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        crate::middle::link::new(id, 0, Arc::new(socket)).0
    }

    #[test]
    fn a_client_is_found_by_its_connection_only_and_its_id_never_returns() {
        let first = client();
        assert!(find(first.id, 7).is_none(), "not pinned yet");
        let seven = link(7);
        seven.clients.store(1, Ordering::Relaxed);
        pin(&first, &seven);
        assert!(find(first.id, 7).is_some());
        assert!(find(first.id, 8).is_none());
        remove(&first);
        assert!(find(first.id, 7).is_none());
        for _ in 0..10 {
            let next = client();
            assert_ne!(next.id, first.id);
            assert!(find(first.id, 0).is_none());
            remove(&next);
        }
    }

    #[test]
    fn an_answer_is_for_the_request_that_waits() {
        let one = client();
        let first = pin(&one, &link(2001));
        one.expect(first, Manner::default());
        release(&one, Some(ConnId(first.0 + 1)));
        one.answer(ConnId(first.0 + 1), b"late", false);
        assert!(one.is_expecting() && find(first, 2001).is_some());
        one.answer(first, b"data", false);
        assert!(!one.is_expecting() && find(first, 2001).is_none());
        let second = pin(&one, &link(2001));
        assert!(second != first && find(second, 2001).is_some());
        remove(&one);
    }

    #[test]
    fn losing_a_connection_ends_its_clients_and_the_first_reason_counts() {
        let (lost, other) = (client(), client());
        pin(&lost, &link(1001));
        pin(&other, &link(1002));
        assert_eq!(end_clients_of(1001), 1);
        lost.end(Close::ClientLost);
        assert_eq!(lost.ending(), Some(Close::BackendLost));
        assert_eq!(other.ending(), None);
        remove(&lost);
        remove(&other);
    }
}
