//! Proxy type WEB behind Debian's nginx, with the configuration that the program prints for it.

use crate::support::dc::Behaviour;
use crate::support::direct_rig::DirectRig;
use crate::support::framing::Transport;
use crate::support::nginx::{Nginx, Site, curl};
use crate::support::programs::output;
use crate::support::proxy::program;
use crate::support::rig::{SECRET, dialer};
use crate::support::sockets::free_address;
use crate::support::transfers::{download, echo_interleaved, upload};
use crate::support::web::{Carrier, HOST, Page, capability, web_address};
use std::net::SocketAddr;

/// The name of the same site without mtproxy.
const OTHER: &str = "other.example.com";

/// What `mtproxy service KIND` prints for the usual page.
fn printed(kind: &str, relay: SocketAddr) -> String {
    let mut command = program();
    command.args([
        "service",
        kind,
        "--web",
        HOST,
        "--web-listen",
        &relay.to_string(),
    ]);
    let output = output(&mut command, b"").expect("mtproxy");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// nginx in front of the rig, and where it takes the same without TLS.
fn start(rig: &DirectRig) -> Option<(Nginx, SocketAddr)> {
    let config = printed("nginx", web_address(&rig.proxy));
    let plain = free_address();
    let site = Site {
        pages: &[
            ("index.html", b"<p>a site</p>\n"),
            ("404.html", b"<p>nothing</p>\n"),
        ],
        ..Site::default()
    };
    let nginx = site.start_as(&|directory, address| {
        let here = |line: &str| match line.trim() {
            "listen 80;" => format!("listen {};", free_address()),
            "listen 443 ssl http2;" => format!("listen {address} ssl http2; listen {plain};"),
            line if line.starts_with("listen [::]") => String::new(),
            line => line
                .replace(&format!("/etc/letsencrypt/live/{HOST}/fullchain.pem"), &format!("{directory}/certificate"))
                .replace(&format!("/etc/letsencrypt/live/{HOST}/privkey.pem"), &format!("{directory}/key"))
                .replace(&format!("/var/www/{HOST}"), directory),
        };
        let own: Vec<String> = config.lines().map(here).collect();
        let other = format!(
            "server {{ listen {address} ssl http2; listen {plain}; server_name {OTHER}; root {directory}; \
             ssl_certificate {directory}/certificate; ssl_certificate_key {directory}/key; \
             location / {{ error_page 404 /404.html; try_files $uri $uri/index.html =404; }} }}\n"
        );
        own.join("\n") + "\n" + &other
    })?;
    Some((nginx, plain))
}

#[test]
fn lanes_go_through_nginx_and_visitors_see_the_site() {
    let web = ["--web", HOST, "--web-listen", "127.0.0.1:0"];
    let rig = DirectRig::with(Behaviour::Serve, &web);
    let Some((nginx, plain)) = start(&rig) else {
        return;
    };
    let page = Page {
        address: plain,
        ..Page::of(&rig.proxy)
    };
    let carrier = Carrier::start(&page, &SECRET, true);
    let mut client = dialer(carrier.address, Transport::Padded).dial();
    upload(&mut client, 10 << 20, &[300_000]);
    download(&mut client, 10 << 20, 500_000);
    let clients = (0..10).map(|_| dialer(carrier.address, Transport::Padded).dial());
    echo_interleaved(clients.collect(), 5, 3000);

    let right = capability(HOST, "", &SECRET);
    let visit = |host: &str, target: &str, options: &[&str]| {
        let host = format!("Host: {host}");
        let options = [options, &["--include", "--header", &host]].concat();
        let output = curl(nginx.address, target, &options);
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).expect("text");
        let lines = text
            .lines()
            .filter(|line| !line.to_lowercase().starts_with("date:"));
        lines.collect::<Vec<_>>().join("\n")
    };
    let opened = visit(HOST, &format!("?bridge={right}"), &[]);
    assert!(
        opened.contains("const bootstrap=\"") && !opened.contains("a site"),
        "{opened}"
    );
    for (target, options) in [
        ("", &[][..]),
        ("", &["--head"]),
        ("", &["--http1.1"]),
        ("?a=b", &[]),
        ("?bridge=MHLEY5PmW1GWqJkSrlmJpvJUiLhBH_QKy6yKg8a0JPk", &[]),
        ("", &["--request", "OPTIONS"]),
        ("", &["--data", "a=b"]),
        ("", &["--range", "0-3"]),
        ("index.html", &[]),
        ("none", &[]),
        ("api/v1/session", &["--data", "0123456789"]),
        ("api/v1/session", &["--request", "DELETE"]),
        (
            "api/v1/ws",
            &[
                "--http1.1",
                "--header",
                "Connection: Upgrade",
                "--header",
                "Upgrade: websocket",
            ],
        ),
        ("api/v1/", &["--head"]),
    ] {
        let options = [options, &["--silent"]].concat();
        let (ours, plain) = (
            visit(HOST, target, &options),
            visit(OTHER, target, &options),
        );
        assert_eq!(ours, plain, "{target} {options:?}");
    }
    assert!(
        !nginx.access_log().contains(&right),
        "{}",
        nginx.access_log()
    );
    drop(rig);
    let down = visit(HOST, &format!("?bridge={right}"), &[]);
    assert_eq!(down, visit(OTHER, "?bridge=", &[]), "without mtproxy");
    assert!(
        !nginx.access_log().contains(&right),
        "{}",
        nginx.access_log()
    );
}

#[test]
fn caddy_has_its_configuration_too() {
    let text = printed("caddy", "[::1]:81".parse().expect("an address"));
    for part in [
        "proxy.example.com {",
        "@web path / /api/v1/*",
        "reverse_proxy [::1]:81 {",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!(!text.contains("{host}") && !text.contains("{relay}") && !text.contains("{paths}"));
}
