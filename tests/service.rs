//! `mtproxy service`: what it prints is what the service managers' own tools take, and holds no secret.

use crate::support::command::command;
use crate::support::programs::{not_tested, output, run};
use crate::support::proxy::Files;
use std::fs;
use std::path::Path;
use std::process::Command;

const DIGITS: &str = "0123456789abcdef0123456789abcdef";

fn print(kind: &str, flags: &[&str]) -> (String, String) {
    let said = command(&[&["service", kind], flags].concat());
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(!said.output.contains(&DIGITS[2..]) && !said.errors.contains(&DIGITS[2..]));
    (said.output, said.errors)
}

#[test]
fn a_unit_that_systemd_takes() {
    for flags in [
        &["-H", "443", "-S", DIGITS, "-D", "a.b"][..],
        &[
            "-H",
            "8443",
            "--secret-file",
            "/etc/mtproxy/mine",
            "-p",
            "8888",
            "--http-stats",
        ],
        &[
            "-H",
            "443,8443",
            "-S",
            DIGITS,
            "--aes-pwd",
            "/etc/a b%c$d",
            "/etc/proxy-multi.conf",
        ],
        &["-H", "8443", "--open"],
    ] {
        let (unit, errors) = print("systemd", flags);
        assert_eq!(
            errors.contains("/etc/mtproxy/secrets"),
            flags.contains(&"-S"),
            "{errors}"
        );
        let has_secret = !flags.contains(&"--open");
        assert_eq!(
            unit.contains("LoadCredential=secrets:/etc/mtproxy/"),
            has_secret,
            "{unit}"
        );
        let low = flags.iter().any(|flag| flag.starts_with("443"));
        assert_eq!(
            unit.contains("\nCapabilityBoundingSet=CAP_NET_BIND_SERVICE\n"),
            low,
            "{unit}"
        );
        assert!(
            unit.contains("\nExecStart=/usr/local/bin/mtproxy --http-ports="),
            "{unit}"
        );
        let files = Files::new();
        // The tools want the program there.
        let unit = unit.replace("/usr/local/bin/mtproxy", "/bin/true");
        let path = files.path("mtproxy.service");
        fs::write(&path, unit).expect("a unit");
        let Some(said) = run("systemd-analyze", &["verify", "--man=no", &path], b"") else {
            return;
        };
        let text = String::from_utf8_lossy(&said.stderr).into_owned();
        let about_it: Vec<&str> = text
            .lines()
            .filter(|line| line.contains("mtproxy.service"))
            .collect();
        assert!(said.status.success() && about_it.is_empty(), "{text}");
        // Tenths: exposure 1.5 at most.
        let bounds = [
            "security",
            "--offline=yes",
            "--no-pager",
            "--threshold=15",
            &path,
        ];
        let said = run("systemd-analyze", &bounds, b"").expect("systemd-analyze");
        let table = String::from_utf8_lossy(&said.stdout);
        assert!(said.status.success(), "{table}");
    }
}

#[test]
fn words_of_a_unit_are_escaped() {
    let flags = [
        "-H",
        "1",
        "-S",
        DIGITS,
        "--aes-pwd",
        "/etc/a b%c$d",
        "relative",
    ];
    let (unit, _) = print("systemd", &flags);
    let here = std::env::current_dir().expect("a folder").join("relative");
    let start = "ExecStart=/usr/local/bin/mtproxy --http-ports=1 \"--aes-pwd=/etc/a b%%c$$d\" \
                 --secret-file=${CREDENTIALS_DIRECTORY}/secrets --state=/var/lib/mtproxy/state ";
    assert!(
        unit.contains(&format!("{start}{}\n", here.display())),
        "{unit}"
    );
}

#[test]
fn a_script_that_routers_take() {
    let flags = [
        "-H",
        "443",
        "-S",
        DIGITS,
        "-u",
        "root",
        "--aes-pwd",
        "/tmp/it's",
        "/tmp/multi.conf",
    ];
    let (script, errors) = print("openwrt", &flags);
    assert!(
        errors.contains("/etc/mtproxy/secrets (chmod 600)"),
        "{errors}"
    );
    let files = Files::new();
    let path = files.write("setup", script.as_bytes());
    let root = files.path("");
    let Some(said) = run("busybox", &["ash", &path, &root], b"") else {
        return;
    };
    assert!(said.status.success(), "{said:?}");
    let read = |name: &str| fs::read_to_string(Path::new(&root).join(name)).expect(name);
    let wanted = "config mtproxy 'main'\n\toption enabled '1'\n\tlist argument '--http-ports=443'\n\
                  \tlist argument '--aes-pwd=/etc/mtproxy/it'\\''s'\n\
                  \tlist argument '--secret-file=/etc/mtproxy/secrets'\n\
                  \tlist argument '--state=/etc/mtproxy/state'\n\tlist argument '/etc/mtproxy/multi.conf'\n";
    assert_eq!(read("etc/config/mtproxy"), wanted);
    let kept = "/etc/config/mtproxy\n/etc/init.d/mtproxy\n/etc/mtproxy/\n/usr/bin/mtproxy\n";
    assert_eq!(read("lib/upgrade/keep.d/mtproxy"), kept);
    let init = files.path("etc/init.d/mtproxy");
    for script in [&path, &init] {
        let said = run("busybox", &["ash", "-n", script], b"").expect("busybox");
        assert!(said.status.success(), "{said:?}");
        if let Some(said) = run("shellcheck", &[script], b"") {
            let text = String::from_utf8_lossy(&said.stdout);
            assert!(said.status.success(), "{text}");
        }
    }
    // A second run keeps what was changed since.
    fs::write(Path::new(&root).join("etc/config/mtproxy"), "mine").expect("a file");
    assert!(
        run("busybox", &["ash", &path, &root], b"")
            .expect("busybox")
            .status
            .success()
    );
    assert_eq!(read("etc/config/mtproxy"), "mine");
}

/// What procd would be told, by a stand-in for its functions.
#[test]
fn the_script_starts_the_server_with_its_arguments() {
    let (script, _) = print("openwrt", &["-H", "443", "-S", DIGITS, "-D", "a.b"]);
    let files = Files::new();
    let path = files.write("setup", script.as_bytes());
    let root = files.path("");
    if run("busybox", &["ash", &path, &root], b"").is_none() {
        return not_tested("the procd script");
    }
    let stub = "config_load() { :; }\nconfig_get_bool() { enabled=1; }\nconfig_list_foreach() { $3 one; $3 two; }\n\
                procd_open_instance() { :; }\nprocd_close_instance() { :; }\n\
                procd_set_param() { echo \"$@\"; }\nprocd_append_param() { echo \"$@\"; }\n\
                . \"$0\"\nstart_service\n";
    let init = files.path("etc/init.d/mtproxy");
    let said = output(
        Command::new("busybox").args(["ash", "-c", stub, &init]),
        b"",
    )
    .expect("busybox");
    let text = String::from_utf8_lossy(&said.stdout);
    assert!(
        text.starts_with("command /usr/bin/mtproxy\ncommand one\ncommand two\n"),
        "{said:?}"
    );
}

#[test]
fn a_compose_file() {
    let flags = [
        "-H",
        "443,8443",
        "-S",
        DIGITS,
        "--server",
        "a.b",
        "--aes-pwd",
        "/x/key",
        "/x/multi.conf",
    ];
    let (text, errors) = print("docker", &flags);
    assert!(errors.contains("./secrets"), "{errors}");
    let arguments = "\"--http-ports=443,8443\", \"--server=a.b\", \"--aes-pwd=/etc/mtproxy/key\", \
                     \"--secret-file=/run/secrets/secrets\", \"/etc/mtproxy/multi.conf\"]\n";
    for line in [
        "        FROM scratch\n",
        "    read_only: true\n",
        &format!("    command: [{arguments}"),
        "    ports: [\"443:443\", \"8443:8443\"]\n",
        "    volumes: [\"/x/key:/etc/mtproxy/key:ro\", \"/x/multi.conf:/etc/mtproxy/multi.conf:ro\"]\n",
        &format!("      test: [\"CMD\", \"/mtproxy\", \"doctor\", \"--own\", {arguments}"),
        "secrets:\n  secrets:\n    file: ./secrets\n",
    ] {
        assert!(text.contains(line), "no {line} in {text}");
    }
}

#[test]
fn wrong_command_lines() {
    for (arguments, wanted) in [
        (
            &["service"][..],
            "service: expected systemd, openwrt, docker, nginx or caddy first",
        ),
        (
            &["service", "runit", "-H", "1"],
            "service: expected systemd, openwrt, docker, nginx or caddy first",
        ),
        (
            &["service", "systemd", "-H", "x"],
            "-H/--http-ports: expected ports",
        ),
        (&["service", "systemd", "-S", DIGITS], "for example -H 443"),
        (&["service", "--help"], "usage: mtproxy service"),
        (&["service", "docker", "--help"], "usage: mtproxy service"),
    ] {
        let said = command(arguments);
        assert_eq!((said.code, said.output.as_str()), (Some(2), ""));
        assert!(said.errors.contains(wanted), "{said:?}");
    }
    let (_, errors) = print("systemd", &["-D", "a.b"]);
    assert!(
        errors.contains("a secret (`mtproxy secret` makes one): write to /etc/mtproxy/secrets")
    );
}
