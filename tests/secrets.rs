//! Who is let in: holders of any of the secrets, and with none configured everybody with raw keys.

use crate::support::framing::{TRANSPORTS, Transport};
use crate::support::middle_proxy::MiddleProxy;
use crate::support::obfuscated2::Secret;
use crate::support::proxy::{Proxy, Setup};
use crate::support::random::random_bytes;
use crate::support::rig::{Rig, dialer};
use crate::support::vectors::to_hex;

#[test]
fn each_of_several_secrets_opens() {
    let middle = MiddleProxy::serving();
    let mut setup = Setup::new(middle.config_line(2));
    setup.secrets = (0..16).map(|_| random_bytes()).collect();
    let proxy = Proxy::start(&setup);
    for secret in &setup.secrets {
        for transport in TRANSPORTS {
            let mut dialer = dialer(proxy.address(), transport);
            dialer.secret = Some(*secret);
            dialer.dial().echo(10);
        }
    }
}

#[test]
fn without_secrets_raw_keys_open_and_the_log_warns() {
    let middle = MiddleProxy::serving();
    let proxy = Proxy::start(&Setup::new(middle.config_line(2)));
    for transport in TRANSPORTS {
        let mut dialer = dialer(proxy.address(), transport);
        dialer.secret = None;
        dialer.dial().echo(10);
    }
    let lines = proxy.lines();
    assert!(
        lines.iter().any(|line| line.starts_with("warning: ")),
        "no warning in {lines:#?}"
    );
}

#[test]
fn padded_only_still_serves_padded_clients() {
    let rig = Rig::with(&["-R"], Default::default());
    rig.dial(Transport::Padded).echo(10);
}

/// The dd form of a link may be given to -S as well (design.md 5).
#[test]
fn a_secret_may_be_given_in_its_dd_form() {
    let middle = MiddleProxy::serving();
    let secret: Secret = random_bytes();
    let mut setup = Setup::new(middle.config_line(2));
    setup.arguments = vec!["-S".to_owned(), format!("dd{}", to_hex(&secret))];
    let proxy = Proxy::start(&setup);
    let mut dialer = dialer(proxy.address(), Transport::Padded);
    dialer.secret = Some(secret);
    dialer.dial().echo(10);
}

/// Nothing that the program writes may show a secret.
#[test]
fn the_log_never_shows_a_secret() {
    let middle = MiddleProxy::serving();
    let mut setup = Setup::new(middle.config_line(2));
    setup.secrets = vec![random_bytes()];
    setup.arguments = vec!["-vvv".to_owned()];
    let proxy = Proxy::start(&setup);
    let mut dialer = dialer(proxy.address(), Transport::Padded);
    dialer.secret = Some(setup.secrets[0]);
    dialer.dial().echo(10);
    let digits = to_hex(&setup.secrets[0]);
    let log = proxy.lines().join("\n").to_lowercase();
    assert!(
        !log.contains(&digits[..16]) && !log.contains(&digits[16..]),
        "a secret in the log"
    );
}
