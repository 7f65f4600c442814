//! Requests on their way up to a middle proxy: whatever waits in the queue is sealed in place, one
//! cipher chain, and leaves in one vectored write. Also sends our pings. Runs on the slot's thread.

use std::io::{ErrorKind, IoSlice};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crossbeam_channel::RecvTimeoutError;
use mtproxy::limits::{BACKEND_SEND_STEPS, WRITE_BATCH, WRITE_BATCH_BYTES};
use mtproxy::proto::middle::frame::{FRAME_HEAD, FrameWriter};
use mtproxy::proto::rpc;

use super::link::Outgoing;
use crate::base::buffers::Buffer;
use crate::base::{net, sys};
use crate::stats::STATS;

/// Writes until the connection ends; says why, unless that is known already.
pub fn run(outgoing: &Outgoing, mut frames: FrameWriter, ping_interval: Duration) -> &'static str {
    let mut batch = Vec::with_capacity(WRITE_BATCH);
    let mut next_ping = ping_time(ping_interval);
    loop {
        let first = match outgoing.next(next_ping) {
            Ok(message) => message,
            Err(RecvTimeoutError::Timeout) => {
                next_ping = ping_time(ping_interval);
                STATS.backend_pings_sent.add(1);
                outgoing.pinged();
                let id = sys::random_array().unwrap_or_default();
                Buffer::with_bytes(FRAME_HEAD, &rpc::ping(id))
            }
            Err(RecvTimeoutError::Disconnected) => return "write",
        };
        collect(outgoing, first, &mut batch);
        for message in &mut batch {
            let payload = message.filled.clone();
            match frames.seal(message, payload) {
                Some(wire) => message.filled = wire,
                None => return "write",
            }
        }
        if let Err(reason) = write_all(&outgoing.link.socket, &batch) {
            return reason;
        }
        batch.clear();
    }
}

/// `first` and what waits behind it, as far as one write takes it.
fn collect(outgoing: &Outgoing, first: Buffer, batch: &mut Vec<Buffer>) {
    let mut bytes = first.filled.len();
    batch.push(first);
    while batch.len() < WRITE_BATCH && bytes < WRITE_BATCH_BYTES {
        let Some(message) = outgoing.more() else {
            break;
        };
        bytes += message.filled.len();
        batch.push(message);
    }
}

fn write_all(socket: &TcpStream, batch: &[Buffer]) -> Result<(), &'static str> {
    let mut slices = [IoSlice::new(&[]); WRITE_BATCH];
    for (slice, message) in slices.iter_mut().zip(batch) {
        *slice = IoSlice::new(message.filled());
    }
    let mut rest = &mut slices[..batch.len()];
    let mut stalled = 0;
    while !rest.is_empty() {
        match net::write_some(socket, rest) {
            Ok(n) => {
                stalled = 0;
                IoSlice::advance_slices(&mut rest, n);
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                stalled += 1;
                if stalled == BACKEND_SEND_STEPS {
                    return Err("stalled");
                }
            }
            Err(_) => return Err("write"),
        }
    }
    Ok(())
}

/// The interval less up to an eighth, so that the pings of many connections spread.
fn ping_time(interval: Duration) -> Instant {
    let [jitter] = sys::random_array().unwrap_or([0]);
    Instant::now() + interval - interval * u32::from(jitter) / 2048
}
