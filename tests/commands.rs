//! The commands that don't serve, and what a start shows of links: secrets go to standard output, prose to
//! standard error, and at start the former only when somebody is known to look.

use crate::qr::{decode, image, modules};
use crate::support::programs;
use crate::support::proxy::{Files, Proxy, program};
use crate::support::vectors::{Vectors, from_hex, to_hex};

const DIGITS: &str = "0123456789abcdef0123456789abcdef";

#[test]
fn link_shows_both_links_in_every_spelling() {
    let vectors = Vectors::load("links");
    for form in ["plain", "dd", "ee"] {
        let hex = vectors.text(&format!("{form}_hex"));
        for spelling in [hex, vectors.text(&format!("{form}_base64url"))] {
            let flags = ["-S", spelling, "-H", "4443", "--server", "proxy.example"];
            let said = run(&["link"], &flags);
            let query = format!("proxy?server=proxy.example&port=4443&secret={hex}");
            let links = format!("tg://{query}\nhttps://t.me/{query}\n");
            assert_eq!(said, Said::well(&links), "{spelling}");
        }
    }
    let flags = ["-S", vectors.text("plain_hex"), "--server", "h"];
    let domain = ["-D", vectors.text("domain")];
    let said = run(&["link"], &[&flags[..], &domain].concat());
    let query = format!("proxy?server=h&port=443&secret={}", vectors.text("ee_hex"));
    assert_eq!(
        said,
        Said::well(&format!("tg://{query}\nhttps://t.me/{query}\n"))
    );
}

#[test]
fn link_takes_secrets_of_a_file_and_shows_labels() {
    let files = Files::new();
    let text = format!("# ours\ndd{DIGITS}:bob:20 # a comment\n");
    let name = files.write("secrets", text.as_bytes());
    let other = "11112222333344445555666677778888";
    let said = run(
        &["link", "--secret-file", &name],
        &["-S", other, "--server=h"],
    );
    let wanted = format!(
        "tg://proxy?server=h&port=443&secret={other}\n\
         https://t.me/proxy?server=h&port=443&secret={other}\n\
         # bob\n\
         tg://proxy?server=h&port=443&secret=dd{DIGITS}\n\
         https://t.me/proxy?server=h&port=443&secret=dd{DIGITS}\n"
    );
    assert_eq!(said, Said::well(&wanted));
}

#[test]
fn link_draws_a_code_that_can_be_read() {
    let flags = ["-S", DIGITS, "--server", "proxy.example", "--qr"];
    let said = run(&["link"], &flags);
    assert_eq!((said.code, said.errors.as_str()), (Some(0), ""));
    let (links, drawing): (Vec<&str>, Vec<&str>) =
        said.output.lines().partition(|line| line.contains("://"));
    let files = Files::new();
    let picture = files.write("drawing.pgm", &image(&modules(&drawing)));
    if let Some(read) = decode(&[picture]) {
        // The same secret, spelled shorter.
        let short = links[0].replace(DIGITS, "ASNFZ4mrze8BI0VniavN7w");
        assert_eq!(read, [short]);
    }
}

/// In 24 lines of 80 columns, the line `ready` behind them included: links and code, or with a long domain
/// the code and the link above it.
#[test]
fn links_and_code_fit_a_terminal() {
    let ee = format!("ee{DIGITS}{}", to_hex(b"a-name-of-22.example.x"));
    for (secret, all_fit) in [(DIGITS, true), (&format!("dd{DIGITS}"), true), (&ee, false)] {
        let flags = [
            "-H",
            "0",
            "-S",
            secret,
            "--print-links",
            "--server",
            "255.255.255.255",
        ];
        let output = Proxy::start_with(&flags).output();
        let rows = |line: &str| line.chars().count().div_ceil(80);
        let (links, drawing): (Vec<&str>, Vec<&str>) =
            output.lines().partition(|line| line.contains("://"));
        assert_eq!(links.len(), 2, "{output}");
        let code = modules(&drawing);
        assert!(code.iter().all(|row| row.len() <= 80));
        let shown = if all_fit { &links[..] } else { &links[1..] };
        let above: usize = shown.iter().map(|link| rows(link)).sum();
        assert!(above + drawing.len() < 24, "{output}");
    }
}

#[test]
fn an_unknown_address_is_said_and_not_drawn() {
    let private = ["-S", DIGITS, "--address", "10.0.0.2", "--qr"];
    let said = run(&["link"], &private);
    assert_eq!(said.code, Some(0));
    assert!(said.output.starts_with("tg://proxy?server=YOUR-ADDRESS&"));
    assert_eq!(said.output.lines().count(), 2, "{}", said.output);
    for word in ["10.0.0.2", "--server", "no QR code"] {
        assert!(said.errors.contains(word), "{}", said.errors);
    }
    let behind = run(
        &["link"],
        &[&private[..], &["--nat-info", "10.0.0.2:9.9.9.9"]].concat(),
    );
    assert!(behind.output.starts_with("tg://proxy?server=9.9.9.9&"));
}

#[test]
fn secret_prints_a_new_secret_and_nothing_else() {
    let made = [run(&["secret"], &[]), run(&["secret"], &[])];
    for said in &made {
        let digits = said.output.strip_suffix('\n').expect("a line");
        assert_eq!(from_hex(digits).len(), 16, "{digits}");
        assert_eq!((said.code, said.errors.as_str()), (Some(0), ""));
    }
    assert_ne!(made[0].output, made[1].output);
    let said = run(&["secret"], &["example.com"]);
    let bytes = from_hex(said.output.trim_end());
    assert_eq!((bytes[0], &bytes[17..]), (0xee, &b"example.com"[..]));
    let said = run(&["secret"], &["Example.ORG."]);
    assert!(said.output.trim_end().ends_with(&to_hex(b"example.org")));
}

/// What one line of each of these ends with, and the exit code.
#[test]
fn what_commands_refuse() {
    let files = Files::new();
    let wrong = files.write("secrets", format!("{DIGITS}\n\n{DIGITS}0\n").as_bytes());
    for (arguments, code, wanted) in [
        (&["link"][..], 2, "-S SECRET or --secret-file FILE"),
        (&["link", "-S", "0123"], 2, "got 4 characters"),
        (&["link", "-S", DIGITS, "-H", "0"], 2, "got -H 0"),
        (&["link", "-S", DIGITS, "--server", "h:1"], 2, "got \"h:1\""),
        (
            &["link", "--secret-file", &wrong],
            1,
            "secrets:3: expected a secret",
        ),
        (&["link", "--secret-file", "/nowhere"], 1, "/nowhere: "),
        (&["secret", "a b"], 2, "got \"a b\""),
        (&["secret", "a", "b"], 2, "one domain"),
        (&["-H", "0", "-D", "a.b", "--open"], 2, "without --open"),
        (&["link", "-S", DIGITS, "-D", "a/b"], 2, "got \"a/b\""),
        (&["link", "-S", DIGITS, "-D", DIGITS], 2, "got a secret"),
        (
            &["link", "-S", DIGITS, "--allow-plain"],
            2,
            "it needs -D DOMAIN or an ee secret",
        ),
        (&["-H", "0", "--qr"], 2, "only for mtproxy link"),
        (&["-P", DIGITS], 2, "goes without --direct"),
        (
            &["-H", "0", "--secret-file", &wrong],
            1,
            "secrets:3: expected a secret",
        ),
        (&["-S", DIGITS], 2, "for example -H 443"),
    ] {
        let said = run(arguments, &[]);
        assert_eq!(said.code, Some(code), "{arguments:?}: {}", said.errors);
        let line = said.errors.lines().next().unwrap_or("");
        assert!(
            line.starts_with("mtproxy: ") && line.contains(wanted),
            "{line}"
        );
        assert!(!said.errors.contains(DIGITS) && said.output.is_empty());
    }
}

/// Strangers would find nothing there, and no name needs to be looked up.
const NOBODY: &str = "127.0.0.1:1";

/// The secrets of the links for a device.
fn shown_secrets(output: &str) -> Vec<&str> {
    let links = output.lines().filter(|line| line.starts_with("tg://"));
    let parts = links.filter_map(|line| line.split_once("&secret="));
    parts.map(|(_, secret)| secret).collect()
}

#[test]
fn with_a_domain_all_links_are_for_fake_tls() {
    let files = Files::new();
    let other = "11112222333344445555666677778888";
    let third = "99990000aaaabbbbccccddddeeeeffff";
    let name = files.write("secrets", format!("{other}\nee{third}632e64\n").as_bytes());
    let secrets = ["-S", &format!("dd{DIGITS}"), "--secret-file", &name];
    let all = |domain: &str| {
        [
            format!("ee{DIGITS}{domain}"),
            format!("ee{other}{domain}"),
            format!("ee{third}632e64"),
        ]
    };
    let flags = [&secrets[..], &["--server", "h"]].concat();
    let said = run(
        &["link"],
        &[&flags[..], &["-D", "A.b.:444", "-D", "x"]].concat(),
    );
    assert_eq!(shown_secrets(&said.output), all("612e62"), "{said:?}");
    // Without -D the domain of the ee secret is the first one.
    let said = run(&["link"], &flags);
    assert_eq!(shown_secrets(&said.output), all("632e64"), "{said:?}");
    // A start shows the same.
    let flags = ["-H", "0", "--mask", NOBODY, "--print-links"];
    let started = Proxy::start_with(&[&secrets[..], &flags, &["--server", "h"]].concat());
    assert_eq!(shown_secrets(&started.output()), all("632e64"));
    has_no_secret_in_its_log(&started, DIGITS);
}

#[test]
fn ee_secrets_are_taken_at_start() {
    let ee = format!("ee{DIGITS}612e62");
    let files = Files::new();
    let name = files.write("secrets", ee.as_bytes());
    for flags in [["-S", &ee], ["--secret-file", &name]] {
        let rest = [
            "-H",
            "0",
            "--mask",
            NOBODY,
            "--server",
            "h",
            "--print-links",
        ];
        let started = Proxy::start_with(&[&flags[..], &rest].concat());
        assert_eq!(shown_secrets(&started.output()), [&ee]);
        has_no_secret_in_its_log(&started, DIGITS);
    }
}

#[test]
fn a_secret_is_made_up_for_a_domain() {
    let flags = ["-H", "0", "--server", "h", "-D", "a.b", "--mask", NOBODY];
    let started = Proxy::start_with(&flags);
    let output = started.output();
    let secret = shown_secrets(&output)[0];
    let digits = secret
        .strip_prefix("ee")
        .and_then(|s| s.strip_suffix("612e62"));
    let digits = digits.expect("a link of the ee form");
    assert_eq!(from_hex(digits).len(), 16);
    has_no_secret_in_its_log(&started, digits);
}

#[test]
fn a_start_keeps_links_to_itself_unless_asked() {
    let secret = format!("dd{DIGITS}:bob");
    let started = Proxy::start_with(&["-H", "0", "-S", &secret, "--server", "h"]);
    assert_eq!(started.output(), "");
    started.wait_for_line("a hint", |line| line.contains("`mtproxy link`"));
    has_no_secret_in_its_log(&started, DIGITS);
}

#[test]
fn a_start_shows_links_when_asked() {
    let flags = ["--server", "h", "--print-links"];
    let secret = format!("dd{DIGITS}:bob");
    let started = Proxy::start_with(&[&["-H", "0", "-S", &secret][..], &flags].concat());
    let output = started.output();
    let query = format!("proxy?server=h&port={}&secret=dd{DIGITS}", port(&started));
    let links = format!("# bob\ntg://{query}\nhttps://t.me/{query}\n");
    let drawing = output.strip_prefix(&links).expect("both links");
    assert!(drawing.lines().count() > 15, "{drawing}");
    has_no_secret_in_its_log(&started, DIGITS);
}

#[test]
fn a_made_up_secret_is_shown_and_serves() {
    let started = Proxy::start_with(&["-H", "0", "--server", "h"]);
    let output = started.output();
    let link = output.lines().next().expect("a link");
    let start = format!("tg://proxy?server=h&port={}&secret=dd", port(&started));
    let digits = link
        .strip_prefix(&start)
        .expect("a link of the padded form");
    assert_eq!(from_hex(digits).len(), 16);
    has_no_secret_in_its_log(&started, digits);
    let open = Proxy::start_with(&["-H", "0", "--server", "h", "--open"]);
    assert_eq!(open.output(), "");
    open.wait_for_line("a warning", |line| line.contains("open to everybody"));
}

/// How a command has ended.
#[derive(Debug, PartialEq, Eq)]
struct Said {
    code: Option<i32>,
    output: String,
    errors: String,
}

impl Said {
    fn well(output: &str) -> Said {
        Said {
            code: Some(0),
            output: output.to_owned(),
            errors: String::new(),
        }
    }
}

/// Runs the program to its end.
fn run(first: &[&str], rest: &[&str]) -> Said {
    let mut command = program();
    let output = programs::output(command.args(first).args(rest), b"").expect("the program");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    Said {
        code: output.status.code(),
        output: text(output.stdout),
        errors: text(output.stderr),
    }
}

fn has_no_secret_in_its_log(proxy: &Proxy, digits: &str) {
    let log = proxy.lines().join("\n");
    assert!(!log.contains(digits), "a secret in {log}");
}

fn port(proxy: &Proxy) -> u16 {
    proxy.address().port()
}
