//! The map of the source, held true: every arrow points down, no two files lead to each other, and
//! `unsafe` stands in one place.
//!
//! Source is read as text ([`crate::source_text`]), a file up to its `#[cfg(test)]` module: tests
//! may reach anywhere, but may not be unsafe either.

use crate::source_text::{blank, production, read, sources, words};
use std::collections::{BTreeMap, BTreeSet};

/// Who may name whom, top to bottom. Everybody may name itself, and any part of the library that the
/// last column allows. `mtproxy` is the library as a whole, seen from the daemon.
const LAYERS: &[(&str, &str)] = &[
    ("main", "server operator base"),
    (
        "server",
        "operator web door middle direct stats base mtproxy",
    ),
    ("operator", "door middle direct stats base mtproxy"),
    ("web", "door stream stats base mtproxy"),
    ("door", "middle direct pair stream stats base mtproxy"),
    // The two roads name neither each other nor the door.
    ("middle", "stream stats base mtproxy"),
    ("direct", "pair stream stats base mtproxy"),
    ("pair", "stats base mtproxy"),
    ("stream", "stats base mtproxy"),
    ("stats", "base mtproxy"),
    ("base", "start mtproxy"), // the C main of `sys` calls the daemon's `start`
    // ---- the library
    ("lib", ""),
    ("proto", "formats::date crypto limits"),
    ("formats::date", ""),
    ("formats", "formats::date proto crypto limits"),
    ("crypto", "limits"),
    ("limits", ""),
    ("vectors", ""),
];

/// The only folder where `unsafe` may stand.
const UNSAFE_FOLDER: &str = "src/base/sys/";

#[test]
fn arrows_point_down() {
    let mut found = Vec::new();
    let mut arrows = BTreeSet::new();
    for path in sources() {
        let text = read(&path);
        found.extend(check(&path, &text));
        let own = layer(&module(&path));
        let names = paths(&production(&text), &module(&path));
        let below = names.iter().filter_map(|name| name.strip_prefix("crate::"));
        arrows.extend(below.map(|name| (own, layer(name))));
    }
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
    assert!(
        arrows.contains(&("door", "middle")),
        "no arrows are seen: {arrows:?}"
    );
}

#[test]
fn no_two_files_lead_to_each_other() {
    let files: Vec<(String, String)> = sources().iter().map(|p| (p.clone(), read(p))).collect();
    assert_eq!(circle(&files), None);
}

/// Complaints about one file; `path` is relative to the repository.
fn check(path: &str, text: &str) -> Vec<String> {
    let mut found = wrong_imports(path, &production(text));
    if !path.starts_with(UNSAFE_FOLDER) && words(&blank(text)).any(|w| w == "unsafe") {
        found.push(format!("{path}: unsafe outside {UNSAFE_FOLDER}"));
    }
    found
}

fn wrong_imports(path: &str, code: &str) -> Vec<String> {
    let full = module(path);
    let own = layer(&full);
    let Some((_, allowed)) = LAYERS.iter().find(|(row, _)| *row == own) else {
        return vec![format!("{path}: module {full} has no row in LAYERS")];
    };
    let targets: BTreeSet<String> = paths(code, &full).into_iter().collect();
    let mut found = Vec::new();
    for target in targets {
        let inner = target.strip_prefix("crate::").unwrap_or(&target);
        let fits = |row: &str| {
            let rest = inner.strip_prefix(row).filter(|_| !row.is_empty());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
        };
        if !fits(own) && !allowed.split(' ').any(fits) {
            found.push(format!("{path}: {own} must not name {inner}"));
        }
    }
    found
}

/// `src/proto/middle/frame.rs` is `proto::middle::frame`.
fn module(path: &str) -> String {
    let inner = path
        .trim_start_matches("src/")
        .trim_end_matches(".rs")
        .trim_end_matches("/mod");
    inner.replace('/', "::")
}

/// The row of a module: the longest that fits.
fn layer(full: &str) -> &'static str {
    let fits = |row: &&str| {
        let rest = full.strip_prefix(row);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    };
    let rows = LAYERS.iter().map(|(row, _)| *row).filter(|row| fits(row));
    let row = rows.max_by_key(|row| row.len());
    row.unwrap_or("")
}

/// Files that lead to each other, if there are any: the way round, by what each names.
fn circle(files: &[(String, String)]) -> Option<Vec<String>> {
    let modules: Vec<String> = files.iter().map(|(path, _)| module(path)).collect();
    let file_of = |name: &str| {
        let leads = |module: &&String| {
            let rest = name.strip_prefix(module.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
        };
        modules
            .iter()
            .filter(leads)
            .max_by_key(|module| module.len())
    };
    let mut named: BTreeMap<&String, BTreeSet<&String>> = BTreeMap::new();
    for ((_, text), own) in files.iter().zip(&modules) {
        let all = paths(&production(text), own);
        let inner = all.iter().filter_map(|name| name.strip_prefix("crate::"));
        named.insert(
            own,
            inner.filter_map(file_of).filter(|to| *to != own).collect(),
        );
    }
    // Whoever names nobody that is left leads nowhere.
    loop {
        let left: BTreeSet<&String> = named.keys().copied().collect();
        named.retain(|_, to| to.iter().any(|to| left.contains(to)));
        if named.len() == left.len() {
            break;
        }
    }
    let mut at = *named.keys().next()?;
    let mut way = Vec::new();
    while !way.contains(at) {
        way.push(at.clone());
        at = named[at].iter().find(|to| named.contains_key(*to))?;
    }
    way.push(at.clone());
    Some(way.split_off(way.iter().position(|name| name == at)?))
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
        let local = code.lines().any(|line| {
            let declared = line.trim_start_matches("pub ").strip_prefix("mod ");
            declared.is_some_and(|rest| rest.trim_end_matches([';', ' ', '{']) == word)
        });
        if starts && (local || ["crate", "super", "mtproxy"].contains(&word.as_str())) {
            let inside = match full {
                "main" | "lib" => "crate".to_string(),
                _ => format!("crate::{full}"),
            };
            expand(rest, if local { &inside } else { "" }, full, &mut found);
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

/// Complaints, all with `word`.
fn complains(path: &str, text: &str, word: &str) {
    let found = check(path, text);
    assert!(
        !found.is_empty() && found.iter().all(|line| line.contains(word)),
        "{path} with {text:?}: {found:?}"
    );
}

#[test]
fn offenders_are_found() {
    for (path, text, word) in [
        (
            "src/middle/reader.rs",
            "use crate::direct::relay::Up;\n",
            "name direct",
        ),
        (
            "src/direct/mod.rs",
            "use crate::{base::log, middle::{dcs, reader}};\n",
            "name middle",
        ),
        (
            "src/middle/http.rs",
            "use crate::door::rules::Rules;\n",
            "name door",
        ),
        (
            "src/door/mask.rs",
            "use crate::operator::options::Config;\n",
            "name operator",
        ),
        (
            "src/stats/mod.rs",
            "fn f() { crate::middle::registry::close() }\n",
            "name middle",
        ),
        (
            "src/base/log.rs",
            "use super::super::stats::STATS;\n",
            "name stats",
        ),
        (
            "src/main.rs",
            "mod door;\nfn main() { door::run() }\n",
            "name door",
        ),
        (
            "src/crypto/ctr.rs",
            "use crate::proto::wire;\n",
            "name proto::wire",
        ),
        (
            "src/crypto/ctr.rs",
            "use super::super::proto::wire;\n",
            "name proto::wire",
        ),
        (
            "src/proto/rpc.rs",
            "use crate::formats::{date, link};\n",
            "name formats::link",
        ),
        ("src/odd.rs", "\n", "no row"),
        (
            "src/base/log.rs",
            "fn f() { unsafe { g() } }\n",
            "unsafe outside",
        ),
        (
            "src/base/log.rs",
            "#[cfg(test)]\nmod tests {\n    unsafe fn f() {}\n}\n",
            "unsafe",
        ),
    ] {
        complains(path, text, word);
    }
}

#[test]
fn innocents_are_let_through() {
    let lib = "use super::wire::{self, Reader};\n#[cfg(test)]\nmod tests {\n    use crate::vectors::V;\n}\n";
    let door = "use super::tls;\nuse crate::{middle::registry::Registry, base::log};\nuse mtproxy::proto::rpc;\n";
    let log =
        "#![forbid(unsafe_code)]\n// unsafe\nconst S: &str = \"unsafe \\\" crate::door::x\";\n";
    let raw = "const R: &str = r#\"\" unsafe\"#;\nfn f<'a>(c: &'a u8) -> bool { *c == b'\"' || *c == b'\\'' }\n";
    let comment = "/* unsafe\n crate::door::x */\nconst Q: char = '\"';\nconst P: &str = \"\";\n";
    let sys = "use mtproxy::crypto::crc32::Checksums;\nfn f() { unsafe { g() } }\n";
    for (path, text) in [
        ("src/proto/rpc.rs", lib),
        ("src/door/mask.rs", door),
        ("src/base/log.rs", log),
        ("src/base/log.rs", raw),
        ("src/base/log.rs", comment),
        ("src/base/sys/mod.rs", sys),
        (
            "src/main.rs",
            "mod server;\nfn main() { std::process::exit(server::run()) }\n",
        ),
    ] {
        assert_eq!(check(path, text), Vec::<String>::new(), "{text}");
    }
}

#[test]
fn circles_are_found() {
    let file = |path: &str, text: &str| (path.to_string(), text.to_string());
    let line = [
        file("src/a.rs", "use crate::b::X;\n"),
        file("src/b/mod.rs", "mod c;\nuse c::Y;\n"),
        file(
            "src/b/c.rs",
            "fn f() {}\n#[cfg(test)]\nmod tests {\n    use crate::a;\n}\n",
        ),
    ];
    assert_eq!(circle(&line), None);
    let [a, b, _] = line;
    let round = [
        a,
        b,
        file("src/b/c.rs", "use super::super::a::f;\nuse super::X;\n"),
    ];
    let found = circle(&round).expect("a circle");
    assert_eq!(found.first(), found.last());
    assert!(found.len() > 2, "{found:?}");
}
