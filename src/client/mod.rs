//! The life of a client, told top to bottom: accepted ([`accept`]), handshake ([`handshake`], in fake TLS
//! [`tls`], which sends strangers to [`mask`]; without any secrets requests of [`http`] too), packets
//! up ([`reader`]), answers down (`outbox`, with [`writer`] when the client is slow), and its one
//! ending, here. The reader's thread owns all of it.

pub mod accept;
mod handshake;
mod http;
mod mask;
mod reader;
pub mod tls;
mod writer;

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use mtproxy::crypto::ctr::Ctr;
use mtproxy::limits::{DEFAULT_DC, READ_SMALL};
use mtproxy::proto::rpc::Origin;
use mtproxy::proto::secret::Secret;
use mtproxy::proto::wire::{AdTag, DcId};

use handshake::{Opened, Refused};
use tls::FakeTls;

use crate::dcs::{Dcs, Set};
use crate::handover::{Direct, Handover};
use crate::log;
use crate::nat::NatRules;
use crate::outbox::Outbox;
use crate::registry::{self, Client};
use crate::stats::{Close, Guest};
use crate::uplink::Link;

/// What is the same for every client.
pub struct Rules {
    /// Secrets of -S; empty: everybody is let in, with raw keys.
    pub secrets: Vec<Secret>,
    /// -D: fake TLS, and what is needed for it.
    pub tls: Option<FakeTls>,
    /// -R
    pub padded_only: bool,
    /// --open: clients whose streams aren't obfuscated are served, too.
    pub clear: bool,
    /// -P
    pub ad_tag: Option<AdTag>,
    /// --nat-info
    pub nat: NatRules,
    /// Middle mode: where clients go. None: direct mode.
    pub dcs: Option<Dcs>,
    /// Takes clients to their data centre without a middle proxy: all of them in direct mode; in
    /// middle mode those whose middle proxies can't be reached.
    pub direct: Option<Direct>,
    /// How many may go direct in middle mode.
    pub fallbacks: Places,
}

/// A number of places that clients take and leave.
pub struct Places(AtomicU32);

impl Places {
    /// `free` places.
    pub fn new(free: u32) -> Places {
        Places(AtomicU32::new(free))
    }

    /// Runs `body` in a place; None if there is none.
    pub fn with<R>(&self, body: impl FnOnce() -> R) -> Option<R> {
        let take = |free: u32| free.checked_sub(1);
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
            .ok()?;
        let _taken = Taken(self);
        Some(body())
    }
}

/// A place that is given back also when a bug ends the work in it.
struct Taken<'a>(&'a Places);

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Rules {
    /// The data centre of clients that name none.
    fn default_dc(&self) -> DcId {
        let direct = DcId(DEFAULT_DC as i16);
        self.dcs.as_ref().map_or(direct, Dcs::default_dc)
    }

    /// The sets of middle proxies; none in direct mode.
    pub fn sets(&self) -> impl Iterator<Item = &Arc<Set>> {
        self.dcs.iter().flat_map(|dcs| &dcs.sets)
    }
}

/// Serves one client to its end.
fn serve(rules: &Rules, socket: TcpStream, peer: SocketAddr) {
    let reason = live(rules, socket, peer);
    log::detail(format_args!(
        "client_closed peer={peer} reason={}",
        reason.word()
    ));
}

/// An idle client's thread keeps the deepest stack that it ever used, so what only a part of a
/// client's life needs is not inlined here.
fn live(rules: &Rules, socket: TcpStream, peer: SocketAddr) -> Close {
    let mut small = [0; READ_SMALL];
    let opened = match handshake::run(&socket, rules, &mut small) {
        Ok(opened) => Ok(opened),
        Err(Refused::Ended(reason)) => return reason.counted(),
        Err(Refused::Stranger(stranger)) => return mask::show(rules, socket, peer, stranger),
        Err(Refused::Http(start)) => Err(start),
    };
    let opened = match opened {
        Ok(opened) => opened,
        Err(start) => return http::serve(rules, (socket, peer), &mut small, start),
    };
    let Opened {
        accepted,
        pending,
        tls,
    } = opened;
    let Some(guest) = Guest::enter(accepted.secret_index, accepted.dc, accepted.transport) else {
        return Close::SecretFull.counted();
    };
    let client = Handover {
        socket,
        accepted,
        small: &mut small,
        pending,
        tls,
        guest,
    };
    let Some(dcs) = &rules.dcs else {
        return rules
            .direct
            .as_ref()
            .map_or(Close::UnknownDc, |direct| direct(client));
    };
    let set = dcs.route(client.accepted.dc);
    in_middle_mode(rules, client, peer, set)
}

/// Through a middle proxy, or direct if none could be reached for long.
#[inline(never)]
fn in_middle_mode(
    rules: &Rules,
    client: Handover,
    peer: SocketAddr,
    set: Option<&Arc<Set>>,
) -> Close {
    let mut client = Some(client);
    if let Some(direct) = &rules.direct
        && set.is_some_and(|set| set.is_down())
        && let Some(end) = rules.fallbacks.with(|| client.take().map(direct)).flatten()
    {
        return end;
    }
    client.map_or(Close::Stopping, |client| {
        through_middle_proxy(rules, client, peer, set)
    })
}

#[inline(never)]
fn through_middle_proxy(
    rules: &Rules,
    client: Handover,
    peer: SocketAddr,
    set: Option<&Arc<Set>>,
) -> Close {
    let Handover {
        socket,
        accepted,
        small,
        pending,
        tls,
        guest,
    } = client;
    let Ok(ours) = socket.local_addr() else {
        return Close::ClientLost.counted();
    };
    let cipher = accepted.send.as_ref().map_or_else(Ctr::clear, Ctr::new);
    let outbox = Outbox::new(cipher, tls.is_some());
    let Some(client) = registry::insert(socket, guest.0, outbox, writer::start) else {
        return Close::Stopping.counted();
    };
    let origin = Origin {
        conn: client.id,
        client: peer,
        ours: rules.nat.translate(ours),
        transport: accepted.transport,
        obfuscated: accepted.send.is_some(),
        ad_tag: rules.ad_tag,
    };
    let session = Session {
        client,
        link: None,
        origin,
        set: set.cloned(),
    };
    let inbound = reader::Inbound::new(accepted.receive, tls, small, pending);
    let (session, reason) = reader::run(session, inbound);
    let reason = session.client.ending().unwrap_or(reason);
    session.client.end(reason);
    // Before the session is dropped: whoever sees the client gone sees it counted.
    reason.counted()
}

/// A client with its handshake done. Dropping it is the one ending, also when its thread panics.
struct Session {
    client: Arc<Client>,
    origin: Origin,
    set: Option<Arc<Set>>,
    link: Option<Arc<Link>>,
}

impl Drop for Session {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.client.end(Close::Panicked);
            Close::Panicked.counted();
        }
        registry::remove(&self.client);
    }
}
