//! What a secret allows: how many addresses, how many bytes, how fast and until when. Whoever is refused sees
//! what a stranger sees; the numbers hold to the byte and over a restart.

use crate::support::client::Client;
use crate::support::framing::Transport;
use crate::support::http::{Figures, SERVING, page, stats_address, wait_for};
use crate::support::mask_site::{MaskSite, silent};
use crate::support::message::Message;
use crate::support::obfuscated2::Secret;
use crate::support::programs::run;
use crate::support::proxy::{Files, Proxy};
use crate::support::random::Stream;
use crate::support::rig::dialer;
use crate::support::sockets::dial;
use crate::support::tls_client::{Tls, expect_nothing_yet};
use crate::support::tls_hello::{Kind, now};
use crate::support::tls_rig::{DOMAIN, MODES, Mode, Served};
use crate::support::vectors::to_hex;
use std::fs::{self, Permissions};
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;

const BOB: Secret = *b"the one of bob's";

/// Serves the usual secret, and Bob's with these words behind it.
fn start(mode: Mode, words: &str, more: &[&str]) -> Served {
    let bob = format!("{}:bob {words}", to_hex(&BOB));
    Served::start(mode, &[&SERVING[..], &["-S", &bob], more].concat())
}

fn bob_at(address: SocketAddr) -> Client {
    let mut dialer = dialer(address, Transport::Intermediate);
    dialer.secret = Some(BOB);
    dialer.dial()
}

fn bob(served: &Served) -> Client {
    bob_at(served.address())
}

fn metrics(proxy: &Proxy) -> Figures {
    Figures::of_metrics(stats_address(proxy))
}

fn refusals(reason: &str) -> String {
    let family = "mtproxy_secret_refusals_by_reason_total";
    format!("{family}{{secret=\"2\",label=\"bob\",reason=\"{reason}\"}}")
}

fn bobs(family: &str) -> String {
    format!("mtproxy_{family}{{secret=\"2\",label=\"bob\"}}")
}

/// Bob's next connection is refused for this reason, and hears nothing.
fn is_refused(served: &Served, address: SocketAddr, reason: &str) {
    let name = refusals(reason);
    let before = metrics(&served.proxy).number(&name);
    let mut client = bob_at(address);
    client.send(&Message::echo(10).encode());
    let counted = |figures: &Figures| figures.number(&name) == before + 1;
    wait_for(|| metrics(&served.proxy), reason, counted);
    expect_nothing_yet(&client.stream);
    let usual = dialer(served.address(), Transport::Padded);
    usual.dial().echo(1_000);
    expect_nothing_yet(&client.stream);
}

/// In fake TLS Bob's next hello goes to the site.
fn goes_to_the_site(served: &Served, site: &MaskSite, reason: &str) {
    let before = metrics(&served.proxy).number(&refusals(reason));
    let hello = Kind::Today.signed(DOMAIN, &BOB);
    let mut stream = dial(served.address());
    stream.write_all(&hello).expect("send");
    site.wait_for_bytes(&hello);
    assert_eq!(metrics(&served.proxy).number(&refusals(reason)), before + 1);
}

/// As `date` writes it.
fn utc(unix: u32) -> String {
    let at = format!("@{unix}");
    let output =
        run("date", &["-u", "-d", &at, "+%Y-%m-%dT%H:%M:%SZ"], b"").expect("date is there");
    String::from_utf8(output.stdout)
        .expect("text")
        .trim()
        .to_owned()
}

#[test]
fn a_client_more_than_allowed_sees_what_a_stranger_sees() {
    for mode in MODES {
        let served = start(mode, "max-ips=1", &["-6"]);
        let mut first = bob(&served);
        first.echo(100);
        // The same address may come again, another one may not.
        bob(&served).echo(100);
        is_refused(&served, served.proxy.address_v6(), "addresses");
        let name = bobs("secret_addresses");
        metrics(&served.proxy).expect(&[(&name, 1), (&refusals("expired"), 0)]);
        first.echo(100);
        first.leave();
        wait_for(
            || metrics(&served.proxy),
            "nobody",
            |figures| figures.number(&name) == 0,
        );
        bob_at(served.proxy.address_v6()).echo(100);

        let served = start(mode, "expires=2026-01-01", &[]);
        is_refused(&served, served.address(), "expired");
        drop(served.stop());
    }
}

#[test]
fn in_fake_tls_the_site_is_shown() {
    for mode in MODES {
        for (words, reason) in [
            ("max-connections=1", "connections"),
            ("max-ips=1", "addresses"),
            ("quota=100", "quota"),
            ("expires=2026-01-01T00:00Z", "expired"),
        ] {
            let site = MaskSite::with(silent());
            let domain = site.as_domain(DOMAIN);
            let served = start(mode, words, &["-D", &domain, "-6"]);
            let mut dialer = served.dialer(Kind::Today);
            dialer.secret = Some(BOB);
            if reason == "addresses" {
                dialer.address = served.proxy.address_v6();
            }
            dialer.tls = Some(Tls::new(Kind::Today, DOMAIN));
            let there = (reason != "expired").then(|| {
                let mut client = dialer.dial();
                let message = Message::echo(0).encode();
                match reason {
                    // The first message fits the quota, its answer doesn't.
                    "quota" => client.send(&[&message[..], &[0; 16]].concat()),
                    _ => client.send(&message),
                }
                match reason {
                    "quota" => client.drain_until_closed(),
                    _ => assert_eq!(client.packet(), message),
                }
                client
            });
            goes_to_the_site(&served, &site, reason);
            served.dial().echo(100);
            drop(there);
            let summary = served.stop();
            assert_eq!(summary.count("tls_refused_allowance"), 1, "{words}");
        }
    }
}

#[test]
fn a_quota_is_exact_and_ends_all_clients_of_its_secret() {
    for (mode, framing) in [(Mode::Middle, 0), (Mode::Direct, 4)] {
        let length = Message::echo(1_000).encode().len() + framing;
        let quota = format!("quota={}", 6 * length);
        let served = start(mode, &quota, &[]);
        let mut clients = [bob(&served), bob(&served)];
        clients[0].echo(1_000);
        metrics(&served.proxy).expect(&[(&bobs("secret_quota_left_bytes"), 4 * length as u64)]);
        clients[1].echo(1_000);
        clients[1].echo(1_000);
        metrics(&served.proxy).expect(&[(&bobs("secret_quota_left_bytes"), 0)]);
        for client in &mut clients {
            client.send(&Message::echo(0).encode());
            client.expect_closed();
        }
        is_refused(&served, served.address(), "quota");
        let summary = served.stop();
        assert_eq!(summary.count("closed_secret_quota"), 2);
    }
}

#[test]
fn a_secret_expires_while_its_clients_are_idle() {
    for mode in MODES {
        let served = start(mode, &format!("expires={}", utc(now() + 4)), &[]);
        let mut client = bob(&served);
        client.echo(100);
        client.expect_closed();
        is_refused(&served, served.address(), "expired");
        assert_eq!(served.stop().count("closed_secret_expired"), 1);
    }
}

#[test]
fn a_rate_loses_nothing() {
    for mode in MODES {
        let site = MaskSite::start();
        let domain = site.as_domain(DOMAIN);
        let served = start(mode, "rate=400k", &["-D", &domain, "--allow-plain"]);
        let mut plain = dialer(served.address(), Transport::Padded);
        plain.secret = Some(BOB);
        let mut in_tls = plain;
        in_tls.tls = Some(Tls::new(Kind::Today, DOMAIN));
        for dialer in [plain, in_tls] {
            let mut client = dialer.dial();
            client.send(&Message::stream(7, 300_000, 50_000).encode());
            let got: Vec<u8> = (0..6).flat_map(|_| client.packet()).collect();
            assert!(got == Stream::new(7).take(300_000));
            client.echo(150_000);
        }
    }
}

#[test]
fn what_is_used_is_kept_over_a_restart() {
    let files = Files::new();
    let state = files.path("state");
    // The program may run as nobody.
    let everybody = Permissions::from_mode(0o777);
    fs::set_permissions(files.path(""), everybody).expect("a directory for everybody");
    let length = Message::echo(1_000).encode().len() as u64;
    let restart = || start(Mode::Middle, "quota=1m", &["--state", &state]);
    let left = bobs("secret_quota_left_bytes");
    let mut served = restart();
    for rounds in 1..3 {
        bob(&served).echo(1_000);
        metrics(&served.proxy).expect(&[(&left, (1 << 20) - rounds * 2 * length)]);
        served.stop();
        served = restart();
        metrics(&served.proxy).expect(&[(&left, (1 << 20) - rounds * 2 * length)]);
    }
    served.stop();

    let whole = files.read("state.usage");
    for bad in [
        "",
        "something else\n",
        &whole[..whole.len() - 1],
        &whole[..whole.len() / 2],
        &whole.replace("bob ", "bob x"),
    ] {
        files.write("state.usage", bad.as_bytes());
        let served = restart();
        served.proxy.wait_for_line("a warning", |line| {
            line.starts_with("warning: ") && line.contains("state.usage")
        });
        metrics(&served.proxy).expect(&[(&left, 1 << 20)]);
        served.stop();
        assert_eq!(files.read("state.usage.bad"), bad);
    }
}

#[test]
fn a_thousand_secrets_from_a_file() {
    let files = Files::new();
    let line = |number: u32| format!("{:032x}:n{number} max-ips=9\n", 7 + u128::from(number));
    let lines: String = (0..1_023).map(line).collect();
    let path = files.write("secrets", lines.as_bytes());
    fs::set_permissions(&path, Permissions::from_mode(0o644)).expect("a file for everybody");
    let served = Served::start(Mode::Direct, &["--secret-file", &path]);
    let mut dialer = dialer(served.address(), Transport::Abridged);
    for number in [0, 511, 1_022] {
        dialer.secret = Some((7 + u128::from(number as u32)).to_be_bytes());
        dialer.dial().echo(100);
    }
}

/// The board that operators import shows what there is.
#[test]
fn the_board_names_metrics_that_there_are() {
    let served = start(Mode::Middle, "quota=1m", &[]);
    bob(&served).echo(100);
    let text = page(stats_address(&served.proxy), "/metrics");
    let board = include_str!("../testdata/grafana.json");
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = board.split(|c| !is_name(c));
    let names: Vec<&str> = words
        .filter(|word| ["mtproxy_", "process_"].iter().any(|p| word.starts_with(p)))
        .collect();
    assert!(names.len() > 20);
    for name in names {
        let sample = |line: &str| {
            line.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with(['{', ' ']))
        };
        assert!(text.lines().any(sample), "no {name} on the page");
    }
}
