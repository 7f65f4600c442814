//! Reload on SIGHUP: what stays loses nothing, what is gone drains, new state applies whole or not at all.

use crate::support::bystander::Bystander;
use crate::support::client::{Client, Dialer};
use crate::support::dc::{Behaviour, DataCentre};
use crate::support::framing::Transport;
use crate::support::http::{Figures, stats_address};
use crate::support::mask_site::{MaskSite, silent};
use crate::support::middle_proxy::{MiddleProxy, proxy_secret};
use crate::support::obfuscated2::Secret;
use crate::support::proxy::{Files, Proxy, program};
use crate::support::random::random_bytes;
use crate::support::rig::{SECRET, dialer};
use crate::support::sockets::{dial, hears_nothing};
use crate::support::tls_hello::Kind;
use crate::support::tls_rig::tls_dialer;
use crate::support::vectors::to_hex;
use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::{Duration, SystemTime};

/// A proxy all of whose files can be written anew.
struct Rig {
    proxy: Proxy,
    texts: Texts,
}

/// Its files, and the middle proxy that stays in them.
struct Texts {
    files: Files,
    middle: MiddleProxy,
    /// Settings that stay.
    fixed: String,
}

const PROXY_SECRET: &str = "proxy-secret";
const TELEGRAMS: &str = "proxy-multi.conf";
const SETTINGS: &str = "mtproxy.conf";

impl Texts {
    /// Telegram's list, with further lines.
    fn telegrams(&self, more: &str) {
        let text = format!("default 2;\n{}{more}", self.middle.config_line(2));
        self.files.write(TELEGRAMS, text.as_bytes());
    }

    /// The settings, with others behind those that stay.
    fn settings(&self, more: &str) -> String {
        let text = [&self.fixed, more].concat();
        self.files.write(SETTINGS, text.as_bytes())
    }
}

impl Rig {
    /// In middle mode, with the usual secret and DC 2 as the default.
    fn start(settings: &str) -> Rig {
        let (files, middle) = (Files::new(), MiddleProxy::serving());
        let secret = files.write(PROXY_SECRET, &proxy_secret(128));
        let fixed = format!(
            "http-ports 0\nping-interval 3600\nport 0\nhttp-stats\naes-pwd {secret}\nproxy-config {}\n\
             mtproto-secret {}:kept\n",
            files.path(TELEGRAMS),
            to_hex(&SECRET)
        );
        let texts = Texts {
            files,
            middle,
            fixed,
        };
        texts.telegrams("");
        let path = texts.settings(settings);
        let proxy = Proxy::start_with(&["--config", &path]);
        Rig { proxy, texts }
    }

    /// Has it reload for the `count`th time, which works.
    fn reload(&self, count: usize) {
        self.proxy.signal("HUP");
        self.proxy.wait_for_events("reloaded", count);
    }

    fn dialer(&self, secret: Secret, dc: i16) -> Dialer {
        Dialer {
            secret: Some(secret),
            dc,
            ..dialer(self.proxy.address(), Transport::Intermediate)
        }
    }

    fn client(&self, secret: Secret, dc: i16) -> Client {
        let mut client = self.dialer(secret, dc).dial();
        client.echo(100);
        client
    }
}

/// A stranger's header is read, and nothing comes.
fn expect_stranger(dialer: Dialer) {
    let mut client = dialer.dial();
    client.send(b"what a client would send now");
    hears_nothing(&client.stream, Duration::from_millis(300));
}

#[test]
fn what_stays_loses_no_byte_while_all_else_changes() {
    const CLIENTS: usize = 100;
    const CHANGES: usize = 10;
    let others = [MiddleProxy::serving(), MiddleProxy::serving()];
    let secrets: Vec<Secret> = (0..=CHANGES).map(|_| random_bytes()).collect();
    let rig = Rig::start("drain 0\n");
    let change = |number: usize| {
        let list = format!("203.0.113.{number}\n2001:db8:{number}::/48\n");
        let list = rig.texts.files.write("blocked", list.as_bytes());
        let secret = to_hex(&secrets[number]);
        rig.texts.settings(&format!(
            "drain 0\nmtproto-secret {secret}:n{number}\nip-blocklist {list}\n"
        ));
        rig.texts.telegrams(&others[number % 2].config_line(5));
        rig.reload(number + 1);
    };
    change(0);
    let clients: Vec<Bystander> = (0..CLIENTS)
        .map(|_| Bystander::start(rig.client(SECRET, 2), 20_000))
        .collect();
    for number in 1..=CHANGES {
        let mut of_secret = rig.client(secrets[number - 1], 2);
        let mut of_target = rig.client(SECRET, 5);
        let mut stays = rig.client(SECRET, 2);
        change(number);
        of_secret.expect_closed();
        of_target.expect_closed();
        stays.echo(100);
        expect_stranger(rig.dialer(secrets[number - 1], 2));
    }
    for client in clients {
        client.unharmed(Duration::from_secs(60));
    }
    let lost = rig.proxy.lines();
    let lost = lost.iter().filter(|line| line.contains("backend_lost"));
    let by_reload = lost.clone().filter(|line| line.contains("reason=removed"));
    assert_eq!((lost.count(), by_reload.count()), (CHANGES, CHANGES));
    let summary = rig.proxy.stop();
    assert_eq!(summary.count("closed_drained"), 2 * CHANGES as u64);
    assert_eq!(summary.count("reloads"), 1 + CHANGES as u64);
}

#[test]
fn who_came_by_what_is_gone_may_stay_for_a_while() {
    let (other, secret) = (MiddleProxy::serving(), random_bytes());
    let rig = Rig::start(&format!("mtproto-secret {}:gone\n", to_hex(&secret)));
    rig.texts.telegrams(&other.config_line(5));
    rig.reload(1);
    let mut of_secret = rig.client(secret, 2);
    let mut of_target = rig.client(SECRET, 5);
    rig.texts.settings("");
    rig.texts.telegrams("");
    rig.reload(2);
    of_secret.echo(1_000);
    of_target.echo(1_000);
    expect_stranger(rig.dialer(secret, 2));
    // The other middle proxy serves nobody new.
    let before = other.with(|state| state.requests.len());
    rig.client(SECRET, 5);
    assert_eq!(other.with(|state| state.requests.len()), before);
}

#[test]
fn a_label_with_a_new_secret_keeps_the_clients_who_know_that() {
    let [old, new]: [Secret; 2] = [random_bytes(), random_bytes()];
    let bob = |secret: &Secret| format!("drain 2\nmtproto-secret {}:bob\n", to_hex(secret));
    let rig = Rig::start(&bob(&old));
    let mut leaves = rig.client(old, 2);
    rig.texts.settings(&bob(&new));
    rig.reload(1);
    let mut stays = rig.client(new, 2);
    leaves.echo(100);
    leaves.expect_closed();
    stays.echo(100);
    assert_eq!(rig.proxy.stop().count("closed_drained"), 1);
}

#[test]
fn a_mistake_in_any_file_leaves_everything_as_it_was() {
    let rig = Rig::start("");
    let list = rig.texts.files.write("blocked", b"203.0.113.0/24\n");
    let own = rig
        .texts
        .files
        .write("secrets", to_hex(&random_bytes::<16>()).as_bytes());
    let settings = format!("secret-file {own}\nip-blocklist {list}\n");
    rig.texts.settings(&settings);
    rig.reload(1);
    let mut client = rig.client(SECRET, 2);
    let sane = |name: &str| fs::read(rig.texts.files.path(name)).expect("a file");
    let cases: [(&str, &[u8], &str); 8] = [
        (
            SETTINGS,
            b"http-ports 0\nsecret-fil x\n",
            "mtproxy.conf:2: unknown name secret-fil; the nearest known one is secret-file",
        ),
        (
            SETTINGS,
            b"http-ports 0\nmtproto-secret 12\n",
            "mtproxy.conf:2: -S/--mtproto-secret: expected a secret",
        ),
        (
            SETTINGS,
            b"http-ports 0\n",
            "a reload can't take all secrets away",
        ),
        (
            TELEGRAMS,
            b"default 2;\nproxy_for 2 nonsense;\n",
            "proxy-multi.conf:1: fatal: ",
        ),
        (TELEGRAMS, b"nonsense", "proxy-multi.conf:0: fatal: "),
        (PROXY_SECRET, b"short", "cannot load secret definition file"),
        ("secrets", b"\n\nnonsense\n", "secrets:3: expected a secret"),
        (
            "blocked",
            b"# ours\n10.0.0.1/8\n",
            "blocked:2: expected an IP address or a network, as in 10.0.0.0/8",
        ),
    ];
    for (number, (name, bad, wanted)) in cases.iter().enumerate() {
        let good = sane(name);
        rig.texts.files.write(name, bad);
        rig.proxy.signal("HUP");
        rig.proxy.wait_for_events("reload_failed", number + 1);
        let lines = rig.proxy.lines();
        let failed: Vec<&String> = lines
            .iter()
            .filter(|line| line.contains("reload_failed"))
            .collect();
        assert!(
            failed[number].contains(wanted),
            "{wanted}: {}",
            failed[number]
        );
        client.echo(1_000);
        rig.client(SECRET, 2);
        rig.texts.files.write(name, &good);
    }
    fs::remove_file(rig.texts.files.path(TELEGRAMS)).expect("remove it");
    rig.proxy.signal("HUP");
    rig.proxy.wait_for_events("reload_failed", cases.len() + 1);
    rig.texts.telegrams("");
    rig.reload(2);
    client.echo(1_000);
    let figures = Figures::of_metrics(stats_address(&rig.proxy));
    figures.expect(&[
        ("mtproxy_reloads_total", 2),
        ("mtproxy_reload_failures_total", cases.len() as u64 + 1),
    ]);
    assert!(figures.number("mtproxy_last_reload_seconds") > 1_700_000_000);
    for file in ["config", "proxy_secret"] {
        assert!(figures.number(&format!("mtproxy_file_age_seconds{{file=\"{file}\"}}")) < 600);
    }
}

#[test]
fn what_only_a_start_applies_is_said() {
    let (centre, files) = (DataCentre::start(Behaviour::Serve), Files::new());
    let gone: Secret = random_bytes();
    let start = format!(
        "http-ports 0\ndirect\ndc-override {}\nverbosity 0\ndrain 0\nmtproto-secret {}\n",
        centre.as_dc(2),
        to_hex(&SECRET)
    );
    let text = format!(
        "{start}mtproto-secret {}:gone\nuser nobody\n",
        to_hex(&gone)
    );
    let path = files.write("settings", text.as_bytes());
    let proxy = Proxy::start_with(&["--config", &path]);
    let own = dialer(proxy.address(), Transport::Padded);
    let of_gone = Dialer {
        secret: Some(gone),
        ..own
    };
    let [mut stays, mut leaves] = [own, of_gone].map(|dialer| dialer.dial());
    stays.echo(10);
    leaves.echo(10);
    let text = start.replace("verbosity 0", "verbosity 1") + "user root\nipv6\nport 0\n";
    files.write("settings", text.as_bytes());
    proxy.signal("HUP");
    leaves.expect_closed();
    stays.echo(10);
    expect_stranger(of_gone);
    let skipped = proxy.wait_for_events("reload_skipped", 3);
    let names: Vec<&str> = skipped.iter().map(|event| event.text("name")).collect();
    assert_eq!(names, ["user", "ipv6", "port"]);
    // With more verbosity clients' ends are logged.
    let mut last = own.dial();
    last.echo(10);
    last.leave();
    proxy.wait_for_events("client_closed", 1);
    assert_eq!(proxy.stop().count("closed_drained"), 1);
}

#[test]
fn without_a_file_there_is_nothing_to_reload() {
    let proxy = Proxy::start_with(&["--direct", "-H", "0", "-S", &to_hex(&SECRET)]);
    proxy.signal("HUP");
    let ignored = proxy.wait_for_events("signal_ignored", 1);
    assert_eq!(ignored[0].text("name"), "SIGHUP");
    assert_eq!(proxy.stop().count("reloads"), 0);
}

#[test]
fn domains_come_and_go() {
    let centre = DataCentre::start(Behaviour::Serve);
    let [(first, name), (second, other), _] = MaskSite::three(silent());
    let files = Files::new();
    let text = |domain: &str| {
        let (centre, secret) = (centre.as_dc(2), to_hex(&SECRET));
        format!(
            "http-ports 0\ndirect\ndc-override {centre}\nmtproto-secret {secret}\ndomain {domain}\n"
        )
    };
    let path = files.write("settings", text(&first.as_domain(name)).as_bytes());
    let proxy = Proxy::start_with(&["--config", &path]);
    let mut client = tls_dialer(proxy.address(), Kind::Today).dial();
    client.echo(10);
    let show = |name: &str, site: &MaskSite| {
        let said = Kind::Today.signed(name, &random_bytes());
        let mut stream = dial(proxy.address());
        stream.write_all(&said).expect("send");
        site.wait_for_bytes(&said);
    };
    show(other, &first); // an unknown name
    let both = text(&first.as_domain(name)) + &format!("domain {}\n", second.as_domain(other));
    files.write("settings", both.as_bytes());
    proxy.signal("HUP");
    proxy.wait_for_events("reloaded", 1);
    show(other, &second);
    show(name, &first);
    client.echo(10);
    files.write("settings", text(&second.as_domain(other)).as_bytes());
    proxy.signal("HUP");
    proxy.wait_for_events("reloaded", 2);
    show(name, &second);
    client.echo(10);
    files.write(
        "settings",
        both.lines()
            .take(4)
            .collect::<Vec<_>>()
            .join("\n")
            .as_bytes(),
    );
    proxy.signal("HUP");
    proxy.wait_for_events("reload_failed", 1);
    show(other, &second);
}

#[test]
fn a_start_says_what_reloads_will_meet() {
    let (files, middle) = (Files::new(), MiddleProxy::serving());
    let telegrams = files.write(TELEGRAMS, middle.config_line(2).as_bytes());
    let secret = files.write(PROXY_SECRET, &proxy_secret(128));
    let own = files.write("secrets", to_hex(&SECRET).as_bytes());
    fs::set_permissions(&own, Permissions::from_mode(0o600)).expect("forbid it");
    let days = |count: u64| Duration::from_secs(86_400 * count);
    let written = SystemTime::now() - days(4) - Duration::from_secs(2 * 3_600 + 60);
    let file = File::options().write(true).open(&telegrams).expect("open");
    file.set_modified(written).expect("make it older");
    let is_root = fs::metadata("/proc/self").expect("/proc").uid() == 0;
    let text = format!(
        "http-ports 0\nproxy-config {telegrams}\naes-pwd {secret}\nsecret-file {own}\n{}\n",
        if is_root { "user nobody" } else { "" }
    );
    let proxy = Proxy::start_with(&["--config", &files.write(SETTINGS, text.as_bytes())]);
    let lines = proxy.lines();
    let mut wanted = vec![
        format!("{telegrams} is 4 days and 2 h old"),
        format!("{secret} is 0 days and 0 h old"),
        format!("warning: {telegrams} is 4 days old: Telegram changes it often, fetch it daily"),
    ];
    if is_root {
        wanted.push(format!(
            "warning: {own} can't be read as nobody: Permission denied"
        ));
    }
    for start in &wanted {
        assert!(
            lines.iter().any(|line| line.starts_with(start)),
            "{start}: {lines:#?}"
        );
    }
    let warnings = lines
        .iter()
        .filter(|line| line.contains("can't be read as"));
    assert_eq!(warnings.count(), usize::from(is_root));
}

#[test]
fn the_sample_is_printed_with_a_secret_of_its_own() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/mtproxy.conf");
    let sample = fs::read_to_string(path).expect("the sample");
    let (head, tail) = sample
        .split_once("00112233445566778899aabbccddeeff")
        .expect("a secret");
    let mut secrets: Vec<String> = Vec::new();
    for _ in 0..2 {
        let printed = program().arg("config").output().expect("run it");
        assert_eq!(printed.status.code(), Some(0));
        let printed = String::from_utf8(printed.stdout).expect("text");
        let secret = printed
            .strip_prefix(head)
            .and_then(|rest| rest.strip_suffix(tail))
            .expect("the sample but for its secret");
        assert!(secret.len() == 32 && secret.bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert!(!sample.contains(secret));
        secrets.push(secret.to_owned());
    }
    assert_ne!(secrets[0], secrets[1]);
}
