//! Connections of HTTP clients: one request at a time, kept or closed, and their ends.

use crate::support::http::{Figures, next_answer, wait_for};
use crate::support::http_post::{KEEP, Open, expect_back, post, send, swallowed};
use crate::support::message::{Command, Message, unencrypted};
use crate::support::random::Stream;
use crate::support::rpc::{self, AD_TAG, HTTP};
use crate::support::sockets::expect_closed;
use std::io::Read;
use std::net::Shutdown;

#[test]
fn a_kept_connection_has_a_new_id_for_each_request() {
    let open = Open::start(&["-P", "0123456789abcdef0123456789abcdef"]);
    let stream = open.dial();
    let mut ids = Vec::new();
    for length in [0, 1_000, 300_000, 12] {
        let message = Message::echo(length);
        // In two pieces.
        let (first, second) = (post(KEEP, &message.encode()), message.encode().len() / 2);
        let (first, second) = first.split_at(first.len() - second);
        send(&stream, first);
        send(&stream, second);
        let answer = expect_back(&stream, &message.encode());
        assert_eq!(answer.field("Connection"), Some("keep-alive"));
        let request = open.middle.request(message.tag);
        assert_eq!(request.flags, HTTP | AD_TAG);
        assert_eq!(request.http, Some([const { String::new() }; 3]));
        assert!(!ids.contains(&request.conn_id), "an id came back");
        open.middle.wait_for_close(request.conn_id);
        ids.push(request.conn_id);
    }
    open.figures().expect(&[
        ("http_connections", 1),
        ("pending_http_queries", 0),
        ("http_queries", 4),
        ("tot_forwarded_queries", 4),
        ("tot_forwarded_responses", 4),
        ("ext_connections", 1),
    ]);
}

#[test]
fn one_request_is_under_way_at_a_time() {
    let open = Open::start(&[]);
    let stream = open.dial();
    // Far more than is read ahead, while the first request has no answer.
    let (tag, held) = swallowed();
    let messages: Vec<Message> = (0..40).map(|length| Message::echo(length * 100)).collect();
    let mut bytes = post(KEEP, &held);
    for message in &messages {
        bytes.extend(post(KEEP, &message.encode()));
    }
    send(&stream, &bytes);
    let request = open.middle.request(tag);
    open.figures().expect(&[("pending_http_queries", 1)]);
    let link = open.middle.link_of(request.conn_id);
    open.middle.ping(&link, *b"nothing?");
    assert_eq!(open.middle.with(|state| state.requests.len()), 1);
    // The second answer to the same request is for nobody.
    let (first, second) = ([1; 8], [2; 8]);
    let answers = [first, second].map(|data| rpc::answer(request.conn_id, 0, &data));
    assert!(link.send(&[&answers[0], &answers[1]]));
    expect_back(&stream, &first);
    for message in &messages {
        expect_back(&stream, &message.encode());
    }
    let ids = open.middle.with(|state| {
        let ids = state.requests.iter().map(|request| request.conn_id);
        ids.collect::<std::collections::HashSet<u64>>().len()
    });
    assert_eq!(ids, 41);
    open.figures()
        .expect(&[("dropped_responses", 1), ("http_queries", 41)]);
}

/// More than any socket takes at once, to a client that doesn't read at first.
#[test]
fn a_long_answer_arrives_whole() {
    let open = Open::start(&[]);
    let stream = open.dial();
    let total = 12_000_000;
    let message = Message::stream(9, total, total).encode();
    send(&stream, &post(KEEP, &message));
    wait_for(
        || open.figures(),
        "the answer in the outbox",
        |figures| {
            figures.number("pending_http_queries") == 0 && figures.number("http_queries") == 1
        },
    );
    expect_back(&stream, &Stream::new(9).take(total));
    let next = unencrypted();
    send(&stream, &post("", &next));
    expect_back(&stream, &next);
    expect_closed(&stream);
}

#[test]
fn a_client_that_leaves_while_it_waits_is_gone_at_once() {
    let open = Open::start(&[]);
    for half in [Shutdown::Both, Shutdown::Write] {
        let stream = open.dial();
        let (tag, message) = swallowed();
        send(&stream, &post(KEEP, &message));
        let request = open.middle.request(tag);
        stream.shutdown(half).expect("shutdown");
        open.middle.wait_for_close(request.conn_id);
    }
    let gone = |figures: &Figures| figures.number("closed_client_gone") == 2;
    let figures = wait_for(|| open.figures(), "the ends", gone);
    figures.expect(&[("pending_http_queries", 0), ("http_connections", 0)]);
}

#[test]
fn what_middle_proxies_close_is_answered_with_500() {
    let open = Open::start(&[]);
    let close = Message::new(Command::Close, 0).encode();
    assert_eq!(open.ask(&post(KEEP, &close)).status(), 500);
    let stream = open.dial();
    let (tag, message) = swallowed();
    send(&stream, &post(KEEP, &message));
    open.middle.request(tag);
    open.middle.kill_links();
    assert_eq!(next_answer(&stream).expect("an answer").status(), 500);
    expect_closed(&stream);
    drop(stream);
    let counted = |figures: &Figures| figures.number("http_connections") == 0;
    let figures = wait_for(|| open.figures(), "the ends", counted);
    figures.expect(&[("closed_backend_closed", 1), ("closed_backend_lost", 1)]);
}

#[test]
fn a_stop_does_not_wait_for_answers() {
    let open = Open::start(&[]);
    let streams = [1, 50].map(|times| {
        let stream = open.dial();
        let (tag, message) = swallowed();
        send(&stream, &post(KEEP, &message).repeat(times));
        open.middle.request(tag);
        stream
    });
    let Open { proxy, middle } = open;
    let summary = proxy.stop();
    assert_eq!(summary.count("closed_stopping"), 2);
    streams.iter().for_each(|mut stream| {
        let read = stream.read(&mut [0; 16]);
        assert!(!matches!(read, Ok(1..)), "an answer from nowhere");
    });
    drop(middle);
}
