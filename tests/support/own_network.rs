//! A test in a network of its own (util-linux's unshare, iproute2's ip): it runs once more inside, where
//! addresses and ports are free to choose and nothing outside can be reached.

use super::programs::{are_there, not_tested, output};
use std::env;
use std::process::Command;

/// Set for the run inside.
const INSIDE: &str = "MTPROXY_TESTS_NETWORK";

/// True inside. Outside it runs the test of this name there, behind `set_up` (shell commands, as root of the
/// namespace), checks that it passes and shows what it printed; where no network can be had it says so.
pub fn is_inside(test: &str, set_up: &str) -> bool {
    if env::var(INSIDE).is_ok() {
        return true;
    }
    if !are_there(&["unshare", "ip"]) {
        return false;
    }
    let unshare = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--net", "--mount", "sh", "-ec", script]);
        command
    };
    let tried = output(&mut unshare(set_up), b"").expect("unshare");
    if !tried.status.success() {
        not_tested(&format!("no network of its own can be had: {tried:?}"));
        return false;
    }
    let ourselves = env::current_exe().expect("this program");
    let mut inside = unshare(&format!("{set_up}; exec \"$0\" \"$@\""));
    inside
        .arg(ourselves)
        .args(["--exact", test, "--nocapture", "--include-ignored"])
        .env(INSIDE, "1");
    let output = output(&mut inside, b"").expect("unshare");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "inside: {said}\n{errors}");
    assert!(said.contains("1 passed"), "inside: {said}");
    println!("{said}");
    false
}
