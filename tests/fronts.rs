//! Load balancers in front say whose each connection is, by the PROXY protocol (HAProxy's text of that name,
//! section 2): real ones, and headers written by hand. What they say reaches the middle proxy, the log and the
//! mask; who doesn't say it, or may not, is closed and counted.

use crate::support::client::Client;
use crate::support::framing::Transport;
use crate::support::mask_site::MaskSite;
use crate::support::message::Message;
use crate::support::middle_proxy::{MiddleProxy, Options};
use crate::support::proxy::Proxy;
use crate::support::rig::{Rig, SECRET, dialer};
use crate::support::servers::{haproxy, nginx_stream};
use crate::support::sockets::{dial, expect_closed, read_to_end, say_and_end};
use crate::support::tls_hello::Kind;
use crate::support::tls_rig::{DOMAIN, MODES, Served, ask};
use crate::support::transfers::{PIECES, download, upload};
use crate::support::wait::until;
use std::io::Write;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).expect("a short header");
    [SIGNATURE, &[command, family], &length.to_be_bytes(), rest].concat()
}

fn as_sent(address: SocketAddr) -> (Ipv6Addr, u32) {
    let ip = match address.ip() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    (ip, u32::from(address.port()))
}

/// Where the middle proxy is told that this client comes from.
fn origin(middle: &MiddleProxy, client: &mut Client) -> (Ipv6Addr, u32) {
    let message = Message::echo(8);
    client.send(&message.encode());
    assert_eq!(client.packet(), message.encode());
    middle.request(message.tag).client
}

fn is_logged(proxy: &Proxy, peer: SocketAddr) -> bool {
    let sign = format!("client_closed peer={peer} ");
    proxy.lines().iter().any(|line| line.contains(&sign))
}

/// Sees in the log that a client with this address has ended.
fn expect_logged(proxy: &Proxy, peer: SocketAddr) {
    let sign = format!("client_closed peer={peer} ");
    proxy.wait_for_line("the client's address", |line| line.contains(&sign));
}

#[test]
fn haproxy_in_front_of_two_processes() {
    let start = || Rig::with(&["--proxy-protocol", "-v"], Options::default());
    let (one, other) = (start(), start());
    let Some(front) = haproxy(&[one.proxy.address(), other.proxy.address()]) else {
        return;
    };
    // It takes them in turn; its own checks are connections, too.
    let has_clients = |rig: &Rig| !rig.middle.with(|state| state.requests.is_empty());
    let mut clients = Vec::new();
    until("clients of both", || {
        let mut client = dialer(front.address, Transport::Padded).dial();
        let own = client.stream.local_addr().expect("an address");
        client.echo(8);
        clients.push((client, own));
        let both = clients.len() > 1 && has_clients(&one) && has_clients(&other);
        both.then_some(())
    });
    for (mut client, own) in clients {
        upload(&mut client, 4 << 20, &PIECES);
        download(&mut client, 4 << 20, 500_000);
        for rig in [&one, &other] {
            let told = rig.middle.with(|state| {
                let requests = state.requests.iter();
                requests.filter(|r| r.client == as_sent(own)).count()
            });
            // Of one of them all requests of this client, which it ends with.
            if told > 0 {
                assert!(told > PIECES.len(), "{told}");
                client.leave();
                expect_logged(&rig.proxy, own);
            }
        }
        let is_known = [&one, &other].iter().any(|rig| is_logged(&rig.proxy, own));
        assert!(is_known, "nobody knows {own}");
    }
    assert_eq!(one.proxy.stop().count("closed_proxy_header"), 0);
    for _ in 0..3 {
        let mut client = dialer(front.address, Transport::Intermediate).dial();
        client.echo(1_000);
    }
}

#[test]
fn nginx_with_version_1() {
    let rig = Rig::with(&["--proxy-protocol", "-v"], Options::default());
    let Some(front) = nginx_stream(rig.proxy.address()) else {
        return;
    };
    let mut client = dialer(front.address, Transport::Padded).dial();
    let own = client.stream.local_addr().expect("an address");
    assert_eq!(origin(&rig.middle, &mut client), as_sent(own));
    upload(&mut client, 1 << 20, &PIECES);
    client.leave();
    expect_logged(&rig.proxy, own);
}

#[test]
fn each_kind_of_header() {
    let rig = Rig::with(&["--proxy-protocol", "-v"], Options::default());
    let v4 = [192, 0, 2, 1, 198, 51, 100, 7, 0xd4, 0x31, 1, 0xbb];
    let v6 = [&[0x20, 1, 0x0d, 0xb8][..], &[0; 27], &[1, 0, 80, 1, 0xbb]].concat();
    let with_tlvs = [&v4[..], &[4, 0, 5, 1, 2, 3, 4, 5, 0xe0, 0, 0]].concat();
    for (header, wanted) in [
        (
            b"PROXY TCP4 192.0.2.1 198.51.100.7 54321 443\r\n".to_vec(),
            Some("192.0.2.1:54321"),
        ),
        (
            b"PROXY TCP6 2001:db8::5 2001:db8::1 7 443\r\n".to_vec(),
            Some("[2001:db8::5]:7"),
        ),
        (b"PROXY UNKNOWN\r\n".to_vec(), None),
        (v2(0x21, 0x11, &v4), Some("192.0.2.1:54321")),
        (v2(0x21, 0x11, &with_tlvs), Some("192.0.2.1:54321")),
        (v2(0x21, 0x21, &v6), Some("[2001:db8::]:80")),
        (v2(0x21, 0x31, &[b'x'; 216]), None),
        (v2(0x21, 0, &[]), None),
        (v2(0x20, 0, &[]), None),
    ] {
        for one_byte_writes in [false, true] {
            let mut stream = dial(rig.proxy.address());
            let step = if one_byte_writes { 1 } else { header.len() };
            for piece in header.chunks(step) {
                stream.write_all(piece).expect("send");
            }
            let own = stream.local_addr().expect("an address");
            let mut dialer = dialer(rig.proxy.address(), Transport::Padded);
            dialer.one_byte_writes = one_byte_writes;
            let mut client = dialer.over(stream, None, &[]);
            // If it doesn't say who comes, it is whoever has connected.
            let wanted = wanted.map_or(own, |text| text.parse().expect("an address"));
            assert_eq!(
                origin(&rig.middle, &mut client),
                as_sent(wanted),
                "{header:?}"
            );
            client.leave();
            expect_logged(&rig.proxy, wanted);
        }
    }
}

#[test]
fn who_sends_no_header_is_closed_and_counted() {
    let proxy = Rig::with(&["--proxy-protocol"], Options::default());
    let address = proxy.proxy.address();
    let hello = Kind::Today.signed(DOMAIN, &SECRET);
    let wrong = [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0xef; 64],
        &hello,
        b"PROXY TCP4 192.0.2.1 nonsense\r\n",
        &v2(0x21, 0x12, &[0; 12]),
    ];
    for bytes in wrong {
        let mut stream = dial(address);
        stream.write_all(bytes).expect("send");
        // Bytes that it leaves unread make that a reset.
        assert!(read_to_end(&stream).is_empty(), "{bytes:?}");
    }
    // The beginning of one, and then the end, or silence.
    let stream = dial(address);
    say_and_end(&stream, b"PROXY TCP4 192");
    expect_closed(&stream);
    let mut late = dial(address);
    late.write_all(&SIGNATURE[..5]).expect("send");
    expect_closed(&late);
    // Who only looks whether somebody listens is none of these.
    say_and_end(&dial(address), b"");
    let line = proxy.proxy.wait_for_line("a refused header", |line| {
        line.contains("proxy_header_refused front=127.0.0.1:")
    });
    assert!(line.contains("send-proxy-v2 in haproxy"), "{line}");
    assert_eq!(
        proxy.proxy.stop().count("closed_proxy_header"),
        wrong.len() as u64 + 2
    );
}

#[test]
fn only_trusted_fronts_are_believed() {
    let flags = ["--proxy-protocol", "--proxy-protocol-from"];
    let header = b"PROXY TCP4 192.0.2.1 198.51.100.7 54321 443\r\n";
    for (network, is_trusted) in [("127.0.0.0/30", true), ("192.0.2.0/24", false)] {
        let rig = Rig::with(&[&flags[..], &[network]].concat(), Options::default());
        let mut stream = dial(rig.proxy.address());
        if is_trusted {
            stream.write_all(header).expect("send");
            let dialer = dialer(rig.proxy.address(), Transport::Padded);
            dialer.over(stream, None, &[]).echo(100);
        } else {
            expect_closed(&stream);
            let summary = rig.proxy.stop();
            assert_eq!(summary.count("proxy_untrusted"), 1);
        }
    }
}

/// The site is told who its visitor is, and not which front it came by.
#[test]
fn the_mask_learns_who_comes() {
    for mode in MODES {
        let site = MaskSite::start();
        let mask = site.address.to_string();
        let served = Served::start(
            mode,
            &[
                "-D",
                DOMAIN,
                "--mask",
                &mask,
                "--mask-proxy-protocol",
                "--proxy-protocol",
            ],
        );
        let from = [203, 0, 113, 7];
        let header = v2(
            0x21,
            0x11,
            &[&from[..], &[127, 0, 0, 1, 4, 210, 1, 0xbb]].concat(),
        );
        let mut stream = dial(served.address());
        stream.write_all(&header).expect("send");
        say_and_end(&stream, b"nothing of TLS");
        let sign = [&[0x21, 0x11, 0, 12][..], &from].concat();
        site.wait_for("the visitor's address", |visit| {
            let is_it = visit.received.windows(sign.len()).any(|part| part == sign);
            is_it && visit.received.ends_with(b"nothing of TLS")
        });
    }
}

/// A header that nobody expects is named in the log, once.
#[test]
fn an_unexpected_header_is_said() {
    let mut header = v2(
        0x21,
        0x11,
        &[192, 0, 2, 1, 198, 51, 100, 7, 0xd4, 0x31, 1, 0xbb],
    );
    header.resize(200, b'x');
    let is_it = |line: &str| line.contains(" proxy_header_unexpected peer=127.0.0.1:");
    for (bytes, version) in [
        (header, 2),
        (
            b"PROXY TCP4 192.0.2.1 198.51.100.7 54321 443\r\n".to_vec(),
            1,
        ),
    ] {
        let rig = Rig::start();
        for _ in 0..2 {
            say_and_end(&dial(rig.proxy.address()), &bytes);
        }
        let line = rig.proxy.wait_for_line("a hint", is_it);
        assert!(line.contains(&format!(" version={version} ")), "{line}");
        let site = MaskSite::start();
        let domain = site.as_domain(DOMAIN);
        for mode in MODES {
            let served = Served::start(mode, &["-D", &domain]);
            for _ in 0..2 {
                say_and_end(&dial(served.address()), &bytes);
            }
            served.proxy.wait_for_line("a hint", is_it);
            ask(served.address(), Kind::Today, DOMAIN);
            let lines = served.proxy.lines();
            assert_eq!(lines.iter().filter(|line| is_it(line)).count(), 1);
        }
    }
}
