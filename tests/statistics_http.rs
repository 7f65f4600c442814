//! Statistics as HTTP: what is answered, what is refused and how, and that slow or hostile askers cost
//! little.

use crate::support::framing::Transport;
use crate::support::http::{Answer, SERVING, ask, next_answer, page, stats_address};
use crate::support::middle_proxy::Options;
use crate::support::programs::not_tested;
use crate::support::rig::Rig;
use crate::support::sockets::{dial, expect_closed, free_address, is_listening};
use crate::support::wait::{joined, until};
use std::io::{ErrorKind, Write};
use std::net::{Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

fn start(arguments: &[&str]) -> (Rig, SocketAddr) {
    let rig = Rig::with(&[&SERVING[..], arguments].concat(), Options::default());
    let address = stats_address(&rig.proxy);
    (rig, address)
}

fn statuses(address: SocketAddr, cases: &[(&str, u16)]) {
    for (request, wanted) in cases {
        let answer = ask(address, request.as_bytes());
        assert_eq!(answer.status(), *wanted, "{request:?}");
        assert_eq!(answer.field("Connection"), Some("close"), "{request:?}");
    }
}

#[test]
fn the_head_has_the_c_programs_order() {
    let (_rig, address) = start(&[]);
    let names = |answer: &Answer| {
        let lines = answer.head.lines().skip(1);
        let names = lines.map(|line| line.split(':').next().expect("a name").to_owned());
        names.collect::<Vec<String>>().join(" ")
    };
    let wanted = "Server Date Content-Type Connection Content-Length";
    for (target, kind) in [
        ("/stats", "text/plain"),
        ("/metrics", "text/plain; version=0.0.4"),
    ] {
        let answer = ask(address, format!("GET {target} HTTP/1.1\r\n\r\n").as_bytes());
        assert!(answer.head.starts_with("HTTP/1.1 200 OK\r\n"));
        assert_eq!(names(&answer), wanted);
        assert_eq!(answer.field("Server"), Some("MTProxy/1.0"));
        assert_eq!(answer.field("Content-Type"), Some(kind));
        assert!(
            answer
                .field("Date")
                .is_some_and(|date| date.ends_with(" GMT"))
        );
    }
    let answer = ask(address, b"GET / HTTP/1.1\r\n\r\n");
    assert!(answer.head.starts_with("HTTP/1.1 404 Not Found\r\n"));
    assert_eq!(names(&answer), wanted);
    assert_eq!(answer.field("Content-Type"), Some("text/html"));
    assert!(answer.body.contains("404 Not Found"));
}

#[test]
fn what_is_asked_otherwise_is_refused() {
    let (_rig, address) = start(&[]);
    statuses(
        address,
        &[
            ("GET /stats HTTP/1.0\r\n\r\n", 200),
            ("GET /stats\r\n", 200),
            ("GET /stats HTTP/1.1\nHost: a\n\n", 200),
            ("GET /stats?a=b HTTP/1.1\r\n\r\n", 404),
            ("GET /stats/ HTTP/1.1\r\n\r\n", 404),
            ("GET http://localhost/stats HTTP/1.1\r\n\r\n", 404),
            ("GET /stats HTTP/1.1\r\nContent-Length: 0\r\n\r\n", 501),
            ("GET /stats HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", 413),
            ("OPTIONS /stats HTTP/1.1\r\n\r\n", 501),
            ("POST /stats HTTP/1.1\r\n\r\n", 411),
            ("POST /stats HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", 501),
            (
                "POST /stats HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                501,
            ),
            ("GET /stats HTTP/3.0\r\n\r\n", 400),
            ("GET /stats HTTP/1.1\r\nno colon\r\n\r\n", 400),
            ("GET  /stats HTTP/1.1\r\n\r\n", 400),
            (
                "GET /stats HTTP/1.1\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n",
                404,
            ),
            (
                "GET /metrics HTTP/1.1\r\nforwarded: for=192.0.2.1\r\n\r\n",
                404,
            ),
        ],
    );
    // What doesn't begin as a request gets no word.
    for bytes in [
        "PUT /stats HTTP/1.1\r\n\r\n",
        "\r\n\r\n",
        "\x16\x03\x01\x02\0\x01",
    ] {
        let stream = dial(address);
        (&stream).write_all(bytes.as_bytes()).expect("send");
        expect_closed(&stream);
    }
}

/// An answer to HEAD is that to GET without its body, however long it says that it is.
#[test]
fn heads_are_those_of_the_pages() {
    let (_rig, address) = start(&[]);
    for (target, field, code) in [
        ("/stats", "", 200),
        ("/metrics", "", 200),
        ("/health", "", 200),
        ("/stats/", "", 404),
        ("/stats", "Forwarded: for=a\r\n", 404),
        ("/stats", "Content-Length: 0\r\n", 501),
    ] {
        let send = |method: &str| {
            let stream = dial(address);
            let request = format!("{method} {target} HTTP/1.1\r\n{field}\r\n");
            (&stream).write_all(request.as_bytes()).expect("send");
            let mut text = String::new();
            std::io::Read::read_to_string(&mut &stream, &mut text).expect("an answer and an end");
            let (head, body) = text.split_once("\r\n\r\n").expect("a head");
            (head.to_owned(), body.to_owned())
        };
        let ((got, got_body), (head, no_body)) = (send("GET"), send("HEAD"));
        assert!(
            head.starts_with(&format!("HTTP/1.1 {code} ")),
            "{target}: {head}"
        );
        assert!(no_body.is_empty() && !got_body.is_empty(), "{target}");
        // The figures, and so their length and the time, may differ.
        let names = |head: &str| -> Vec<String> {
            let names = head
                .lines()
                .map(|line| line.split(':').next().unwrap_or(line));
            names.map(str::to_owned).collect()
        };
        assert_eq!(names(&head), names(&got), "{target}");
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("Content-Length: "));
        assert_ne!(length.expect("a length"), "0", "{target}");
    }
    assert_eq!(page(address, "/health"), "ok\n");
}

#[test]
fn connections_are_kept_on_demand_and_pipelined_requests_answered_in_order() {
    let (_rig, address) = start(&[]);
    let stream = dial(address);
    let keep = |target: &str| format!("GET {target} HTTP/1.1\r\nconnection: Keep-Alive\r\n\r\n");
    for _ in 0..3 {
        (&stream)
            .write_all(keep("/stats").as_bytes())
            .expect("send");
        let answer = next_answer(&stream).expect("an answer");
        assert_eq!(answer.field("Connection"), Some("keep-alive"));
    }
    let three =
        keep("/nothing") + &keep("/metrics") + "GET /stats HTTP/1.1\r\n\r\n" + &keep("/stats");
    (&stream).write_all(three.as_bytes()).expect("send");
    let answers: Vec<Answer> = std::iter::from_fn(|| next_answer(&stream)).collect();
    let statuses: Vec<u16> = answers.iter().map(Answer::status).collect();
    assert_eq!(
        statuses,
        [404, 200, 200],
        "and nothing behind the one that closes"
    );
    assert!(answers[1].body.starts_with("# HELP mtproxy_"));
    assert!(answers[2].body.starts_with("pid\t"));
}

#[test]
fn a_request_may_come_byte_by_byte() {
    let (_rig, address) = start(&[]);
    let stream = dial(address);
    for byte in b"GET /stats HTTP/1.1\r\nHost: localhost\r\n\r\n" {
        (&stream).write_all(&[*byte]).expect("send");
    }
    assert_eq!(next_answer(&stream).expect("an answer").status(), 200);
}

/// The answer arrives although the rest was never read.
#[test]
fn an_endless_head_is_refused() {
    let (_rig, address) = start(&[]);
    let mut request = b"GET /stats HTTP/1.1\r\n".to_vec();
    request.resize(64 * 1_024, b'a');
    assert_eq!(ask(address, &request).status(), 400);
    let mut longest = b"GET /stats HTTP/1.1\r\nA: ".to_vec();
    longest.resize(16 * 1_024 - 4, b'b');
    longest.extend(b"\r\n\r\n");
    assert_eq!(ask(address, &longest).status(), 200);
}

/// Four are served at a time, for at most 10 s each.
#[test]
fn silent_askers_hold_others_up_for_a_while_only() {
    let (rig, address) = start(&[]);
    let silent: Vec<TcpStream> = (0..4).map(|_| dial(address)).collect();
    (&silent[3]).write_all(b"GET /stats HT").expect("send");
    let fifth = page(address, "/stats");
    assert!(fifth.starts_with("pid\t"));
    let ended = |stream: &TcpStream| {
        stream.set_nonblocking(true).expect("non-blocking");
        match stream.peek(&mut [0]) {
            Ok(0) => true,
            Ok(_) => panic!("an answer to nothing"),
            Err(error) => error.kind() != ErrorKind::WouldBlock,
        }
    };
    assert!(silent.iter().any(ended), "the fifth had no place to itself");
    for stream in &silent {
        stream.set_nonblocking(false).expect("blocking");
        expect_closed(stream);
    }
    rig.dial(Transport::Abridged).echo(10);
}

/// Of a network that is not allowed, from another address of this machine.
#[test]
fn silent_strangers_hold_nobody_up() {
    let (_rig, address) = start(&["--stats-allow-net", "203.0.113.7"]);
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
    let leads_out = socket.connect("203.0.113.1:9");
    let own = leads_out.and_then(|()| socket.local_addr());
    let Some(own) = own.ok().filter(|own| !own.ip().is_loopback()) else {
        return not_tested("this machine has no address but its loopback's");
    };
    let silent: Vec<TcpStream> = (0..24)
        .map(|_| dial((own.ip(), address.port()).into()))
        .collect();
    let begun = Instant::now();
    assert!(page(address, "/stats").starts_with("pid\t"));
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "held up for {:?}",
        begun.elapsed()
    );
    silent.iter().for_each(expect_closed);
}

#[test]
fn who_leaves_makes_room_at_once() {
    let (_rig, address) = start(&[]);
    for _ in 0..5 {
        let silent: Vec<TcpStream> = (0..4).map(|_| dial(address)).collect();
        drop(silent);
    }
    assert!(page(address, "/stats").starts_with("pid\t"));
}

/// One that asks on and on and takes no answer.
#[test]
fn a_slow_reader_is_closed_and_others_are_served() {
    let (rig, address) = start(&[]);
    let slow = dial(address);
    let pushing = thread::spawn(move || {
        let request = b"GET /metrics HTTP/1.1\r\nConnection: keep-alive\r\n\r\n".repeat(100);
        // Ends with an error when the other side is gone.
        let error = loop {
            if let Err(error) = (&slow).write_all(&request) {
                break error;
            }
        };
        let _ = slow.shutdown(Shutdown::Both);
        error.kind()
    });
    assert!(page(address, "/stats").starts_with("pid\t"));
    rig.dial(Transport::Abridged).echo(10);
    let kind = joined("the connection's end", pushing);
    let patience_ended = [ErrorKind::WouldBlock, ErrorKind::TimedOut];
    assert!(!patience_ended.contains(&kind), "it is still served");
    assert!(page(address, "/stats").starts_with("pid\t"));
}

#[test]
fn ipv6_has_the_same_page() {
    let (rig, mut address) = start(&["-6"]);
    rig.dial(Transport::Abridged).echo(10);
    assert!(page(address, "/stats").starts_with("pid\t"));
    address.set_ip(Ipv6Addr::LOCALHOST.into());
    if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
        not_tested("this machine has no ::1");
        return;
    }
    assert!(page(address, "/stats").starts_with("pid\t"));
    assert!(page(address, "/metrics").starts_with("# HELP"));
}

/// Nobody can connect to a port that is only taken.
#[test]
fn without_http_stats_nobody_is_served() {
    let address = free_address();
    let port = address.port().to_string();
    let rig = Rig::with(&["-p", &port], Options::default());
    assert!(!is_listening(address));
    let hint = |line: &String| line.contains("-p does nothing without --http-stats");
    assert!(rig.proxy.lines().iter().any(hint));
}

/// A server that is started again takes the port although connections to it have just been closed.
#[test]
fn the_port_is_free_again_at_once() {
    let (rig, address) = start(&[]);
    page(address, "/stats");
    rig.proxy.stop();
    let port = address.port().to_string();
    let again = Rig::with(&["-p", &port, "--http-stats"], Options::default());
    assert_eq!(stats_address(&again.proxy), address);
    assert!(page(address, "/stats").starts_with("pid\t"));
}

/// What is counted is counted when somebody asks, not by a clock.
#[test]
fn an_idle_server_with_statistics_sleeps() {
    let (rig, address) = start(&[]);
    let mut client = rig.dial(Transport::Padded);
    client.echo(100);
    page(address, "/metrics");
    // Not to wait for something, but to watch nothing happen; again where what was asked before still had an end
    // to come to. The signal thread's look once a minute may fall into these seconds.
    until("four seconds of sleep", || {
        let before = rig.proxy.activity()?;
        thread::sleep(Duration::from_secs(4));
        // A thread that has ended takes its count along.
        let more = rig.proxy.activity()?.checked_sub(before)?;
        (more <= 2).then_some(())
    });
    client.echo(100);
}
