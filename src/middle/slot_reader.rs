//! A middle proxy's answers on their way down: read, decrypt, check, and to the client that they are
//! for. This thread serves many clients, so it never waits for one, nor for its own writer.

use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use mtproxy::crypto::random::Random;
use mtproxy::proto::middle::frame::{FRAME_HEAD, FRAME_TAIL, FrameReader};
use mtproxy::proto::rpc::{self, FromMiddle};
use mtproxy::proto::transport::Transport;
use mtproxy::proto::wire::ConnId;

use crate::base::buffers;
use crate::base::buffers::Buffer;
use crate::base::gauge::Counter;
use crate::base::{sys, threads};
use crate::middle::dial::frame_word;
use crate::middle::link::Link;
use crate::middle::registry;
use crate::middle::slot::Connection;
use crate::stats::{Close, STATS};

/// What the reader's thread owns.
pub struct Reading {
    connection: Arc<Connection>,
    link: Arc<Link>,
    socket: Arc<TcpStream>,
    frames: FrameReader,
}

impl Reading {
    pub fn new(
        connection: Arc<Connection>,
        link: Arc<Link>,
        socket: Arc<TcpStream>,
        frames: FrameReader,
    ) -> Reading {
        Reading {
            connection,
            link,
            socket,
            frames,
        }
    }
}

/// Reads until the connection ends, and ends it.
pub fn run(mut reading: Reading) {
    let (connection, link) = (reading.connection.clone(), reading.link.clone());
    // The first size is there for every connection; only growth counts against the budget.
    let first = reading.frames.capacity();
    let mut capacity = first;
    let mut reason = "panic";
    threads::guarded(|| reason = read_all(&mut reading, &mut capacity));
    buffers::resized(capacity, first);
    connection.end(&link, reason);
}

fn read_all(reading: &mut Reading, capacity: &mut usize) -> &'static str {
    let Ok(seed) = sys::random_array() else {
        return "random";
    };
    let mut random = Random::new(&seed);
    loop {
        // First what came behind the handshake in one piece.
        loop {
            match reading.frames.take() {
                Ok(Some(frame)) => {
                    handle(&reading.connection, &reading.link, frame, &mut random);
                }
                Ok(None) => break,
                Err(error) => return frame_word(error),
            }
        }
        let space = reading.frames.space();
        match (&*reading.socket).read(space) {
            Ok(0) => return "closed",
            Ok(n) => reading.frames.received(n),
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                // Silence for longer than a ping and its answer take.
                if reading.connection.answers_pings.load(Ordering::Relaxed) {
                    return "silent";
                }
                continue;
            }
            Err(_) => return "broken",
        }
        if reading.frames.capacity() != *capacity {
            buffers::resized(*capacity, reading.frames.capacity());
            *capacity = reading.frames.capacity();
        }
    }
}

fn handle(connection: &Connection, link: &Link, frame: &mut [u8], random: &mut Random) {
    let payload = &frame[FRAME_HEAD..frame.len() - FRAME_TAIL];
    match rpc::decode(payload) {
        FromMiddle::Answer {
            conn,
            data,
            is_error,
        } => match registry::find(conn, link.id) {
            Some(client) if data.is_empty() || client.ending().is_some() => {}
            Some(client) => {
                client.traffic.answers.add(1);
                client.traffic.answer_bytes.add(data.len() as u64);
                if client.traffic.transport == Transport::Http {
                    return client.answer(conn, &payload[data], is_error);
                }
                client.deliver(
                    frame,
                    FRAME_HEAD + data.start..FRAME_HEAD + data.end,
                    random.next_u32(),
                );
            }
            None => unknown(link, conn, &STATS.dropped_responses),
        },
        FromMiddle::SimpleAck { conn, confirm } => match registry::find(conn, link.id) {
            Some(client) => {
                STATS.tot_forwarded_simple_acks.add(1);
                client.acknowledge(confirm, random.next_u32());
            }
            None => unknown(link, conn, &STATS.dropped_simple_acks),
        },
        FromMiddle::CloseExt { conn } => {
            if let Some(client) = registry::find(conn, link.id)
                && !client.fail(Close::BackendClosed)
            {
                client.finish(Close::BackendClosed);
            }
        }
        FromMiddle::Ping(id) => reply(link, &rpc::pong(id)),
        FromMiddle::Pong => {
            STATS.backend_pongs_received.add(1);
            link.ponged();
            connection.answers_pings.store(true, Ordering::Relaxed);
        }
        FromMiddle::Other => {}
    }
}

/// An answer for nobody: the middle proxy is told that the client is gone.
fn unknown(link: &Link, conn: ConnId, counter: &Counter) {
    counter.add(1);
    reply(link, &rpc::close_conn(conn));
}

fn reply(link: &Link, payload: &[u8]) {
    if !link.try_send(Buffer::with_bytes(FRAME_HEAD, payload)) {
        STATS.backend_replies_dropped.add(1);
    }
}
