//! `make bench`: what the proxy costs in middle mode and in direct mode, end to end over loopback, beside a
//! plain relay that does no crypto.
//!
//! One thread on one core plays all clients and the Telegram behind the server; the server has the
//! other core to itself. All servers get the same clients and the same messages. Behind direct mode and
//! the relay there are data centres of ours; the relay's clients speak obfuscated2 with raw keys to them,
//! so the byte counts are alike. The figures of the three are taken one right after the other, and a
//! ratio to the relay's is what survives a change of machine or a busy neighbour.
//!
//! Fake TLS is measured with proxies of its own, beside the relay without it. Each client's hello is
//! signed afresh, which is the generator's work; the site behind the mask is a port that closes, so
//! answers have the shape that stands in for an unknown site's.
//!
//! CPU is user plus system time of the server's process from /proc, in steps of 10 ms. On loopback a
//! sender also pays for the delivery of what it sends, the proxy as well as the relay. Payload is what
//! goes in the direction that is named; the short message the other way isn't counted.
//!
//! BENCH_QUICK=1 takes a minute instead of nearly six; BENCH_JSON=FILE also writes the figures as JSON;
//! MTPROXY_BIN=FILE measures another program with the same command line and the same start block.

mod clients;
mod crc;
mod engine;
mod fake_tls;
mod link;
mod middle;
mod outgoing;
mod relay;
mod report;
mod scenarios;
mod server;
mod suite;
mod sys;
mod telegram;
mod transfers;
mod wire;

use std::process::ExitCode;
use suite::Suite;
use transfers::{fake_tls_list, transfer_list};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match arguments.split_first() {
        Some((first, ports)) if first == "relay" => run_relay(ports),
        _ if arguments.iter().any(|argument| argument == "--bench") => run_bench(),
        // `cargo test --all-targets` starts this too, and wants no minutes of load.
        _ => {
            eprintln!("bench: nothing measured; `cargo bench --bench bench` gives --bench");
            Ok(())
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            eprintln!("bench: {text}");
            ExitCode::FAILURE
        }
    }
}

fn run_relay(ports: &[String]) -> Result<(), String> {
    let ports: Vec<u16> = ports.iter().filter_map(|port| port.parse().ok()).collect();
    relay::run(&ports).map_err(|error| format!("the relay failed: {error}"))
}

fn run_bench() -> Result<(), String> {
    let quick = std::env::var_os("BENCH_QUICK").is_some_and(|value| value != "0");
    let mut suite = Suite::new(quick).map_err(|error| format!("can't begin: {error}"))?;
    let program = suite.program().display().to_string();
    eprintln!("bench: measuring {program} in both modes beside a plain relay");
    let measured = measure(&mut suite);
    report::end_progress();
    measured?;
    suite.report.print();
    let others = suite.others() * 100.0;
    println!(
        "Meanwhile other processes used {others:.0} % of a core; beyond 10 % or so figures are unsteady."
    );
    if let Some(path) = std::env::var_os("BENCH_JSON") {
        let written = std::fs::write(&path, suite.report.json(&program, suite.others()));
        written.map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(())
}

fn measure(suite: &mut Suite) -> Result<(), String> {
    suite.start()?;
    let servers = suite.start_all()?;
    let sections = ["CPU of transfers, per GB of payload", "Speed of transfers"];
    suite.transfers(&servers, &transfer_list(), sections)?;
    suite.small_requests(&servers)?;
    suite.connections(&servers, "Connections: handshake, one round trip")?;
    drop(servers);
    let servers = suite.start_in_fake_tls()?;
    let sections = [
        "Fake TLS: CPU, per GB of payload",
        "Fake TLS: speed of transfers",
    ];
    suite.transfers(&servers, &fake_tls_list(), sections)?;
    suite.connections(&servers, "Fake TLS: connections")?;
    drop(servers);
    suite.rate()?;
    suite.idle()
}
