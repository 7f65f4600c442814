//! Faults of fake TLS towards strangers that were there once, each with a test of its own: masks that could be
//! switched off or led in circles, ends that were unlike the site's, places that were never free again.

use crate::support::mask_site::{MaskSite, Reply, Script, silent};
use crate::support::proxy::run_to_end;
use crate::support::random::{Stream, random_bytes};
use crate::support::rig::SECRET;
use crate::support::sockets::{
    Accepting, dial, expect_bytes, expect_closed, is_end, listener, read_bytes, read_to_end,
};
use crate::support::tls_flight::{Look, is_hello};
use crate::support::tls_hello::Kind;
use crate::support::tls_rig::{DOMAIN, MODES, Mode, Served, TlsRig};
use crate::support::vectors::to_hex;
use crate::support::wait::{Watch, uninterrupted, until};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

const ASKED: &[u8] = b"GET / HTTP/1.0\r\n\r\n";

/// A site whose connections are closed for good when `serve` has had them: the one of mask_site.rs keeps them.
struct Site(Accepting);

impl Site {
    fn start(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Site {
        let serve = Arc::new(serve);
        let listener = listener(Ipv4Addr::LOCALHOST.into());
        Site(Accepting::start(listener, move |stream| {
            let serve = Arc::clone(&serve);
            thread::spawn(move || serve(stream));
        }))
    }

    fn address(&self) -> SocketAddr {
        self.0.address
    }

    fn as_domain(&self) -> String {
        format!("{DOMAIN}:{}", self.address().port())
    }
}

/// Reads what a visitor asks. False when it goes before, or asks something else as a probe does.
fn is_asked(mut stream: &TcpStream) -> bool {
    let mut heard = vec![0; ASKED.len()];
    stream.read_exact(&mut heard).is_ok() && heard == ASKED
}

/// The same, and what is asked stays unread: closing the socket then sends a reset.
fn is_asked_unread(stream: &TcpStream) -> bool {
    let mut heard = vec![0; ASKED.len()];
    let count = uninterrupted(|| stream.peek(&mut heard));
    count.is_ok_and(|count| heard[..count] == *ASKED)
}

/// Answers in full and closes.
fn closing(answer: Vec<u8>) -> Site {
    Site::start(move |mut stream| {
        if is_asked(&stream) {
            let _ = stream.write_all(&answer);
        }
    })
}

fn ask(address: SocketAddr) -> TcpStream {
    let mut stream = dial(address);
    stream.write_all(ASKED).expect("ask");
    stream
}

/// A hello that a client with another secret sends.
fn foreign(name: &str) -> Vec<u8> {
    Kind::Today.signed(name, &random_bytes())
}

/// Leaves the first hello to the test and answers the others.
fn holding_the_first() -> Script {
    let is_first = AtomicBool::new(true);
    Box::new(move |received| {
        let answers = is_hello(received) && !is_first.swap(false, Ordering::Relaxed);
        answers.then(|| Reply {
            writes: vec![Look::default().answer(received)],
            close: false,
        })
    })
}

/// Whoever sees our probe on its way, the site's operator at least, could have switched the mask off with a
/// copy of it.
#[test]
fn a_copy_of_our_probe_does_not_switch_the_mask_off() {
    for mode in MODES {
        let rig = TlsRig::before(MaskSite::with(holding_the_first()), mode, &[]);
        let probe = rig
            .site
            .wait_for("a probe", |visit| is_hello(&visit.received));
        let hello = rig
            .site
            .with_state(|state| state.visits[probe].received.clone());
        let mut copy = dial(rig.address());
        copy.write_all(&hello).expect("send the copy");
        expect_closed(&copy);
        rig.site.say(probe, &Look::default().answer(&hello));
        rig.wait_until_probed();
        // Now it is a stranger's hello like any other.
        for said in [foreign(DOMAIN), hello] {
            let mut stream = dial(rig.address());
            stream.write_all(&said).expect("send");
            let answer = read_bytes(&stream, 6, "the site's answer");
            assert_eq!((answer[0], answer[5]), (0x16, 2), "{mode:?}");
            assert!(rig.site.has_heard(&said));
        }
        let lines = rig.served.proxy.lines();
        assert!(!lines.iter().any(|line| line.contains("warning: -D")));
        let summary = rig.stop();
        assert_eq!(summary.count("mask_connections"), 2);
        assert_eq!(summary.count("mask_unreachable"), 0);
    }
}

/// What is said to a site that has closed is answered by a reset, with the proxy as without.
#[test]
fn a_site_that_answers_and_closes() {
    for mode in MODES {
        for length in [100, 1 << 20] {
            let answer = Stream::new(5).take(length);
            let site = closing(answer.clone());
            let served = Served::start(mode, &["-D", &site.as_domain()]);
            for address in [site.address(), served.address()] {
                let mut stream = ask(address);
                let mut heard = Vec::new();
                stream.read_to_end(&mut heard).expect("an orderly end");
                assert!(heard == answer, "{} bytes of {length}", heard.len());
                expect_refusal(&stream);
            }
        }
    }
}

/// A few bytes may go until the reset is there.
fn expect_refusal(mut stream: &TcpStream) {
    until("the site's refusal", || match stream.write_all(b"?") {
        Ok(()) => None,
        Err(error) if is_end(&error) => Some(()),
        Err(error) => panic!("another end than a reset: {error}"),
    });
}

/// A stranger sees the site's reset as one, behind all that the site has said before.
#[test]
fn a_site_that_resets() {
    for mode in MODES {
        for length in [0, 1_000] {
            let answer = Stream::new(6).take(length);
            let said = answer.clone();
            let site = Site::start(move |mut stream| {
                if is_asked_unread(&stream) {
                    stream.write_all(&said).expect("a visitor that listens");
                }
            });
            let served = Served::start(mode, &["-D", &site.as_domain()]);
            for address in [site.address(), served.address()] {
                let mut heard = Vec::new();
                let end = ask(address).read_to_end(&mut heard);
                let end = end.map_err(|error| error.kind());
                assert_eq!(end, Err(ErrorKind::ConnectionReset), "{length}");
                assert!(heard == answer, "{} bytes of {length}", heard.len());
            }
        }
    }
}

/// The first visitor stays and goes on sending after the site has ended. Its place is free all the same.
#[test]
fn nobody_keeps_a_place_at_a_site_that_has_gone() {
    for mode in MODES {
        let answer = b"once and no more";
        let site = closing(answer.to_vec());
        let served = Served::start(mode, &["-D", &site.as_domain(), "--mask-max", "1"]);
        let mut first = ask(served.address());
        assert_eq!(read_to_end(&first), answer);
        until("a free place", || {
            let _ = first.write_all(b"?");
            let heard = read_to_end(&ask(served.address()));
            assert!(heard.is_empty() || heard == answer, "{heard:02x?}");
            (heard == answer).then_some(())
        });
    }
}

/// Its first word is heard although it closes before it reads. With the PROXY header in front the site may have
/// closed when the stranger's own bytes are to follow.
#[test]
fn a_site_that_speaks_and_closes_at_once() {
    const GREETING: &[u8] = b"220 not today\r\n";
    let site = Site::start(|mut stream| stream.write_all(GREETING).expect("a greeting"));
    let mask = site.address().to_string();
    for arguments in [
        &["-D", DOMAIN, "--mask", &mask][..],
        &["-D", DOMAIN, "--mask", &mask, "--mask-proxy-protocol"],
    ] {
        let served = Served::start(Mode::Direct, arguments);
        for number in 0..200 {
            let heard = read_to_end(&ask(served.address()));
            assert_eq!(heard, GREETING, "visitor {number} of {arguments:?}");
        }
    }
}

/// Probing takes seconds for each of them. The name that is looked up stands behind two that are not answered.
#[test]
fn names_are_looked_up_before_any_site_is_asked() {
    for mode in MODES {
        let sites = [Some(2), Some(3), None].map(|last| {
            let ip = Ipv4Addr::new(127, 0, 0, last.unwrap_or(1));
            MaskSite::start_on(IpAddr::V4(ip), silent())
        });
        let names = ["127.0.0.2", "127.0.0.3", DOMAIN];
        let domains = [0, 1, 2].map(|at| sites[at].as_domain(names[at]));
        let arguments: Vec<&str> = domains.iter().flat_map(|text| ["-D", text]).collect();
        let served = Served::start(mode, &arguments);
        for (site, name) in sites.iter().zip(names).rev() {
            let said = foreign(name);
            let mut stream = dial(served.address());
            stream.write_all(&said).expect("send");
            let visit = site.wait_for_bytes(&said);
            site.say(visit, b"here");
            expect_bytes(&stream, b"here", "the site");
        }
        assert_eq!(served.stop().count("mask_unreachable"), 0);
    }
}

#[test]
fn more_places_than_there_can_be_are_refused() {
    let secret = to_hex(&SECRET);
    let refusal = |places: &str| {
        let arguments = ["-H", "0", "-S", &secret, "--direct", "-D", "a.example"];
        let all = [&arguments[..], &["--mask-max", places]].concat();
        run_to_end(&all)
    };
    let refusal = refusal("4097");
    assert_eq!(refusal.code, Some(2), "{}", refusal.text);
    let names_it = |line: &str| line.contains("--mask-max") && line.contains("4096");
    assert!(refusal.text.lines().any(names_it), "{}", refusal.text);
}

/// Carries each of its connections to an address that is known later, and counts them.
struct Forwarder {
    site: Site,
    shared: Arc<Watch<Forwarding>>,
}

#[derive(Default)]
struct Forwarding {
    to: Option<SocketAddr>,
    count: usize,
}

impl Forwarder {
    fn start() -> Forwarder {
        let shared = Arc::new(Watch::<Forwarding>::default());
        let theirs = Arc::clone(&shared);
        let site = Site::start(move |near| {
            theirs.with(|state| state.count += 1);
            let far = dial(theirs.wait_for("where to", |state| state.to));
            thread::scope(|scope| {
                scope.spawn(|| carry(&far, &near));
                carry(&near, &far);
            });
        });
        Forwarder { site, shared }
    }
}

fn carry(mut from: &TcpStream, mut to: &TcpStream) {
    let mut buffer = [0; 16_384];
    while let Ok(count) = uninterrupted(|| from.read(&mut buffer)) {
        if count == 0 || to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}

/// The PROXY header stands in front of the probe that comes back.
#[test]
fn a_mask_that_leads_back_behind_a_proxy_header() {
    for mode in MODES {
        let forwarder = Forwarder::start();
        let mask = forwarder.site.address().to_string();
        let name = "www.example.com";
        let arguments = ["-D", name, "--mask", &mask, "--mask-proxy-protocol"];
        let served = Served::start(mode, &arguments);
        let address = served.address();
        forwarder.shared.with(|state| state.to = Some(address));
        served.proxy.wait_for_line("a warning", |line| {
            line.contains(&format!("warning: -D {name}")) && line.contains("leads back")
        });
        let count = forwarder.shared.with(|state| state.count);
        assert!(count <= 8, "{count} connections in a circle");
        let mut dialer = served.dialer(Kind::Today);
        dialer.tls.as_mut().expect("fake TLS").name = name;
        dialer.dial().echo(10);
        let summary = served.stop();
        assert!(summary.count("mask_connections") <= 8, "{summary:?}");
    }
}
