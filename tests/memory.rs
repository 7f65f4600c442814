//! Memory that is short costs those who hold it, and nobody else.

use crate::support::attack::hold;
use crate::support::bystander::Bystander;
use crate::support::dc::{Behaviour, DataCentre};
use crate::support::framing::Transport;
use crate::support::message::Message;
use crate::support::middle_proxy::{MiddleProxy, Options};
use crate::support::proxy::{Proxy, Setup};
use crate::support::rig::{Rig, SECRET, client_of, dialer};
use crate::support::rpc;
use crate::support::sockets::wait_until_read;
use crate::support::vectors::to_hex;
use std::thread;
use std::time::Duration;

/// Far above what an echo takes on a busy machine, far below a deadline of the proxy's.
const SOON: Duration = Duration::from_secs(5);

/// Each uploads a file's part at this pace.
const PART: usize = 512 << 10;
const PIECE: usize = 32 << 10;
const PACE: Duration = Duration::from_millis(25);

#[test]
fn uploads_wait_for_each_other_and_end_whole() {
    uploads("4m", 12);
}

/// So many at once, with that budget.
fn uploads(budget: &str, count: usize) {
    let rig = Rig::with(&["--msg-buffers-size", budget], Options::default());
    let bystander = Bystander::start(rig.dial(Transport::Padded), 10_000);
    thread::scope(|scope| {
        for _ in 0..count {
            scope.spawn(|| {
                let mut client = rig.dial(Transport::Intermediate);
                let message = Message::echo(PART).encode();
                for piece in Transport::Intermediate
                    .frame(&message, false, &[])
                    .chunks(PIECE)
                {
                    client.send_raw(piece);
                    thread::sleep(PACE);
                }
                assert!(client.packet() == message);
            });
        }
    });
    bystander.unharmed(SOON);
    assert_eq!(rig.proxy.stop().count("connections_failed_lru"), 0);
}

#[test]
fn an_upload_that_stalls_gives_way() {
    let rig = Rig::with(&["--msg-buffers-size", "1m"], Options::default());
    let message = Message::echo(PART).encode();
    let frame = Transport::Intermediate.frame(&message, false, &[]);
    let mut stalled = rig.dial(Transport::Intermediate);
    stalled.send_raw(&frame[..80_000]);
    wait_until_read(&stalled.stream);
    let mut other = rig.dial(Transport::Intermediate);
    other.send_raw(&frame);
    assert!(other.packet() == message);
    stalled.expect_closed();
    assert_eq!(rig.proxy.stop().count("connections_failed_lru"), 1);
}

#[test]
fn a_frame_that_grows_costs_its_own_connection_only() {
    let (near, mut far) = (
        MiddleProxy::start(Options::default()),
        MiddleProxy::start(Options::default()),
    );
    let config = format!("default 2;\n{}{}", near.config_line(2), far.config_line(4));
    let mut setup = Setup::new(config);
    setup.secrets = vec![SECRET];
    setup.proxy_secret = near.proxy_secret().to_vec();
    setup.arguments = ["--msg-buffers-size", "8m"].map(str::to_owned).to_vec();
    let proxy = Proxy::start(&setup);
    let bystander = Bystander::start(dialer(proxy.address(), Transport::Padded).dial(), 100_000);
    let mut client = client_of(&proxy, 4);
    client.echo(100_000);
    // 5 of 6 MiB, where a quarter of 8 is for all backends.
    far.link(0)
        .send_all_but(1 << 20, &rpc::answer(7, 0, &vec![7; 6 << 20]));
    client.expect_closed();
    bystander.unharmed(SOON);
    // It is dialled again.
    client_of(&proxy, 4).echo(100_000);
    let counts = proxy.stop();
    assert_eq!(counts.count("backend_frames_refused"), 1);
    assert_eq!(counts.count("connections_failed_lru"), 0);
    far.stop();
}

/// As many clients as are let in, and a flood.
#[test]
fn little_address_space_costs_clients_but_not_the_process() {
    for kib in [60_000, 160_000] {
        let centre = DataCentre::start(Behaviour::Serve);
        let secret = to_hex(&SECRET);
        let place = centre.as_dc(2);
        let arguments = ["-H", "0", "-S", &secret, "--dc-override", &place];
        let proxy = Proxy::start_within(kib, &arguments);
        let line = proxy.wait_for_line("limits", |line| line.starts_with("limits: "));
        let words: Vec<&str> = line.split(' ').collect();
        let most: usize = words[1].parse().expect("a number of clients");
        assert!(words.contains(&"(RLIMIT_AS") && most > 20, "{line}");
        let dialer = dialer(proxy.address(), Transport::Padded);
        let served = |_| {
            let mut client = dialer.dial();
            client.echo(100_000);
            client
        };
        let mut clients: Vec<_> = (0..most).map(served).collect();
        dialer.dial().expect_closed();
        let _held = hold(proxy.address(), 200, &[0xef], Duration::ZERO);
        clients.iter_mut().for_each(|client| client.echo(100_000));
        assert_eq!(proxy.stop().count("thread_panics"), 0);
    }
}
