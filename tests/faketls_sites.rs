//! Which site is behind the mask: the right one for each name, and none that can't be reached or is the proxy
//! itself.

use crate::support::dc::Refusing;
use crate::support::mask_site::{GOODBYE, MaskSite, silent};
use crate::support::proxy::run_to_end;
use crate::support::random::random_bytes;
use crate::support::rig::SECRET;
use crate::support::sockets::{dial, expect_closed, free_address, read_to_end, say_and_end};
use crate::support::tls_hello::{Kind, end_of_name};
use crate::support::tls_rig::{DOMAIN, MODES, Mode, Served};
use crate::support::vectors::to_hex;
use std::io::Write;

/// A hello that a client with another secret sends.
fn foreign(name: &str) -> Vec<u8> {
    Kind::Today.signed(name, &random_bytes())
}

#[test]
fn every_name_leads_to_its_own_site() {
    for mode in MODES {
        let sites = MaskSite::three(silent());
        let domains = sites.each_ref().map(|(site, name)| site.as_domain(name));
        let arguments: Vec<&str> = domains.iter().flat_map(|text| ["-D", text]).collect();
        let served = Served::start(mode, &arguments);
        let whole = [
            (0, foreign(DOMAIN)),
            (0, foreign("LOCALHOST.")),
            (1, foreign("127.0.0.2")),
            (2, foreign("::1")),
            (0, foreign("www.example.com")),
            (0, Kind::Today.nameless()),
            (0, b"GET / HTTP/1.0\r\n\r\n".to_vec()),
        ];
        let cut = cut_around_the_name("127.0.0.2");
        let visitors = [&whole[..], &cut].concat();
        for (number, said) in &visitors {
            let stream = dial(served.address());
            say_and_end(&stream, said);
            sites[*number].0.wait_for_all(said);
            assert_eq!(read_to_end(&stream), GOODBYE);
            let heard = sites.iter().filter(|(site, _)| site.has_heard(said));
            assert_eq!(heard.count(), 1, "one site for {number}");
        }
        let summary = served.stop();
        assert_eq!(summary.count("mask_connections"), visitors.len() as u64);
        assert_eq!(summary.count("tls_refused_incomplete"), cut.len() as u64);
    }
}

/// Hellos that end early, and the number of the site that each leads to: until the last byte of the name has come
/// nobody knows it, from then on it counts. The name stands anywhere in a hello as of today.
fn cut_around_the_name(name: &str) -> [(usize, Vec<u8>); 6] {
    [
        (Kind::Today, 0, -1),
        (Kind::Today, 1, 0),
        (Kind::Old, 0, -1),
        (Kind::Old, 1, 0),
        (Kind::Old, 1, 1),
        (Kind::Old, 1, isize::MAX),
    ]
    .map(|(kind, number, further)| {
        let mut hello = kind.signed(name, &random_bytes());
        let end = end_of_name(&hello, name).saturating_add_signed(further);
        hello.truncate(end.min(hello.len() - 1));
        (number, hello)
    })
}

#[test]
fn one_site_for_all_names() {
    let site = MaskSite::with(silent());
    let mask = site.address.to_string();
    let served = Served::start(
        Mode::Direct,
        &[
            "-D",
            "one.example",
            "-D",
            "two.example:8443",
            "--mask",
            &mask,
        ],
    );
    for name in ["one.example", "two.example", "three.example"] {
        let said = foreign(name);
        let mut stream = dial(served.address());
        stream.write_all(&said).expect("send");
        site.wait_for_bytes(&said);
    }
}

/// Strangers are closed without a word; clients are served all the same.
#[test]
fn a_site_that_refuses_connections() {
    for mode in MODES {
        let nobody = Refusing::new();
        let domain = format!("{DOMAIN}:{}", nobody.address.port());
        let served = Served::start(mode, &["-D", &domain]);
        served.dial().echo(10);
        let mut stream = dial(served.address());
        stream.write_all(b"is anybody there?").expect("send");
        expect_closed(&stream);
        served.dial().echo(10);
        let summary = served.stop();
        assert_eq!(summary.count("mask_unreachable"), 1);
        assert_eq!(summary.count("tls_refused_not_tls"), 1);
    }
}

/// Whatever leads back to the port that strangers come to would go round for ever. What only a name
/// server knows is looked up after the start, and faketls_names' affair; the hosts file is read before it.
#[test]
fn an_address_that_is_the_proxys_own_is_refused() {
    let secret = to_hex(&SECRET);
    for place in [
        "127.0.0.1",
        "127.0.0.2",
        "0.0.0.0",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "localhost",
    ] {
        for by_mask in [false, true] {
            let port = free_address().port().to_string();
            let site = format!("{place}:{port}");
            let mut arguments = vec!["--direct", "-6", "-H", &port, "-S", &secret];
            if by_mask {
                arguments.extend(["-D", "www.example.com", "--mask", &site]);
            } else {
                arguments.extend(["-D", &site]);
            }
            let refusal = run_to_end(&arguments);
            assert_eq!(refusal.code, Some(1), "{site}: {}", refusal.text);
            let flag = if by_mask { "--mask" } else { "-D" };
            let says_why = |line: &str| line.starts_with("mtproxy: ") && line.contains(flag);
            assert!(refusal.text.lines().any(says_why), "{}", refusal.text);
        }
    }
}
