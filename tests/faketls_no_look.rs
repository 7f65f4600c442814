//! Sites that the proxy can learn nothing from: it says so once, and its clients are served all the same.

use crate::support::dc::Unanswering;
use crate::support::mask_site::{MaskSite, Script, answering, silent};
use crate::support::programs::show;
use crate::support::sockets::{dial, expect_closed};
use crate::support::tls_flight::{alert, old_version, retry_request};
use crate::support::tls_hello::KINDS;
use crate::support::tls_rig::{DOMAIN, MODES, Mode, Served, TlsRig, ask};
use std::io::Write;
use std::thread;

/// Where nothing is known: the record behind the ServerHello is as long as a usual chain of certificates.
const FALLBACK: std::ops::RangeInclusive<usize> = 2_000..=4_700;

/// Each says what is wrong, once, with the domain's name; its clients are served all the same.
#[test]
fn sites_of_no_use_are_said_so_once() {
    let sites: [(&str, Script); 6] = [
        (
            "another hello is asked for",
            answering(|hello| vec![retry_request(hello)], false),
        ),
        (
            "TLS 1.2",
            answering(|hello| vec![old_version(hello)], false),
        ),
        ("an alert", answering(|_| vec![alert(40)], true)),
        ("an end", answering(|_| Vec::new(), true)),
        (
            "no TLS",
            answering(|_| vec![b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()], true),
        ),
        ("silence", silent()),
    ];
    thread::scope(|scope| {
        for (name, script) in sites {
            scope.spawn(move || {
                let rig = TlsRig::before(MaskSite::with(script), Mode::Direct, &[]);
                let sign = format!("warning: -D {DOMAIN}");
                let proxy = &rig.served.proxy;
                let line = proxy.wait_for_line(name, |line| line.contains(&sign));
                for kind in KINDS {
                    let (_, flight) = ask(rig.address(), kind, DOMAIN);
                    assert_eq!(flight.cipher, kind.ciphers()[0], "{name}");
                    assert_eq!(flight.group, 0x1d, "{name}");
                    assert!(FALLBACK.contains(&flight.records[0]), "{name}: {flight:?}");
                }
                rig.dial().echo(100);
                let lines = proxy.lines();
                let warnings = lines.iter().filter(|line| line.contains(&sign));
                assert_eq!(warnings.count(), 1, "{name}: {lines:#?}");
                assert!(
                    !lines.iter().any(|line| line.contains("mask domain=")),
                    "{name}"
                );
                show(&format!("{name}: {line}"));
            });
        }
    });
}

/// Neither the start nor a client waits for it; strangers hear nothing.
#[test]
fn a_site_that_does_not_answer_connections() {
    let nobody = Unanswering::new();
    let domain = format!("{DOMAIN}:{}", nobody.address.port());
    thread::scope(|scope| {
        for mode in MODES {
            let domain = &domain;
            scope.spawn(move || {
                let served = Served::start(mode, &["-D", domain]);
                served.dial().echo(100);
                let mut stream = dial(served.address());
                stream.write_all(b"is anybody there?").expect("send");
                served.dial().echo(100);
                expect_closed(&stream);
                assert_eq!(served.stop().count("mask_unreachable"), 1);
            });
        }
    });
}
