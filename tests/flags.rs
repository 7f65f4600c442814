//! The command line: wrong values end with the right exit code and one line that names the flag, the value
//! and what was expected; files that can't be used are named, with the line that is wrong.

use crate::support::framing::Transport;
use crate::support::middle_proxy::{MiddleProxy, proxy_secret};
use crate::support::proxy::{Files, Proxy, Refusal, Setup, run_to_end};
use crate::support::rig::{SECRET, dialer, proxy_with};
use crate::support::vectors::to_hex;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::MetadataExt;

/// Nobody is there, and nobody needs to be.
const CONFIG: &str = "default 2;\nproxy_for 2 192.0.2.1:8888;\n";

const DIGITS: &str = "0123456789abcdef0123456789abcdef";

#[test]
fn wrong_values_are_usage_errors_that_name_flag_and_value() {
    for (flag, value) in [
        ("-H", "70000"),
        ("-H", "12x"),
        ("-H", "1,,2"),
        ("-C", "many"),
        ("-M", "257"),
        ("-T", "soon"),
        ("-W", "wide"),
        ("-c", "-1"),
        ("-b", "deep"),
        ("--nat-info", "10.0.0.1"),
        ("--nat-info", "10.0.0.1:example"),
        ("-D", "a/b"),
        ("-D", "example.org:0"),
        ("-D", "::1"),
        ("--mask", "nginx"),
        ("--mask", "::1:443"),
        ("--mask-max", "many"),
        ("--tls-skew", "600,soon"),
        ("--tls-hybrid", "maybe"),
    ] {
        let refusal = refused(&[flag, value]);
        assert_refusal(&refusal, 2, &[flag, value]);
    }
}

/// The value isn't repeated here: it may be a real secret with a typing error.
#[test]
fn wrong_secrets_and_tags_are_usage_errors_that_say_what_was_expected() {
    for value in [
        "",
        "0123",
        "0123456789abcdef0123456789abcde",
        "0123456789abcdef0123456789abcdeg",
    ] {
        assert_refusal(&refused(&["-S", value]), 2, &["-S", "32 hex"]);
        assert_refusal(&refused(&["-P", value]), 2, &["-P", "32 hex"]);
    }
}

#[test]
fn a_secret_at_the_wrong_flag_is_not_repeated() {
    let ee = format!("ee{DIGITS}612e62");
    for flag in ["-D", "--mask", "--secret-file", "--tls-skew", "--nat-info"] {
        for value in [DIGITS, &ee, &format!("{DIGITS}:label")] {
            let refusal = refused(&[flag, value]);
            assert_refusal(&refusal, 2, &[flag, "got a secret"]);
            assert!(!refusal.text.contains(&DIGITS[..8]), "{}", refusal.text);
        }
    }
}

/// What only fake TLS has would do nothing without it, and an operator would not know.
#[test]
fn flags_of_fake_tls_are_refused_without_a_domain() {
    for arguments in [
        &["--mask", "127.0.0.1:443"][..],
        &["--mask-max", "10"],
        &["--tls-skew", "60"],
        &["--tls-hybrid", "off"],
        &["--allow-plain"],
    ] {
        let refusal = refused(arguments);
        assert_refusal(&refusal, 2, &[arguments[0], "-D DOMAIN"]);
    }
    let header = ["-D", "example.org", "--mask-proxy-protocol"];
    assert_refusal(&refused(&header), 2, &["--mask-proxy-protocol", "--mask:"]);
    let files = Files::new();
    let secrets = files.write("secrets", format!("dd{DIGITS}\n").as_bytes());
    let arguments = ["-H", "0", "--secret-file", &secrets, "--allow-plain"];
    let refusal = run_to_end(&arguments);
    assert_refusal(&refusal, 1, &["--allow-plain", "ee secret"]);
}

#[test]
fn domains_are_refused_without_a_secret() {
    let files = Files::new();
    let config = files.write("proxy-multi.conf", CONFIG.as_bytes());
    for arguments in [
        &["-H", "0", "-D", "example.org", &config][..],
        &["-H", "0", "-D", "example.org", "--open"],
    ] {
        assert_refusal(&run_to_end(arguments), 2, &["-D/--domain", "-S"]);
    }
    let twice = refused(&["-D", "example.org", "-D", "Example.org.:8443"]);
    assert_refusal(&twice, 2, &["-D", "example.org only once"]);
    let many: Vec<String> = (0..65)
        .map(|number| format!("-D{number}.example"))
        .collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_refusal(&refused(&many), 2, &["-D", "at most 64", "64.example"]);
}

#[test]
fn a_seventeenth_secret_is_refused() {
    let secrets: Vec<String> = (0..17).map(|number| format!("{number:032x}")).collect();
    let arguments: Vec<&str> = secrets.iter().flat_map(|secret| ["-S", secret]).collect();
    let refusal = refused(&arguments);
    assert!(
        matches!(refusal.code, Some(1 | 2)),
        "exit {:?}: {}",
        refusal.code,
        refusal.text
    );
    assert!(refusal.text.contains("16"), "{}", refusal.text);
}

#[test]
fn unknown_flags_and_a_second_file_are_usage_errors() {
    assert_refusal(&refused(&["--no-such-flag"]), 2, &["--no-such-flag"]);
    assert_refusal(&refused(&["-Z"]), 2, &["-Z"]);
    assert_refusal(&refused(&["another.conf"]), 2, &[]);
    assert_eq!(refused(&["-P"]).code, Some(2), "a flag without its value");
}

/// A suggestion that means something else does harm: what is near is named, or nothing.
#[test]
fn hints_name_what_was_meant_or_nothing() {
    for (flag, wanted) in [
        ("--mtproto-secrets", "-S/--mtproto-secret"),
        (
            "--certificate",
            "unknown flag --certificate; --help lists all",
        ),
    ] {
        assert_refusal(&refused(&[flag]), 2, &[flag, wanted]);
    }
}

#[test]
fn a_number_behind_verbosity_is_no_file() {
    let wanted = ["-v/--verbosity", "--verbosity=3"];
    assert_refusal(&refused(&["--verbosity", "3"]), 2, &wanted);
}

#[test]
fn help_ends_with_2() {
    for word in ["-h", "--help", "help"] {
        let refusal = run_to_end(&[word.to_owned()]);
        assert_eq!(refusal.code, Some(2));
        assert!(
            refusal.text.starts_with("usage: mtproxy"),
            "{}",
            refusal.text
        );
    }
}

#[test]
fn first_words_that_are_neither_command_nor_file_name_the_commands() {
    for word in ["check", "status", "generate-secret"] {
        let refusal = run_to_end(&[word, "-H", "0"].map(str::to_owned));
        assert_refusal(
            &refusal,
            2,
            &[
                word,
                "run, link, secret, ping, doctor, service, migrate, config and help",
            ],
        );
    }
}

#[test]
fn a_missing_or_wrong_configuration_ends_with_1() {
    let files = Files::new();
    let missing = files.missing();
    assert_refusal(
        &with_files(&proxy_secret(128), &missing, &[]),
        1,
        &[&missing],
    );
    for (text, wanted) in [
        ("", &["proxy"][..]),
        ("proxy_for 2 192.0.2.1:0;\n", &["port number expected"]),
        // Counted are the newlines before the error; the first line has no number (protocol.md 8.2).
        (
            "default 2;\n\nproxy_for 2 192.0.2.1:70000;\n",
            &[":2: ", "port number 70000 out of range"],
        ),
        (
            "\n\n\nproxy_for 1 192.0.2.1:80;proxy_for 2 192.0.2.1:80;proxy_for 1 192.0.2.2:80;",
            &[":3: ", "intermixed"],
        ),
        (
            "# comment\nproxy_for 2 192.0.2.1:80 x",
            &[":1: ", "; expected"],
        ),
    ] {
        let config = files.write("proxy-multi.conf", text.as_bytes());
        let refusal = with_files(&proxy_secret(128), &config, &[]);
        assert_refusal(&refusal, 1, &["config check failed! (code -1)"]);
        let is_it = |line: &str| wanted.iter().all(|word| line.contains(word));
        assert!(
            refusal.text.lines().any(is_it),
            "{wanted:?}: {}",
            refusal.text
        );
        assert!(refusal.text.contains("not applied"), "{}", refusal.text);
    }
}

#[test]
fn secret_files_of_a_wrong_size_end_with_1() {
    let files = Files::new();
    let config = files.write("proxy-multi.conf", CONFIG.as_bytes());
    for size in [0, 31, 257] {
        assert_refusal(
            &with_files(&proxy_secret(size), &config, &[]),
            1,
            &["cannot load secret definition file"],
        );
    }
    let arguments = [
        "-H",
        "0",
        "-S",
        DIGITS,
        "--aes-pwd",
        &files.missing(),
        &config,
    ]
    .map(str::to_owned);
    assert_refusal(&run_to_end(&arguments), 1, &["missing"]);
}

#[test]
fn a_wrong_address_ends_with_4() {
    for value in ["nowhere", "1.2.3", "::1:80:x", "[::1]:80"] {
        assert_refusal(&refused(&["--address", value]), 4, &["--address", value]);
    }
}

#[test]
fn http_stats_without_a_port_ends_with_1() {
    assert_refusal(&refused(&["--http-stats"]), 1, &["port isn't defined"]);
}

#[test]
fn a_port_in_use_ends_with_1() {
    let taken = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a port");
    let port = taken.local_addr().expect("its address").port().to_string();
    assert_refusal(&refused(&["-H", &port]), 1, &[&port]);
}

/// As an ordinary user, in a namespace where no port is free for such.
#[test]
fn a_port_without_the_right_to_it_says_how_to_get_it() {
    let sysctl = "/proc/sys/net/ipv4/ip_unprivileged_port_start";
    let start = std::fs::read_to_string(sysctl).unwrap_or_default();
    let is_root = std::fs::metadata("/proc/self").expect("/proc").uid() == 0;
    if is_root || start.trim() != "1024" {
        eprintln!("every port is allowed: nothing to see here");
        return;
    }
    assert_refusal(&refused(&["-H", "443"]), 1, &["443", "setcap", "-u"]);
}

/// Without --http-stats nobody can ask at the port of -p: it isn't announced.
#[test]
fn a_port_for_statistics_alone_is_not_announced() {
    let middle = MiddleProxy::serving();
    for (flags, announced) in [
        (&["-p", "0"][..], false),
        (&["-p", "0", "--http-stats"], true),
    ] {
        let proxy = proxy_with(middle.config_line(2), flags);
        let lines = proxy.lines();
        let has = |start: &str| lines.iter().any(|line| line.starts_with(start));
        assert_eq!(has("stats on port "), announced, "{lines:#?}");
        assert_eq!(has("warning: -p does nothing"), !announced, "{lines:#?}");
    }
}

/// A number that no user has stands for itself, also as the group; what groups root had are gone.
#[test]
fn a_number_is_taken_for_a_user_by_root() {
    if std::fs::metadata("/proc/self").expect("/proc").uid() != 0 {
        eprintln!("not root: nothing to see here");
        return;
    }
    let middle = MiddleProxy::serving();
    for (user, ids) in [("54321", "54321"), ("65534", "65534")] {
        let proxy = proxy_with(middle.config_line(2), &["-u", user]);
        assert_eq!(proxy.status("Uid"), [ids; 4]);
        assert_eq!(proxy.status("Gid"), [ids; 4]);
        assert!(!proxy.status("Groups").contains(&"0".to_owned()));
    }
}

/// Only root changes its identity, so only root can fail to.
#[test]
fn an_unknown_user_ends_with_1_for_root() {
    if std::fs::metadata("/proc/self").expect("/proc").uid() != 0 {
        eprintln!("not root: nothing to see here");
        return;
    }
    assert_refusal(
        &refused(&["-u", "no-such-user-here"]),
        1,
        &["no-such-user-here"],
    );
}

#[test]
fn every_spelling_of_a_flag_works() {
    let tag = format!("--proxy-tag={DIGITS}");
    let secret = to_hex(&SECRET);
    let glued = format!("-vvS{secret}");
    for arguments in [
        vec![
            format!("--mtproto-secret={secret}"),
            tag.clone(),
            "-vv".to_owned(),
        ],
        vec![
            "--mtproto-secret".to_owned(),
            secret.clone(),
            "-C100".to_owned(),
        ],
        vec![glued, "-RM1".to_owned()],
        vec![
            format!("--mtproto-sec={secret}"),
            "--max-special=100".to_owned(),
        ],
    ] {
        let middle = MiddleProxy::serving();
        let mut setup = Setup::new(middle.config_line(2));
        setup.arguments = arguments;
        let proxy = Proxy::start(&setup);
        dialer(proxy.address(), Transport::Padded).dial().echo(10);
    }
}

/// A start script of the C program's goes on working: what has no effect here is accepted.
#[test]
fn the_flags_of_the_c_program_are_accepted() {
    let middle = MiddleProxy::serving();
    let arguments = "-p 0 -c 4000 -C 500 -W 65536 -b 1024 -T 5.000 -v --http-stats --nice 0 --crc32c \
                     --cpu-threads 8 --io-threads 16 --multithread --tcp-cpu-threads 1 \
                     --tcp-iothreads=1 --allow-skip-dh --max-accept-rate 100000 \
                     --max-dh-accept-rate 10 --msg-buffers-size 256m --daemonize=0";
    let arguments: Vec<&str> = arguments.split_whitespace().collect();
    let proxy = proxy_with(middle.config_line(2), &arguments);
    dialer(proxy.address(), Transport::Padded).dial().echo(10);
}

/// Otherwise right arguments and files, and these.
fn refused(arguments: &[&str]) -> Refusal {
    let files = Files::new();
    let config = files.write("proxy-multi.conf", CONFIG.as_bytes());
    with_files(&proxy_secret(128), &config, arguments)
}

fn with_files(proxy_secret: &[u8], config: &str, arguments: &[&str]) -> Refusal {
    let files = Files::new();
    let secret_file = files.write("proxy-secret", proxy_secret);
    let mut all: Vec<&str> = vec!["-H", "0", "-S", DIGITS, "--aes-pwd", &secret_file, config];
    all.extend(arguments);
    run_to_end(&all)
}

/// The exit code, and one line from the program that contains all of these.
fn assert_refusal(refusal: &Refusal, code: i32, wanted: &[&str]) {
    let Refusal { code: got, text } = refusal;
    assert_eq!(*got, Some(code), "wanted {wanted:?}: {text}");
    let is_it =
        |line: &str| line.starts_with("mtproxy: ") && wanted.iter().all(|word| line.contains(word));
    assert!(text.lines().any(is_it), "no line with {wanted:?}: {text}");
}
