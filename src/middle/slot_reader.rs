//! A middle proxy's answers on their way down: read, decrypt, check, and to the client that they are
//! for. This thread serves many clients, so it never waits for one, nor for its own writer.

use std::ops::Range;
use std::sync::atomic::Ordering;

use mtproxy::crypto::random::Random;
use mtproxy::proto::middle::frame::{FRAME_HEAD, FRAME_TAIL, FrameReader};
use mtproxy::proto::rpc::{self, FromMiddle};
use mtproxy::proto::transport::MAX_QUICK_ACK;
use mtproxy::proto::wire::ConnId;

use super::dial::frame_word;
use super::link::Link;
use super::{http, registry, writer};
use crate::base::buffers::{self, Buffer};
use crate::base::gauge::Counter;
use crate::base::{net, sys, threads};
use crate::stats::{Close, STATS};

/// Reads until the connection ends, and ends it.
pub fn run(link: &Link, mut frames: FrameReader) {
    // The first size is there for every connection; only growth counts against the budget.
    let first = frames.capacity();
    let mut capacity = first;
    let mut reason = "panic";
    threads::guarded(|| reason = read_all(link, &mut frames, &mut capacity));
    buffers::resized(capacity, first);
    link.close(reason);
}

fn read_all(link: &Link, frames: &mut FrameReader, capacity: &mut usize) -> &'static str {
    let Ok(seed) = sys::random_array() else {
        return "random";
    };
    let mut random = Random::new(&seed);
    loop {
        // First what came behind the handshake in one piece.
        loop {
            match frames.take() {
                Ok(Some(frame)) => handle(link, frame, &mut random),
                Ok(None) => break,
                Err(error) => return frame_word(error),
            }
        }
        if !buffers::may_receive(*capacity, frames.next_capacity()) {
            STATS.backend_frames_refused.add(1);
            return "memory";
        }
        match net::read_soon(&link.socket, frames.space()) {
            Ok(Some(0)) => return "closed",
            Ok(Some(n)) => frames.received(n),
            // Silence for longer than a ping and its answer take.
            Ok(None) if link.round_trip().is_some() => return "silent",
            Ok(None) => continue,
            Err(_) => return "broken",
        }
        if frames.capacity() != *capacity {
            buffers::resized(*capacity, frames.capacity());
            *capacity = frames.capacity();
        }
    }
}

fn handle(link: &Link, frame: &mut [u8], random: &mut Random) {
    match rpc::decode(&frame[FRAME_HEAD..frame.len() - FRAME_TAIL]) {
        FromMiddle::Answer {
            conn,
            data,
            is_error,
        } => {
            let data = FRAME_HEAD + data.start..FRAME_HEAD + data.end;
            answer(link, (conn, is_error), frame, data, random.next_u32());
        }
        FromMiddle::SimpleAck { conn, confirm } => match registry::find(conn, link) {
            Some(client) => {
                STATS.tot_forwarded_simple_acks.add(1);
                if let Some(transport) = client.traffic.transport {
                    let mut ack = [0; MAX_QUICK_ACK];
                    let len = transport.quick_ack(confirm, random.next_u32(), &mut ack);
                    writer::put(&client, &mut ack[..len]);
                }
            }
            None => unknown(link, conn, &STATS.dropped_simple_acks),
        },
        FromMiddle::CloseExt { conn } => {
            if let Some(client) = registry::find(conn, link)
                && !http::fail(&client, Close::BackendClosed)
            {
                client.finish(Close::BackendClosed);
            }
        }
        FromMiddle::Ping(id) => reply(link, &rpc::pong(id)),
        FromMiddle::Pong => {
            STATS.backend_pongs_received.add(1);
            link.ponged();
        }
        FromMiddle::Other => {}
    }
}

/// A packet for a client lies at `data` in the frame, with room around it for the client's framing.
fn answer(
    link: &Link,
    (conn, is_error): (ConnId, bool),
    frame: &mut [u8],
    data: Range<usize>,
    random: u32,
) {
    let Some(client) = registry::find(conn, link) else {
        return unknown(link, conn, &STATS.dropped_responses);
    };
    if data.is_empty() || client.ending().is_some() {
        return;
    }
    if let Err(reason) = client.traffic.account.spend(data.len()) {
        return client.finish(reason);
    }
    client.traffic.answers.add(1);
    client.traffic.answer_bytes.add(data.len() as u64);
    link.has_answered.store(true, Ordering::Relaxed);
    let Some(transport) = client.traffic.transport else {
        return http::answer(&client, conn, &frame[data], is_error);
    };
    if let Some(place) = transport.frame_in_place(frame, data, random) {
        writer::put(&client, &mut frame[place]);
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
