//! What the running server gives up. The other tests show that it serves all the same: they run inside.

use crate::support::dc::{Behaviour, DataCentre};
use crate::support::direct_rig::direct_proxy;
use crate::support::framing::Transport;
use crate::support::programs::not_tested;
use crate::support::proxy::{Files, Proxy};
use crate::support::rig::{SECRET, dialer};
use crate::support::vectors::to_hex;
use std::fs;

/// Starts a proxy in direct mode and has it serve a client; gives its line about the sandbox.
fn serving(arguments: &[&str]) -> (Proxy, String) {
    let centre = DataCentre::start(Behaviour::Serve);
    let proxy = direct_proxy(&[&centre.as_dc(2)], arguments);
    dialer(proxy.address(), Transport::Padded)
        .dial()
        .echo(100_000);
    let line = proxy.wait_for_line("the sandbox", |line| line.starts_with("sandbox: "));
    (proxy, line)
}

#[test]
fn all_that_is_not_needed_is_given_up() {
    let (proxy, line) = serving(&[]);
    for (name, wanted) in [("CapEff", 0), ("CapPrm", 0), ("CapInh", 0)] {
        let rights = u64::from_str_radix(&proxy.status(name)[0], 16).expect("a number");
        assert_eq!(rights, wanted, "{name}");
    }
    assert_eq!(proxy.status("NoNewPrivs"), ["1"]);
    if line.contains("(seccomp)") {
        assert_eq!(proxy.status("Seccomp"), ["2"]);
    } else {
        // An emulated processor has none, either.
        assert!(line.contains("(no filter"), "{line}");
    }
    proxy.stop();
}

#[test]
fn without_a_sandbox_it_is_said() {
    let (proxy, line) = serving(&["--no-sandbox"]);
    assert_eq!(line, "sandbox: none (--no-sandbox)");
    assert_eq!(proxy.status("Seccomp"), ["0"]);
    proxy.stop();
}

#[test]
fn files_behind_links_are_read_again() {
    let (here, there) = (Files::new(), Files::new());
    let settings = format!("direct\nhttp-ports 0\nmtproto-secret {}\n", to_hex(&SECRET));
    let (link, target) = (
        here.path("config"),
        there.write("config", settings.as_bytes()),
    );
    std::os::unix::fs::symlink(&target, &link).expect("a link");
    let proxy = Proxy::start_with(&["--config", &link]);
    proxy.signal("HUP");
    proxy.wait_for_events("reloaded", 1);
    proxy.stop();
}

#[test]
fn a_directory_is_the_whole_file_system() {
    let files = Files::new();
    let root = files.path("");
    let euid = fs::metadata("/proc/self").map(|own| std::os::unix::fs::MetadataExt::uid(&own));
    if euid.expect("/proc") != 0 {
        return not_tested("--chroot needs root");
    }
    let (proxy, _) = serving(&["--chroot", &root]);
    let seen = proxy.root();
    assert_eq!(seen, fs::canonicalize(&root).expect("the directory"));
    proxy.stop();
}
