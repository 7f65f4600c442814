//! Faults of the process as a whole that were found and mended: the bound of all buffers holds on both ways,
//! root's rights are given up entirely, and -p takes the first free port of a range.

use crate::support::client::Client;
use crate::support::framing::{Item, Transport};
use crate::support::message::{Command, Message};
use crate::support::middle_proxy::{MiddleProxy, Options};
use crate::support::proxy::Proxy;
use crate::support::rig::{Rig, id_of, proxy_with};
use crate::support::rpc;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::MetadataExt;

const MIB: usize = 1 << 20;

/// The bound of all buffers, in both tests of it.
const BUDGET: [&str; 2] = ["--msg-buffers-size", "64m"];

/// Twice that and a little: pools, threads and what malloc keeps come on top of buffers in use.
const PEAK_MEMORY: u64 = 130 << 20;

#[test]
fn unfinished_packets_stay_within_the_bound_of_buffers() {
    const CLIENTS: usize = 160;
    let rig = Rig::with(&BUDGET, Options::default());
    let filtered = Transport::Intermediate.frame(&[0; 1_000_000], false, &[]);
    let forwarded = Message {
        body: vec![0; 1_000_000],
        ..Message::new(Command::Swallow, 0)
    };
    let forwarded = forwarded.encode();
    let mut clients: Vec<Client> = (0..CLIENTS)
        .map(|_| rig.dial(Transport::Intermediate))
        .collect();
    // Whole packets let the proxy expect more of that size. The ack says that it has them.
    for client in &mut clients {
        client.send_raw(&filtered);
        client.send_asking_ack(&forwarded);
        assert!(matches!(client.receive(), Item::QuickAck { .. }));
    }
    // Most of them wait in the kernel's buffers: the proxy reads no more than it has room for.
    for client in &mut clients {
        client.send_raw(&filtered[..filtered.len() - 1]);
    }
    // All at once: which of them the proxy reads first is its threads' luck.
    let finishing = |client| std::thread::spawn(move || finishes_its_packet(client));
    let all: Vec<_> = clients.into_iter().map(finishing).collect();
    let served = all.into_iter().map(|one| one.join().expect("its thread"));
    let served = served.filter(|served| *served).count();
    assert_eq!(served, CLIENTS, "each had its turn");
    assert_eq!(bounded(rig), 0, "clients closed for memory");
}

#[test]
fn queues_of_slow_clients_stay_within_the_bound_of_buffers() {
    const CLIENTS: usize = 16;
    // 12 MiB for each client, 192 MiB in all.
    const ROUNDS: usize = 48;
    let rig = Rig::with(&[&BUDGET[..], &["-M", "1"]].concat(), Options::default());
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| rig.dial(Transport::Padded)).collect();
    let ids: Vec<u64> = clients
        .iter_mut()
        .map(|client| id_of(&rig.middle, client))
        .collect();
    let link = rig.middle.link(0);
    for _ in 0..ROUNDS {
        for id in &ids {
            assert!(link.send(&[&rpc::answer(*id, 0, &[7; MIB / 4])]));
        }
    }
    // Once the PONG is here the proxy has taken all of it.
    rig.middle.ping(&link, *b"all read");
    assert!(bounded(rig) > 0, "nobody was closed for memory");
}

#[test]
fn root_gives_up_all_its_rights() {
    if fs::metadata("/proc/self").expect("/proc").uid() != 0 {
        eprintln!("not root: nothing to see here");
        return;
    }
    let middle = MiddleProxy::serving();
    let accounts = fs::read_to_string("/etc/passwd").expect("/etc/passwd");
    let default = ["mtproxy", "nobody"]
        .into_iter()
        .find_map(|name| ids_of(&accounts, name))
        .expect("one of the default users");
    let nobody = ids_of(&accounts, "nobody").expect("nobody");
    for (arguments, (uid, gid)) in [(&["-u", "nobody"][..], nobody), (&[][..], default)] {
        let proxy = proxy_with(middle.config_line(2), arguments);
        // Real, effective, saved, of the file system.
        assert_eq!(proxy.status("Uid"), vec![uid; 4], "{arguments:?}");
        assert_eq!(proxy.status("Gid"), vec![gid; 4], "{arguments:?}");
        let groups = proxy.status("Groups");
        assert!(
            !groups.contains(&"0".to_owned()),
            "{arguments:?}: {groups:?}"
        );
    }
}

#[test]
fn the_first_free_stats_port_of_a_range_is_taken() {
    const ATTEMPTS: usize = 10;
    let middle = MiddleProxy::serving();
    let start = |ports: &str| proxy_with(middle.config_line(2), &["-p", ports, "--http-stats"]);
    for _ in 0..ATTEMPTS {
        let first = start("0");
        let port = stats_port(&first);
        let next = port.saturating_add(1);
        // Somebody else may have that one, now or before the second instance asks for it.
        if TcpListener::bind((Ipv4Addr::LOCALHOST, next)).is_err() {
            continue;
        }
        let second = start(&format!("{port}:{}", port.saturating_add(20)));
        if stats_port(&second) == next {
            return;
        }
    }
    panic!("the port behind the taken one is never chosen");
}

/// Sends the last byte of the unfinished packet and an echo; false if the client was closed.
fn finishes_its_packet(mut client: Client) -> bool {
    client.send_raw(&[0]);
    client.send(&Message::echo(100).encode());
    client.receive_or_end().is_some()
}

/// It took memory for buffers up to their bound and not more, and still serves; how many clients it closed
/// for that.
fn bounded(rig: Rig) -> u64 {
    rig.dial(Transport::Padded).echo(1_000);
    let peak = rig.proxy.peak_memory();
    assert!(peak < PEAK_MEMORY, "{peak} bytes at the peak");
    rig.proxy.stop().count("connections_failed_lru")
}

/// User and group of an account.
fn ids_of(accounts: &str, name: &str) -> Option<(String, String)> {
    let mut rows = accounts.lines().map(|line| line.split(':'));
    let mut fields = rows.find_map(|mut row| (row.next() == Some(name)).then_some(row))?;
    Some((fields.nth(1)?.to_owned(), fields.next()?.to_owned()))
}

fn stats_port(proxy: &Proxy) -> u16 {
    let lines = proxy.lines();
    let port = lines
        .iter()
        .find_map(|line| line.strip_prefix("stats on port "));
    port.and_then(|port| port.parse().ok())
        .expect("a stats port")
}
