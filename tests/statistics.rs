//! Statistics say what happened: names and order of the C program's page, and after scripted runs in
//! both modes exact counts of clients, packets and bytes.

use crate::support::client::Client;
use crate::support::dc::{Behaviour, DataCentre};
use crate::support::direct_rig::{DirectRig, direct_proxy};
use crate::support::framing::{Item, TRANSPORTS, Transport};
use crate::support::http::{Figures, SERVING, page, stats_address, wait_for};
use crate::support::message::{Command, Message};
use crate::support::middle_proxy::Options;
use crate::support::obfuscated2::Secret;
use crate::support::programs::run;
use crate::support::rig::{Rig, dialer};
use crate::support::transfers::Ends;
use crate::support::vectors::to_hex;
use std::fs;
use std::path::Path;

const BOB: Secret = *b"Bob's own secret";

/// Names of the C program's page that ours has, with the kind of value.
fn names() -> Vec<(String, String)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/stats/names");
    let text = fs::read_to_string(path).expect("the list of names");
    let rows = text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#') && !line.starts_with("part "));
    rows.map(|row| {
        let (name, kind) = row.split_once(' ').expect("a name and a kind");
        (name.to_owned(), kind.to_owned())
    })
    .collect()
}

fn fits(kind: &str, value: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let decimals = |count: usize| {
        let parts = value.split_once('.');
        parts.is_some_and(|(a, b)| digits(a) && digits(b) && b.len() == count)
    };
    let several = |count: usize| value.split(' ').filter(|n| digits(n)).count() == count;
    match kind {
        "d" => digits(value),
        "f3" => decimals(3),
        "f6" => decimals(6),
        "3d" => several(3),
        "5d" => several(5),
        "hex" => value.len() == 32 && value.bytes().all(|b| b.is_ascii_hexdigit()),
        "s" => true,
        _ => panic!("kind {kind}"),
    }
}

#[test]
fn names_and_order_are_the_c_programs() {
    let rig = Rig::with(&SERVING, Options::default());
    let address = stats_address(&rig.proxy);
    let text = page(address, "/stats");
    let rows: Vec<(&str, &str)> = text
        .lines()
        .map(|line| line.split_once('\t').expect("a tab"))
        .collect();
    let wanted = names();
    assert_eq!(wanted.len(), 70);
    assert!(rows.len() > wanted.len());
    for ((name, kind), (own, value)) in wanted.iter().zip(&rows) {
        assert_eq!(name, own);
        assert!(fits(kind, value), "{name}: {value:?} is no {kind}");
    }
    assert!(text.ends_with('\n'));
    // No name twice, ours included: this would panic.
    let figures = Figures::of_stats(address);
    assert!(figures.has("closed_client_gone") && figures.has("forwarded_query_bytes"));
}

fn pid(rig: &Rig) -> u64 {
    rig.proxy.status("Pid")[0].parse().expect("a number")
}

#[test]
fn the_start_is_told() {
    let rig = Rig::with(
        &[&SERVING[..], &["-C", "77", "-W", "99999"]].concat(),
        Options::default(),
    );
    let address = stats_address(&rig.proxy);
    let ready = |figures: &Figures| figures.number("total_ready_targets") == 1;
    let figures = wait_for(|| Figures::of_stats(address), "a ready target", ready);
    figures.expect(&[
        ("pid", pid(&rig)),
        ("window_clamp", 99_999),
        ("total_max_special_connections", 77),
        ("total_declared_targets", 1),
        ("config_auth_clusters", 1),
        ("backend_connects", 1),
        ("total_connections", 1),
        ("total_allocated_outbound_connections", 1),
        ("proxy_mode", 2),
        ("proxy_tag_set", 0),
        ("secret_1_connections", 0),
    ]);
    let name = figures.text("config_filename");
    assert!(name.ends_with("/proxy-multi.conf"), "{name}");
    let size = fs::metadata(name).expect("the file").len();
    assert_eq!(figures.number("config_size"), size);
    let sum = run("md5sum", &[name], b"").expect("md5sum");
    let sum = String::from_utf8(sum.stdout).expect("text");
    assert!(sum.starts_with(figures.text("config_md5")), "{sum}");
    let pid = format!(":{}:{}:", address.port(), pid(&rig));
    assert!(figures.text("PID").contains(&pid));
    assert!(figures.number("vmrss_bytes") > 100_000);
    let metrics = Figures::of_metrics(address);
    assert!(metrics.has("mtproxy_file_age_seconds{file=\"config\"}"));
    assert!(metrics.has("mtproxy_file_age_seconds{file=\"proxy_secret\"}"));
    assert!(metrics.number("mtproxy_threads") >= 5);
    metrics.expect(&[
        ("mtproxy_backend_slots{dc=\"2\",state=\"ready\"}", 1),
        ("mtproxy_backend_slots{dc=\"2\",state=\"dialing\"}", 0),
        ("mtproxy_backend_slots{dc=\"2\",state=\"unused\"}", 1),
        ("mtproxy_connect_seconds_count{dc=\"2\"}", 1),
        ("mtproxy_handshake_seconds_count{dc=\"2\"}", 1),
        ("mtproxy_handshake_seconds_bucket{dc=\"2\",le=\"+Inf\"}", 1),
    ]);
}

/// By the names that Prometheus prescribes for any process, beside the older ones.
#[test]
fn the_process_is_told() {
    let rig = Rig::with(&SERVING, Options::default());
    let metrics = Figures::of_metrics(stats_address(&rig.proxy));
    for (name, same) in [
        ("process_start_time_seconds", "mtproxy_start_time_seconds"),
        ("process_cpu_seconds_total", "mtproxy_cpu_seconds_total"),
        (
            "process_resident_memory_bytes",
            "mtproxy_memory_bytes{kind=\"resident\"}",
        ),
        (
            "process_virtual_memory_bytes",
            "mtproxy_memory_bytes{kind=\"virtual\"}",
        ),
    ] {
        assert_eq!(metrics.text(name), metrics.text(same), "{name}");
    }
    let limits = fs::read_to_string(format!("/proc/{}/limits", pid(&rig))).expect("its limits");
    let most = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let most = most.and_then(|line| line.split_whitespace().nth(3));
    assert_eq!(Some(metrics.text("process_max_fds")), most);
    // The standard ones, two listeners, the link to the middle proxy, and this request.
    let open = metrics.number("process_open_fds");
    assert!((7..50).contains(&open), "{open} open descriptors");
}

/// A client that isn't served is one refusal, and no other family of counters has it; the summary at exit
/// shows what is not zero.
#[test]
fn a_refusal_has_one_name() {
    let rig = Rig::with(&[&SERVING[..], &["-C", "1"]].concat(), Options::default());
    let address = stats_address(&rig.proxy);
    let mut there = rig.dial(Transport::Padded);
    there.echo(10);
    let refused = |figures: &Figures| {
        figures.number("mtproxy_handshake_refusals_total{reason=\"limit\"}") > 0
    };
    rig.dial(Transport::Padded).expect_closed();
    let metrics = wait_for(|| Figures::of_metrics(address), "a refusal", refused);
    assert!(!metrics.has("mtproxy_accept_connection_limit_failed_total"));
    assert!(!metrics.has("mtproxy_tls_refused_not_tls_total"));
    Figures::of_stats(address).expect(&[
        ("accept_connection_limit_failed", 1),
        ("tls_refused_not_tls", 0),
    ]);
    there.leave();
    let summary = rig.proxy.stop();
    assert_eq!(summary.text("accept_connection_limit_failed"), "1");
    assert!(
        !format!("{summary:?}").contains("dropped_queries"),
        "{summary:?}"
    );
}

const PACKETS: usize = 5;

/// Echoes of several lengths; gives the bytes of them.
fn echoes(client: &mut Client) -> u64 {
    let lengths = (0..PACKETS).map(|number| number * 700);
    lengths
        .map(|length| {
            client.echo(length);
            Message::echo(length).encode().len() as u64
        })
        .sum()
}

/// Nobody is there, and what was said of the last ones to the middle proxy is written.
fn gone(figures: &Figures) -> bool {
    let there = ["ext_connections", "total_network_buffers_used"];
    there.iter().all(|name| figures.number(name) == 0)
}

#[test]
fn a_run_in_middle_mode_is_counted_to_the_byte() {
    let bob = format!("{}:bob:9", to_hex(&BOB));
    let rig = Rig::with(&[&SERVING[..], &["-S", &bob]].concat(), Options::default());
    let address = stats_address(&rig.proxy);
    let mut down = 0;
    let mut clients = Vec::new();
    for transport in TRANSPORTS {
        for secret in [None, Some(BOB)] {
            let mut dialer = dialer(rig.proxy.address(), transport);
            dialer.secret = secret.or(dialer.secret);
            let mut client = dialer.dial();
            down += echoes(&mut client);
            clients.push(client);
        }
    }
    clients[0].send_asking_ack(&Message::new(Command::Swallow, 1).encode());
    assert!(matches!(clients[0].receive(), Item::QuickAck { .. }));
    let open = Figures::of_metrics(address);
    for transport in ["abridged", "intermediate", "padded_intermediate"] {
        let name = format!("mtproxy_connections{{phase=\"open\",transport=\"{transport}\"}}");
        assert_eq!(open.number(&name), 2);
    }
    let bobs = "{secret=\"2\",label=\"bob\"}";
    open.expect(&[
        ("mtproxy_connections{phase=\"handshake\",transport=\"\"}", 0),
        ("mtproxy_dc_connections{dc=\"2\"}", 6),
        (&format!("mtproxy_secret_connections{bobs}"), 3),
        (&format!("mtproxy_secret_connections_limit{bobs}"), 9),
    ]);
    clients.iter().for_each(Client::leave);
    let figures = wait_for(|| Figures::of_stats(address), "no clients", gone);
    let (requests, up) = rig.middle.with(|state| {
        let bytes = state.requests.iter().map(|request| request.message.len());
        (state.requests.len() as u64, bytes.sum::<usize>() as u64)
    });
    let answers = (clients.len() * PACKETS) as u64;
    assert_eq!(requests, answers + 1);
    figures.expect(&[
        ("ext_connections_created", 6),
        ("inbound_connections_accepted", 6),
        ("tot_forwarded_queries", requests),
        ("tot_forwarded_responses", answers),
        ("tot_forwarded_simple_acks", 1),
        ("forwarded_query_bytes", up),
        ("forwarded_response_bytes", down),
        ("direct_up_bytes", 0),
        ("closed_client_gone", 6),
        ("dropped_queries", 0),
        ("total_network_buffers_used", 0),
    ]);
    let of = |name: &str, direction: &str| {
        format!("mtproxy_{name}_total{{dc=\"2\",direction=\"{direction}\"}}")
    };
    let metrics = Figures::of_metrics(address);
    metrics.expect(&[
        (&of("dc_bytes", "up"), up),
        (&of("dc_bytes", "down"), down),
        (&of("dc_packets", "up"), requests),
        (&of("dc_packets", "down"), answers),
        (
            "mtproxy_connections_closed_total{reason=\"client_gone\"}",
            6,
        ),
        (&format!("mtproxy_secret_clients_total{bobs}"), 3),
        (
            "mtproxy_secret_bytes_total{secret=\"2\",label=\"bob\",direction=\"down\"}",
            down / 2,
        ),
        ("mtproxy_queue_bytes{direction=\"up\"}", 0),
        ("mtproxy_queue_bytes{direction=\"down\"}", 0),
    ]);
}

#[test]
fn a_run_in_direct_mode_is_counted_to_the_byte() {
    let centre = DataCentre::start(Behaviour::HandOver);
    let rig = DirectRig {
        proxy: direct_proxy(&[&centre.as_dc(2)], &SERVING),
        centre,
    };
    let address = stats_address(&rig.proxy);
    // With the header, small ones, and enough to leave the small buffer on both ways.
    let (first, up, down) = (150, 700_000, 900_000);
    let mut clients = Vec::new();
    for _ in 0..2 {
        let client = dialer(rig.proxy.address(), Transport::Padded).dial_saying(&vec![7; first]);
        let mut ends = Ends::new(client, rig.centre.take());
        let mut left = first;
        while left > 0 {
            left -= ends.receiving.read_some(&mut vec![0; left]);
        }
        ends.pass_up(up);
        ends.pass_down(down);
        clients.push(ends);
    }
    let open = Figures::of_metrics(address);
    open.expect(&[
        ("mtproxy_direct_connections", 2),
        ("mtproxy_dc_connections{dc=\"2\"}", 2),
        ("mtproxy_connect_seconds_count{dc=\"2\"}", 2),
    ]);
    drop(clients);
    let figures = wait_for(|| Figures::of_stats(address), "no clients", gone);
    figures.expect(&[
        ("ext_connections_created", 2),
        ("direct_connects", 2),
        ("direct_up_bytes", 2 * (first + up) as u64),
        ("direct_down_bytes", 2 * down as u64),
        ("tot_forwarded_queries", 0),
        ("total_connections", 0),
        ("config_size", 0),
    ]);
}

#[test]
fn a_secret_is_for_as_many_clients_as_its_limit_says() {
    let bob = format!("{}:bob:2", to_hex(&BOB));
    let rig = Rig::with(&[&SERVING[..], &["-S", &bob]].concat(), Options::default());
    let address = stats_address(&rig.proxy);
    let dial_with = |secret| {
        let mut dialer = dialer(rig.proxy.address(), Transport::Intermediate);
        dialer.secret = Some(secret);
        dialer.dial()
    };
    let mut two = [dial_with(BOB), dial_with(BOB)];
    two.iter_mut().for_each(|client| client.echo(10));
    for _ in 0..3 {
        dial_with(BOB).expect_closed();
    }
    // Those who are there stay, and the other secret has no limit.
    two.iter_mut().for_each(|client| client.echo(10));
    rig.dial(Transport::Padded).echo(10);
    let bobs = "{secret=\"2\",label=\"bob\"}";
    Figures::of_metrics(address).expect(&[
        (&format!("mtproxy_secret_refusals_total{bobs}"), 3),
        (&format!("mtproxy_secret_connections{bobs}"), 2),
        (
            "mtproxy_handshake_refusals_total{reason=\"secret_full\"}",
            3,
        ),
        (
            "mtproxy_connections_closed_total{reason=\"secret_full\"}",
            3,
        ),
    ]);
    // A place that is left is free again.
    two[0].leave();
    let one_left = |figures: &Figures| figures.number("secret_2_connections") == 1;
    wait_for(|| Figures::of_stats(address), "a free place", one_left);
    dial_with(BOB).echo(10);
    assert_eq!(Figures::of_stats(address).number("closed_secret_full"), 3);
}

#[test]
fn pings_are_timed() {
    // The last -T counts.
    let rig = Rig::with(&[&SERVING[..], &["-T", "1"]].concat(), Options::default());
    let address = stats_address(&rig.proxy);
    let target = rig.middle.address;
    let name =
        format!("mtproxy_backend_round_trip_seconds{{dc=\"2\",slot=\"0\",target=\"{target}\"}}");
    let figures = wait_for(
        || Figures::of_metrics(address),
        "a round trip",
        |figures| figures.has(&name),
    );
    let seconds = figures.text(&name);
    assert!(fits("f6", seconds) && seconds != "0.000000", "{seconds}");
    let counted = Figures::of_stats(address).number("backend_pongs_received");
    assert!(counted > 0);
}
