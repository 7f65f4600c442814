//! What goes down to a client: sent at once as far as its socket takes it, the rest by a writer, a client
//! thread that is borrowed until nothing waits. The threads of middle proxies call [`put`], which
//! never blocks.

use std::io::{ErrorKind, IoSlice};
use std::sync::Arc;

use mtproxy::limits::{CLIENT_SEND_STEP, WEB_WRITE};

use super::memory::relieve;
use super::outbox::Delivery;
use super::registry::Client;
use crate::base::buffers::Buffer;
use crate::base::{net, threads};
use crate::stats::{Close, STATS};

/// Delivers a framed packet; encrypts it in place if it is sent at once.
pub fn put(client: &Arc<Client>, packet: &mut [u8]) {
    let is_paced = client.traffic.account.has_rate();
    let delivery = client.outbox().deliver(&client.socket, packet, is_paced);
    settle(client, delivery);
}

/// Does what a delivery needs.
pub fn settle(client: &Arc<Client>, delivery: Delivery) {
    match delivery {
        Delivery::Done => {}
        Delivery::Queued => relieve(),
        Delivery::StartWriter => {
            let writes = client.clone();
            if !threads::run(Box::new(move || run(&writes))) {
                client.end(Close::NoThread);
            }
            relieve();
        }
        Delivery::Flood => {
            STATS.connections_failed_flood.add(1);
            client.end(Close::Flood);
        }
        Delivery::Broken => client.end(Close::ClientLost),
    }
}

fn run(client: &Client) {
    // Without its writer a client would wait for ever.
    let mut result = Err(Close::Panicked);
    threads::guarded(|| result = drain(client));
    if let Err(reason) = result {
        client.end(reason);
    }
}

fn drain(client: &Client) -> Result<(), Close> {
    let is_lane = client.outbox().is_lane();
    let step = if is_lane { WEB_WRITE } else { CLIENT_SEND_STEP };
    let waits = client.socket.set_write_timeout(Some(step));
    waits.map_err(|_| Close::ClientLost)?;
    while let Some(buffer) = next(client) {
        write_all(client, buffer.filled(), is_lane)?;
        client.outbox().written(buffer.filled().len());
    }
    let drained = client.outbox().is_drained();
    if drained {
        client.close_drained();
    }
    Ok(())
}

fn next(client: &Client) -> Option<Buffer> {
    client.outbox().next() // not in the head of a loop, which would keep the lock
}

/// Writes everything. Each call returns after a while even if the client takes nothing (the socket's
/// write timeout), so that a client that is to be closed has a deadline. A lane has one always.
fn write_all(client: &Client, mut bytes: &[u8], is_lane: bool) -> Result<(), Close> {
    let account = client.traffic.account;
    while !bytes.is_empty() {
        let overdue = client.outbox().is_overdue();
        if overdue {
            return Err(Close::Stalled);
        }
        let step = account.step(bytes.len());
        match net::write_some(&client.socket, &[IoSlice::new(&bytes[..step])]) {
            Ok(n) => {
                bytes = &bytes[n..];
                account.pace(n);
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock && is_lane => return Err(Close::Stalled),
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            Err(_) => return Err(Close::ClientLost),
        }
    }
    Ok(())
}
