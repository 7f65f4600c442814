//! What the README claims about files, limits and crates is what the repository holds.

use crate::source_text::{read, root, sources};
use std::collections::BTreeSet;

#[test]
fn readme_names_every_part_of_the_source() {
    let text = section("Reading the code");
    let named: BTreeSet<String> = backquoted(&text)
        .filter(|w| w.starts_with("src/"))
        .collect();
    let part = |path: String| match path.match_indices('/').nth(1) {
        Some((end, _)) => path[..end].to_string(),
        None => path,
    };
    let present: BTreeSet<String> = sources().into_iter().map(part).collect();
    assert_eq!(named, present);
    let gone: Vec<String> = backquoted(&text)
        .filter(|w| w.ends_with(".rs") && w.contains('/') && !root().join(w).exists())
        .collect();
    assert!(gone.is_empty(), "README names what isn't there: {gone:?}");
}

#[test]
fn readme_limits_are_those_of_the_source() {
    let source = read("src/limits.rs");
    let text = section("Limits");
    let rows: Vec<&str> = text
        .lines()
        .filter(|l| l.starts_with("| ") && l.contains('`'))
        .collect();
    assert!(rows.len() > 5, "README has no table of limits");
    for row in rows {
        let name = row.split('`').nth(1).expect("a name in backquotes");
        let line = source
            .lines()
            .find(|l| l.starts_with(&format!("pub const {name}:")));
        let (_, value) = line
            .and_then(|l| l.split_once(" = "))
            .unwrap_or_else(|| panic!("no limit {name}"));
        let shown = shown_value(value.trim_end_matches(';'));
        assert!(
            row.contains(&format!("| {shown} ")),
            "README and limits.rs differ: {row} -- {shown}"
        );
    }
}

/// `Duration::from_secs(3)` is `3 s`, `4 << 20` is `4 MiB`, `1_044_480` is `1 044 480`.
fn shown_value(value: &str) -> String {
    if let Some(seconds) = value.strip_prefix("Duration::from_secs(") {
        return format!("{} s", seconds.trim_end_matches(')'));
    }
    let (base, shift) = value.split_once(" << ").unwrap_or((value, "0"));
    let shift: u32 = shift.parse().expect("a shift");
    let number = base.replace('_', "").parse::<u64>().expect("a number") << shift;
    match number {
        n if n % (1 << 20) == 0 => format!("{} MiB", n >> 20),
        n if shift > 0 && n % (1 << 10) == 0 => format!("{} KiB", n >> 10),
        _ => base.replace('_', " "),
    }
}

#[test]
fn readme_counts_the_crates() {
    let locked = read("Cargo.lock")
        .lines()
        .filter(|l| *l == "[[package]]")
        .count()
        - 1;
    let claim = format!("{locked} packages");
    assert!(
        section("Security").contains(&claim),
        "README's security section must say `{claim}`"
    );
}

#[test]
fn readme_bounds_are_those_of_the_makefile() {
    let makefile = read("Makefile");
    let bounds: Vec<(&str, &str)> = makefile
        .lines()
        .filter_map(|line| line.strip_prefix("MAX_")?.split_once(" := "))
        .collect();
    assert_eq!(bounds.len(), 2, "{bounds:?}");
    let claim = format!(
        "the bounds: {} {} bytes, {} {}\n",
        bounds[0].0,
        grouped(bounds[0].1),
        bounds[1].0,
        grouped(bounds[1].1)
    );
    assert!(
        section("Building static").contains(&claim),
        "README's section on static binaries must say `{claim}`"
    );
}

/// `1000000` is `1 000 000`.
fn grouped(number: &str) -> String {
    let mut text = String::new();
    for (at, digit) in number.chars().enumerate() {
        if at > 0 && (number.len() - at).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// The text of one `## ` section of the README.
fn section(title: &str) -> String {
    let readme = read("README.md");
    let start = readme
        .find(&format!("\n## {title}"))
        .unwrap_or_else(|| panic!("README has no section {title}"));
    let body = &readme[start + 1..];
    body[..body.find("\n## ").unwrap_or(body.len())].to_string()
}

fn backquoted(text: &str) -> impl Iterator<Item = String> {
    text.split('`').skip(1).step_by(2).map(str::to_string)
}
