//! Files, functions, the traffic path and the whole source stay short enough to be read. `make audit`
//! prints the figures.
//!
//! A code line is neither blank nor comment; a file is counted up to its `#[cfg(test)]` module.

use crate::source_text::{production, read, sources};
use std::collections::BTreeMap;

/// Code lines of a file, of a function, of the traffic path, of everything under src.
const MAX_FILE: usize = 330;
const MAX_FUNCTION: usize = 60;
const MAX_TRAFFIC_PATH: usize = 11_900;
const MAX_TOTAL: usize = 20_300;

/// What a stranger's byte can reach: the traffic path.
const TRAFFIC_PATH: &[&str] = &[
    "lib", "limits", "crypto", "proto", "base", "door", "middle", "direct", "pair", "stream",
];

/// Files and functions that may be longer, with their bound: tables, and nothing else.
const LONGER: &[(&str, usize)] = &[("src/operator/options/table.rs", 500)];

#[test]
fn source_keeps_to_its_sizes() {
    let shipped = sources().into_iter().filter(|p| p != "src/vectors.rs"); // for unit tests only
    let files: Vec<(String, String)> = shipped.map(|p| (production(&read(&p)), p)).collect();
    let mut found: Vec<String> = files
        .iter()
        .flat_map(|(code, path)| check(path, code))
        .collect();
    let mut parts: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for (code, path) in &files {
        let part = parts.entry(part(path)).or_default();
        *part = (part.0 + 1, part.1 + code_lines(code));
    }
    let sum = |wanted: &dyn Fn(&str) -> bool| -> usize {
        let wanted = parts.iter().filter(|(part, _)| wanted(part));
        wanted.map(|(_, (_, lines))| lines).sum()
    };
    let traffic_path = sum(&|part| TRAFFIC_PATH.contains(&part));
    let total = sum(&|_| true);
    for (part, (files, lines)) in &parts {
        println!("{lines:6} lines {files:3} files  src/{part}");
    }
    println!("{traffic_path:6} lines of at most {MAX_TRAFFIC_PATH}: the traffic path");
    println!("{total:6} lines of at most {MAX_TOTAL}: everything");
    let blocks = files
        .iter()
        .map(|(code, _)| code.matches("unsafe {").count());
    println!("{:6} unsafe blocks", blocks.sum::<usize>());
    for (name, lines, most) in [
        ("the traffic path", traffic_path, MAX_TRAFFIC_PATH),
        ("src", total, MAX_TOTAL),
    ] {
        if lines > most {
            found.push(format!("{name} has {lines} code lines, more than {most}"));
        }
    }
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

/// `src/door/tls.rs` is of the part `door`, `src/pair.rs` of `pair`.
fn part(path: &str) -> &str {
    let inner = path.trim_start_matches("src/").trim_end_matches(".rs");
    inner.split('/').next().unwrap_or(inner)
}

/// Complaints about one file's code, which has neither comments nor tests.
fn check(path: &str, code: &str) -> Vec<String> {
    let mut found = long_functions(path, code);
    let lines = code_lines(code);
    if lines > bound(path, MAX_FILE) {
        found.push(format!(
            "{path}: {lines} code lines, more than {}",
            bound(path, MAX_FILE)
        ));
    }
    found
}

fn bound(name: &str, usual: usize) -> usize {
    LONGER
        .iter()
        .find(|(n, _)| *n == name)
        .map_or(usual, |(_, lines)| *lines)
}

fn code_lines(code: &str) -> usize {
    code.lines().filter(|l| !l.trim().is_empty()).count()
}

/// A function goes from its `fn` line to the closing brace at the same indent.
fn long_functions(path: &str, code: &str) -> Vec<String> {
    let lines: Vec<&str> = code.lines().collect();
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let Some(name) = function_name(line) else {
            continue;
        };
        let indent = line.len() - line.trim_start().len();
        let closing = format!("{}}}", " ".repeat(indent));
        let Some(end) = lines[start..]
            .iter()
            .position(|l| ends_function(l, &closing))
        else {
            continue;
        };
        let length = code_lines(&lines[start..=start + end].join("\n"));
        let place = format!("{path} {name}");
        if length > bound(&place, MAX_FUNCTION) {
            found.push(format!(
                "{place}: {length} code lines, more than {}",
                bound(&place, MAX_FUNCTION)
            ));
        }
    }
    found
}

/// The last line of a function, or of a declaration without a body; `closing` is its brace.
fn ends_function(line: &str, closing: &str) -> bool {
    let indent = closing.trim_end_matches('}');
    let signature = line.contains("fn ") || line.starts_with(&format!("{indent})"));
    line.trim_end() == closing || (signature && line.trim_end().ends_with([';', '}']))
}

fn function_name(line: &str) -> Option<&str> {
    let (before, after) = line.split_once("fn ")?;
    let known = [
        "pub",
        "pub(crate)",
        "pub(super)",
        "const",
        "unsafe",
        "extern",
        "\"\"",
    ];
    let first = after.chars().next()?;
    let plain = before.split_whitespace().all(|w| known.contains(&w));
    let end = after.find(['(', '<'])?;
    (plain && first.is_alphabetic()).then(|| &after[..end])
}

#[test]
fn what_is_too_long_is_found() {
    let line = "const X: u8 = 1;\n";
    assert!(
        check("src/log.rs", &production(&line.repeat(MAX_FILE + 1)))[0].contains("331 code lines")
    );
    let at_limit = format!("{}// comment\n\n", line.repeat(MAX_FILE));
    assert_eq!(
        check("src/log.rs", &production(&at_limit)),
        Vec::<String>::new()
    );
    let body = "        g();\n".repeat(MAX_FUNCTION - 1);
    let method = format!("impl T {{\n    pub fn f(\n    ) {{\n{body}    }}\n}}\n");
    assert!(check("src/log.rs", &method)[0].contains("src/log.rs f: 62 code lines"));
    let empty = method.replacen("g();", "loop {}", 1);
    assert!(check("src/log.rs", &empty)[0].contains("62 code lines"));
    let declared = format!("extern \"C\" {{\n    fn f();\n    fn g(\n    ) -> i32;\n{body}}}\n");
    assert_eq!(check("src/log.rs", &declared), Vec::<String>::new());
    let tests = format!("fn f() {{\n}}\n#[cfg(test)]\nmod tests {{\n{method}}}\n");
    assert_eq!(
        check("src/log.rs", &production(&tests)),
        Vec::<String>::new()
    );
}
