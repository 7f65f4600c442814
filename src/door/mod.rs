//! The door: who comes in, and which way they go. [`serve`] is a connection's life from its first byte
//! to its end; a thread of its own runs it.
//!
//! Until [`identify`] has found a client, every byte is a stranger's: `header` and `tls` read them
//! against deadlines, in places of their own (`admission`), and who proves no secret is shown the mask
//! site (`mask`, `visitors`) or nothing at all.

pub mod accept;
pub mod admission;
pub mod closing;
pub mod header;
mod limited;
mod mask;
pub mod probe;
pub mod proxied;
mod rate;
pub mod replay;
pub mod rules;
pub mod sites;
mod tls;
pub mod visitors;

use mtproxy::limits::READ_SMALL;

use crate::base::gauge::Gauge;
use crate::base::log;
use crate::middle::http;
use crate::stats::{Close, Guest};
use crate::stream::ClientStream;
use admission::Newcomer;
use header::Found;
use rules::{Fallback, Road, Rules};

/// Serves one connection to its end.
pub fn serve(rules: &Rules, mut newcomer: Newcomer) {
    let announced = match rules.fronts.is_empty() {
        true => Ok(()),
        false => proxied::identify(&mut newcomer),
    };
    let peer = newcomer.peer;
    let result = match announced {
        Ok(()) => live(rules, newcomer),
        Err(reason) => Err(reason.counted()),
    };
    if let Err(reason) = result
        && log::verbosity() > 0
    {
        let reason = reason.word();
        log::event(format_args!("client_closed peer={peer} reason={reason}"));
    }
}

/// Serves it; an error is why one ended that was no client. The end of a client is logged where it is counted.
///
/// An idle client's thread keeps the deepest stack that it ever used, so what only a part of a
/// client's life needs is not inlined here.
fn live(rules: &Rules, mut newcomer: Newcomer) -> Result<(), Close> {
    let mut small = [0; READ_SMALL];
    let found = identify(&mut newcomer, rules, &mut small);
    let peer = newcomer.peer;
    let stream = match found {
        Found::Client(stream) => stream,
        Found::Stranger(stranger) => return Err(mask::show(rules, newcomer, stranger)),
        Found::Http(first) => {
            // No secret is set: nothing is to be proven.
            let Road::Middle(middle, _) = &rules.road else {
                return Err(http::refuse(newcomer.socket(), first));
            };
            let (socket, _place) = newcomer.into_client().map_err(Close::counted)?;
            http::serve(middle, (socket, peer), first);
            return Ok(());
        }
        Found::Ended(reason) => return Err(reason.counted()),
    };

    serve_client(rules, newcomer, stream)
}

/// Serves a client to its end: from here on a secret is proven. An error is why it is none.
pub fn serve_client(rules: &Rules, newcomer: Newcomer, stream: ClientStream) -> Result<(), Close> {
    let peer = newcomer.peer;
    let (socket, _place) = newcomer.into_client().map_err(Close::counted)?;
    let accepted = &stream.layers.accepted;
    let owner = rules.owner(accepted.secret_index);
    let _listed = limited::enter(owner.0, &socket);
    let guest = Guest::enter(owner, peer, accepted.dc, Some(accepted.transport));
    let guest = guest.map_err(|refused| {
        stream.layers.wrap().farewell(&socket);
        refused.counted()
    })?;
    match &rules.road {
        Road::Direct(direct) => direct.serve(socket, stream, guest),
        Road::Middle(middle, fallback) => {
            let set = middle.dcs.route(accepted.dc);
            let is_down = set.is_some_and(|set| set.is_down());
            if let Some(Fallback {
                direct,
                clients,
                most,
            }) = fallback.as_ref().filter(|_| is_down)
                && let Some(_place) = Gauge::try_enter(&**clients, *most)
            {
                direct.serve(socket, stream, guest);
            } else {
                middle.serve((socket, peer), set, stream, guest);
            }
        }
    }
    Ok(())
}

/// Reads a connection's first bytes until it shows who it is. A client's header is in `small` then, and
/// what came behind it.
#[inline(never)] // as above
fn identify<'a>(
    newcomer: &mut Newcomer,
    rules: &'a Rules,
    small: &'a mut [u8; READ_SMALL],
) -> Found<'a> {
    match &rules.tls {
        Some(fake_tls) => tls::enter(newcomer, rules, fake_tls, small),
        None => header::enter(newcomer, rules, small),
    }
}
