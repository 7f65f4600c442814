//! Telegram and the mask through a SOCKS5 server: real ones (Debian's microsocks and dante) and one of the
//! tests' own; one that dies in between, and passwords that never show.

use crate::support::dc::{Behaviour, DataCentre};
use crate::support::direct_rig::direct_proxy;
use crate::support::framing::Transport;
use crate::support::mask_site::MaskSite;
use crate::support::middle_proxy::Options;
use crate::support::proxy::Proxy;
use crate::support::rig::{Rig, dialer};
use crate::support::servers::{Server, dante, microsocks, microsocks_at, socks};
use crate::support::sockets::{dial, free_address};
use crate::support::tls_hello::Kind;
use crate::support::tls_rig::{DOMAIN, Mode, Served};
use crate::support::transfers::{PIECES, download, upload};
use crate::support::wait::uninterrupted;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};

const PASSWORD: &str = "a-pass:word@of-its-own";

fn has_no_password(proxy: &Proxy) {
    let shown = proxy.lines().join("\n");
    assert!(!shown.contains(PASSWORD), "{shown}");
}

#[test]
fn direct_mode_with_and_without_a_password() {
    for login in [None, Some(("me", PASSWORD))] {
        let Some(server) = microsocks(login) else {
            return;
        };
        let centre = DataCentre::start(Behaviour::Serve);
        let place = match login {
            None => server.address.to_string(),
            Some((user, password)) => format!("{user}:{password}@{}", server.address),
        };
        let proxy = direct_proxy(&[&centre.as_dc(2)], &["--socks5", &place]);
        let dial = || dialer(proxy.address(), Transport::Padded).dial();
        let mut client = dial();
        upload(&mut client, 4 << 20, &PIECES);
        download(&mut client, 4 << 20, 500_000);

        // It dies: the client at work ends, new ones are closed, and the log says why.
        let address = server.end();
        client.expect_closed();
        dial().expect_closed();
        let name = format!("socks_failed server={address} error=\"Connection refused");
        proxy.wait_for_line("what fails", |line| line.contains(&name));
        let lines = proxy.wait_for_line("the data centre", |line| {
            line.contains("dc_unreachable dc=2 error=\"the SOCKS5 server fails: Connection refused")
        });
        assert!(lines.contains(" failures=1"), "{lines}");

        // It comes back.
        let again = |_: &_, address| microsocks_at(address, login);
        let _server = Server::start_at("microsocks", address, &again).expect("its old port");
        dial().echo(1_000);
        proxy.wait_for_line("its return", |line| line.contains("dc_reachable dc=2"));
        has_no_password(&proxy);
        assert_eq!(proxy.stop().count("socks_failures"), 1);
    }
}

#[test]
fn a_wrong_password_is_named_and_not_shown() {
    let Some(server) = microsocks(Some(("me", "another"))) else {
        return;
    };
    let centre = DataCentre::start(Behaviour::Serve);
    for (login, what) in [
        (
            format!("me:{PASSWORD}@"),
            "it refuses the user name and password",
        ),
        (String::new(), "it wants a user name and password"),
    ] {
        let place = format!("{login}{}", server.address);
        let proxy = direct_proxy(&[&centre.as_dc(2)], &["--socks5", &place]);
        dialer(proxy.address(), Transport::Padded)
            .dial()
            .expect_closed();
        let sign = format!("socks_failed server={} error=\"{what}", server.address);
        proxy.wait_for_line("what fails", |line| line.contains(&sign));
        has_no_password(&proxy);
    }
    assert_eq!(centre.with(|state| state.accepted), 0);
}

/// A target that can't be reached is none of the server's failures.
#[test]
fn a_target_that_refuses_is_told_from_the_server() {
    let Some(server) = microsocks(None) else {
        return;
    };
    let place = server.address.to_string();
    let nobody = format!("2:{}", free_address());
    let proxy = direct_proxy(&[&nobody], &["--socks5", &place]);
    dialer(proxy.address(), Transport::Padded)
        .dial()
        .expect_closed();
    proxy.wait_for_line("the data centre", |line| {
        line.contains("dc_unreachable dc=2 error=\"connection refused, says the SOCKS5 server\"")
    });
    assert_eq!(proxy.stop().count("socks_failures"), 0);
}

/// Keys are made of the address that the server names.
#[test]
fn middle_mode_through_dante() {
    let Some(server) = dante() else { return };
    let place = server.address.to_string();
    let rig = Rig::with(&["--socks5", &place], Options::default());
    let mut client = rig.dial(Transport::Padded);
    upload(&mut client, 4 << 20, &PIECES);
    download(&mut client, 4 << 20, 500_000);
    // Its processes end with the connections that they have.
    server.end();
    rig.middle.kill_links();
    client.expect_closed();
    rig.proxy.wait_for_line("back-off", |line| {
        line.contains("backend_failed target=") && line.contains(" reason=socks retry=1.")
    });
}

#[test]
fn middle_mode_corrects_the_address_by_nat_info() {
    // The server is behind NAT: it names its private address.
    let inside = Ipv4Addr::new(10, 9, 9, 9);
    let server = socks(inside);
    let place = server.address.to_string();
    let rule = format!("{inside}:127.0.0.1");
    let flags = ["--socks5", &place, "--nat-info", &rule];
    let rig = Rig::with(&flags, Options::default());
    rig.dial(Transport::Padded).echo(5_000);
    let event = rig.proxy.wait_for_events("backend_ready", 1).remove(0);
    assert!(event.text("local").starts_with("10.9.9.9:"), "{event:?}");
    assert_eq!(event.text("target"), rig.middle.address.to_string());
}

#[test]
fn middle_mode_says_when_the_server_names_no_address() {
    let Some(server) = microsocks(None) else {
        return;
    };
    let place = server.address.to_string();
    let rig = Rig::with(&["--socks5", &place], Options::default());
    rig.proxy.wait_for_line("the reason", |line| {
        line.contains(" reason=socks_tells_no_address retry=")
    });
    rig.middle.forget_failures();
}

/// What a visitor hears who knows no secret.
fn visit(address: SocketAddr) -> Vec<u8> {
    let stream = dial(address);
    let hello = Kind::Today.signed(DOMAIN, b"of another proxy");
    (&stream).write_all(&hello).expect("send");
    let mut heard = vec![0; 64];
    let length = uninterrupted(|| (&stream).read(&mut heard)).expect("an answer or an end");
    heard.truncate(length);
    heard
}

/// The site of -D is reached through it, a web server of one's own at --mask is not.
#[test]
fn the_mask_goes_through_it() {
    let Some(server) = microsocks(None) else {
        return;
    };
    let site = MaskSite::start();
    let (place, domain) = (server.address.to_string(), site.as_domain(DOMAIN));
    let mask = site.address.to_string();
    let served = Served::start(Mode::Direct, &["-D", &domain, "--socks5", &place]);
    let flags = ["-D", DOMAIN, "--mask", &mask, "--socks5", &place];
    let own = Served::start(Mode::Direct, &flags);
    let said = served.wait_until_probed(DOMAIN);
    assert!(said.contains(&format!("site={mask} ")), "{said}");
    assert!(!visit(served.address()).is_empty());
    server.end();
    assert!(visit(served.address()).is_empty());
    served
        .proxy
        .wait_for_line("what fails", |line| line.contains(" socks_failed server="));
    assert!(!visit(own.address()).is_empty());
    assert_eq!(served.stop().count("mask_unreachable"), 1);
}
