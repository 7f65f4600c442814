//! `make hostile`: the attacks of admission.rs, memory.rs, replays.rs and others at the sizes of real ones, each
//! with a bystander that echoes all the while and with new clients that come in one after the other. Prints a
//! table; fails where the bystander lost something or a new client was refused.
//!
//! Ignored in the usual run because together they take minutes and up to 4 000 descriptors.

use crate::support::attack::hold;
use crate::support::bystander::Bystander;
use crate::support::client::Dialer;
use crate::support::framing::Transport;
use crate::support::http::{SERVING, page, stats_address};
use crate::support::message::Message;
use crate::support::middle_proxy::{MiddleProxy, Options};
use crate::support::own_network;
use crate::support::proxy::{Proxy, Setup};
use crate::support::random::random_bytes;
use crate::support::rig::{Rig, SECRET, client_of, dialer};
use crate::support::rpc;
use crate::support::sockets::dial;
use crate::support::tls_client::handshake;
use crate::support::tls_hello::Kind;
use crate::support::tls_rig::{DOMAIN, MODES, Mode, Served, TlsRig, tls_dialer};
use crate::support::vectors::to_hex;
use crate::support::wait::until_within;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Between two new clients: seven a second, where a source has eight while places are scarce.
const NEXT_CLIENT: Duration = Duration::from_millis(150);
/// How long the proxy may take to give back what an attack took: its threads linger for 10 s, and memory that
/// is free goes back to the system once a minute.
const BACK: Duration = Duration::from_secs(100);
/// How long an attack goes on once it is complete.
const LASTS: Duration = Duration::from_secs(3);

const SECOND: Duration = Duration::from_secs(1);

/// What one attack did.
struct Outcome {
    attack: String,
    echoes: Option<(usize, Duration)>,
    new_clients: usize,
    refused: usize,
    /// Resident memory in KiB: before, at the peak, and when the attack is over.
    memory: [u64; 3],
    seconds_back: Option<u64>,
}

impl Outcome {
    fn print_head() {
        println!(
            "\n{:<58} {:>7} {:>9} {:>5} {:>8} {:>8} {:>8} {:>8} {:>6}",
            "attack", "echoes", "worst ms", "new", "refused", "KiB", "peak", "after", "back s"
        );
    }

    fn print(&self) {
        static HEAD: Once = Once::new();
        HEAD.call_once(Outcome::print_head);
        let (count, worst) = self
            .echoes
            .map_or(("lost".into(), "-".into()), |(n, worst)| {
                (n.to_string(), worst.as_millis().to_string())
            });
        let back = self.seconds_back.map_or("never".into(), |s| s.to_string());
        let [before, peak, after] = self.memory;
        println!(
            "{:<58} {count:>7} {worst:>9} {:>5} {:>8} {before:>8} {peak:>8} {after:>8} {back:>6}",
            self.attack, self.new_clients, self.refused
        );
    }
}

/// Runs an attack; what it holds is let go when it ends. `mine` is the bystander's dialer, `theirs` the new
/// clients'.
fn measure<T>(
    attack: String,
    proxy: &Proxy,
    (mine, theirs): (&Dialer, &Dialer),
    act: impl FnOnce() -> T,
) {
    theirs.dial().echo(100);
    let bystander = Bystander::start(mine.dial(), 10_000);
    let (kib, threads) = (resident(proxy), threads(proxy));
    let (stop, came_in, refused) = (
        AtomicBool::new(false),
        AtomicUsize::new(0),
        AtomicUsize::new(0),
    );
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let served = catch_unwind(AssertUnwindSafe(|| theirs.dial().echo(100)));
                let count = if served.is_ok() { &came_in } else { &refused };
                count.fetch_add(1, Ordering::Relaxed);
                thread::sleep(NEXT_CLIENT);
            }
        });
        let held = catch_unwind(AssertUnwindSafe(act));
        thread::sleep(LASTS);
        stop.store(true, Ordering::Relaxed);
        held.expect("the attack itself")
    });
    let echoes = bystander.end().map(|echoes| (echoes.count, echoes.slowest));
    let begun = Instant::now();
    let is_back = || (self::threads(proxy) <= threads).then_some(());
    let back = until_within(BACK, is_back).map(|()| begun.elapsed().as_secs());
    let outcome = Outcome {
        attack,
        echoes,
        new_clients: came_in.into_inner(),
        refused: refused.into_inner(),
        memory: [kib, proxy.peak_memory() / 1024, resident(proxy)],
        seconds_back: back,
    };
    outcome.print();
    let Outcome { attack, .. } = &outcome;
    assert!(
        outcome.echoes.is_some(),
        "{attack}: the bystander lost something"
    );
    assert_eq!(outcome.refused, 0, "{attack}: new clients");
    assert!(outcome.new_clients > 10, "{attack}: new clients");
    assert!(outcome.seconds_back.is_some(), "{attack}: threads");
}

fn resident(proxy: &Proxy) -> u64 {
    proxy.status("VmRSS")[0].parse().expect("a size")
}

fn threads(proxy: &Proxy) -> u64 {
    proxy.status("Threads")[0].parse().expect("a number")
}

#[test]
#[ignore = "takes long: make hostile"]
fn half_hellos_on_two_machines() {
    for mode in MODES {
        half_hellos(mode, "16m", 200, Duration::from_millis(33));
        half_hellos(mode, "256m", 3_400, Duration::from_millis(2));
    }
}

/// All of the longest hello but its last five bytes.
fn half_hellos(mode: Mode, budget: &str, count: usize, each: Duration) {
    let rig = TlsRig::with(mode, &["--msg-buffers-size", budget]);
    let dialer = tls_dialer(rig.address(), Kind::Today);
    let mut half = vec![0x16, 3, 1, 0x40, 0, 1, 0, 0x3f, 0xfc, 3, 3];
    half.resize(16_384, 0x55);
    let attack = format!("{mode:?}: {count} half hellos, budget {budget}");
    measure(attack, &rig.served.proxy, (&dialer, &dialer), || {
        hold(rig.address(), count, &half, each)
    })
}

#[test]
#[ignore = "takes long: make hostile"]
fn silence() {
    for mode in MODES {
        let served = Served::start(mode, &["-C", "200"]);
        let dialer = dialer(served.address(), Transport::Padded);
        let attack = format!("{mode:?}: 220 silent connections, 29 a second, -C 200");
        measure(attack, &served.proxy, (&dialer, &dialer), || {
            hold(served.address(), 220, &[], SECOND / 29)
        });
    }
}

/// A recorded hello is still known after so many others. The store is the same in both modes.
#[test]
#[ignore = "takes long: make hostile"]
fn replayed_hello() {
    const COUNT: usize = 70_000;
    let rig = TlsRig::with(Mode::Direct, &[]);
    let dialer = tls_dialer(rig.address(), Kind::Today);
    let attack = format!("Direct: a hello again after {COUNT} others");
    measure(attack, &rig.served.proxy, (&dialer, &dialer), || {
        let first = Kind::Today.signed(DOMAIN, &SECRET);
        handshake(&dial(rig.address()), &first, &SECRET);
        let others = || {
            for _ in 0..COUNT / 8 {
                let mut stream = dial(rig.address());
                let hello = Kind::Today.signed(DOMAIN, &SECRET);
                stream.write_all(&hello).expect("send a hello");
                // It has been remembered before the first byte of the ServerHello is sent.
                assert!(stream.read(&mut [0; 1024]).expect("a ServerHello") > 0);
            }
        };
        thread::scope(|scope| (0..8).for_each(|_| drop(scope.spawn(others))));
        let mut again = dial(rig.address());
        again.write_all(&first).expect("send it again");
        rig.site.wait_for_bytes(&first);
    });
}

/// Strangers who say a byte now and then, more than there are places.
#[test]
#[ignore = "takes long: make hostile"]
fn crowd_at_the_site() {
    for mode in MODES {
        let rig = TlsRig::with(mode, &["--mask-max", "64"]);
        let dialer = tls_dialer(rig.address(), Kind::Today);
        let attack = format!("{mode:?}: 200 strangers at 64 places of the site");
        measure(attack, &rig.served.proxy, (&dialer, &dialer), || {
            let hello = Kind::Today.unsigned(DOMAIN);
            let held = hold(rig.address(), 200, &hello, Duration::from_millis(5));
            for mut stream in &held {
                let _ = stream.write_all(&[0]);
            }
            held
        });
    }
}

/// 14 of 16 MiB of a frame, by the middle proxy of another data centre.
#[test]
#[ignore = "takes long: make hostile"]
fn growing_frame() {
    let near = MiddleProxy::start(Options::default());
    let mut far = MiddleProxy::start(Options::default());
    let config = format!("default 2;\n{}{}", near.config_line(2), far.config_line(4));
    let mut setup = Setup::new(config);
    setup.secrets = vec![SECRET];
    setup.proxy_secret = near.proxy_secret().to_vec();
    setup.arguments = ["--msg-buffers-size", "16m"].map(str::to_owned).to_vec();
    let proxy = Proxy::start(&setup);
    let dialer = dialer(proxy.address(), Transport::Padded);
    let attack = "Middle: 14 of 16 MiB of a frame, budget 16m".into();
    measure(attack, &proxy, (&dialer, &dialer), || {
        let mut client = client_of(&proxy, 4);
        client.echo(100);
        far.link(0)
            .send_all_but(2 << 20, &rpc::answer(7, 0, &vec![7; 16 << 20]));
        client.expect_closed();
    });
    drop(proxy);
    far.stop();
}

/// 30 clients send parts of 512 KB at 100 KB/s each.
#[test]
#[ignore = "takes long: make hostile"]
fn uploads() {
    const PIECE: usize = 10 << 10;
    let rig = Rig::with(&["--msg-buffers-size", "16m"], Options::default());
    let dialer = dialer(rig.proxy.address(), Transport::Padded);
    let attack = "Middle: 30 uploads of 512 KB at 100 KB/s, budget 16m".into();
    measure(attack, &rig.proxy, (&dialer, &dialer), || {
        thread::scope(|scope| {
            for _ in 0..30 {
                scope.spawn(|| {
                    let mut client = rig.dial(Transport::Intermediate);
                    let message = Message::echo(512 << 10).encode();
                    let frame = Transport::Intermediate.frame(&message, false, &[]);
                    for piece in frame.chunks(PIECE) {
                        client.send_raw(piece);
                        thread::sleep(SECOND / 10);
                    }
                    assert!(client.packet() == message, "an upload was lost");
                });
            }
        });
    });
}

/// Three ask for much, never read and go on to send small packets; four others download.
#[test]
#[ignore = "takes long: make hostile"]
fn unread_downloads() {
    const MIB: usize = 1 << 20;
    // One connection, or the second one's threads stay.
    let rig = Rig::with(
        &["--msg-buffers-size", "16m", "-M", "1"],
        Options::default(),
    );
    let dialer = dialer(rig.proxy.address(), Transport::Padded);
    let attack = "Middle: 3 that never read beside 4 downloads of 32 MiB, 16m".into();
    measure(attack, &rig.proxy, (&dialer, &dialer), || {
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let mut greedy = rig.dial(Transport::Padded);
                    let tag = u32::from_le_bytes(random_bytes());
                    greedy.send(&Message::stream(tag, 64 * MIB, MIB).encode());
                    while !stop.load(Ordering::Relaxed) {
                        // It is closed at some time.
                        let message = Message::echo(10).encode();
                        let frame = greedy.transport.frame(&message, false, &[]);
                        if catch_unwind(AssertUnwindSafe(|| greedy.send_raw(&frame))).is_err() {
                            return;
                        }
                        thread::sleep(SECOND / 20);
                    }
                });
            }
            let honest: Vec<_> = (0..4)
                .map(|number| {
                    let rig = &rig;
                    scope.spawn(move || {
                        let mut client = rig.dial(Transport::Intermediate);
                        client.send(&Message::stream(900 + number, 32 * MIB, MIB / 2).encode());
                        let mut left = 32 * MIB;
                        while left > 0 {
                            left -= client.packet().len();
                        }
                    })
                })
                .collect();
            let ended: Vec<_> = honest.into_iter().map(|thread| thread.join()).collect();
            stop.store(true, Ordering::Relaxed);
            assert!(
                ended.iter().all(Result::is_ok),
                "an honest download was lost"
            );
        });
    })
}

/// Connections for statistics that say nothing, while statistics are asked for.
#[test]
#[ignore = "takes long: make hostile"]
fn silent_statistics() {
    let rig = Rig::with(&SERVING, Options::default());
    let dialer = dialer(rig.proxy.address(), Transport::Padded);
    let stats = stats_address(&rig.proxy);
    let attack = "Middle: 24 silent connections to the statistics".into();
    measure(attack, &rig.proxy, (&dialer, &dialer), || {
        let held = hold(stats, 24, &[], Duration::ZERO);
        assert!(page(stats, "/stats").contains("uptime"));
        held
    })
}

/// Eight silent clients at a limit of eight: the ninth and all after it come in.
#[test]
#[ignore = "takes long: make hostile"]
fn silent_phones() {
    let secret = format!("{}:phone:8", to_hex(b"another secret 2"));
    let rig = Rig::with(&["-S", &secret, "-M", "1"], Options::default());
    let bystander = dialer(rig.proxy.address(), Transport::Padded);
    let mut phone = bystander;
    phone.secret = Some(*b"another secret 2");
    let attack = "Middle: 8 clients without network at a limit of 8 (95 s)".into();
    measure(attack, &rig.proxy, (&bystander, &bystander), || {
        let mut phones: Vec<_> = (0..8).map(|_| phone.dial()).collect();
        phones.iter_mut().for_each(|phone| phone.echo(100));
        let begun = Instant::now();
        // Silence of 90 s costs them their places.
        while begun.elapsed() < Duration::from_secs(95) {
            thread::sleep(SECOND);
        }
        for _ in 0..8 {
            phone.dial().echo(100);
        }
        phones
    })
}

/// One address opens connections as fast as it can; those of another come in. Addresses of this machine lead
/// to it, and whoever connects to one of them comes from there.
#[test]
#[ignore = "takes long: make hostile"]
fn one_source_among_others() {
    let set_up =
        "ip link set lo up; ip addr add 10.9.0.1/32 dev lo; ip addr add 10.9.0.2/32 dev lo";
    if !own_network::is_inside("hostile::one_source_among_others", set_up) {
        return;
    }
    let served = Served::start(MODES[0], &["-C", "200"]);
    let from = |address: [u8; 4]| SocketAddr::from((address, served.address().port()));
    let honest = dialer(from([10, 9, 0, 1]), Transport::Padded);
    let attack = "Middle: one address, 300 connections a second, -C 200".into();
    measure(attack, &served.proxy, (&honest, &honest), || {
        hold(from([10, 9, 0, 2]), 1_500, &[0xef], SECOND / 300)
    });
    // An address that comes back after that is served, too.
    dialer(from([10, 9, 0, 2]), Transport::Padded)
        .dial()
        .echo(10);
    let counts = served.stop();
    let refused =
        ["unproven_refused_share", "unproven_refused_rate"].map(|name| counts.count(name));
    println!("refused by share and by rate: {refused:?}");
    assert!(refused.iter().sum::<u64>() > 500, "{refused:?}");
}
