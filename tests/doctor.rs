//! `mtproxy doctor`: a server that is well, and each kind of trouble provoked once. The machine that the tests
//! run on may have troubles of its own, so single lines are looked at.

use crate::support::command::{Said, command};
use crate::support::dc::{Behaviour, DataCentre, Refusing};
use crate::support::mask_site::{MaskSite, Reply, tls_server};
use crate::support::message::res_pq;
use crate::support::middle_proxy::{self, MiddleProxy, Options};
use crate::support::proxy::{Files, Proxy};
use crate::support::rig::SECRET;
use crate::support::tls_flight::{Look, is_hello};
use crate::support::tls_rig::DOMAIN;
use crate::support::vectors::to_hex;
use std::fs::File;
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, SystemTime};

/// Runs it; its exit code follows from its lines.
fn doctor(arguments: &[&str]) -> String {
    let Said { code, output, .. } = command(&[&["doctor"], arguments].concat());
    let has = |word: &str| output.lines().any(|line| line.starts_with(word));
    let wanted = match (has("fail "), has("warn ")) {
        (true, _) => 1,
        (false, true) => 2,
        (false, false) => 0,
    };
    assert_eq!(code, Some(wanted), "{output}");
    assert!(!output.contains(&to_hex(&SECRET)));
    output
}

/// Every data centre of Telegram's, here.
fn everywhere(centre: &DataCentre) -> Vec<String> {
    let each = (1..=5).map(|dc| centre.as_dc(dc));
    each.flat_map(|dc| ["--dc-override".to_owned(), dc])
        .collect()
}

/// Flags of direct mode with the usual secret.
fn direct<'a>(rest: &'a [String], secret: &'a str) -> Vec<&'a str> {
    let mut all = vec!["--direct", "-S", secret];
    all.extend(rest.iter().map(String::as_str));
    all
}

fn has(output: &str, wanted: &str) {
    let found = output.lines().any(|line| line.starts_with(wanted));
    assert!(found, "no line `{wanted}` in\n{output}");
}

#[test]
fn a_server_that_is_well() {
    let centre = DataCentre::start(Behaviour::Serve);
    let look = Look {
        hybrid: true,
        ..Look::default()
    };
    let site = MaskSite::with(tls_server(look));
    let (overrides, secret) = (everywhere(&centre), to_hex(&SECRET));
    let domain = site.as_domain(DOMAIN);
    let mut flags = direct(&overrides, &secret);
    flags.extend(["-D", &domain]);
    let proxy = Proxy::start_with(&[&flags[..], &["-H", "0"]].concat());
    let port = proxy.address().port().to_string();
    flags.extend(["-H", &port, "--server", "127.0.0.1"]);
    let output = doctor(&flags);
    has(
        &output,
        &format!("ok    own port: serves at 127.0.0.1:{port}: resPQ after "),
    );
    for dc in 1..=5 {
        has(&output, &format!("ok    DC {dc}: resPQ after "));
    }
    has(&output, "ok    clock: ");
    has(&output, "ok    limits: ");
    has(&output, "ok    sandbox: ");
    let at = site.address;
    has(
        &output,
        &format!("ok    site localhost: TLS 1.3 at {at}, X25519MLKEM768, Aes128, "),
    );
    assert!(output.contains("its name leads here"));
    assert!(!output.contains("fail "), "{output}");

    let own = command(&[&["doctor", "--own", "--json"], &flags[..]].concat());
    assert_eq!(own.code, Some(0), "{own:?}");
    let start = "{\"verdict\":\"ok\",\"findings\":[{\"name\":\"own port\",\"verdict\":\"ok\",\"text\":\"resPQ ";
    assert!(own.output.starts_with(start), "{own:?}");
    proxy.stop();
    let own = command(&[&["doctor", "--own"], &flags[..]].concat());
    assert_eq!(own.code, Some(1), "{own:?}");
    has(&own.output, "fail  own port: connect: connection refused");
    has(
        &doctor(&flags),
        "warn  own port: nothing listens on 127.0.0.1:",
    );
}

#[test]
fn files() {
    let files = Files::new();
    let secret = to_hex(&SECRET);
    let open = files.write("secrets", secret.as_bytes());
    let mode = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(&open, mode).expect("its mode");
    let wrong = files.write("wrong", b"0123");
    let config = files.write("config", b"default 2;\nproxy_for 2 127.0.0.1:1;\n");
    let old = SystemTime::now() - Duration::from_secs(9 * 86_400);
    let file = File::options()
        .append(true)
        .open(&config)
        .expect("the file");
    file.set_modified(old).expect("its age");
    let page = files.write("page", &b"<html>".repeat(10));
    let centre = DataCentre::start(Behaviour::Serve);
    let overrides = everywhere(&centre);
    let state = files.path("missing/state");
    let mut flags = direct(&overrides, &secret);
    flags.extend(["-H", "1", "--state", &state]);
    has(
        &doctor(&flags),
        &format!("fail  {state}: its folder is missing; create it"),
    );
    for (rest, wanted) in [
        (
            &["--secret-file", &open][..],
            format!("warn  {open}: every user of this machine"),
        ),
        (
            &["--secret-file", &wrong],
            format!("fail  secrets: {wrong}:1: expected a secret"),
        ),
        (
            &["-S", &secret, "/nowhere"],
            "fail  configuration: can't read configuration file /nowhere".into(),
        ),
        (
            &["-S", &secret, &config],
            format!("warn  {config}: 9 days old; fetch https://core."),
        ),
        (
            &["-S", &secret, &config],
            "fail  proxy-secret: no --aes-pwd".into(),
        ),
        (
            &["-S", &secret, "--aes-pwd", &page, &config],
            "warn  proxy-secret: it is an HTML page".into(),
        ),
        (
            &[&config],
            "warn  secrets: open to everybody; give -S".into(),
        ),
        (
            &["-S", &secret, "-C", "9", &config],
            "warn  limits: 9 clients, ".into(),
        ),
    ] {
        let mut all = vec!["-H", "1"];
        all.extend(overrides.iter().map(String::as_str));
        has(&doctor(&[&all[..], rest].concat()), &wanted);
    }
}

#[test]
fn middle_proxies() {
    let files = Files::new();
    let secret = to_hex(&SECRET);
    let key = files.write("key", &middle_proxy::proxy_secret(128));
    let other = files.write("other", &[7; 128]);
    let (middle, refusing) = (MiddleProxy::start(Options::default()), Refusing::new());
    let dead = refusing.address;
    let both = format!(
        "proxy_for 2 {};\nproxy_for 3 {dead};\ndefault 2;\n",
        middle.address
    );
    let both = files.write("both", both.as_bytes());
    let none = files.write(
        "none",
        format!("proxy_for 3 {dead};\ndefault 3;\n").as_bytes(),
    );
    let one = files.write(
        "one",
        format!("{}default 2;\n", middle.config_line(2)).as_bytes(),
    );
    let flags = ["-H", "1", "-S", &secret, "--no-fallback", "--aes-pwd"];
    let ask = |rest: &[&str]| doctor(&[&flags[..], rest].concat());
    let output = ask(&[&key, &both]);
    has(
        &output,
        &format!(
            "ok    middle proxy {} (DC 2): handshake done after ",
            middle.address
        ),
    );
    has(
        &output,
        &format!("warn  middle proxy {dead} (DC 3): connection_refused; a firewall, or"),
    );
    assert!(!output.contains(" DC 2: "), "--no-fallback: {output}");
    has(
        &ask(&[&key, &none]),
        &format!("fail  middle proxy {dead} (DC 3): connection_refused"),
    );
    let output = ask(&[&other, &one]);
    has(
        &output,
        &format!("fail  middle proxy {} (DC 2): ", middle.address),
    );
    assert!(output.contains("is --aes-pwd Telegram's file"), "{output}");
    middle.forget_failures();
    // Nothing can come from there, as from behind a NAT that isn't told of.
    let output = ask(&[&key, "--source", "10.255.255.1", &none]);
    has(
        &output,
        "fail  NAT: 10.255.255.1 is private, and no middle proxy finished the handshake; behind NAT: --nat-info",
    );
}

#[test]
fn data_centres_and_the_clock() {
    let (centre, late) = (
        DataCentre::start(Behaviour::Serve),
        DataCentre::start(Behaviour::HandOver),
    );
    let (refusing, secret) = (Refusing::new(), to_hex(&SECRET));
    let mut flags = vec![
        "--dc-override".to_owned(),
        late.as_dc(1),
        "--dc-override".to_owned(),
        format!("2:{}", refusing.address),
    ];
    flags.extend((3..=5).flat_map(|dc| ["--dc-override".to_owned(), centre.as_dc(dc)]));
    let mut flags = direct(&flags, &secret);
    flags.extend(["-H", "1"]);
    let output = std::thread::scope(|scope| {
        let answering = scope.spawn(|| {
            let mut far = late.take();
            let (question, _) = far.request().expect("a packet").expect("a packet");
            far.send(&res_pq(&question, 3_600).expect("a question"))
        });
        let output = doctor(&flags);
        assert!(answering.join().expect("its thread"));
        output
    });
    has(&output, "ok    DC 1: resPQ after ");
    has(
        &output,
        "fail  DC 2: connect: connection refused; does a firewall or the provider block it?",
    );
    let clock = output
        .lines()
        .find(|line| line.contains(" clock: "))
        .expect("a clock");
    let wanted = ["3599", "3600", "3601"]
        .map(|far| format!("fail  clock: {far} s behind that of DC 1; set"));
    assert!(
        wanted.iter().any(|wanted| clock.starts_with(wanted)),
        "{clock}"
    );
}

#[test]
fn sites() {
    let files = Files::new();
    let config = files.write("config", b"default 2;\nproxy_for 2 127.0.0.1:1;\n");
    let key = files.write("key", &middle_proxy::proxy_secret(128));
    let secret = to_hex(&SECRET);
    let ask = |domain: &str| {
        let flags = [
            "-H",
            "1",
            "-S",
            &secret,
            "--no-fallback",
            "--aes-pwd",
            &key,
            "-D",
            domain,
        ];
        doctor(&[&flags[..], &[&config]].concat())
    };
    // It tells the time of 1994 to who speaks no TLS.
    let of_1994 = MaskSite::with(Box::new(|received: &[u8]| {
        let says = |bytes, close| Reply {
            writes: vec![bytes],
            close,
        };
        let head = b"HTTP/1.1 400 Bad Request\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n";
        match received.starts_with(b"HEAD / HTTP/1.1\r\n") {
            true => Some(says(head.to_vec(), true)),
            false => is_hello(received).then(|| says(Look::default().answer(received), false)),
        }
    }));
    let output = ask(&of_1994.as_domain(DOMAIN));
    has(&output, "warn  site localhost: TLS 1.3 at ");
    assert!(output.contains("it has no hybrid keys"), "{output}");
    let clock = output
        .lines()
        .find(|line| line.starts_with("fail  clock: "));
    assert!(
        clock.is_some_and(|line| line.contains("ahead of that of site localhost")),
        "{output}"
    );

    let web = MaskSite::with(Box::new(|_: &[u8]| {
        Some(Reply {
            writes: vec![b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()],
            close: true,
        })
    }));
    has(
        &ask(&web.as_domain(DOMAIN)),
        "fail  site localhost: it does not speak TLS; choose another",
    );
    let refusing = Refusing::new().address.port();
    has(
        &ask(&format!("localhost:{refusing}")),
        "fail  site localhost: it can't be reached",
    );
    has(
        &ask("h.invalid"),
        "fail  site h.invalid: no address is found",
    );
    has(
        &ask("127.0.0.1:1"),
        "fail  site: -D: 127.0.0.1:1 is this server itself",
    );
}

#[test]
fn the_address_of_the_links() {
    let centre = DataCentre::start(Behaviour::Serve);
    let (overrides, secret) = (everywhere(&centre), to_hex(&SECRET));
    let mut flags = direct(&overrides, &secret);
    flags.extend(["--address", "127.0.0.1"]);
    let proxy = Proxy::start_with(&[&flags[..], &["-H", "0"]].concat());
    let port = proxy.address().port().to_string();
    flags.extend(["-H", &port]);
    for (server, wanted) in [
        (
            "127.0.0.1",
            "ok    own port: serves at 127.0.0.1:".to_owned(),
        ),
        (
            "127.0.0.2",
            format!(
                "warn  own port: connect: connection refused; 127.0.0.2:{port} isn't reached from here"
            ),
        ),
        (
            "h.invalid",
            "fail  own port: --server h.invalid: ".to_owned(),
        ),
    ] {
        has(
            &doctor(&[&flags[..], &["--server", server]].concat()),
            &wanted,
        );
    }
    has(
        &doctor(&flags),
        "warn  own port: the server runs; the address of its links is not known",
    );
    let refused = command(&["doctor", "-C", "x"]);
    assert_eq!(refused.code, Some(2));
    let help = command(&["doctor", "--help"]);
    assert!(help.errors.starts_with("usage: mtproxy doctor"), "{help:?}");
}

/// A time server whose clock is `ahead` seconds ahead; it repeats what it was asked with `number` changed so.
fn time_server(ahead: u64, number: fn(&mut [u8])) -> String {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let limit = Some(Duration::from_secs(60));
    socket.set_read_timeout(limit).expect("a timeout");
    let address = socket.local_addr().expect("its address").to_string();
    std::thread::spawn(move || {
        let mut packet = [0; 48];
        while let Ok((48, from)) = socket.recv_from(&mut packet) {
            assert_eq!(packet[0] & 7, 3, "from a client");
            let mut answer = [0; 48];
            (answer[0], answer[1]) = (0x24, 3);
            answer[24..32].copy_from_slice(&packet[40..]);
            number(&mut answer[24..32]);
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            let seconds = now.expect("a time").as_secs() + 2_208_988_800 + ahead;
            answer[40..44].copy_from_slice(&(seconds as u32).to_be_bytes());
            socket.send_to(&answer, from).expect("sent");
        }
    });
    address
}

#[test]
fn a_time_server_decides_on_the_clock() {
    let (centre, secret) = (DataCentre::start(Behaviour::Serve), to_hex(&SECRET));
    let overrides = everywhere(&centre);
    let mut flags = direct(&overrides, &secret);
    let ahead = time_server(7_200, |_| ());
    flags.extend(["-H", "1", "--no-sandbox", "--ntp", &ahead]);
    let output = doctor(&flags);
    has(&output, &format!("ok    NTP {ahead}: answers, stratum 3"));
    let clock = output
        .lines()
        .find(|line| line.starts_with("fail  clock: "));
    let clock = clock.expect(&output);
    assert!(
        clock.contains(&format!(" s behind that of NTP {ahead}")),
        "{clock}"
    );
    has(&output, "warn  sandbox: none (--no-sandbox)");

    let right = time_server(0, |_| ());
    flags.pop();
    flags.push(&right);
    let output = doctor(&flags);
    has(&output, &format!("ok    NTP {right}: answers"));
    has(&output, "ok    clock: ");

    let forged = time_server(7_200, |number| number[7] ^= 1);
    flags.pop();
    flags.push(&forged);
    let output = doctor(&flags);
    has(&output, &format!("fail  NTP {forged}: its answer is none"));
    let clock = output.lines().find(|line| line.contains(" clock: "));
    assert!(!clock.expect(&output).contains("NTP"), "{output}");

    let Said { code, errors, .. } = command(&["doctor", "--ntp"]);
    assert_eq!(code, Some(2));
    assert!(
        errors.contains("doctor --ntp: expected a time server"),
        "{errors}"
    );
}
