//! `mtproxy ping`: a client through this program's own server in both modes and by every kind of link, and
//! where it says that it failed when the other side isn't what the link promises.

use crate::support::command::{Said, command};
use crate::support::dc::{Behaviour, DataCentre, Refusing};
use crate::support::direct_rig::direct_proxy;
use crate::support::mask_site::{MaskSite, Reply};
use crate::support::middle_proxy::Options;
use crate::support::rig::{Rig, SECRET};
use crate::support::tls_rig::{DOMAIN, Mode, TlsRig};
use crate::support::vectors::to_hex;
use std::net::SocketAddr;

#[test]
fn every_kind_of_link_in_both_modes() {
    let options = || Options {
        exchanges_keys: true,
        ..Options::default()
    };
    for domain in [None, Some(DOMAIN)] {
        let site = MaskSite::start();
        let name = site.as_domain(DOMAIN);
        let flags: &[&str] = if domain.is_some() {
            &["-D", &name]
        } else {
            &[]
        };
        let middle = Rig::with(flags, options());
        let centre = DataCentre::start(Behaviour::Serve);
        let direct = direct_proxy(&[&centre.as_dc(2)], flags);
        for address in [middle.proxy.address(), direct.address()] {
            let links = match domain {
                None => vec![plain(address), padded(address), base64(address)],
                Some(domain) => vec![fake_tls(address, domain)],
            };
            for link in links {
                let said = command(&["ping", "--dc", "2,-2", "--count", "3", &link]);
                assert_eq!((said.code, said.errors.as_str()), (Some(0), ""), "{said:?}");
                let lines: Vec<&str> = said.output.lines().collect();
                assert_eq!(lines.len(), 2, "{said:?}");
                for (line, name) in lines.iter().zip(["DC 2", "DC -2"]) {
                    assert!(
                        line.starts_with(&format!("ok    {name}: resPQ after ")),
                        "{line}"
                    );
                    assert_eq!(line.contains(", hello "), domain.is_some(), "{line}");
                    let times = line
                        .split(" after ")
                        .nth(1)
                        .and_then(|rest| rest.split(" ms").next());
                    assert_eq!(
                        times.map(|times| times.split(' ').count()),
                        Some(3),
                        "{line}"
                    );
                }
            }
        }
    }
}

#[test]
fn five_data_centres_and_for_a_program() {
    let centre = DataCentre::start(Behaviour::Serve);
    let all: Vec<String> = (1..=5).map(|dc| centre.as_dc(dc)).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let proxy = direct_proxy(&all, &[]);
    let said = command(&["ping", "--json", &plain(proxy.address())]);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(
        said.output
            .starts_with("{\"verdict\":\"ok\",\"findings\":[{\"name\":\"DC 1\"")
    );
    assert_eq!(said.output.matches("\"phase\":\"\",\"ms\":[").count(), 5);
    for dc in 1..=5 {
        centre.wait_for("its header", |state| {
            state
                .headers
                .iter()
                .any(|header| header.dc == dc)
                .then_some(())
        });
    }
}

#[test]
fn what_fails_where_and_why() {
    let centre = DataCentre::start(Behaviour::Serve);
    let refusing = Refusing::new();
    let dead = format!("3:{}", refusing.address);
    let overrides = [&centre.as_dc(2), dead.as_str()];
    let proxy = direct_proxy(&overrides, &[]);
    let tls = TlsRig::with(Mode::Direct, &["--dc-override", &dead]);
    let web = MaskSite::with(Box::new(|received: &[u8]| {
        let bad = b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec();
        (received.len() > 60).then(|| Reply {
            writes: vec![bad],
            close: true,
        })
    }));
    let wrong = "0123456789abcdef0123456789abcdef";
    let wrong_tls = format!("ee{wrong}{}", to_hex(DOMAIN.as_bytes()));
    let at = proxy.address();
    for (dc, link, wanted) in [
        (
            "2",
            link_to(at, wrong),
            "fail  DC 2: answer: no answer; wrong secret",
        ),
        (
            "3",
            plain(at),
            "fail  DC 3: answer: the connection ended without an answer; wrong secret",
        ),
        (
            "2,3",
            plain(at),
            "DC 3: answer: the connection ended without an answer; the secret is right",
        ),
        (
            "2",
            plain(refusing.address),
            "fail  DC 2: connect: connection refused; nothing listens",
        ),
        (
            "2",
            plain(web.address),
            "fail  DC 2: answer: a web server answers; not this proxy",
        ),
        (
            "2",
            fake_tls(web.address, "a.b"),
            "fail  DC 2: hello: TCP connects, the hello is answered, but not in TLS",
        ),
        (
            "2",
            link_to(tls.address(), &wrong_tls),
            "fail  DC 2: hello: TCP connects, the hello is answered by the real site; wrong secret, a clock",
        ),
        (
            "2",
            fake_tls(at, "a.b"),
            "fail  DC 2: hello: TCP connects, the hello gets no answer; no fake TLS",
        ),
        (
            "3",
            fake_tls(tls.address(), DOMAIN),
            "the secret is right: the proxy can't reach",
        ),
        (
            "2",
            "tg://proxy?server=h.invalid&port=1&secret=".to_owned() + wrong,
            "fail  h.invalid: resolve: ",
        ),
        (
            "2",
            "tg://webproxy?server=h&port=1".to_owned(),
            "fail  link: link: this is the link of a WEB proxy",
        ),
        (
            "2",
            link_to(at, &wrong[1..]),
            "fail  link: link: expected a secret",
        ),
    ] {
        let Said {
            code,
            output,
            errors,
        } = command(&["ping", "--timeout", "4", "--dc", dc, &link]);
        assert_eq!((code, errors.as_str()), (Some(1), ""), "{link}: {output}");
        assert!(output.contains(wanted), "{link}: {output}");
        assert!(!output.contains(&wrong[1..]), "a secret in {output}");
    }
}

#[test]
fn wrong_answers_of_a_data_centre() {
    let error = (-404_i32).to_le_bytes().to_vec();
    for (answer, wanted) in [
        (error, "answer: Telegram's error -404"),
        (
            vec![7; 84],
            "answer: the answer is no resPQ to our question",
        ),
    ] {
        let centre = DataCentre::start(Behaviour::HandOver);
        let proxy = direct_proxy(&[&centre.as_dc(2)], &[]);
        let link = plain(proxy.address());
        let ping = std::thread::spawn(move || command(&["ping", "--dc", "2", &link]));
        let mut far = centre.take();
        let asked = far.request().expect("a packet").expect("a packet");
        assert_eq!(asked.0.len(), 40);
        assert!(far.send(&answer));
        let said = crate::support::wait::joined("ping", ping);
        assert_eq!(said.code, Some(1));
        assert!(said.output.contains(wanted), "{said:?}");
    }
}

#[test]
fn wrong_command_lines() {
    for (arguments, wanted) in [
        (&["ping"][..], "ping: expected one link"),
        (&["ping", "a", "b"], "ping: expected one link"),
        (
            &["ping", "--count", "21", "a"],
            "--count: expected a number from 1 to 20, got \"21\"",
        ),
        (
            &["ping", "--timeout", "0", "a"],
            "--timeout: expected seconds from 1 to 300",
        ),
        (
            &["ping", "--dc", "2,x", "a"],
            "--dc: expected at most 16 data centres",
        ),
        (&["ping", "-h"], "usage: mtproxy ping"),
    ] {
        let said = command(arguments);
        assert_eq!((said.code, said.output.as_str()), (Some(2), ""));
        assert!(said.errors.contains(wanted), "{said:?}");
    }
}

fn link_to(address: SocketAddr, secret: &str) -> String {
    let (ip, port) = (address.ip(), address.port());
    format!("tg://proxy?server={ip}&port={port}&secret={secret}")
}

fn plain(address: SocketAddr) -> String {
    link_to(address, &to_hex(&SECRET))
}

fn padded(address: SocketAddr) -> String {
    link_to(address, &format!("dd{}", to_hex(&SECRET)))
}

/// The plain one, as other programs write it.
fn base64(address: SocketAddr) -> String {
    let link = link_to(address, "c2l4dGVlbiBieXRlcyBvaw");
    link.replace("tg://", "https://t.me/")
}

fn fake_tls(address: SocketAddr, domain: &str) -> String {
    link_to(
        address,
        &format!("ee{}{}", to_hex(&SECRET), to_hex(domain.as_bytes())),
    )
}
