//! Where clients are accepted besides -H: other addresses, unix sockets, sockets that the process was started
//! with, ports that several processes share. What a service manager is told. And the mark of connections to
//! the outside.

use crate::support::dc::{Behaviour, DataCentre};
use crate::support::direct_rig::direct_proxy;
use crate::support::framing::Transport;
use crate::support::message::Message;
use crate::support::middle_proxy::Options;
use crate::support::programs::{are_there, not_tested, output, run};
use crate::support::proxy::{Files, Proxy, program, run_to_end};
use crate::support::rig::{Rig, SECRET, dialer};
use crate::support::sockets::{is_listening, set_read_deadline};
use crate::support::vectors::to_hex;
use crate::support::wait::{PATIENCE, uninterrupted};
use std::fs::Permissions;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixDatagram, UnixListener, UnixStream};
use std::process::Command;

/// A connection to a unix socket, as all clients of the tests have it.
fn dial_path(path: &str) -> TcpStream {
    let stream = UnixStream::connect(path).expect("a unix socket");
    let stream = TcpStream::from(OwnedFd::from(stream));
    set_read_deadline(&stream, PATIENCE);
    stream
}

#[test]
fn on_several_addresses() {
    let centre = DataCentre::start(Behaviour::Serve);
    let places = ["--listen", "127.0.0.2:0", "--listen", "[::1]:0"];
    let proxy = direct_proxy(&[&centre.as_dc(2)], &places);
    let [usual, second, third] = *proxy.listening() else {
        panic!("{:?}", proxy.listening())
    };
    assert_eq!(second.ip(), Ipv4Addr::new(127, 0, 0, 2));
    assert!(third.is_ipv6());
    let usual = SocketAddr::from((Ipv4Addr::LOCALHOST, usual.port()));
    for address in [usual, second, third] {
        dialer(address, Transport::Padded).dial().echo(100);
    }
}

/// Its clients come from this machine as far as is known, or from where a front says.
#[test]
fn on_a_unix_socket() {
    let files = Files::new();
    let path = files.path("socket");
    // An earlier run has left it behind.
    drop(UnixListener::bind(&path).expect("a socket"));
    for front in [&[][..], &["--proxy-protocol"]] {
        let rig = Rig::with(&[&["--listen", &path], front].concat(), Options::default());
        let line = format!("listening on {path}");
        assert!(rig.proxy.lines().contains(&line), "{:?}", rig.proxy.lines());
        let mut stream = dial_path(&path);
        let mut wanted = ("127.0.0.1", 0);
        if !front.is_empty() {
            wanted = ("192.0.2.1", 54_321);
            let header = b"PROXY TCP4 192.0.2.1 198.51.100.7 54321 443\r\n";
            stream.write_all(header).expect("send");
        }
        let mut client = dialer(rig.proxy.address(), Transport::Padded).over(stream, None, &[]);
        client.echo(300_000);
        let message = Message::echo(8);
        client.send(&message.encode());
        assert_eq!(client.packet(), message.encode());
        let told = rig.middle.request(message.tag).client;
        let ip: Ipv4Addr = wanted.0.parse().expect("an address");
        assert_eq!(told, (ip.to_ipv6_mapped(), wanted.1));
        client.leave();
        rig.proxy.stop();
    }
    // In direct mode bytes are moved by splice.
    let centre = DataCentre::start(Behaviour::Serve);
    let secret = to_hex(&SECRET);
    let override_ = centre.as_dc(2);
    let proxy = Proxy::start_with(&[
        "--listen",
        &path,
        "-S",
        &secret,
        "--dc-override",
        &override_,
    ]);
    assert!(proxy.listening().is_empty(), "-H isn't needed");
    let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let mut client = dialer(nowhere, Transport::Padded).over(dial_path(&path), None, &[]);
    client.echo(900_000);
    crate::support::transfers::download(&mut client, 4 << 20, 500_000);
    // Nobody else may take it meanwhile.
    let refusal = run_to_end(&["--listen", &path, "-S", &secret]);
    assert_eq!(refusal.code, Some(1));
    assert!(
        refusal
            .text
            .contains(&format!("can't listen on {path}: Address")),
        "{}",
        refusal.text
    );
}

#[test]
fn a_file_is_no_socket_that_was_left_behind() {
    let files = Files::new();
    let path = files.write("notes", b"mine");
    let refusal = run_to_end(&["--listen", &path, "-S", &to_hex(&SECRET)]);
    assert_eq!(refusal.code, Some(1));
    assert_eq!(files.read("notes"), "mine");
}

/// What systemd does: a socket as descriptor 3, and its number in the environment.
fn activated(socket: OwnedFd, count: u32, arguments: &[&str]) -> Command {
    let inner = program();
    let script = format!(
        "exec 3<&0 0</dev/null; LISTEN_FDS={count} LISTEN_PID=$$; export LISTEN_FDS LISTEN_PID; exec \"$0\" \"$@\""
    );
    let mut command = Command::new("sh");
    command
        .args(["-c", &script])
        .arg(inner.get_program())
        .args(inner.get_args())
        .args(arguments)
        .stdin(socket);
    command
}

#[test]
fn on_sockets_that_it_was_started_with() {
    if std::env::var("MTPROXY_RUNNER").is_ok() {
        return not_tested("an emulator may have a descriptor 3 of its own");
    }
    let centre = DataCentre::start(Behaviour::Serve);
    let (secret, dc) = (to_hex(&SECRET), centre.as_dc(2));
    let arguments = ["-S", &secret, "--dc-override", &dc];
    let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = socket.local_addr().expect("its address");
    let proxy = Proxy::start_by(activated(socket.into(), 1, &arguments));
    assert_eq!(proxy.listening(), [address]);
    dialer(address, Transport::Padded).dial().echo(100);
    proxy.stop();
    assert!(!is_listening(address));

    let files = Files::new();
    let path = files.path("socket");
    let socket = UnixListener::bind(&path).expect("a socket");
    let proxy = Proxy::start_by(activated(socket.into(), 1, &arguments));
    let mut client = dialer(address, Transport::Padded).over(dial_path(&path), None, &[]);
    client.echo(100);
    drop(proxy);

    // No listening stream socket.
    let (pair, _other) = UnixStream::pair().expect("a pair");
    let datagram = UnixDatagram::unbound().expect("a socket");
    let file = files.write("file", b"");
    let file = std::fs::File::open(file).expect("a file");
    for (wrong, count, fd) in [
        (OwnedFd::from(pair), 1, 3),
        (datagram.into(), 1, 3),
        (file.into(), 1, 3),
        (
            TcpListener::bind("127.0.0.1:0").expect("a port").into(),
            2,
            4,
        ),
    ] {
        let mut command = activated(wrong, count, &arguments);
        let output = command.output().expect("a run");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        let what = format!("descriptor {fd}, of those that this process was started with");
        assert!(said.contains(&what), "{said}");
    }
}

/// By systemd's own program, where it is there: it starts the proxy with the first client.
#[test]
fn by_systemd_socket_activate() {
    const PROGRAM: &str = "systemd-socket-activate";
    if !are_there(&[PROGRAM]) || std::env::var("MTPROXY_RUNNER").is_ok() {
        return;
    }
    let centre = DataCentre::start(Behaviour::Serve);
    let (secret, dc) = (to_hex(&SECRET), centre.as_dc(2));
    let address = crate::support::sockets::free_address();
    let inner = program();
    let mut command = Command::new(PROGRAM);
    command
        .args(["-l", &address.to_string()])
        .arg(inner.get_program())
        .args(["-S", &secret, "--dc-override", &dc])
        .stdin(std::process::Stdio::null());
    let first = std::thread::spawn(move || {
        crate::support::wait::until("its port", || is_listening(address).then_some(()));
        dialer(address, Transport::Padded).dial().echo(100);
    });
    let proxy = Proxy::start_by(command);
    crate::support::wait::joined("the first client", first);
    assert_eq!(proxy.listening(), [address]);
}

#[test]
fn processes_share_a_port() {
    let centre = DataCentre::start(Behaviour::Serve);
    let (secret, dc) = (to_hex(&SECRET), centre.as_dc(2));
    let start = |port: &str| {
        let arguments = [
            "-H",
            port,
            "-S",
            &secret,
            "--reuse-port",
            "--dc-override",
            &dc,
        ];
        Proxy::start_with(&arguments)
    };
    let one = start("0");
    let address = one.address();
    let port = address.port().to_string();
    let other = start(&port);
    // The system spreads them: soon both have had some.
    let mut clients = Vec::new();
    for _ in 0..64 {
        let mut client = dialer(address, Transport::Padded).dial();
        client.echo(10);
        clients.push(client);
    }
    let refusal = run_to_end(&["-H", &port, "-S", &secret]);
    assert!(
        refusal.text.contains("Address already in use"),
        "{}",
        refusal.text
    );
    drop(clients);
    let counts = [one, other].map(|proxy| proxy.stop().count("inbound_connections_accepted"));
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
}

#[test]
fn the_service_manager_is_told() {
    let files = Files::new();
    let path = files.path("notify");
    let secret = files.write("secret", to_hex(&SECRET).as_bytes());
    let name = format!("mtproxy-tests-{}", std::process::id());
    let by_name = UnixAddress::from_abstract_name(&name).expect("a name");
    let places = [
        (
            path.clone(),
            UnixAddress::from_pathname(&path).expect("a path"),
        ),
        (format!("@{name}"), by_name),
    ];
    for (place, address) in places {
        let manager = UnixDatagram::bind_addr(&address).expect("a socket");
        // The proxy may have become another user.
        if !place.starts_with('@') {
            std::fs::set_permissions(&path, Permissions::from_mode(0o666)).expect("its mode");
        }
        manager
            .set_read_timeout(Some(PATIENCE))
            .expect("a deadline");
        let heard = || {
            let mut message = [0; 256];
            let length = uninterrupted(|| manager.recv(&mut message)).expect("a message");
            String::from_utf8_lossy(&message[..length]).into_owned()
        };
        let mut command = program();
        command
            .args(["-H", "0", "--secret-file", &secret])
            .env("NOTIFY_SOCKET", &place)
            .stdin(std::process::Stdio::null());
        let proxy = Proxy::start_by(command);
        assert_eq!(heard(), "READY=1");
        proxy.signal("HUP");
        assert_eq!(heard(), "RELOADING=1");
        assert_eq!(heard(), "READY=1");
        proxy.signal("TERM");
        assert_eq!(heard(), "STOPPING=1");
    }
}

/// Set for the run inside a network of its own.
const INSIDE: &str = "MTPROXY_TESTS_MARKED";

/// Only packets with the mark have a way there.
#[test]
fn connections_to_the_outside_are_marked() {
    if std::env::var(INSIDE).is_err() {
        return in_a_network();
    }
    let centre = DataCentre::start_on(Ipv4Addr::new(192, 0, 2, 9).into(), Behaviour::Serve);
    let secret = to_hex(&SECRET);
    for (flags, is_served) in [(&[][..], false), (&["--fwmark", "0x2a"], true)] {
        let dc = centre.as_dc(2);
        // The answers find their way without a mark.
        let source = ["--source", "127.0.0.1"];
        let usual = ["-H", "0", "-S", &secret, "--dc-override", &dc];
        let usual = [&usual[..], &source].concat();
        let proxy = Proxy::start_with(&[&usual[..], flags].concat());
        let mut client = dialer(proxy.address(), Transport::Padded).dial();
        match is_served {
            true => client.echo(100),
            false => client.expect_closed(),
        }
    }
}

fn in_a_network() {
    if !are_there(&["unshare", "ip"]) {
        return;
    }
    // An address of this machine that unmarked packets don't find.
    let set_up = "ip link set lo up; ip addr add 192.0.2.9/32 dev lo; \
                  ip rule add pref 1 fwmark 42 lookup local; \
                  ip rule add pref 2 to 192.0.2.9 fwmark 0 iif lo unreachable; \
                  ip rule add pref 10 lookup local; ip rule del pref 0";
    let unshare = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--net", "sh", "-ec", script]);
        command
    };
    let tried = output(&mut unshare(set_up), b"").expect("unshare");
    if !tried.status.success() {
        return not_tested(&format!("no network of its own can be had: {tried:?}"));
    }
    let ourselves = std::env::current_exe().expect("this program");
    let mut inside = unshare(&format!("{set_up}; exec \"$0\" \"$@\""));
    let test = "listening::connections_to_the_outside_are_marked";
    inside
        .arg(ourselves)
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "1");
    let output = output(&mut inside, b"").expect("unshare");
    assert!(output.status.success(), "inside: {output:?}");
}

/// Who may not mark connections gets no server that would not do it.
#[test]
fn a_mark_that_may_not_be_set_ends_the_start() {
    let status = std::fs::read_to_string("/proc/self/status").expect("what we may");
    let is_root = run("id", &["-u"], b"").expect("id").stdout == b"0\n";
    let may = status.lines().any(|line| {
        let mask = line
            .strip_prefix("CapEff:")
            .map(|mask| u64::from_str_radix(mask.trim(), 16));
        mask.is_some_and(|mask| mask.is_ok_and(|mask| mask & 0x3000 != 0))
    });
    // As root it becomes nobody, who may not.
    if may && !is_root {
        return not_tested("this user may mark connections");
    }
    let refusal = run_to_end(&["-H", "0", "-S", &to_hex(&SECRET), "--fwmark", "7"]);
    assert_eq!(refusal.code, Some(1), "{}", refusal.text);
    assert!(
        refusal.text.contains("--fwmark: this process may not mark"),
        "{}",
        refusal.text
    );
    assert!(
        refusal.text.contains("AmbientCapabilities=CAP_NET_ADMIN"),
        "{}",
        refusal.text
    );
}
