//! A clock that is set wrong, and files from the future: the server says so and serves. On 32-bit machines the
//! time doesn't fit std's types from 2038 on.

use crate::support::dc::{Behaviour, DataCentre};
use crate::support::framing::Transport;
use crate::support::http::{Figures, SERVING, page, stats_address};
use crate::support::middle_proxy::{MiddleProxy, Options};
use crate::support::programs::{missing, not_tested, run};
use crate::support::proxy::{Files, Proxy, program};
use crate::support::rig::{SECRET, dialer};
use crate::support::vectors::to_hex;
use std::env;
use std::process::{Command, Stdio};

const WARNING: &str = "warning: this machine's clock is wrong";

/// The program with a clock that starts at `time`, by libfaketime. A static program can't be given a library:
/// one that has a runner gets it through that, if it is dynamic (Debian: qemu-user).
fn program_at(time: &str) -> Option<Command> {
    let library = run(
        "sh",
        &["-c", "ls /usr/lib/*/faketime/libfaketime.so.1"],
        b"",
    )
    .expect("sh");
    let library = String::from_utf8_lossy(&library.stdout).trim().to_owned();
    if library.is_empty() {
        not_tested("libfaketime is missing, install Debian's package faketime");
        return None;
    }
    let mut command = program();
    if env::var("MTPROXY_BIN").is_ok() {
        let runner = env::var("MTPROXY_RUNNER");
        let runner = runner.unwrap_or_else(|_| format!("qemu-{}-static", env::consts::ARCH));
        let dynamic = runner.trim_end_matches("-static");
        if missing(dynamic) {
            return None;
        }
        command = Command::new(dynamic);
        command.arg(env::var("MTPROXY_BIN").expect("a program"));
    }
    command
        .env("LD_PRELOAD", library)
        .env("FAKETIME", format!("@{time}"))
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        .env("DONT_FAKE_MONOTONIC", "1")
        .stdin(Stdio::null());
    Some(command)
}

/// The value of a line of /stats.
fn number(page: &str, name: &str) -> u64 {
    let value = page.lines().find_map(|line| line.strip_prefix(name));
    let value = value.unwrap_or_else(|| panic!("no {name} in {page}"));
    value.trim().parse().expect("a number")
}

#[test]
fn it_serves_with_any_clock_and_says_that_it_is_wrong() {
    const YEAR: u64 = 31_556_952;
    for (year, is_wrong) in [(1971, true), (2030, false), (2040, false), (2060, true)] {
        let Some(mut command) = program_at(&format!("{year}-06-01 00:00:00")) else {
            return;
        };
        let centre = DataCentre::start(Behaviour::Serve);
        command.args([
            "--direct",
            "-H",
            "0",
            "-S",
            &to_hex(&SECRET),
            "--dc-override",
        ]);
        command.arg(centre.as_dc(2)).args(SERVING);
        let proxy = Proxy::start_by(command);
        let stats = page(stats_address(&proxy), "/stats");
        assert_eq!(1970 + number(&stats, "current_time") / YEAR, year);
        dialer(proxy.address(), Transport::Padded)
            .dial()
            .echo(1_000);
        let warnings = proxy.lines();
        let warnings = warnings.iter().filter(|line| line.starts_with(WARNING));
        assert_eq!(warnings.count(), usize::from(is_wrong), "{year}");
        proxy.stop();
    }
}

#[test]
fn files_may_be_of_any_time() {
    const YEAR: u64 = 31_556_952;
    for (year, ages) in [("2040", 0..1), ("2020", 5 * YEAR..80 * YEAR)] {
        let files = Files::new();
        let middle = MiddleProxy::start(Options::default());
        let config = format!("default 2;\n{}", middle.config_line(2));
        let config = files.write("proxy-multi.conf", config.as_bytes());
        let key = files.write("proxy-secret", middle.proxy_secret());
        let touched = run(
            "touch",
            &["-d", &format!("{year}-01-01"), &config, &key],
            b"",
        );
        assert!(touched.expect("touch").status.success());
        let secret = to_hex(&SECRET);
        let mut arguments = vec!["-H", "0", "-S", &secret, "--aes-pwd", &key];
        arguments.extend(SERVING);
        arguments.push(&config);
        let proxy = Proxy::start_with(&arguments);
        dialer(proxy.address(), Transport::Padded)
            .dial()
            .echo(1_000);
        let metrics = Figures::of_metrics(stats_address(&proxy));
        for file in ["config", "proxy_secret"] {
            let age = metrics.number(&format!("mtproxy_file_age_seconds{{file=\"{file}\"}}"));
            assert!(ages.contains(&age), "{year}: {age}");
        }
        proxy.stop();
    }
}
