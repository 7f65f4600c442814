//! `make soak MINUTES=n`: for minutes on end clients come and go, plain and in fake TLS, while backends restart,
//! settings are reloaded, strangers attack and nobody reads the log. Prints what the server holds at the start, in
//! the middle and at the end; fails where an answer was lost or mixed up, or where something was not given back.
//!
//! Ignored in the usual run because it takes minutes. SOAK_MINUTES says how many.

use crate::support::attack::hold;
use crate::support::bystander::Bystander;
use crate::support::dc::{Behaviour, DataCentre};
use crate::support::framing::{Item, Transport};
use crate::support::mask_site::MaskSite;
use crate::support::message::Message;
use crate::support::middle_proxy::MiddleProxy;
use crate::support::programs::show;
use crate::support::proxy::{Files, program};
use crate::support::random::random_bytes;
use crate::support::rig::dialer;
use crate::support::tls_hello::Kind;
use crate::support::tls_rig::{DOMAIN, Mode, tls_dialer};
use crate::support::unread::Unread;
use crate::support::vectors::to_hex;
use crate::support::wait::until_within;
use std::collections::VecDeque;
use std::env;
use std::fs;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Clients at a time that come and go.
const WORKERS: usize = 8;
/// From one restart and reload to the next.
const CHANGES: Duration = Duration::from_secs(3);
/// How long the server may take to give back what it held: threads linger for 10 s, free memory goes back to
/// the system once a minute.
const BACK: Duration = Duration::from_secs(100);
/// Threads and descriptors that may stay: two threads and a descriptor for each further connection to a middle
/// proxy, which thousands of clients share.
const LINKS: usize = 8;
/// What resident memory may grow by from the middle to the end, KiB. A leak of a few bytes a client shows in an
/// hour.
const GROWTH: usize = 8 << 10;

#[test]
#[ignore = "takes minutes: make soak"]
fn middle_mode() {
    let (near, far) = (MiddleProxy::serving(), MiddleProxy::serving());
    soak(Mode::Middle, Backends::Middle(near, far));
}

#[test]
#[ignore = "takes minutes: make soak"]
fn direct_mode() {
    let (near, far) = (
        DataCentre::start(Behaviour::Serve),
        DataCentre::restarting(),
    );
    soak(Mode::Direct, Backends::Direct(near, far));
}

/// Who serves DC 2, which stays, and DC 3, which doesn't.
enum Backends {
    Middle(MiddleProxy, MiddleProxy),
    Direct(DataCentre, DataCentre),
}

impl Backends {
    /// The settings that lead to them; gives their file's path.
    fn write(&self, files: &Files, site: &str, more: &str) -> String {
        let how = match self {
            Backends::Middle(near, far) => {
                let secret = files.write("proxy-secret", near.proxy_secret());
                let all = near.config_line(2) + &far.config_line(3);
                let list = files.write("proxy-multi.conf", format!("default 2;\n{all}").as_bytes());
                format!("aes-pwd {secret}\nproxy-config {list}\n")
            }
            Backends::Direct(near, far) => {
                let (near, far) = (near.as_dc(2), far.as_dc(3));
                format!("direct\ndc-override {near}\ndc-override {far}\n")
            }
        };
        let text = format!("http-ports 0\nverbosity 1\nallow-plain\ndomain {site}\n{how}{more}");
        files.write("mtproxy.conf", text.as_bytes())
    }

    /// DC 3 starts again.
    fn restart(&mut self) {
        match self {
            Backends::Middle(_, far) => {
                far.stop();
                far.restart();
            }
            Backends::Direct(_, far) => far.restart(),
        }
    }
}

/// What the server holds.
#[derive(Clone, Copy)]
struct Figures {
    resident: usize,
    descriptors: usize,
    threads: usize,
}

impl Figures {
    fn of(run: &Unread) -> Figures {
        let process = format!("/proc/{}", run.id());
        let status = fs::read_to_string(format!("{process}/status")).expect("a running server");
        let number = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let word = line.and_then(|rest| rest.split_whitespace().next());
            word.and_then(|word| word.parse().ok()).expect("a number")
        };
        let descriptors = fs::read_dir(format!("{process}/fd")).expect("its descriptors");
        Figures {
            resident: number("VmRSS:"),
            descriptors: descriptors.count(),
            threads: number("Threads:"),
        }
    }

    fn print(&self, mode: Mode, when: &str) {
        show(&format!(
            "{mode:?} {when:<8} {:>7} KiB resident {:>5} descriptors {:>5} threads",
            self.resident, self.descriptors, self.threads
        ));
    }
}

#[derive(Default)]
struct Counts {
    served: AtomicUsize,
    /// Clients of the backend that restarts, closed before their answer came.
    closed: AtomicUsize,
    attacks: AtomicUsize,
}

fn soak(mode: Mode, mut backends: Backends) {
    let minutes = env::var("SOAK_MINUTES").map_or(1, |text| text.parse().expect("SOAK_MINUTES"));
    let length = Duration::from_secs(60 * minutes);
    let (files, site) = (Files::new(), MaskSite::start());
    let domain = site.as_domain(DOMAIN);
    let settings = backends.write(&files, &domain, "");
    let mut run = Unread::start(program(), &["--config", &settings]);
    let address = run.address;
    for client in [
        &dialer(address, Transport::Padded),
        &tls_dialer(address, Kind::Today),
    ] {
        client.dial().echo(100);
    }
    let bystanders = [
        Bystander::start(dialer(address, Transport::Abridged).dial(), 1_000),
        Bystander::start(tls_dialer(address, Kind::Today).dial(), 1_000),
    ];
    run.fill_its_log();
    let start = Figures::of(&run);
    start.print(mode, "start");

    let (stop, counts) = (AtomicBool::new(false), Counts::default());
    let (middle, reloads) = thread::scope(|scope| {
        for worker in 0..WORKERS {
            let (stop, counts) = (&stop, &counts);
            scope.spawn(move || {
                // Whoever fails ends it for all.
                let _ends = Ends(stop);
                while !stop.load(Ordering::Relaxed) {
                    come_and_go(address, worker, counts);
                }
            });
        }
        scope.spawn(|| attack(address, &stop, &counts));
        let _ends = Ends(&stop);
        let (begun, mut middle, mut reloads) = (Instant::now(), None, 0);
        while begun.elapsed() < length && !stop.load(Ordering::Relaxed) {
            backends.restart();
            let other = to_hex(&random_bytes::<16>());
            backends.write(
                &files,
                &domain,
                &format!("mtproto-secret {other}:another\n"),
            );
            run.signal("HUP");
            reloads += 1;
            thread::sleep(CHANGES);
            if begun.elapsed() > length / 2 {
                middle.get_or_insert_with(|| Figures::of(&run));
            }
        }
        (middle.expect("a middle"), reloads)
    });
    middle.print(mode, "middle");
    for bystander in bystanders {
        let echoes = bystander.end().expect("a bystander lost an answer");
        show(&format!(
            "{mode:?} bystander {} echoes, the slowest took {:?}",
            echoes.count, echoes.slowest
        ));
    }
    // Somebody reads the log again, and it still reloads.
    run.wait_for_line("log_dropped lines=");
    run.signal("HUP");
    run.wait_for_line(" reloaded");

    let given_back = || {
        let now = Figures::of(&run);
        let is_back = now.threads <= start.threads + LINKS
            && now.descriptors <= start.descriptors + LINKS
            && now.resident <= middle.resident + GROWTH;
        is_back.then_some(())
    };
    let back = until_within(BACK, given_back);
    let end = Figures::of(&run);
    end.print(mode, "end");
    let [served, closed, attacks] = [&counts.served, &counts.closed, &counts.attacks]
        .map(|count| count.load(Ordering::Relaxed));
    show(&format!(
        "{mode:?} {served} clients served, {closed} closed with their backend, {attacks} attackers, {reloads} \
         restarts and reloads; answers lost or mixed up: none"
    ));
    assert!(back.is_some(), "not everything was given back");
    assert!(served > 100, "hardly anybody was served");
    run.stop();
}

/// Ends everything when it goes, by a panic too.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// One client, of any kind. Of DC 2 no answer may be missing; of DC 3 the connection may end instead, but what
/// comes is this client's own.
fn come_and_go(address: SocketAddr, worker: usize, counts: &Counts) {
    const SIZES: [usize; 4] = [0, 100, 5_000, 200_000];
    let [a, b, c, _] = random_bytes::<4>();
    let transports = [
        Transport::Abridged,
        Transport::Intermediate,
        Transport::Padded,
    ];
    let mut dialer = match a % 2 {
        0 => tls_dialer(address, Kind::Today),
        _ => dialer(address, transports[usize::from(b % 3)]),
    };
    if !worker.is_multiple_of(4) {
        let mut client = dialer.dial();
        for _ in 0..=c % 4 {
            client.echo(SIZES[usize::from(b % 4)]);
        }
        if b % 8 == 0 {
            // It leaves before the answer is there.
            client.send(&Message::echo(SIZES[3]).encode());
        }
        counts.served.fetch_add(1, Ordering::Relaxed);
        return;
    }
    dialer.dc = 3;
    let mut client = dialer.dial();
    for _ in 0..=c % 4 {
        let message = Message::echo(usize::from(b)).encode();
        client.send(&message);
        match client.receive_or_end() {
            Some(Item::Packet(answer)) => assert!(answer == message, "somebody else's answer"),
            Some(other) => panic!("{other:?} instead of an answer"),
            None => {
                counts.closed.fetch_add(1, Ordering::Relaxed);
                return;
            }
        }
    }
    counts.served.fetch_add(1, Ordering::Relaxed);
}

/// Half hellos, noise, visitors of the site, silence; up to 120 of them at a time.
fn attack(address: SocketAddr, stop: &AtomicBool, counts: &Counts) {
    let mut half = vec![0x16, 3, 1, 0x40, 0, 1, 0, 0x3f, 0xfc, 3, 3];
    half.resize(12_000, 0x55);
    let visitor = Kind::Today.unsigned(DOMAIN);
    let mut held = VecDeque::new();
    while !stop.load(Ordering::Relaxed) {
        let noise = random_bytes::<64>();
        for bytes in [&half[..], &noise, &visitor, b"GET / HTTP/1.1\r\n\r\n", &[]] {
            held.push_back(hold(address, 4, bytes, Duration::from_millis(5)));
            counts.attacks.fetch_add(4, Ordering::Relaxed);
        }
        while held.len() > 30 {
            held.pop_front();
        }
    }
}
