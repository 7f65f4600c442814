//! `mtproxy migrate`: each file under testdata/migrate gives what stands beside it in NAME.out, and the command
//! line in that is one that this program takes.

use crate::source_text::root;
use crate::support::command::command;
use crate::support::programs::run;
use crate::support::proxy::{Files, program};
use std::fs;

#[test]
fn every_sample_gives_its_flags() {
    let folder = root().join("testdata/migrate");
    let mut samples = 0;
    for entry in fs::read_dir(&folder).expect("the samples") {
        let path = entry.expect("a sample").path();
        if path.extension().is_some_and(|end| end == "out") {
            continue;
        }
        samples += 1;
        let name = path.to_str().expect("a name");
        let said = command(&["migrate", name]);
        assert_eq!((said.code, said.errors.as_str()), (Some(0), ""), "{name}");
        let wanted = fs::read_to_string(format!("{name}.out")).unwrap_or_default();
        assert_eq!(said.output, wanted, "{name}");
        // The flags are good, wherever they come from: `service` checks them like a start.
        let line = said
            .output
            .lines()
            .find_map(|line| line.strip_prefix("mtproxy "));
        let flags = line.expect("a command line");
        // The sample relies on files that the other program fetches.
        let rest = match said.output.contains("# Middle mode") {
            true => "/etc/mtproxy/proxy-multi.conf",
            false => "",
        };
        let program = program();
        let program = program.get_program().to_str().expect("its path");
        let script = format!("\"$0\" service docker {flags} {rest}");
        let checked = run("sh", &["-c", &script, program], b"").expect("sh");
        let text = String::from_utf8_lossy(&checked.stderr);
        assert!(checked.status.success(), "{name}: {text}");
    }
    assert_eq!(samples, 6);
}

#[test]
fn what_is_refused() {
    let files = Files::new();
    for (text, code, wanted) in [
        ("port = 1\nx\n", 1, "in:2: expected KEY = VALUE"),
        (
            "x = 1\n",
            1,
            "in: expected the configuration of teleproxy, mtg or telemt",
        ),
        ("", 1, "in: expected the configuration of"),
    ] {
        let said = command(&["migrate", &files.write("in", text.as_bytes())]);
        assert_eq!((said.code, said.output.as_str()), (Some(code), ""));
        assert!(said.errors.contains(wanted), "{said:?}");
    }
    for (arguments, code, wanted) in [
        (&["migrate", "/nowhere"][..], 1, "can't read /nowhere: "),
        (&["migrate"], 2, "migrate: expected one file"),
        (&["migrate", "a", "b"], 2, "migrate: expected one file"),
        (&["migrate", "-h"], 2, "usage: mtproxy migrate FILE"),
    ] {
        let said = command(arguments);
        assert_eq!(said.code, Some(code));
        assert!(said.errors.contains(wanted), "{said:?}");
    }
}
