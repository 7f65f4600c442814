//! Packets in HTTP requests (protocol.md 10.3): what middle proxies are told of them, what clients get,
//! and that nobody is served so where a secret is set. curl is the client where it is there.

use crate::support::http::{
    Answer, Figures, SERVING, ask, next_answer, next_packet, stats_address, wait_for,
};
use crate::support::message::{Command, Message, unencrypted};
use crate::support::middle_proxy::{MiddleProxy, Options};
use crate::support::programs::run;
use crate::support::proxy::{Files, Proxy, Setup};
use crate::support::random::Stream;
use crate::support::rig::Rig;
use crate::support::rpc::{self, AD_TAG, HTTP, Request, UNENCRYPTED};
use crate::support::sockets::{dial, expect_closed};
use std::io::{Read, Write};
use std::net::{Ipv6Addr, Shutdown, TcpStream};

/// A middle proxy behind a proxy without secrets. The proxy goes first when they are dropped.
struct Open {
    proxy: Proxy,
    middle: MiddleProxy,
}

impl Open {
    fn start(arguments: &[&str]) -> Open {
        let middle = MiddleProxy::start(Options::default());
        let mut setup = Setup::new(format!("default 2;\n{}", middle.config_line(2)));
        let all = [&SERVING[..], arguments].concat();
        setup.arguments = all.into_iter().map(str::to_owned).collect();
        Open {
            proxy: Proxy::start(&setup),
            middle,
        }
    }

    fn dial(&self) -> TcpStream {
        dial(self.proxy.address())
    }

    /// The answer to the only request of a connection, and the end behind it.
    fn ask(&self, request: &[u8]) -> Answer {
        ask(self.proxy.address(), request)
    }

    fn figures(&self) -> Figures {
        Figures::of_stats(stats_address(&self.proxy))
    }
}

fn post(fields: &str, message: &[u8]) -> Vec<u8> {
    post_to("/api", fields, message)
}

fn post_to(target: &str, fields: &str, message: &[u8]) -> Vec<u8> {
    let length = message.len();
    let head = format!("POST {target} HTTP/1.1\r\nContent-Length: {length}\r\n{fields}\r\n");
    [head.as_bytes(), message].concat()
}

const KEEP: &str = "Connection: keep-alive\r\n";

fn send(mut stream: &TcpStream, bytes: &[u8]) {
    stream.write_all(bytes).expect("send");
}

/// The answer to a packet that comes back.
fn expect_back(stream: &TcpStream, message: &[u8]) -> Answer {
    let (answer, body) = next_packet(stream).expect("an answer");
    assert_eq!(answer.status(), 200, "{}", answer.head);
    assert!(body == message, "another packet than was sent");
    answer
}

fn swallowed() -> (u32, Vec<u8>) {
    let tag = Message::echo(0).tag;
    (tag, Message::new(Command::Swallow, tag).encode())
}

#[test]
fn curl_posts_a_req_pq_and_gets_its_answer() {
    let open = Open::start(&[]);
    let files = Files::new();
    let message = unencrypted();
    let data = format!("@{}", files.write("req_pq", &message));
    let output = files.write("answer", b"");
    let url = format!("http://{}/apiw1", open.proxy.address());
    let arguments = [
        "-sS",
        "--noproxy",
        "*",
        "-o",
        &output,
        "-D",
        "-",
        "--data-binary",
        &data,
        "-A",
        "ua/1",
        "-e",
        "http://b.example/page",
        "-H",
        "Origin: https://a.example",
        &url,
    ];
    let Some(ended) = run("curl", &arguments, b"") else {
        return;
    };
    let head = String::from_utf8_lossy(&ended.stdout).into_owned();
    assert!(
        ended.status.success() && head.starts_with("HTTP/1.1 200 OK\r\n"),
        "{head}"
    );
    assert!(
        head.contains("\r\nContent-Type: application/octet-stream\r\n"),
        "{head}"
    );
    assert!(
        head.contains("\r\nAccess-Control-Allow-Origin: *\r\n"),
        "{head}"
    );
    assert_eq!(std::fs::read(&output).expect("curl's output"), message);
    let request = open.middle.request_of(&message);
    assert_eq!(request.flags, HTTP | UNENCRYPTED);
    let wanted = ["https://a.example", "http://b.example/page", "ua/1"];
    assert_eq!(request.http, Some(wanted.map(str::to_owned)));
    let local = Ipv6Addr::from_bits(0xffff_7f00_0001);
    assert_eq!((request.client.0, request.our.0), (local, local));
    assert_eq!(request.our.1, u32::from(open.proxy.address().port()));
    assert!(![0, request.our.1].contains(&request.client.1));
    open.middle.wait_for_close(request.conn_id);
}

#[test]
fn a_browser_asks_whether_it_may() {
    let open = Open::start(&[]);
    let preflight = |target: &str, keep: &str| {
        format!(
            "OPTIONS {target} HTTP/1.1\r\nHost: a\r\nOrigin: https://web.example\r\n{keep}\
             Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: content-type\r\n\r\n"
        )
    };
    let stream = open.dial();
    let message = unencrypted();
    let both = [
        preflight("/apiw1", KEEP).as_bytes(),
        &post_to("/apiw1", "", &message),
    ]
    .concat();
    send(&stream, &both);
    let answer = next_answer(&stream).expect("an answer");
    assert_eq!((answer.status(), answer.body.as_str()), (200, ""));
    for (name, wanted) in [
        ("Content-Type", "text/plain"),
        ("Connection", "keep-alive"),
        ("Cache-Control", "no-store"),
        ("Pragma", "no-cache"),
        ("Access-Control-Allow-Origin", "*"),
        ("Access-Control-Allow-Methods", "POST, OPTIONS"),
        ("Access-Control-Allow-Headers", "origin, content-type"),
        ("Access-Control-Max-Age", "1728000"),
    ] {
        assert_eq!(answer.field(name), Some(wanted), "{name}");
    }
    let answer = expect_back(&stream, &message);
    assert_eq!(answer.field("Access-Control-Max-Age"), Some("1728000"));
    assert_eq!(answer.field("Connection"), Some("close"));
    expect_closed(&stream);
    let answer = open.ask(preflight("/api", "").as_bytes());
    assert_eq!(answer.field("Access-Control-Allow-Origin"), None);
    assert_eq!(answer.field("Cache-Control"), Some("no-store"));
}

#[test]
fn what_is_no_packet_is_refused() {
    let open = Open::start(&[]);
    for (request, wanted) in [
        ("GET /api HTTP/1.1\r\n\r\n", 501),
        ("POST /api HTTP/1.1\r\n\r\n", 411),
        (
            "POST /api HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
            501,
        ),
        ("POST /api HTTP/1.1\r\nContent-Length: 0\r\n\r\n", 404),
        ("POST /api HTTP/1.1\r\nContent-Length: 42\r\n\r\n", 404),
        ("POST /api HTTP/1.1\r\nContent-Length: 1044480\r\n\r\n", 413),
        ("POST /ap HTTP/1.1\r\nContent-Length: 4\r\n\r\n", 404),
        (
            "POST /api12345678901 HTTP/1.1\r\nContent-Length: 4\r\n\r\n",
            414,
        ),
        ("OPTIONS / HTTP/1.1\r\n\r\n", 404),
        (
            "OPTIONS /api HTTP/1.1\r\nContent-Length: 4\r\n\r\nabcd",
            413,
        ),
        // Nothing that Telegram takes.
        ("POST /api HTTP/1.1\r\nContent-Length: 4\r\n\r\nabcd", 404),
        ("POST /api HTTP/1.1\r\nno colon\r\n\r\n", 400),
        ("POST  /api HTTP/1.1\r\n\r\n", 400),
    ] {
        let answer = open.ask(request.as_bytes());
        assert_eq!(answer.status(), wanted, "{request:?}");
        assert_eq!(answer.field("Connection"), Some("close"));
    }
    let long = [&b"POST /api HTTP/1.1\r\nA: "[..], &[b'b'; 1 << 16]].concat();
    assert_eq!(open.ask(&long).status(), 400);
    let ended = |figures: &Figures| figures.number("closed_http_refused") == 14;
    let figures = wait_for(|| open.figures(), "the ends", ended);
    figures.expect(&[
        ("http_bad_headers", 3),
        ("http_queries", 0),
        ("filtered_queries", 1),
        ("tot_forwarded_queries", 0),
    ]);
    assert_eq!(open.middle.with(|state| state.requests.len()), 0);
}

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

#[test]
fn a_near_web_server_says_who_the_client_is() {
    let open = Open::start(&[]);
    let from = |fields: &str| -> Request {
        let message = unencrypted();
        let stream = open.dial();
        send(&stream, &post(fields, &message));
        expect_back(&stream, &message);
        open.middle.request_of(&message)
    };
    let v4 = from("X-Real-IP: 192.0.2.7\r\nX-Real-Port: 4711\r\n");
    let mapped = Ipv6Addr::from_bits(0xffff_c000_0207);
    assert_eq!(v4.client, (mapped, 4_711));
    let v6 = from("x-real-ip: 2001:db8::5\r\nx-real-port: 1\r\n");
    assert_eq!(v6.client, ("2001:db8::5".parse().expect("an address"), 1));
    let wrong = from("X-Real-IP: nobody\r\n");
    assert_eq!(wrong.client.0, Ipv6Addr::from_bits(0xffff_7f00_0001));
}

#[test]
fn errors_become_statuses() {
    let open = Open::start(&[]);
    for (code, wanted) in [(-404_i32, 404), (-429, 429), (-444, 444), (7, 500)] {
        let message = Message {
            a: code.cast_unsigned(),
            ..Message::new(Command::Error, 0)
        };
        let answer = open.ask(&post_to("/apiw", KEEP, &message.encode()));
        assert_eq!(answer.status(), wanted);
        assert_eq!(answer.field("Connection"), Some("close"));
        assert_eq!(answer.field("Access-Control-Allow-Origin"), Some("*"));
    }
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

#[test]
fn where_a_secret_is_set_nobody_is_served() {
    let rig = Rig::start();
    let stream = dial(rig.proxy.address());
    send(&stream, &post("", &unencrypted()));
    expect_closed(&stream);
    assert_eq!(rig.middle.with(|state| state.requests.len()), 0);
    assert_eq!(rig.proxy.stop().count("closed_no_secret_fits"), 1);
}

#[test]
fn where_only_padded_packets_are_served_nobody_is() {
    let open = Open::start(&["-R"]);
    let stream = open.dial();
    send(&stream, &post("", &unencrypted()));
    expect_closed(&stream);
    assert_eq!(open.middle.with(|state| state.requests.len()), 0);
}

#[test]
fn direct_mode_answers_501() {
    let arguments = ["--direct", "--open", "-H", "0"].map(str::to_owned);
    let proxy = Proxy::start_with(&arguments);
    for request in [
        &post(KEEP, &unencrypted())[..],
        b"OPTIONS /apiw HTTP/1.1\r\n\r\n",
    ] {
        assert_eq!(ask(proxy.address(), request).status(), 501);
    }
    assert_eq!(proxy.stop().count("closed_http_refused"), 2);
}
