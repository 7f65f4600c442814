//! Source files as text, for the tests that check the house and not the program: comments and
//! literals blanked, test modules cut off. Not a parser: it knows as much of Rust as that takes.

use std::fs;
use std::path::Path;

/// Words of code, keywords and names alike.
pub fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|c: char| !c.is_alphanumeric() && c != '_')
}

/// The code of a file without its comments, literals and test module.
pub fn production(text: &str) -> String {
    let code = blank(text);
    let mut end = 0;
    while let Some(at) = code[end..].find("#[cfg(test)]\n") {
        let item = code[end + at..].lines().find(|l| !l.starts_with("#["));
        if item.is_some_and(|l| l.starts_with("mod ") && l.ends_with('{')) {
            return code[..end + at].to_string();
        }
        end += at + 1;
    }
    code
}

/// Comments disappear, literals keep their quotes only; line breaks stay where they were.
pub fn blank(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let (skip, keep) = match c {
            '/' if rest.starts_with("//") => (rest.find('\n').unwrap_or(rest.len()), ""),
            '/' if rest.starts_with("/*") => (rest.find("*/").map_or(rest.len(), |n| n + 2), ""),
            '"' => (string_length(&out, rest), "\"\""),
            '\'' => (char_length(rest), "'"),
            _ => (0, ""),
        };
        if skip == 0 {
            out.push(c);
            rest = &rest[c.len_utf8()..];
            continue;
        }
        out.push_str(keep);
        out.extend(rest[..skip].chars().filter(|c| *c == '\n'));
        rest = &rest[skip..];
    }
    out
}

/// Length of the string literal at the start of `rest`; raw if an `r` and hashes stand before it.
fn string_length(before: &str, rest: &str) -> usize {
    let start = before.trim_end_matches('#');
    if start.ends_with('r') {
        let end = format!("\"{}", "#".repeat(before.len() - start.len()));
        return rest[1..]
            .find(&end)
            .map_or(rest.len(), |n| n + 1 + end.len());
    }
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        if c == '"' && !escaped {
            return at + 1;
        }
        escaped = c == '\\' && !escaped;
    }
    rest.len()
}

/// Length of the character literal at the start of `rest`; 1 if it is a lifetime.
fn char_length(rest: &str) -> usize {
    let mut chars = rest.char_indices().skip(1);
    match chars.next() {
        Some((_, '\\')) => rest[3..].find('\'').map_or(1, |n| n + 4),
        Some(_) => chars
            .next()
            .filter(|(_, c)| *c == '\'')
            .map_or(1, |(at, _)| at + 1),
        None => 1,
    }
}

/// The repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A file of the repository.
pub fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// All of src/**/*.rs, relative to the repository, sorted.
pub fn sources() -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![root().join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("src is readable") {
            let path = entry.expect("an entry of src").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let inner = path.strip_prefix(root()).expect("inside the repository");
                found.push(inner.display().to_string());
            }
        }
    }
    found.sort();
    found
}
