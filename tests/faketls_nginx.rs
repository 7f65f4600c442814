//! Real TLS through the proxy: Debian's nginx behind the mask, openssl's client and curl in front. They must
//! not find any difference to a direct visit. Where a program is missing the tests say so and pass.

use crate::support::nginx::{NAME, Nginx, Site, curl, s_client};
use crate::support::programs::are_there;
use crate::support::random::Stream;
use crate::support::rig::SECRET;
use crate::support::sockets::{accept, dial, listener, read_bytes, read_to_end};
use crate::support::tls_hello::{now, sign};
use crate::support::tls_rig::{MODES, Mode, Served};
use crate::support::wait::{joined, uninterrupted};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::process::Output;
use std::thread;

const BIG: usize = 8 << 20;

fn behind(nginx: &Nginx, mode: Mode) -> Served {
    Served::start(mode, &["-D", &nginx.as_domain()])
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What a page came with, but for the moment.
fn without_date(answer: &[u8]) -> Vec<String> {
    let text = text(answer);
    let lines = text
        .split("\r\n")
        .filter(|line| !line.to_lowercase().starts_with("date:"));
    lines.map(str::to_owned).collect()
}

#[test]
fn curl_gets_the_same_pages() {
    if !are_there(&["curl"]) {
        return;
    }
    let big = Stream::new(4).take(BIG);
    let pages = [("index.html", &b"<p>short</p>\n"[..]), ("big", &big)];
    let site = Site {
        listen: "http2",
        pages: &pages,
        ..Site::default()
    };
    let Some(nginx) = site.start() else { return };
    for mode in MODES {
        let served = behind(&nginx, mode);
        for (name, contents) in pages {
            for options in [
                &["--http2"][..],
                &["--http1.1", "-H", "Connection: close"],
                &["--http1.0"],
                &["--tls-max", "1.2"],
            ] {
                let options = [options, &["--include"]].concat();
                let there = curl(nginx.address, name, &options);
                let here = curl(served.address(), name, &options);
                assert!(there.status.success(), "{}", text(&there.stderr));
                assert!(here.status.success(), "{options:?}: {}", text(&here.stderr));
                assert!(here.stdout.ends_with(contents), "{options:?}: not the page");
                let same = without_date(&here.stdout) == without_date(&there.stdout);
                assert!(same, "{mode:?} {name} {options:?}: another answer");
            }
        }
        // Fifty connections that the site closes first.
        let options = ["--http1.1", "-H", "Connection: close"];
        let output = curl(served.address(), "index.html?[1-50]", &options);
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert!(output.stdout == b"<p>short</p>\n".repeat(50), "{mode:?}");
        let summary = served.stop();
        assert_eq!(summary.count("mask_connections"), 2 * 4 + 50);
        // The hello of TLS 1.2 is none that a client sends.
        assert_eq!(summary.count("tls_refused_bad_digest"), 2 * 3 + 50);
        assert_eq!(summary.count("tls_refused_malformed"), 2);
    }
}

/// The first certificate in what s_client says.
fn certificate(output: &Output) -> String {
    const END: &str = "-----END CERTIFICATE-----\n";
    let said = text(&output.stdout);
    let start = said.find("-----BEGIN CERTIFICATE-----");
    let end = said.find(END).map(|end| end + END.len());
    match (start, end) {
        (Some(start), Some(end)) => said[start..end].to_owned(),
        _ => panic!("no certificate: {said}\n{}", text(&output.stderr)),
    }
}

#[test]
fn openssl_sees_the_same_certificate() {
    let Some(nginx) = Site::default().start() else {
        return;
    };
    let ask = b"HEAD / HTTP/1.0\r\n\r\n";
    for mode in MODES {
        let served = behind(&nginx, mode);
        for version in ["-tls1_3", "-tls1_2"] {
            let there = s_client(nginx.address, &[version, "-ign_eof"], ask);
            let here = s_client(served.address(), &[version, "-ign_eof"], ask);
            assert_eq!(here.status.code(), there.status.code());
            assert_eq!(certificate(&here), nginx.certificate());
            let lines = |output: &Output| -> Vec<String> {
                let said = text(&output.stdout);
                let kept = said.lines().filter(|line| {
                    [
                        "New, ",
                        "Server Temp Key",
                        "Peer sig",
                        "HTTP/1.1 200",
                        "Server: ",
                    ]
                    .iter()
                    .any(|start| line.starts_with(start))
                });
                kept.map(str::to_owned).collect()
            };
            assert!(lines(&there).len() >= 4, "{}", text(&there.stdout));
            assert_eq!(lines(&here), lines(&there), "{mode:?} {version}");
        }
    }
}

/// What openssl complains of, without what names its thread.
fn complaints(output: &Output) -> Vec<String> {
    let said = text(&output.stderr);
    let errors = said
        .lines()
        .filter_map(|line| Some(line.split_once(":error:")?.1));
    errors.map(str::to_owned).collect()
}

/// A site that refuses a version refuses it through us.
#[test]
fn openssl_is_refused_in_the_same_way() {
    let site = Site {
        protocols: "TLSv1.3",
        ..Site::default()
    };
    let Some(nginx) = site.start() else { return };
    for mode in MODES {
        let served = behind(&nginx, mode);
        for options in [&["-tls1_2"][..], &["-tls1_3", "-groups", "secp521r1"]] {
            let there = s_client(nginx.address, options, b"");
            let here = s_client(served.address(), options, b"");
            assert_eq!(here.status.code(), there.status.code(), "{options:?}");
            assert_eq!(complaints(&here), complaints(&there), "{options:?}");
        }
        assert_eq!(served.stop().count("mask_connections"), 2);
    }
}

/// All that comes in answer to these bytes until the site closes.
fn raw(address: SocketAddr, said: &[u8], ends: bool) -> Vec<u8> {
    let mut stream = dial(address);
    stream.write_all(said).expect("send");
    if ends {
        stream.shutdown(Shutdown::Write).expect("end one direction");
    }
    read_to_end(&stream)
}

#[test]
fn other_bytes_get_the_sites_own_answer() {
    let Some(nginx) = Site::default().start() else {
        return;
    };
    for mode in MODES {
        let served = behind(&nginx, mode);
        for (said, ends) in [
            (&b"HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n"[..], false),
            (b"GET / HTTP/1.0\r\n\r\n", false),
            (b"nonsense\r\n\r\n", false),
            (&[0x15, 3, 1, 0, 2, 2, 40], true),
            (&[0x16, 3, 1, 0, 5, 1, 0, 0, 1, 0], true),
            (b"\0\x01\x02\x03", true),
            (b"", true),
        ] {
            let (here, there) = (
                raw(served.address(), said, ends),
                raw(nginx.address, said, ends),
            );
            assert_eq!(
                without_date(&here),
                without_date(&there),
                "{mode:?} {said:?}"
            );
        }
    }
}

/// With a PROXY header in front the site sees who comes; and probes must bring one, too.
#[test]
fn nginx_learns_who_comes() {
    if !are_there(&["curl"]) {
        return;
    }
    let site = Site {
        listen: "proxy_protocol",
        directives: "add_header X-From $proxy_protocol_addr:$proxy_protocol_port;",
        ..Site::default()
    };
    let Some(nginx) = site.start() else { return };
    for mode in MODES {
        let mask = nginx.address.to_string();
        let arguments = ["-D", NAME, "--mask", &mask, "--mask-proxy-protocol"];
        let served = Served::start(mode, &arguments);
        served.wait_until_probed(NAME);
        let options = ["--include", "--write-out", "from %{local_port}"];
        let said = text(&curl(served.address(), "", &options).stdout);
        let port = said.rsplit("from ").next().expect("a port");
        assert!(
            said.contains(&format!("X-From: 127.0.0.1:{port}\r\n")),
            "{said}"
        );
    }
}

/// The README's site of one's own, as it stands there: nothing about it is to be complained of.
#[test]
fn the_sample_of_the_readme_serves() {
    if !are_there(&["curl"]) {
        return;
    }
    let readme = include_str!("../README.md");
    let block = readme.find("    server {\n        listen 127.0.0.1:8443 ssl");
    let block = &readme[block.expect("the sample")..];
    let block = &block[..block.find("\n    }\n").expect("its end") + 6];
    // Only the port and the files are others.
    let Some(nginx) = Site::sample(block).start() else {
        return;
    };
    for mode in MODES {
        let mask = nginx.address.to_string();
        let arguments = ["-D", NAME, "--mask", &mask, "--mask-proxy-protocol"];
        let served = Served::start(mode, &arguments);
        served.wait_until_probed(NAME);
        let said = curl(served.address(), "", &[]);
        assert!(said.status.success(), "{}", text(&said.stderr));
        let lines = served.proxy.lines();
        let complains = |line: &&String| line.starts_with("warning: -D");
        assert_eq!(lines.iter().find(complains), None);
    }
}

/// What openssl's client does when it can't decrypt what follows a ServerHello.
#[derive(Debug, PartialEq, Eq)]
struct Failure {
    code: Option<i32>,
    complaints: Vec<String>,
    /// Kinds and lengths of the records that it sent after its hello.
    sent: Vec<(u8, usize)>,
}

/// Carries one connection of s_client to `far` with another random in its hello: one that is signed for the
/// proxy. To a real server it is just another hello than the client's, so that the two don't come to the
/// same keys: what its client sees is a server that has lost its keys.
fn failure(far: SocketAddr) -> Failure {
    let listener = listener(Ipv4Addr::LOCALHOST.into());
    let address = listener.local_addr().expect("its address");
    let relay = thread::spawn(move || {
        let near = accept(listener, "s_client");
        let mut hello = read_bytes(&near, 5, "a record");
        let length = usize::from(u16::from_be_bytes([hello[3], hello[4]]));
        hello.extend(read_bytes(&near, length, "a hello"));
        let mut stream = dial(far);
        stream
            .write_all(&sign(hello, &SECRET, now()))
            .expect("send");
        let (from, to) = (clone(&stream), clone(&near));
        let down = thread::spawn(move || copy(from, to));
        let sent = copy(near, stream);
        joined("the way down", down);
        sent
    });
    let output = s_client(address, &["-tls1_3"], b"");
    let sent = joined("the relay", relay);
    Failure {
        code: output.status.code(),
        complaints: complaints(&output),
        sent: records(&sent),
    }
}

fn clone(stream: &TcpStream) -> TcpStream {
    stream.try_clone().expect("a second handle")
}

/// Gives what it has carried.
fn copy(mut from: TcpStream, mut to: TcpStream) -> Vec<u8> {
    let (mut carried, mut buffer) = (Vec::new(), [0; 16_384]);
    loop {
        match uninterrupted(|| from.read(&mut buffer)) {
            Ok(0) => break,
            Ok(count) => {
                carried.extend(&buffer[..count]);
                if to.write_all(&buffer[..count]).is_err() {
                    break;
                }
            }
            Err(_) => break,
        }
    }
    let _ = to.shutdown(Shutdown::Write);
    carried
}

fn records(mut bytes: &[u8]) -> Vec<(u8, usize)> {
    let mut found = Vec::new();
    while let [kind, _, _, high, low, rest @ ..] = bytes {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        found.push((*kind, length));
        bytes = rest.get(length..).unwrap_or_default();
    }
    found
}

#[test]
fn openssl_fails_as_with_a_server_that_has_lost_its_keys() {
    let Some(nginx) = Site::default().start() else {
        return;
    };
    let lost = failure(nginx.address);
    assert!(
        lost.complaints
            .iter()
            .any(|line| line.contains("bad record mac")),
        "{lost:?}"
    );
    for mode in MODES {
        let served = behind(&nginx, mode);
        served.wait_until_probed(NAME);
        assert_eq!(failure(served.address()), lost, "{mode:?}");
        assert_eq!(served.stop().count("tls_hellos_accepted"), 1);
    }
}
