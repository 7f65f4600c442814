//! Programs that others use read the statistics: curl and promtool.

use crate::support::framing::{TRANSPORTS, Transport};
use crate::support::http::{SERVING, page, stats_address};
use crate::support::middle_proxy::Options;
use crate::support::programs::run;
use crate::support::proxy::Proxy;
use crate::support::rig::{Rig, proxy_with};

/// What curl says of an address: status and body.
fn curl(proxy: &Proxy, host: &str, target: &str, arguments: &[&str]) -> Option<(String, String)> {
    let url = format!("http://{host}:{}{target}", stats_address(proxy).port());
    let usual = ["-sS", "--noproxy", "*", "-w", "\n%{http_code}", &url];
    let output = run("curl", &[&usual[..], arguments].concat(), b"")?;
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{errors}");
    let text = String::from_utf8(output.stdout).expect("text");
    let (body, status) = text.rsplit_once('\n').expect("a status");
    Some((status.to_owned(), body.to_owned()))
}

#[test]
fn promtool_finds_nothing_to_object_to() {
    let second = "0123456789abcdef0123456789abcdef:a.b-c_d:3";
    let rig = Rig::with(
        &[&SERVING[..], &["-S", second]].concat(),
        Options::default(),
    );
    for transport in TRANSPORTS {
        rig.dial(transport).echo(1_000);
    }
    let _there = rig.dial(Transport::Padded);
    let text = page(stats_address(&rig.proxy), "/metrics");
    for family in [
        "connections gauge",
        "connections_closed_total counter",
        "handshake_refusals_total counter",
        "dc_bytes_total counter",
        "dc_packets_total counter",
        "backend_slots gauge",
        "connect_seconds histogram",
        "handshake_seconds histogram",
        "queue_bytes gauge",
        "connections_failed_lru_total counter",
        "secret_connections gauge",
        "secret_bytes_total counter",
        "secret_refusals_total counter",
        "threads gauge",
        "file_age_seconds gauge",
        "build_info gauge",
        "clock_skew_seconds gauge",
        "client_addresses gauge",
        "mask_site_known gauge",
    ] {
        assert!(
            text.contains(&format!("# TYPE mtproxy_{family}\n")),
            "{family}"
        );
    }
    let Some(output) = run("promtool", &["check", "metrics"], text.as_bytes()) else {
        return;
    };
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(output.status.success() && said.is_empty(), "{said}");
}

#[test]
fn curl_reads_both_pages_on_one_connection() {
    let rig = Rig::with(&SERVING, Options::default());
    let metrics = format!(
        "http://127.0.0.1:{}/metrics",
        stats_address(&rig.proxy).port()
    );
    let keep = [
        "-H",
        "Connection: keep-alive",
        "-w",
        "\n%{num_connects}",
        &metrics,
    ];
    let Some((connects, body)) = curl(&rig.proxy, "127.0.0.1", "/stats", &keep) else {
        return;
    };
    assert_eq!(
        connects, "0",
        "the second page came on the first one's connection"
    );
    assert!(body.starts_with("pid\t") && body.contains("# HELP mtproxy_build_info"));
    let get = |target, arguments: &[&str]| {
        let answer = curl(&rig.proxy, "127.0.0.1", target, arguments);
        answer.expect("curl is there").0
    };
    assert_eq!(get("/stats?x", &[]), "404");
    assert_eq!(get("/stats", &["-I"]), "200");
    assert_eq!(get("/health", &["--fail", "-I"]), "200");
    assert_eq!(get("/stats", &["-d", "a=b"]), "501");
    assert_eq!(get("/stats", &["-H", "X-Forwarded-For: 192.0.2.1"]), "404");
    assert_eq!(get("/stats", &["-0"]), "200");
}

/// Of 127/8 only 127.0.0.1 is this machine itself, as in the C program; others are let in on purpose.
#[test]
fn strangers_get_404_unless_their_network_is_allowed() {
    let from_two = ["--interface", "127.0.0.2"];
    let rig = Rig::with(&SERVING, Options::default());
    let Some((status, _)) = curl(&rig.proxy, "127.0.0.1", "/stats", &from_two) else {
        return;
    };
    assert_eq!(status, "404");
    let config = rig.middle.config_line(2);
    let allowed = [&SERVING[..], &["--stats-allow-net", "127.0.0.0/30"]].concat();
    let open = proxy_with(config, &allowed);
    let status = |arguments: &[&str]| {
        let answer = curl(&open, "127.0.0.5", "/metrics", arguments);
        answer.expect("curl is there").0
    };
    // It listens on all addresses then.
    assert_eq!(status(&from_two), "200");
    assert_eq!(
        status(&["--interface", "127.0.0.1", "-H", "Forwarded: for=a"]),
        "200"
    );
    assert_eq!(status(&["--interface", "127.0.0.4"]), "404");
}
