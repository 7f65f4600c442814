//! The life of a client, told top to bottom: accepted ([`accept`]), handshake ([`handshake`]), packets
//! up ([`reader`]), answers down (`outbox`, with [`writer`] when the client is slow), and its one
//! ending, here. The reader's thread owns all of it.

pub mod accept;
mod handshake;
mod reader;
mod writer;

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use mtproxy::limits::READ_SMALL;
use mtproxy::proto::middle::frame::FRAME_HEAD;
use mtproxy::proto::rpc::{self, Origin};
use mtproxy::proto::secret::Secret;
use mtproxy::proto::wire::AdTag;

use crate::buffers::Buffer;
use crate::dcs::Dcs;
use crate::log;
use crate::nat::NatRules;
use crate::outbox::Outbox;
use crate::registry::{self, Client};
use crate::stats::{Close, STATS};
use crate::uplink::Link;

/// What is the same for every client.
pub struct Rules {
    /// Secrets of -S; empty: everybody is let in, with raw keys.
    pub secrets: Vec<Secret>,
    /// -R
    pub padded_only: bool,
    /// -P
    pub ad_tag: Option<AdTag>,
    /// --nat-info
    pub nat: NatRules,
    /// Where clients go.
    pub dcs: Dcs,
}

/// Serves one client to its end.
fn serve(rules: &Rules, socket: TcpStream, peer: SocketAddr) {
    let reason = live(rules, socket, peer);
    reason.count();
    log::detail(format_args!(
        "client_closed peer={peer} reason={}",
        reason.word()
    ));
}

fn live(rules: &Rules, socket: TcpStream, peer: SocketAddr) -> Close {
    let mut small = [0; READ_SMALL];
    let opened = match handshake::run(&socket, rules, &mut small) {
        Ok(opened) => opened,
        Err(reason) => return reason,
    };
    let accepted = opened.accepted;
    let Ok(ours) = socket.local_addr() else {
        return Close::ClientLost;
    };
    let outbox = Outbox::new(accepted.send);
    let Some(client) = registry::insert(socket, accepted.transport, outbox, writer::start) else {
        return Close::Stopping;
    };
    STATS.ext_connections_created.add(1);
    let ours = rules.nat.translate(ours);
    let origin = Origin {
        conn: client.id,
        client: peer,
        ours,
        transport: accepted.transport,
        ad_tag: rules.ad_tag,
    };
    let session = Session {
        client,
        link: None,
        origin,
        set: rules.dcs.route(accepted.dc).cloned(),
    };
    let inbound = reader::Inbound::new(accepted.receive, &mut small, opened.pending);
    let (session, reason) = reader::run(session, inbound);
    let reason = session.client.ending().unwrap_or(reason);
    session.client.end(reason);
    reason
}

/// A client with its handshake done. Dropping it is the one ending, also when its thread panics.
struct Session {
    client: Arc<Client>,
    origin: Origin,
    set: Option<Arc<crate::dcs::Set>>,
    link: Option<Arc<Link>>,
}

impl Drop for Session {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.client.end(Close::Panicked);
            Close::Panicked.count();
        }
        registry::remove(self.client.id);
        let Some(link) = self.link.take() else { return };
        link.clients.fetch_sub(1, Ordering::Relaxed);
        if !matches!(
            self.client.ending(),
            Some(Close::BackendClosed | Close::BackendLost)
        ) {
            // The other side doesn't know yet. If this finds no room it learns from our answer to
            // the next packet that it has for this client.
            let gone = Buffer::with_bytes(FRAME_HEAD, &rpc::close_conn(self.client.id));
            if !link.try_send(gone) {
                STATS.backend_replies_dropped.add(1);
            }
        }
    }
}
