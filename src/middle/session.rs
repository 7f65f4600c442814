//! The road through Telegram's middle proxies, and a client's way along it: entered in the registry,
//! packets up ([`reader`]), answers down (`outbox`, with `writer` when the client is slow), and its one
//! ending. The reader's thread owns all of it.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use mtproxy::crypto::ctr::Ctr;
use mtproxy::proto::rpc::Origin;
use mtproxy::proto::wire::AdTag;

use super::dcs::{Dcs, Set};
use super::link::Link;
use super::nat::NatRules;
use super::outbox::Outbox;
use super::registry::{self, Client};
use super::{reader, writer};
use crate::stats::{Close, Guest};
use crate::stream::ClientStream;

/// The road through middle proxies.
pub struct Middle {
    /// Where clients go.
    pub dcs: Dcs,
    /// --nat-info
    pub nat: NatRules,
    /// -P
    pub ad_tag: Option<AdTag>,
}

impl Middle {
    /// Serves a client to its end.
    #[inline(never)] // an idle client's thread keeps the deepest stack that it ever used
    pub fn serve(
        &self,
        ends: (TcpStream, SocketAddr),
        set: Option<&Arc<Set>>,
        stream: ClientStream,
        guest: Guest,
    ) -> Close {
        let accepted = &stream.layers.accepted;
        let cipher = accepted.send.as_ref().map_or_else(Ctr::clear, Ctr::new);
        let outbox = Outbox::new(cipher, stream.layers.is_tls());
        let is_obfuscated = accepted.send.is_some();
        match Session::enter(self, ends, set, (outbox, is_obfuscated), guest) {
            Ok(mut session) => {
                let reason = reader::run(&mut session, stream);
                session.end(reason)
            }
            Err(reason) => reason,
        }
    }
}

/// A client on its road. Dropping it is the one ending, also when its thread panics.
pub struct Session {
    /// The client.
    pub client: Arc<Client>,
    /// What its packets are sent with.
    pub origin: Origin,
    /// Its data centre's middle proxies.
    pub set: Option<Arc<Set>>,
    /// The connection that it is pinned to.
    pub link: Option<Arc<Link>>,
    guest: Guest,
}

impl Session {
    /// Enters a client in the registry.
    pub fn enter(
        road: &Middle,
        (socket, peer): (TcpStream, SocketAddr),
        set: Option<&Arc<Set>>,
        (outbox, obfuscated): (Outbox, bool),
        mut guest: Guest,
    ) -> Result<Session, Close> {
        let Ok(ours) = socket.local_addr() else {
            return Err(guest.ended(Close::ClientLost));
        };
        let Some(client) = registry::insert(socket, guest.traffic, outbox, writer::start) else {
            return Err(guest.ended(Close::Stopping));
        };
        let origin = Origin {
            conn: client.id,
            client: peer,
            ours: road.nat.translate(ours),
            transport: guest.traffic.transport,
            obfuscated,
            ad_tag: road.ad_tag,
        };
        Ok(Session {
            client,
            link: None,
            origin,
            set: set.cloned(),
            guest,
        })
    }

    /// Ends it, for `reason` unless there was another one before; says which.
    pub fn end(mut self, reason: Close) -> Close {
        let reason = self.client.ending().unwrap_or(reason);
        self.client.end(reason);
        // Before it leaves the registry: whoever sees the client gone sees it counted.
        self.guest.ended(reason)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.client.end(Close::Panicked);
            self.guest.ended(Close::Panicked);
        }
        registry::remove(&self.client);
    }
}
