//! `mtproxy doctor`: looks at everything that a server with these flags needs, side by side, and says what to
//! do. Its input is the operator's; what sites, middle proxies and data centres send is untrusted, as it is to
//! the server.
//!
//! Files and limits are looked at in the main thread, whatever waits for others in a thread each, against one
//! deadline.

mod network;
mod ntp;
mod site;

use std::path::Path;
use std::time::Instant;

use mtproxy::limits::{CLOCK_OFF, CLOCK_WORN, DOCTOR_TIME, OLD_CONFIG};

use crate::base::clock;
use crate::operator::capacity::{self, Demand};
use crate::operator::findings::{self, Finding, Job, Verdict};
use crate::operator::options::{Config, Doctor};
use crate::operator::proc::{number_behind, text};
use crate::operator::{Fatal, access, load, sandbox, start};

/// Prints what was found; exit code 0, 1 if anything failed, 2 for warnings.
pub fn run(config: Config, how: Doctor) -> u8 {
    // For the threads; the process ends soon.
    let config: &'static Config = Box::leak(Box::new(config));
    let Doctor { json, own, ntp } = how;
    let deadline = Instant::now() + DOCTOR_TIME;
    let mut found = Vec::new();
    let mut jobs = Vec::new();
    let entries = note(&mut found, "secrets", access::read(config)).unwrap_or_default();
    network::own_port(config, &entries, own, deadline, &mut jobs);
    if !own {
        look(config, deadline, &mut found, &mut jobs);
        site::jobs(config, &access::domains(config, &entries), &mut jobs);
        jobs.extend(ntp.map(|server| ntp::job(server.leak())));
        machine(
            config,
            !access::domains(config, &entries).is_empty(),
            &mut found,
        );
    }
    found.extend(findings::side_by_side(jobs, deadline));
    if own {
        found.retain(|one| one.verdict == Verdict::Fail || one.name == "own port");
    } else {
        judge_middle(config, &mut found);
        found.push(clock_of(&found));
        // As the server does, and last: from here on this thread may no more than the server.
        let entered = note(&mut found, "sandbox", sandbox::enter(config));
        found.extend(entered.map(|text| match config.no_sandbox {
            true => Finding::new(Verdict::Warn, "sandbox", text, "leave that out"),
            false => Finding::ok("sandbox", text),
        }));
    }
    match findings::print(&found, json) {
        Verdict::Ok => 0,
        Verdict::Fail => 1,
        Verdict::Warn => 2,
    }
}

/// Files, and whom they name.
fn look(config: &'static Config, end: Instant, found: &mut Vec<Finding>, jobs: &mut Vec<Job>) {
    note(found, "way out", start::set_way_out(config));
    let table = note(found, "data centres", start::table(config));
    if let (Some(table), true) = (table, config.is_direct() || config.has_fallback()) {
        network::data_centres(config, &table, end, jobs);
        network::ipv6(config, &table, end, jobs);
    }
    if let Some(path) = &config.secret_file {
        found.extend(open_to_all(path));
    }
    if let Some(path) = &config.state {
        let folder = path.parent().filter(|folder| folder.as_os_str() != "");
        let there = folder.unwrap_or(Path::new(".")).is_dir();
        let name = path.display().to_string();
        found.push(match there {
            true => Finding::ok(name, "its folder is there"),
            false => Finding::new(Verdict::Fail, name, "its folder is missing", "create it"),
        });
    }
    let read = note(found, "configuration", start::read_config(config, false)).flatten();
    let (Some((file, _)), Some(path)) = (read, &config.config_file) else {
        return;
    };
    found.push(age(path, "https://core.telegram.org/getProxyConfig"));
    let secret = note(found, "proxy-secret", start::read_proxy_secret(config)).flatten();
    let Some((secret, _)) = secret else {
        let text = "no --aes-pwd, and no file named secret";
        found.push(Finding::new(
            Verdict::Fail,
            "proxy-secret",
            text,
            SECRET_FILE,
        ));
        return;
    };
    found.push(match secret.doubt() {
        Some(doubt) => Finding::new(Verdict::Warn, "proxy-secret", doubt, SECRET_FILE),
        None => age(config.proxy_secret_file(), ""),
    });
    let dialer = load::dialer(config, secret);
    network::middle_proxies(&file, Box::leak(Box::new(dialer)), jobs);
}

/// The value; what is wrong becomes a finding.
fn note<T>(found: &mut Vec<Finding>, name: &str, result: Result<T, Fatal>) -> Option<T> {
    result
        .map_err(|Fatal(text)| found.push(Finding::new(Verdict::Fail, name, text, "")))
        .ok()
}

/// How old a file is; old is worth a warning if there is a place to fetch it from.
fn age(path: &Path, from: &str) -> Finding {
    let name = path.display().to_string();
    let written = clock::written(path);
    let age = written.and_then(|time| clock::unix().checked_sub(time));
    let Some(age) = age else {
        return Finding::new(
            Verdict::Warn,
            name,
            "it is of a future time",
            "set the clock",
        );
    };
    let days = age / 86_400;
    match age > OLD_CONFIG.as_secs() && !from.is_empty() {
        true => {
            let hint = format!("fetch {from} daily");
            Finding::new(Verdict::Warn, name, format!("{days} days old"), &hint)
        }
        false => Finding::ok(name, format!("well-formed, {days} days old")),
    }
}

fn open_to_all(path: &Path) -> Option<Finding> {
    use std::os::unix::fs::MetadataExt;
    let mode = std::fs::metadata(path).map_or(0, |file| file.mode());
    let hint = "chmod o-r";
    let name = path.display().to_string();
    let text = "every user of this machine can read it";
    (mode & 0o004 != 0).then(|| Finding::new(Verdict::Warn, name, text, hint))
}

/// Limits and settings of this machine.
fn machine(config: &'static Config, fake_tls: bool, found: &mut Vec<Finding>) {
    if config.is_open() {
        let text = "open to everybody";
        found.push(Finding::new(Verdict::Warn, "secrets", text, "give -S"));
    }
    let capacity = capacity::find(&Demand {
        config,
        slots: config.slots_per_set() as u64,
        limited: 0,
        fake_tls,
    });
    let text = format!(
        "{} clients, {} threads, {} MiB of memory: {} decides",
        capacity.clients,
        capacity.threads,
        capacity.memory >> 20,
        capacity.decided_by
    );
    found.push(match capacity.clients < FEW_CLIENTS {
        true => Finding::new(Verdict::Warn, "limits", text, "raise this limit"),
        false => Finding::ok("limits", text),
    });
    let least_queue = u64::from(config.backlog.0.min(1024));
    for (path, least, what) in [
        (
            "net/core/somaxconn",
            least_queue,
            "few new clients may wait",
        ),
        (
            "net/netfilter/nf_conntrack_max",
            8192,
            "the firewall drops what goes beyond",
        ),
        (
            "fs/file-max",
            8192,
            "few descriptors for all programs together",
        ),
    ] {
        let there = number_behind(&text_of(path), "");
        if let Some(value) = there.filter(|value| *value < least) {
            let name = path.replace('/', ".");
            let hint = format!("sysctl -w {name}={least}");
            let text = format!("{value}: {what}");
            found.push(Finding::new(Verdict::Warn, name, text, &hint));
        }
    }
}

fn text_of(path: &str) -> String {
    text(Path::new("/proc/sys").join(path))
}

/// All middle proxies together, and what they tell of NAT.
fn judge_middle(config: &Config, found: &mut Vec<Finding>) {
    let is_middle = |one: &Finding| one.phase == "middle" || one.name.starts_with(network::MIDDLE);
    let any_well = found
        .iter()
        .any(|one| is_middle(one) && one.verdict == Verdict::Ok);
    if any_well || config.is_direct() {
        // Keys are derived from addresses: a handshake proves them.
        return;
    }
    for one in found.iter_mut().filter(|one| is_middle(one)) {
        one.verdict = Verdict::Fail;
    }
    found.extend(network::nat(config));
}

/// What the clock of --ntp, else Telegram's, else a site's, says of this one.
fn clock_of(found: &[Finding]) -> Finding {
    let compared = |begin: &str| {
        let mut named = found.iter().filter(|one| one.name.starts_with(begin));
        named.find_map(|one| Some((&one.name, one.skew?)))
    };
    let compared = ["NTP ", "DC ", ""].into_iter().find_map(compared);
    let hint = "set this machine's clock (NTP)";
    let Some((name, skew)) = compared else {
        let text = "no other clock was seen";
        return match clock::is_implausible(clock::unix()) {
            true => Finding::new(
                Verdict::Fail,
                "clock",
                "before this program's release or decades after it",
                hint,
            ),
            false => Finding::ok("clock", text),
        };
    };
    let (far, way) = (
        skew.unsigned_abs(),
        if skew < 0 { "ahead of" } else { "behind" },
    );
    let text = format!("{far} s {way} that of {name}");
    match far {
        ..=CLOCK_WORN => Finding::ok("clock", text),
        _ if far <= CLOCK_OFF => Finding::new(Verdict::Warn, "clock", text, hint),
        _ => Finding::new(Verdict::Fail, "clock", text, hint),
    }
}

/// Fewer clients than this are hardly what was wanted.
const FEW_CLIENTS: u32 = 64;
const SECRET_FILE: &str = "fetch https://core.telegram.org/getProxySecret and give it to --aes-pwd";
