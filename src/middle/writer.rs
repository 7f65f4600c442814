//! A slow client's writer: takes from the outbox what the socket did not take at once, until nothing
//! waits. It is a client thread that is borrowed for the time.

use std::io::{ErrorKind, Write};
use std::sync::Arc;

use mtproxy::limits::{CLIENT_SEND_STEP, CLOSE_DRAIN};

use crate::base::threads;
use crate::middle::outbox::Next;
use crate::middle::registry::Client;
use crate::stats::Close;

/// Starts a writer; false if no thread can be had.
pub fn start(client: Arc<Client>) -> bool {
    threads::run(Box::new(move || {
        let guard = EndOnPanic(&client);
        if let Err(reason) = drain(&client) {
            client.end(reason);
        }
        std::mem::forget(guard);
    }))
}

/// Without its writer a client would wait for ever.
struct EndOnPanic<'a>(&'a Client);

impl Drop for EndOnPanic<'_> {
    fn drop(&mut self) {
        self.0.end(Close::Panicked);
    }
}

fn drain(client: &Client) -> Result<(), Close> {
    client
        .socket
        .set_write_timeout(Some(CLIENT_SEND_STEP))
        .map_err(|_| Close::ClientLost)?;
    loop {
        let next = client.outbox().next();
        match next {
            Next::Write(buffer) => {
                write_all(client, buffer.filled())?;
                client.outbox().written(buffer.filled().len());
            }
            Next::Close => {
                client.close_drained();
                return Ok(());
            }
            Next::Leave => return Ok(()),
        }
    }
}

/// Writes everything. Each call returns after a while even if the client takes nothing (the socket's
/// write timeout), so that a client that is to be closed has a deadline.
fn write_all(client: &Client, mut bytes: &[u8]) -> Result<(), Close> {
    while !bytes.is_empty() {
        let late = client
            .outbox()
            .closing_for()
            .is_some_and(|s| u64::from(s) >= CLOSE_DRAIN.as_secs());
        if late {
            return Err(Close::Stalled);
        }
        match (&client.socket).write(bytes) {
            Ok(n) => bytes = &bytes[n..],
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(_) => return Err(Close::ClientLost),
        }
    }
    Ok(())
}
