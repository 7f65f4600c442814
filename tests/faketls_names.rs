//! Names of sites, which are looked up after the start: a name server that says nothing delays nobody, and a
//! name that leads to the proxy itself leads nobody in circles.
//!
//! The name server has port 53, so each test runs once more inside a network of its own (util-linux's
//! unshare, iproute2's ip). Where that can't be had the tests say so and pass.

use crate::support::dc::{Behaviour, DataCentre};
use crate::support::mask_site::MaskSite;
use crate::support::own_network;
use crate::support::proxy::{Files, Proxy};
use crate::support::rig::SECRET;
use crate::support::sockets::{dial, expect_closed, read_to_end, say_and_end};
use crate::support::tls_client::Tls;
use crate::support::tls_hello::Kind;
use crate::support::tls_rig::{Mode, Served, tls_dialer};
use crate::support::vectors::to_hex;
use crate::support::wait::{ANY_TEST, Watch};
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::thread;

const NAME: &str = "mask.example";

/// True inside a network whose name server is on this machine; see [`own_network`].
fn in_a_network_of_its_own(test: &str) -> bool {
    let files = Files::new();
    let resolver = files.write(
        "resolv.conf",
        b"nameserver 127.0.0.1\noptions timeout:2 attempts:5\n",
    );
    let hosts = files.write("hosts", b"127.0.0.1 localhost\n");
    let mounts =
        format!("mount --bind {resolver} /etc/resolv.conf; mount --bind {hosts} /etc/hosts");
    own_network::is_inside(test, &format!("ip link set lo up; {mounts}"))
}

/// A name server that says nothing until it is told an address for all names.
struct NameServer(Arc<Watch<State>>);

#[derive(Default)]
struct State {
    answer: Option<Ipv4Addr>,
    questions: Vec<(Vec<u8>, SocketAddr)>,
}

impl NameServer {
    fn start() -> (NameServer, Arc<UdpSocket>) {
        let socket = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 53)).expect("port 53"));
        socket
            .set_read_timeout(Some(ANY_TEST))
            .expect("read timeout");
        let watch = Arc::new(Watch::<State>::default());
        let (listening, state) = (Arc::clone(&socket), Arc::clone(&watch));
        thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok((count, from)) = listening.recv_from(&mut buffer) {
                let question = buffer[..count].to_vec();
                let answer = state.with(|state| {
                    state.questions.push((question.clone(), from));
                    state.answer
                });
                if let Some(address) = answer {
                    let _ = listening.send_to(&reply(&question, address), from);
                }
            }
        });
        (NameServer(watch), socket)
    }

    fn wait_for_question(&self) {
        self.0.wait_for("a question for the name server", |state| {
            (!state.questions.is_empty()).then_some(())
        });
    }

    /// From now on, and to all that have asked.
    fn speak(&self, address: Ipv4Addr, socket: &UdpSocket) {
        let questions = self.0.with(|state| {
            state.answer = Some(address);
            std::mem::take(&mut state.questions)
        });
        for (question, from) in questions {
            let _ = socket.send_to(&reply(&question, address), from);
        }
    }
}

/// One address for questions of type A, none for others (RFC 1035 4).
fn reply(question: &[u8], address: Ipv4Addr) -> Vec<u8> {
    let name = question[12..]
        .iter()
        .position(|byte| *byte == 0)
        .expect("a name")
        + 13;
    let wants_address = question[name..name + 2] == [0, 1];
    let mut reply = question[..2].to_vec();
    reply.extend([0x81, 0x80, 0, 1, 0, u8::from(wants_address), 0, 0, 0, 0]);
    reply.extend(&question[12..name + 4]);
    if wants_address {
        reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        reply.extend(address.octets());
    }
    reply
}

fn serve_a_client(address: SocketAddr, name: &'static str) {
    let mut dialer = tls_dialer(address, Kind::Today);
    dialer.tls = Some(Tls::new(Kind::Today, name));
    dialer.dial().echo(100);
}

#[test]
fn a_silent_name_server_delays_nobody() {
    if !in_a_network_of_its_own("faketls_names::a_silent_name_server_delays_nobody") {
        return;
    }
    let (names, socket) = NameServer::start();
    let site = MaskSite::start();
    let domain = site.as_domain(NAME);
    let served = Served::start(Mode::Direct, &["-D", &domain, "--mask-private"]);
    names.wait_for_question();
    serve_a_client(served.address(), NAME);
    // Nowhere to go yet.
    let mut early = dial(served.address());
    early.write_all(b"is anybody there?").expect("send");
    expect_closed(&early);
    serve_a_client(served.address(), NAME);
    names.speak(Ipv4Addr::LOCALHOST, &socket);
    served.wait_until_probed(NAME);
    let stream = dial(served.address());
    say_and_end(&stream, b"and now?");
    site.wait_for_all(b"and now?");
    assert!(!read_to_end(&stream).is_empty());
    assert_eq!(served.stop().count("mask_unreachable"), 1);
}

/// Whoever rules a name must not choose what strangers see of the proxy's own network.
#[test]
fn a_name_server_leads_nobody_to_private_addresses() {
    if !in_a_network_of_its_own("faketls_names::a_name_server_leads_nobody_to_private_addresses") {
        return;
    }
    let (names, socket) = NameServer::start();
    let site = MaskSite::start();
    let served = Served::start(Mode::Direct, &["-D", &site.as_domain(NAME)]);
    names.wait_for_question();
    names.speak(Ipv4Addr::LOCALHOST, &socket);
    let line = served
        .proxy
        .wait_for_line("a warning", |line| line.contains("no public address"));
    assert!(line.contains(NAME) && line.contains("127.0.0.1") && line.contains("--mask-private"));
    let mut stranger = dial(served.address());
    stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("send");
    serve_a_client(served.address(), NAME);
    expect_closed(&stranger);
    assert_eq!(site.with_state(|state| state.visits.len()), 0);
    assert_eq!(served.stop().count("mask_unreachable"), 1);
}

/// A proxy whose site is itself, as it finds out only when it looks the name up.
fn leads_back(name: &'static str, port: &str, meanwhile: impl FnOnce()) {
    let centre = DataCentre::start(Behaviour::Serve);
    let domain = format!("{name}:{port}");
    let mut arguments = vec!["--direct".to_owned(), "-H".to_owned(), port.to_owned()];
    arguments.extend(["-S".to_owned(), to_hex(&SECRET)]);
    arguments.extend(["--dc-override".to_owned(), centre.as_dc(2)]);
    arguments.extend(["-D".to_owned(), domain]);
    let proxy = Proxy::start_with(&arguments);
    meanwhile();
    let sign = format!("warning: -D {name}");
    proxy.wait_for_line("a warning", |line| line.contains(&sign));
    let mut stream = dial(proxy.address());
    stream.write_all(b"is anybody there?").expect("send");
    expect_closed(&stream);
    serve_a_client(proxy.address(), name);
    let summary = proxy.stop();
    assert_eq!(summary.count("tls_refused_not_tls"), 1, "it went round");
}

#[test]
fn a_name_that_turns_out_to_be_the_proxys_own() {
    if !in_a_network_of_its_own("faketls_names::a_name_that_turns_out_to_be_the_proxys_own") {
        return;
    }
    let (names, socket) = NameServer::start();
    leads_back(NAME, "8443", || {
        names.wait_for_question();
        names.speak(Ipv4Addr::LOCALHOST, &socket);
    });
}
