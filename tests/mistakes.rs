//! What operators get wrong or their editors add: files that are read all the same, and sentences that say
//! what to do.

use crate::support::direct_rig::direct_proxy;
use crate::support::framing::Transport;
use crate::support::middle_proxy::{MiddleProxy, Options};
use crate::support::proxy::{Files, Proxy, Setup, run_to_end};
use crate::support::rig::{SECRET, dialer};
use crate::support::vectors::to_hex;
use std::fs::{Permissions, set_permissions};
use std::net::Ipv6Addr;
use std::os::unix::fs::PermissionsExt;

const DIGITS: &str = "0123456789abcdef0123456789abcdef";

/// As `cat` makes it of Telegram's files for IPv4 and IPv6, in an editor of Windows.
#[test]
fn joined_files_and_byte_order_marks_are_understood() {
    let options = Options {
        ip: Ipv6Addr::LOCALHOST.into(),
        ..Options::default()
    };
    let (v4, v6) = (MiddleProxy::serving(), MiddleProxy::start(options));
    let (first, second) = (v4.config_line(2), v6.config_line(2));
    let mut setup = Setup::new(format!(
        "\u{feff}default 2;\r\n{first}default 2;\r\n{second}"
    ));
    let files = Files::new();
    let text = format!("\u{feff}{}\r\n", to_hex(&SECRET));
    let secrets = files.write("secrets", text.as_bytes());
    setup.arguments = vec!["--secret-file".into(), secrets, "-M".into(), "2".into()];
    setup.proxy_secret = v4.proxy_secret().to_vec();
    let proxy = Proxy::start(&setup);
    v4.link(0);
    let mut clients: Vec<_> = (0..9)
        .map(|_| dialer(proxy.address(), Transport::Padded).dial())
        .collect();
    clients.iter_mut().for_each(|client| client.echo(100));
    v6.link(0);
}

#[test]
fn secrets_that_everybody_can_read_are_a_warning() {
    let files = Files::new();
    let path = files.write("secrets", DIGITS.as_bytes());
    for (mode, wanted) in [(0o644, true), (0o640, false), (0o600, false)] {
        set_permissions(&path, Permissions::from_mode(mode)).expect("a mode");
        let proxy = direct_proxy(&[], &["--secret-file", &path]);
        let warning =
            format!("warning: every user of this machine can read {path}: chmod o-r {path}");
        assert_eq!(proxy.lines().contains(&warning), wanted, "{mode:o}");
    }
    let middle = MiddleProxy::serving();
    let proxy = Proxy::start(&Setup::new(middle.config_line(2)));
    let is_it = |line: &String| line.contains("can read") && line.ends_with("/proxy-secret");
    assert!(proxy.lines().iter().any(is_it));
}

#[test]
fn a_link_in_place_of_a_secret_is_named_and_not_repeated() {
    let files = Files::new();
    for start in ["tg://", "https://t.me/"] {
        let link = format!("{start}proxy?server=proxy.example&port=443&secret=dd{DIGITS}");
        let path = files.write("secrets", link.as_bytes());
        for (arguments, code) in [(["-S", &link], 2), (["--secret-file", &path], 1)] {
            let arguments = [&["-H", "0"][..], &arguments].concat();
            let arguments: Vec<String> = arguments.into_iter().map(str::to_owned).collect();
            let refusal = run_to_end(&arguments);
            assert_eq!(refusal.code, Some(code), "{}", refusal.text);
            assert!(
                refusal.text.contains("stands behind secret="),
                "{}",
                refusal.text
            );
            assert!(!refusal.text.contains(&DIGITS[..8]), "{}", refusal.text);
        }
    }
}

#[test]
fn what_was_saved_in_place_of_the_proxy_secret_is_named() {
    let page = b"<!DOCTYPE html><title>404</title>".repeat(4);
    for (file, ends, text) in [
        (vec![0xc4; 128], false, None),
        (
            vec![0xc4; 129],
            false,
            Some("it has 129 bytes instead of 128"),
        ),
        (page.repeat(1), false, Some("it is an HTML page")),
        (page.repeat(3), true, Some("it is an HTML page")),
        (
            DIGITS.repeat(8).into_bytes(),
            false,
            Some("it is hexadecimal text"),
        ),
        (
            DIGITS.repeat(9).into_bytes(),
            true,
            Some("it is hexadecimal text"),
        ),
    ] {
        let mut setup = Setup::new("proxy 192.0.2.1:80;".into());
        setup.proxy_secret = file;
        let said = match ends {
            true => {
                let files = Files::new();
                let secret = files.write("proxy-secret", &setup.proxy_secret);
                let config = files.write("proxy-multi.conf", setup.config.as_bytes());
                let arguments = ["-H", "0", "--aes-pwd", &secret, &config].map(str::to_owned);
                let refusal = run_to_end(&arguments);
                assert_eq!(refusal.code, Some(1), "{}", refusal.text);
                refusal.text
            }
            false => Proxy::start(&setup).lines().join("\n"),
        };
        match text {
            Some(text) => assert!(said.contains(text), "{said}"),
            None => assert!(!said.contains("hardly"), "{said}"),
        }
    }
}
