//! What the door for web pages lets in and what it doesn't: requests that are none of its own, tokens, lanes
//! that break their protocol, strangers, and a web server that is believed or not.

use crate::support::bystander::Bystander;
use crate::support::dc::{Behaviour, Refusing};
use crate::support::direct_rig::{DirectRig, direct_proxy};
use crate::support::framing::Transport;
use crate::support::http::{Figures, SERVING, stats_address};
use crate::support::message::Message;
use crate::support::middle_proxy::Options;
use crate::support::obfuscated2::Header;
use crate::support::proxy::{Files, Proxy};
use crate::support::rig::{Rig, SECRET, dialer};
use crate::support::sockets::dial;
use crate::support::vectors::to_hex;
use crate::support::web::*;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Duration;

const WEB: [&str; 4] = ["--web", HOST, "--web-listen", "127.0.0.1:0"];
const PATH: &str = "proxy.example.com/a/B_c";

/// A header of the usual client of that secret.
fn header(secret: &[u8; 16]) -> Vec<u8> {
    Header::random(Transport::Padded, 2, Some(secret))
        .wire
        .to_vec()
}

fn rig() -> DirectRig {
    DirectRig::with(
        Behaviour::Serve,
        &[&WEB[..], &["--web", PATH], &SERVING].concat(),
    )
}

#[test]
fn only_a_capability_opens_a_page() {
    let rig = rig();
    let page = Page::of(&rig.proxy);
    let below = Page {
        base: "/a/B_c/".into(),
        ..page.clone()
    };
    let padded = [&[0xdd], &SECRET[..]].concat();
    for page in [&page, &below] {
        page.bootstrap(&padded);
        page.session(&SECRET);
    }
    let right = capability(HOST, "", &SECRET);
    let of_path = capability(HOST, "a/B_c", &SECRET);
    let response = page.get(&format!("?bridge={right}"));
    for (name, value) in [
        ("Content-Type", "text/html; charset=utf-8"),
        ("Cache-Control", "no-store"),
        ("Referrer-Policy", "no-referrer"),
        ("X-Content-Type-Options", "nosniff"),
        ("X-DNS-Prefetch-Control", "off"),
    ] {
        assert_eq!(response.field(name), Some(value));
    }
    let policy = response.field("Content-Security-Policy").expect("a policy");
    let body = String::from_utf8_lossy(&response.body).into_owned();
    let (_, once) = body.split_once("nonce=\"").expect("a nonce");
    assert!(
        policy.contains(&format!("script-src 'nonce-{}'", &once[..24])),
        "{policy}"
    );
    for part in [
        "default-src 'none'",
        "connect-src 'self' wss://proxy.example.com;",
        "frame-ancestors http://127.0.0.1:*",
    ] {
        assert!(policy.contains(part), "{part} in {policy}");
    }
    for name in [
        "X-Frame-Options",
        "Cross-Origin-Opener-Policy",
        "Set-Cookie",
        "Access-Control-Allow-Origin",
        "Server",
    ] {
        assert_eq!(response.field(name), None);
    }
    assert_ne!(
        page.bootstrap(&SECRET),
        page.bootstrap(&SECRET),
        "a token for each"
    );

    let mut last = right.clone();
    let digit = if last.ends_with('k') { 'l' } else { 'k' };
    last.replace_range(42.., &digit.to_string()); // bits that belong to no byte
    let other = capability(HOST, "", &[9; 16]);
    let get = |target: &str, host: &str| format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let bridge = |query: &str| get(&format!("/?bridge={query}"), HOST);
    for wrong in [
        bridge(&other),
        bridge(&of_path),
        bridge(&last),
        bridge(""),
        bridge(&right[..42]),
        bridge(&format!("{right}=")),
        bridge(&format!("{right}&a=b")),
        bridge(&format!("%4d{}", &right[1..])),
        get(&format!("/?a=b&bridge={right}"), HOST),
        get(&format!("/a/B_c?bridge={of_path}"), HOST),
        get(&format!("/a/b_c/?bridge={of_path}"), HOST),
        get(&format!("/x?bridge={right}"), HOST),
        get(&format!("//?bridge={right}"), HOST),
        get(&format!("/?bridge={right}"), "example.com"),
        get(&format!("/?bridge={right}"), "proxy.example.com:80"),
        bridge(&right).replace("GET", "HEAD"),
        bridge(&right).replace("GET", "PUT"),
        bridge(&right).replace("Host", "Cookie"),
        bridge(&right).replace("\r\n\r\n", &format!("\r\nHost: {HOST}\r\n\r\n")),
        bridge(&right).replace("\r\n\r\n", "\r\nContent-Length: 1\r\n\r\na"),
        bridge(&right).replace("\r\n\r\n", "\r\nTransfer-Encoding: chunked\r\n\r\n"),
        get("/", HOST),
        get("/index.html", HOST),
        format!("OPTIONS * HTTP/1.1\r\nHost: {HOST}\r\n\r\n"),
        "POST /form HTTP/1.1\r\nContent-Length: 100000\r\n\r\nabc".into(),
        "no request at all\r\n\r\n".into(),
        format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "b".repeat(17_000)),
    ] {
        let response = ask(page.address, wrong.as_bytes());
        assert_eq!(response.status, 418, "{wrong}");
        assert!(response.body.is_empty() && response.field("Content-Length") == Some("0"));
    }
}

#[test]
fn a_page_begins_one_session_with_a_right_request() {
    let rig = rig();
    let page = Page::of(&rig.proxy);
    let token = page.bootstrap(&SECRET);
    let fields = "Content-Type: application/octet-stream\r\nContent-Length: 9\r\n";
    let hello = [0x10, 0, 0, 0, 0, 0, 0, 1, 1];
    for (fields, body) in [
        (fields, &[0x10, 0, 0, 0, 0, 0, 0, 1, 2][..]),
        (
            "Content-Type: application/octet-stream\r\nContent-Length: 8\r\n",
            &hello[..8],
        ),
        ("Content-Type: text/plain\r\nContent-Length: 9\r\n", &hello),
        ("Content-Length: 9\r\n", &hello),
        (
            &format!("Authorization: Bearer {token}\r\n{fields}"),
            &hello,
        ),
    ] {
        assert_eq!(
            page.post("POST", &token, fields, body).status,
            418,
            "{fields}"
        );
    }
    for wrong in ["", &token[1..], &base64url(&[5; 32])] {
        assert_eq!(
            page.post("POST", wrong, fields, &hello).status,
            418,
            "{wrong}"
        );
    }
    let begin = || {
        page.begin(&token)
            .field("X-Session-Token")
            .map(str::to_owned)
    };
    let session = begin().expect("a session");
    assert_eq!(begin(), Some(session.clone()), "the same again");
    assert_eq!(page.end(&token), 418);
    let lane = page.lane(&session, 7);
    let figures = Figures::of_metrics(stats_address(&rig.proxy));
    figures.expect(&[
        ("mtproxy_web_open_sessions", 1),
        ("mtproxy_web_open_lanes", 1),
    ]);
    drop(lane);
    for wrong in [
        format!("tproxy-lane-v1.{session}.7"), // it was there
        format!("tproxy-lane-v1.{session}.0"),
        format!("tproxy-lane-v1.{session}.08"),
        format!("tproxy-lane-v1.{session}.16777216"),
        format!("tproxy-lane-v1.{session}."),
        format!("tproxy-lane-v1.{token}.8"),
        format!("tproxy-lane-v1.{}.8", base64url(&[5; 32])),
        format!("tproxy-lane-v1.{session}.8, tproxy-lane-v1.{session}.9"),
        format!("tproxy-v1.{session}"),
    ] {
        assert_eq!(page.upgrade(&upgrade_fields(&wrong)).0, 418, "{wrong}");
    }
    let right = upgrade_fields(&format!("tproxy-lane-v1.{session}.16777215"));
    for (from, to) in [
        ("13", "8"),
        ("==", "=A"),
        ("Sec-WebSocket-Key: ", "A: "),
        ("-Version: 13", "-Version: 13\r\nUpgrade: h2c"),
    ] {
        assert_eq!(page.upgrade(&right.replacen(from, to, 1)).0, 418, "{to}");
    }
    assert_eq!(page.upgrade(&right).0, 101);
    assert_eq!((page.end(&session), page.end(&session)), (204, 204));
    assert_eq!(
        page.upgrade(&upgrade_fields(&format!("tproxy-lane-v1.{session}.9")))
            .0,
        418
    );
    assert_eq!(page.begin(&token).status, 418, "it is over");
}

#[test]
fn a_violation_costs_its_lane_alone() {
    for middle in [true, false] {
        let middle = middle.then(|| Rig::with(&WEB, Options::default()));
        let direct = middle.is_none().then(rig);
        let proxy = middle
            .as_ref()
            .map_or_else(|| &direct.as_ref().unwrap().proxy, |rig| &rig.proxy);
        let page = Page::of(proxy);
        let session = page.session(&SECRET);
        let carrier = Carrier::start(&page, &SECRET, false);
        let mut other = dialer(carrier.address, Transport::Padded).dial();
        other.echo(100);
        let long = [&[0x82, 0xff][..], &[0, 0, 0, 0, 1, 0, 0, 0], &[0; 4]].concat();
        for (number, (bytes, code)) in (1..).zip([
            (masked(0x81, b"{}"), 1003),
            (vec![0x82, 1, 0], 1002),
            (long, 1009),
            (masked(0x82, &frame(OPEN, 1, b"")), 1002),
            (masked(0x82, &frame(WINDOW, 2, &[0; 4])), 1002),
            (masked(0x82, b""), 1002),
        ]) {
            // Before its stream's header, and behind it.
            for (number, begun) in [(100 + number, false), (200 + number, true)] {
                let lane = page.lane(&session, number);
                if begun {
                    lane.message(&[(OPEN, b""), (DATA, &header(&SECRET))]);
                    assert_eq!(lane.hear(), Said::Window(64));
                }
                lane.send(&bytes);
                assert_eq!(lane.hear(), Said::End(code), "{bytes:02x?} {begun}");
                assert_eq!(lane.hear(), Said::Gone);
            }
        }
        // An end in order, a ping, and a stream that ends.
        let lane = page.lane(&session, 1);
        lane.send(&masked(0x89, b"early"));
        assert_eq!(lane.hear(), Said::Pong(b"early".to_vec()));
        lane.message(&[(OPEN, b""), (DATA, &header(&SECRET))]);
        assert_eq!(lane.hear(), Said::Window(64));
        lane.send(&masked(0x89, b"late"));
        assert_eq!(lane.hear(), Said::Pong(b"late".to_vec()));
        lane.send(&masked(0x88, &[3, 0xe8]));
        assert_eq!(lane.hear(), Said::End(1000));
        let lane = page.lane(&session, 2);
        lane.message(&[(OPEN, b""), (DATA, &header(&SECRET)), (CLOSE, b"")]);
        while lane.hear() != Said::Gone {}
        other.echo(100);
    }
}

#[test]
fn a_lane_proves_the_secret_of_its_page() {
    let other = *b"another good one";
    let hex = to_hex(&other);
    let rig = DirectRig::with(
        Behaviour::Serve,
        &[&WEB[..], &["-S", &hex, "-D", "127.0.0.1:9"]].concat(),
    );
    let page = Page::of(&rig.proxy);
    let session = page.session(&SECRET);
    let wire = header(&SECRET);
    for (number, wrong) in [(1, header(&other)), (2, vec![3; 64])] {
        let lane = page.lane(&session, number);
        lane.message(&[(OPEN, b""), (DATA, &wrong)]);
        assert_eq!(lane.hear(), Said::Close, "refused");
    }
    let lane = page.lane(&session, 3);
    lane.message(&[(OPEN, b""), (DATA, &wire)]);
    assert_eq!(lane.hear(), Said::Window(64));
    let lane = page.lane(&session, 4);
    lane.message(&[(OPEN, b""), (DATA, &wire)]);
    assert_eq!(lane.hear(), Said::Close, "a header that was used before");
    // Clients come over lanes as over ports, also where those are for fake TLS alone.
    let carrier = Carrier::start(&page, &other, true);
    dialer_of(&carrier, other).dial().echo(100);
}

#[test]
fn a_lane_without_data_centre_is_told_its_end() {
    let refusing = Refusing::new();
    let proxy = direct_proxy(&[&format!("2:{}", refusing.address)], &WEB);
    let page = Page::of(&proxy);
    let session = page.session(&SECRET);
    let lane = page.lane(&session, 1);
    lane.message(&[(OPEN, b""), (DATA, &header(&SECRET))]);
    assert_eq!(lane.hear(), Said::Close);
    assert_eq!(lane.hear(), Said::End(1000));
    assert_eq!(lane.hear(), Said::Gone);
}

fn dialer_of(carrier: &Carrier, secret: [u8; 16]) -> crate::support::client::Dialer {
    let mut dialer = dialer(carrier.address, Transport::Intermediate);
    dialer.secret = Some(secret);
    dialer
}

#[test]
fn the_web_server_in_front_names_the_client() {
    let rig = Rig::with(&WEB, Options::default());
    let no_trust = Rig::with(
        &[&WEB[..], &["--web-trust", "10.0.0.0/8"]].concat(),
        Options::default(),
    );
    for (rig, fields, wanted) in [
        (&rig, "X-Real-IP: 192.0.2.7\r\n", "192.0.2.7"),
        (
            &rig,
            "X-Forwarded-For: 203.0.113.1, 192.0.2.8\r\n",
            "192.0.2.8",
        ),
        (
            &rig,
            "X-Forwarded-For: 203.0.113.1\r\nX-Forwarded-For: 192.0.2.9\r\n",
            "192.0.2.9",
        ),
        (&rig, "X-Real-IP: 2001:db8::7\r\n", "2001:db8::7"),
        (&rig, "X-Real-IP: nobody\r\n", "127.0.0.1"),
        (&no_trust, "X-Real-IP: 192.0.2.7\r\n", "127.0.0.1"),
    ] {
        let page = Page {
            fields: fields.into(),
            ..Page::of(&rig.proxy)
        };
        let carrier = Carrier::start(&page, &SECRET, false);
        let mut client = dialer(carrier.address, Transport::Intermediate).dial();
        let message = Message::echo(0);
        client.send(&message.encode());
        client.packet();
        let ip = rig.middle.request(message.tag).client.0.to_canonical();
        assert_eq!(ip.to_string(), wanted, "{fields}");
    }
}

#[test]
fn who_never_reads_or_never_speaks_harms_nobody() {
    let rig = rig();
    let page = Page::of(&rig.proxy);
    let bystander = Bystander::start(rig.dial(Transport::Intermediate), 1000);
    let carrier = Carrier::start(&page, &SECRET, false);
    let mut reads = dialer(carrier.address, Transport::Intermediate).dial();
    let session = page.session(&SECRET);
    let mut silent = Vec::new();
    for number in 1..=20 {
        // A stream of which the client takes a window, and no byte more.
        let lane = page.lane(&session, number);
        let mut header = Header::random(Transport::Intermediate, 2, Some(&SECRET));
        let message = Message::stream(11, 32 << 20, 500_000).encode();
        let mut asks = Transport::Intermediate.frame(&message, false, &[]);
        header.send.apply(&mut asks);
        lane.message(&[(OPEN, b""), (DATA, &header.wire), (DATA, &asks)]);
        silent.push((lane, dial(page.address)));
        reads.echo(1000);
    }
    let (lane, _) = &silent[0];
    let mut taken = 0;
    while taken < 4 << 20 {
        match lane.hear() {
            Said::Data(bytes) => taken += bytes.len(),
            said => assert!(matches!(said, Said::Window(_)), "{said:?}"),
        }
    }
    assert_eq!(taken, 4 << 20, "no more than the window");
    lane.message(&[(WINDOW, &1000_u32.to_be_bytes())]);
    assert!(matches!(lane.hear(), Said::Data(bytes) if bytes.len() == 1000));
    reads.echo(1000);
    bystander.unharmed(Duration::from_secs(5));
}

#[test]
fn a_head_without_end_is_cut_off() {
    let rig = rig();
    let address = web_address(&rig.proxy);
    let mut streams: Vec<_> = (0..50).map(|_| dial(address)).collect();
    for stream in &mut streams {
        stream.write_all(b"GET / HTTP/1.1\r\nA: ").unwrap();
    }
    let page = Page::of(&rig.proxy);
    page.session(&SECRET);
    let mut last = streams.pop().unwrap();
    last.write_all(&[b'b'; 17_000]).unwrap();
    last.shutdown(Shutdown::Write).unwrap();
    let said = crate::support::sockets::read_to_end(&last);
    assert!(
        said.starts_with(b"HTTP/1.1 418 "),
        "{}",
        String::from_utf8_lossy(&said)
    );
}

#[test]
fn pages_need_no_port_of_their_own() {
    let secret = to_hex(&SECRET);
    let proxy =
        Proxy::start_with(&[&["--direct", "-S", &secret, "--print-links"], &WEB[..]].concat());
    assert!(proxy.listening().is_empty());
    let links = proxy.output();
    for start in ["tg://", "https://t.me/"] {
        let link = format!(
            "{start}webproxy?server={HOST}&secret={}\n",
            base64url(&SECRET)
        );
        assert!(links.contains(&link), "{links}");
    }
    assert!(!links.contains("proxy?server=&"), "{links}");
    Page::of(&proxy).session(&SECRET);
    let without = direct_proxy(&[], &[]);
    assert!(without.lines().iter().all(|line| !line.contains("web")));
}

#[test]
fn lanes_are_told_that_the_server_stops() {
    let middle = Rig::with(&WEB, Options::default());
    let direct = rig();
    for proxy in [&middle.proxy, &direct.proxy] {
        let page = Page::of(proxy);
        let session = page.session(&SECRET);
        let lane = page.lane(&session, 0xff_ffff);
        lane.message(&[(OPEN, b""), (DATA, &header(&SECRET))]);
        assert_eq!(lane.hear(), Said::Window(64));
        // Whatever it is told first, the lane is served by then.
        lane.send(&masked(0x89, b"there?"));
        assert_eq!(lane.hear(), Said::Pong(b"there?".to_vec()));
        proxy.signal("TERM");
        assert_eq!(lane.hear(), Said::Close);
        assert_eq!(lane.hear(), Said::End(1000));
        assert_eq!(lane.hear(), Said::Gone);
    }
}

#[test]
fn a_unix_socket_serves_pages() {
    let files = Files::new();
    let path = files.path("web.sock");
    let arguments = ["--web", HOST, "--web-listen", &path];
    let rig = DirectRig::with(Behaviour::Serve, &arguments);
    rig.proxy.wait_for_line("the web address", |line| {
        line == format!("web pages on {path}")
    });
    let mut stream = UnixStream::connect(&path).expect("the socket");
    let query = capability(HOST, "", &SECRET);
    let text = format!("GET /?bridge={query} HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    stream.write_all(text.as_bytes()).expect("a request");
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .expect("a deadline");
    let mut said = String::new();
    stream.read_to_string(&mut said).expect("a response");
    assert!(
        said.starts_with("HTTP/1.1 200 OK\r\n") && said.contains("const bootstrap="),
        "{said}"
    );
}
