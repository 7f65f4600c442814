//! A network of the test's own in which everything that is sent to 127.0.0.1 crosses a wire that loses, delays,
//! reorders or swallows packets. The wire is a TUN device that Debian's socat joins to a socket of ours: the
//! kernel's own tool for this (netem) is not in every kernel.

use super::own_network;
use super::programs::{Kept, missing, not_tested, run};
use super::proxy::Files;
use super::random::Stream;
use super::wait::until;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// Loopback traffic leaves by the device and comes back through it.
const SET_UP: &str = "ip link set lo up
ip tuntap add dev wire mode tun
ip link set wire mtu 1500 up
for of in all wire; do
  echo 1 >/proc/sys/net/ipv4/conf/$of/accept_local
  echo 1 >/proc/sys/net/ipv4/conf/$of/route_localnet
  echo 0 >/proc/sys/net/ipv4/conf/$of/rp_filter
done
ip rule add pref 1 iif wire lookup local
ip rule add pref 2 lookup main
ip rule add pref 3 lookup local
ip rule del pref 0
ip route add 127.0.0.0/8 dev wire src 127.0.0.1";

/// What the wire does to packets.
#[derive(Clone, Copy, Default)]
pub struct Faults {
    /// Of a hundred packets so many are lost.
    pub lost: u64,
    /// How long each takes.
    pub delay: Duration,
    /// Of a hundred packets so many overtake: they take no time.
    pub early: u64,
    /// All packets from and to this port are lost.
    pub swallowed: Option<u16>,
}

/// The wire; it is cut when this is dropped.
pub struct Wire {
    faults: Arc<Mutex<Faults>>,
    carried: Arc<AtomicU64>,
    _socat: Kept,
    _files: Files,
}

/// The wire, inside; outside it runs the test of this name there. None: it is done, or can't be.
pub fn wire(test: &str) -> Option<Wire> {
    if missing("socat") {
        return None;
    }
    if !Path::new("/dev/net/tun").exists() {
        not_tested("there is no /dev/net/tun, which the wire is made of");
        return None;
    }
    own_network::is_inside(test, SET_UP).then(Wire::start)
}

impl Wire {
    fn start() -> Wire {
        let files = Files::new();
        let (ours, theirs) = (files.path("ours"), files.path("theirs"));
        let socket = UnixDatagram::bind(&ours).expect("our end of the wire");
        let socat = Command::new("socat")
            .args(["-b", "65536", "TUN,tun-name=wire,iff-no-pi"])
            .arg(format!("UNIX-SENDTO:{ours},bind={theirs}"))
            .stdin(Stdio::null())
            .spawn();
        let socat = Kept(socat.expect("socat"));
        until("socat's end of the wire", || socket.connect(&theirs).ok());
        let faults = Arc::new(Mutex::new(Faults::default()));
        let carried = Arc::new(AtomicU64::new(0));
        let shared = (Arc::clone(&faults), Arc::clone(&carried));
        thread::spawn(move || carry(&socket, &shared.0, &shared.1));
        Wire {
            faults,
            carried,
            _socat: socat,
            _files: files,
        }
    }

    /// From now on packets meet these.
    pub fn set(&self, faults: Faults) {
        *self.faults.lock().expect("the faults") = faults;
    }

    /// How many packets have come so far, lost ones included.
    pub fn carried(&self) -> u64 {
        self.carried.load(Ordering::Relaxed)
    }

    /// The longest packet, from now on.
    pub fn set_mtu(&self, bytes: u32) {
        let set = run(
            "ip",
            &["link", "set", "wire", "mtu", &bytes.to_string()],
            b"",
        );
        assert!(set.expect("ip").status.success());
    }
}

/// Carries packets until socat ends.
fn carry(socket: &UnixDatagram, faults: &Mutex<Faults>, carried: &AtomicU64) {
    let mut random = Stream::new(1);
    let mut chance = || u64::from(random.take(8)[3]) * 100 / 256;
    let mut way: BinaryHeap<Reverse<(Instant, u64, Vec<u8>)>> = BinaryHeap::new();
    let mut bytes = [0; 65_536];
    for number in 0_u64.. {
        let now = Instant::now();
        while let Some(Reverse((due, _, _))) = way.peek()
            && *due <= now
        {
            let Some(Reverse((_, _, packet))) = way.pop() else {
                break;
            };
            // The device's queue may be full, as any network's.
            let _: Result<usize, _> = socket.send(&packet);
        }
        let next = way
            .peek()
            .map(|Reverse((due, _, _))| due.duration_since(now));
        let wait = next.map(|wait| wait.max(Duration::from_micros(100)));
        socket.set_read_timeout(wait).expect("a timeout");
        let length = match socket.recv(&mut bytes) {
            Ok(length) => length,
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                continue;
            }
            Err(_) => return,
        };
        let packet: Vec<u8> = bytes[..length].to_vec();
        carried.fetch_add(1, Ordering::Relaxed);
        let faults = *faults.lock().expect("the faults");
        if chance() < faults.lost || ports(&packet).contains(&faults.swallowed) {
            continue;
        }
        let delay = if chance() < faults.early {
            Duration::ZERO
        } else {
            faults.delay
        };
        way.push(Reverse((Instant::now() + delay, number, packet)));
    }
}

/// The ports of a TCP packet over IPv4, whose header has no options.
fn ports(packet: &[u8]) -> [Option<u16>; 2] {
    [20, 22].map(|at| Some(u16::from_be_bytes(packet.get(at..at + 2)?.try_into().ok()?)))
}
