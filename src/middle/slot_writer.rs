//! Requests on their way up to a middle proxy: whatever waits in the channel is sealed in place, one
//! cipher chain, and leaves in one vectored write. Also sends our pings.

use std::io::{ErrorKind, IoSlice, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use mtproxy::limits::{BACKEND_SEND_STEPS, WRITE_BATCH, WRITE_BATCH_BYTES};
use mtproxy::proto::middle::frame::{FRAME_HEAD, FrameWriter};
use mtproxy::proto::rpc;

use crate::base::buffers::Buffer;
use crate::base::sys;
use crate::middle::link::{Intake, Lost};
use crate::middle::slot::Connection;
use crate::stats::STATS;

/// Writes until the connection ends.
pub fn run(connection: &Connection, intake: &Intake, mut frames: FrameWriter, socket: &TcpStream) {
    let mut batch = Vec::with_capacity(WRITE_BATCH);
    let mut next_ping = ping_time(connection.ping_interval);
    loop {
        let first = match intake.next(next_ping) {
            Ok(Some(message)) => message,
            Ok(None) => {
                next_ping = ping_time(connection.ping_interval);
                STATS.backend_pings_sent.add(1);
                intake.pinged();
                Buffer::with_bytes(
                    FRAME_HEAD,
                    &rpc::ping(sys::random_array().unwrap_or_default()),
                )
            }
            Err(Lost) => return,
        };
        collect(intake, first, &mut batch);
        let sealed = batch.iter_mut().all(|message| seal(&mut frames, message));
        if !sealed {
            return; // the empty message: the link is closed
        }
        match write_all(socket, &batch) {
            Ok(()) => batch.clear(),
            Err(reason) => {
                let _ = connection.reason.set(reason);
                return;
            }
        }
    }
}

/// `first` and what waits behind it, as far as one write takes it.
fn collect(intake: &Intake, first: Buffer, batch: &mut Vec<Buffer>) {
    let mut bytes = first.filled.len();
    batch.push(first);
    while batch.len() < WRITE_BATCH && bytes < WRITE_BATCH_BYTES {
        let Some(message) = intake.more() else { break };
        bytes += message.filled.len();
        batch.push(message);
    }
}

/// Turns the filled part from a payload into wire bytes.
fn seal(frames: &mut FrameWriter, message: &mut Buffer) -> bool {
    let payload = message.filled.clone();
    match frames.seal(message, payload) {
        Some(wire) => {
            message.filled = wire;
            true
        }
        None => false,
    }
}

fn write_all(mut socket: &TcpStream, batch: &[Buffer]) -> Result<(), &'static str> {
    let mut slices = [IoSlice::new(&[]); WRITE_BATCH];
    for (slice, message) in slices.iter_mut().zip(batch) {
        *slice = IoSlice::new(message.filled());
    }
    let mut rest = &mut slices[..batch.len()];
    let mut stalled = 0;
    while !rest.is_empty() {
        match socket.write_vectored(rest) {
            Ok(0) => return Err("write"),
            Ok(n) => {
                stalled = 0;
                IoSlice::advance_slices(&mut rest, n);
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
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
