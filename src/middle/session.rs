//! The road through Telegram's middle proxies, and a client on it: entered in the registry, pinned to a
//! connection of its data centre's set, packets read and sent up ([`super::reader`] and [`super::http`],
//! each in its own framing), and its one ending. The client's thread owns all of it.

use std::net::{SocketAddr, TcpStream};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use mtproxy::limits::{FIRST_BUFFER, READY_WAIT};
use mtproxy::proto::middle::frame::SEAL_ROOM;
use mtproxy::proto::rpc::Origin;
use mtproxy::proto::wire::{AdTag, ConnId};

use super::dcs::{Dcs, Set};
use super::link::Link;
use super::memory;
use super::nat::NatRules;
use super::outbox::Outbox;
use super::registry::{self, Client};
use crate::base::buffers::{Account, Buffer};
use crate::base::net;
use crate::stats::{Close, Guest, STATS};

/// The road through middle proxies.
pub struct Middle {
    /// Where clients go.
    pub dcs: Dcs,
    /// --nat-info
    pub nat: NatRules,
    /// -P
    pub ad_tag: Option<AdTag>,
}

/// A client on its road. Dropping it is the one ending, also when its thread panics.
pub struct Session {
    /// The client.
    pub client: Arc<Client>,
    /// What its packets are sent with.
    pub origin: Origin,
    /// The connection that it is pinned to.
    pub link: Option<Arc<Link>>,
    /// Its data centre's middle proxies.
    set: Option<Arc<Set>>,
    guest: Guest,
}

impl Session {
    /// Enters a client in the registry; None, and counted, if it has ended.
    pub fn enter(
        road: &Middle,
        (socket, peer): (TcpStream, SocketAddr),
        set: Option<&Arc<Set>>,
        (outbox, obfuscated): (Outbox, bool),
        mut guest: Guest,
    ) -> Option<Session> {
        let ours = net::own_address(&socket);
        let Some(client) = registry::insert(socket, (guest.traffic, guest.owner), outbox) else {
            guest.ended(Close::Stopping, None);
            return None;
        };
        let origin = Origin {
            conn: ConnId(0), // until it is pinned
            client: peer,
            ours: road.nat.translate(ours),
            transport: guest.traffic.transport,
            obfuscated,
            ad_tag: road.ad_tag,
        };
        Some(Session {
            client,
            origin,
            link: None,
            set: set.cloned(),
            guest,
        })
    }

    /// Pins the client to a connection of its data centre's set (protocol.md 7.5).
    pub fn pin(&mut self) -> Result<(), Close> {
        let found = match &self.set {
            Some(set) => set.acquire(READY_WAIT).ok_or(Close::NoBackend),
            None => Err(Close::UnknownDc),
        };
        let link = found.inspect_err(|_| STATS.dropped_queries.add(1))?;
        self.origin.conn = registry::pin(&self.client, &link);
        self.link = Some(link);
        Ok(())
    }

    /// Reads a packet to `place` of a buffer that grows with what comes, not to what was declared:
    /// `likely` bytes are reserved at first.
    pub fn read_packet(
        &self,
        place: Range<usize>,
        likely: usize,
        read: &mut dyn FnMut(&mut [u8]) -> Result<usize, Close>,
    ) -> Result<Buffer, Close> {
        let enough = place.end + SEAL_ROOM;
        let first = enough.min(place.start + likely + SEAL_ROOM);
        let first = first.min(FIRST_BUFFER);
        let mut is_reserved = false;
        let mut packet = Buffer::of(Account::Clients, first).ok_or(Close::Evicted)?;
        let mut at = place.start;
        loop {
            memory::receiving(&self.client, packet.len());
            let room = place.end.min(packet.len() - SEAL_ROOM);
            while at < room {
                at += read(&mut packet[at..room])?;
                if is_reserved {
                    self.client.upload.store(at as u32, Ordering::Relaxed);
                }
            }
            if at == place.end {
                packet.filled = place;
                return Ok(packet);
            }
            if !is_reserved && packet.len() >= FIRST_BUFFER {
                memory::reserve(&self.client, at, enough);
                is_reserved = self.client.upload.load(Ordering::Relaxed) > 0;
            }
            packet.grow(at, packet.len() + 1).ok_or(Close::Evicted)?;
        }
    }

    /// Sends a packet whose message is `len` bytes long to the connection that the client is pinned to;
    /// waits while that one's queue is full. False if the connection is lost, or the client is ending.
    pub fn send(&self, packet: Buffer, len: usize) -> bool {
        let client = &self.client;
        let abandoned = || client.ending().is_some();
        let link = self.link.as_ref();
        let sent = link.is_some_and(|link| link.send(packet, &abandoned));
        memory::receiving(client, 0);
        if sent {
            client.traffic.queries.add(1);
            client.traffic.query_bytes.add(len as u64);
        }
        sent
    }

    /// Ends it, for `reason` unless there was another one before.
    pub fn end(mut self, reason: Close) {
        let reason = self.client.ending().unwrap_or(reason);
        self.client.end(reason);
        // Before it leaves the registry: whoever sees the client gone sees it counted.
        self.guest.ended(reason, Some(&self.client.socket));
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.client.end(Close::Panicked);
            self.guest.ended(Close::Panicked, None);
        }
        memory::receiving(&self.client, 0);
        registry::remove(&self.client);
    }
}
