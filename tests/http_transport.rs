//! Packets in HTTP requests (protocol.md 10.3): what middle proxies are told of them, what clients get,
//! and that nobody is served so where a secret is set. curl is the client where it is there.

use crate::support::http::{Figures, ask, next_answer, wait_for};
use crate::support::http_post::{KEEP, Open, expect_back, post, post_to, send};
use crate::support::message::{Command, Message, unencrypted};
use crate::support::programs::run;
use crate::support::proxy::{Files, Proxy};
use crate::support::rig::Rig;
use crate::support::rpc::{HTTP, Request, UNENCRYPTED};
use crate::support::sockets::{dial, expect_closed};
use std::net::Ipv6Addr;

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
    let arguments = ["--direct", "--open", "-H", "0"];
    let proxy = Proxy::start_with(&arguments);
    for request in [
        &post(KEEP, &unencrypted())[..],
        b"OPTIONS /apiw HTTP/1.1\r\n\r\n",
    ] {
        assert_eq!(ask(proxy.address(), request).status(), 501);
    }
    assert_eq!(proxy.stop().count("closed_http_refused"), 2);
}
