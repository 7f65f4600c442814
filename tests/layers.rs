//! The map of the source, held true: who may import whom, and where `unsafe` may stand.
//!
//! Source is read as text ([`crate::source_text`]), a file up to its `#[cfg(test)]` module: tests
//! may reach anywhere, but may not be unsafe either.

use crate::source_text::{blank, production, read, sources, words};
use std::collections::BTreeSet;

/// Who may name whom, top to bottom; the first row that fits a file's module counts, `*` stands for
/// any ending. Everybody may name itself. `mtproxy` is the library as a whole, seen from the daemon;
/// words in capitals are the groups below. `client`, `backend`, `direct` and
/// `admin_http` never name each other.
const LAYERS: &[(&str, &str)] = &[
    ("main", "commands server options log sys mtproxy"),
    ("commands", "START TOOLS"),
    (
        "server",
        "client backend direct admin_http MEETING START TOOLS",
    ),
    ("client", "MEETING START TOOLS"),
    ("backend", "MEETING START TOOLS"),
    ("direct", "MEETING START TOOLS"),
    ("admin_http", "MEETING TOOLS"),
    ("handover", "stats mtproxy"),
    ("pair", "TOOLS"),
    ("sites", "options TOOLS"),
    ("replay", "sys mtproxy"),
    ("registry", "MEETING TOOLS"),
    ("outbox", "MEETING TOOLS"),
    ("uplink", "MEETING TOOLS"),
    ("dcs", "MEETING TOOLS"),
    ("links", "access options nat log sys mtproxy"),
    ("access", "options sys mtproxy"),
    ("options", "sys mtproxy"),
    ("capacity", "sys mtproxy"),
    ("nat", "mtproxy"),
    ("stats", "sys mtproxy"),
    ("log", "clock sys mtproxy"),
    ("records", "clock mtproxy"),
    ("clock", ""),
    ("buffers", "sys mtproxy"),
    ("threads", "stats sys mtproxy"), // panics are counted where they are caught
    ("sys", "start mtproxy::crypto mtproxy::limits"), // its C main calls the daemon's `start`
    // ---- the library
    ("lib", ""),
    ("proto::wire", "limits"),
    ("proto::secret", "proto::wire crypto limits"),
    ("proto::rpc", "PLAIN proto::mtproto crypto limits"), // its flags depend on the message's kind
    ("proto::*", "PLAIN crypto limits"),
    ("crypto", "limits"),
    ("limits", ""),
    ("vectors", ""),
];

const GROUPS: &[(&str, &str)] = &[
    (
        "MEETING",
        "registry outbox uplink pair dcs sites replay handover",
    ),
    ("START", "links access options capacity nat"),
    (
        "TOOLS",
        "threads buffers records stats log clock sys mtproxy",
    ),
    ("PLAIN", "proto::wire proto::secret proto::transport"),
];

/// The first names of the library's modules: everything else belongs to the daemon.
const LIBRARY: &[&str] = &["lib", "proto", "crypto", "limits", "vectors"];

/// The only file where `unsafe` may stand.
const UNSAFE_FILE: &str = "src/sys.rs";

#[test]
fn source_keeps_to_its_layers() {
    let found: Vec<String> = sources()
        .iter()
        .flat_map(|path| check(path, &read(path)))
        .collect();
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

/// Complaints about one file; `path` is relative to the repository.
fn check(path: &str, text: &str) -> Vec<String> {
    let mut found = wrong_imports(path, &production(text));
    if path != UNSAFE_FILE && words(&blank(text)).any(|w| w == "unsafe") {
        found.push(format!("{path}: unsafe outside {UNSAFE_FILE}"));
    }
    found
}

fn wrong_imports(path: &str, code: &str) -> Vec<String> {
    let full = module(path);
    let own = layer_name(&full, in_library(path));
    let Some((_, allowed)) = LAYERS.iter().find(|(row, _)| fits(row, &own)) else {
        return vec![format!("{path}: module {own} has no row in LAYERS")];
    };
    let layer = |name: &String| match name.strip_prefix("crate::") {
        Some(inner) => layer_name(inner, in_library(path)),
        None => name.clone(),
    };
    let targets: BTreeSet<String> = paths(code, &full).iter().map(layer).collect();
    let mut found = Vec::new();
    for target in targets {
        if target != own && !allows(allowed, &target) {
            found.push(format!("{path}: {own} must not name {target}"));
        }
    }
    found
}

fn allows(allowed: &str, target: &str) -> bool {
    allowed
        .split(' ')
        .any(|word| match GROUPS.iter().find(|(name, _)| *name == word) {
            Some((_, members)) => allows(members, target),
            None => target
                .strip_prefix(word)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with("::")),
        })
}

/// `src/proto/middle/frame.rs` is `proto::middle::frame`.
fn module(path: &str) -> String {
    let inner = path
        .trim_start_matches("src/")
        .trim_end_matches(".rs")
        .trim_end_matches("/mod");
    inner.replace('/', "::")
}

fn in_library(path: &str) -> bool {
    let full = module(path);
    LIBRARY.contains(&full.split("::").next().unwrap_or(""))
}

/// The part of a module's path that the table speaks of: one name, two inside `proto`.
fn layer_name(full: &str, library: bool) -> String {
    let depth = if library && full.starts_with("proto::") {
        2
    } else {
        1
    };
    full.split("::").take(depth).collect::<Vec<_>>().join("::")
}

fn fits(row: &str, own: &str) -> bool {
    row == own
        || row
            .strip_suffix('*')
            .is_some_and(|start| own.starts_with(start))
}

/// Every path into the own crate (`crate::a::b`) or the library (`mtproxy::a`) that the code names,
/// `use` groups taken apart, `super` resolved. `full` is the module that the code is in.
fn paths(code: &str, full: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut before = ' ';
    let mut rest = code;
    while let Some(c) = rest.chars().next() {
        let word: String = rest
            .chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect();
        let starts = !word.is_empty() && before != ':' && rest[word.len()..].starts_with("::");
        let local = full == "main" && LAYERS.iter().any(|(row, _)| *row == word);
        if starts && (local || ["crate", "super", "mtproxy"].contains(&word.as_str())) {
            let prefix = if local { "crate" } else { "" };
            expand(rest, prefix, full, &mut found);
        }
        before = word.chars().last().unwrap_or(c);
        rest = &rest[word.len().max(c.len_utf8())..];
    }
    found
}

/// Reads one path or group at the start of `text`, pushes what it names, returns what follows it.
fn expand<'a>(text: &'a str, prefix: &str, full: &str, found: &mut Vec<String>) -> &'a str {
    let text = text.trim_start();
    if let Some(mut rest) = text.strip_prefix('{') {
        while !rest.trim_start().starts_with('}') && !rest.trim_start().is_empty() {
            rest = expand(rest, prefix, full, found)
                .trim_start()
                .trim_start_matches(',');
        }
        return rest.trim_start().strip_prefix('}').unwrap_or("");
    }
    let end = text
        .find(|c: char| !c.is_alphanumeric() && c != '_')
        .unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    let parent = |of: &str| {
        of.rsplit_once("::")
            .map_or("crate".to_string(), |(above, _)| above.to_string())
    };
    let path = match (prefix, word) {
        ("", "super") => parent(&format!("crate::{full}")),
        (_, "super") => parent(prefix),
        ("", _) => word.to_string(),
        _ => format!("{prefix}::{word}"),
    };
    match rest.strip_prefix("::") {
        Some(more) => expand(more, &path, full, found),
        None => {
            if path.contains("::") {
                found.push(path);
            }
            let rest = if word.is_empty() {
                &rest[rest.chars().next().map_or(0, char::len_utf8)..]
            } else {
                rest
            };
            rest.trim_start().strip_prefix("as ").map_or(rest, |alias| {
                alias.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_')
            })
        }
    }
}

// --- the checks themselves can fail --------------------------------------------------------------

/// One complaint, about `word`.
fn complains(path: &str, text: &str, word: &str) {
    let found = check(path, text);
    assert!(
        found.len() == 1 && found[0].contains(word),
        "{path} with {text:?}: {found:?}"
    );
}

#[test]
fn offenders_are_found() {
    complains(
        "src/client/reader.rs",
        "use crate::backend::pool::Pool;\n",
        "name backend",
    );
    complains(
        "src/backend/mod.rs",
        "use crate::{log, client::{accept, reader}};\n",
        "name client",
    );
    complains(
        "src/admin_http/metrics.rs",
        "use crate::client::Rules;\n",
        "name client",
    );
    complains(
        "src/stats.rs",
        "fn f() { crate::registry::close() }\n",
        "name registry",
    );
    complains(
        "src/main.rs",
        "mod client;\nfn main() { client::run() }\n",
        "name client",
    );
    complains(
        "src/sys.rs",
        "use mtproxy::{limits, proto::wire};\n",
        "name mtproxy::proto",
    );
    complains(
        "src/crypto/ctr.rs",
        "use crate::proto::wire;\n",
        "name proto::wire",
    );
    complains(
        "src/crypto/ctr.rs",
        "use super::super::proto::wire;\n",
        "name proto::wire",
    );
    complains(
        "src/proto/mtproto.rs",
        "use super::{wire, rpc as r, secret};\n",
        "name proto::rpc",
    );
    complains(
        "src/proto/middle/frame.rs",
        "use super::super::rpc::Answer;\n",
        "name proto::rpc",
    );
    complains("src/odd.rs", "\n", "no row");
    complains(
        "src/log.rs",
        "fn f() { unsafe { g() } }\n",
        "unsafe outside",
    );
    complains(
        "src/log.rs",
        "#[cfg(test)]\nmod tests {\n    unsafe fn f() {}\n}\n",
        "unsafe",
    );
}

#[test]
fn innocents_are_let_through() {
    let lib = "use super::wire::{self, Reader};\n#[cfg(test)]\nmod tests {\n    use crate::vectors::V;\n}\n";
    let client =
        "use super::writer;\nuse crate::{registry::Registry, log};\nuse mtproxy::proto::rpc;\n";
    let frame = "use super::handshake::Keys;\nuse crate::proto::wire::{Reader, Writer as W};\n";
    let log =
        "#![forbid(unsafe_code)]\n// unsafe\nconst S: &str = \"unsafe \\\" crate::client::x\";\n";
    let raw = "const R: &str = r#\"\" unsafe\"#;\nfn f<'a>(c: &'a u8) -> bool { *c == b'\"' || *c == b'\\'' }\n";
    let comment = "/* unsafe\n crate::client::x */\nconst Q: char = '\"';\nconst P: &str = \"\";\n";
    let sys = "use mtproxy::crypto::crc32::Checksums;\nfn f() { unsafe { g() } }\n";
    for (path, text) in [
        ("src/proto/rpc.rs", lib),
        ("src/client/reader.rs", client),
        ("src/proto/middle/frame.rs", frame),
        ("src/log.rs", log),
        ("src/log.rs", raw),
        ("src/log.rs", comment),
        ("src/sys.rs", sys),
        (
            "src/main.rs",
            "mod server;\nfn main() { std::process::exit(server::run()) }\n",
        ),
    ] {
        assert_eq!(check(path, text), Vec::<String>::new(), "{text}");
    }
}
