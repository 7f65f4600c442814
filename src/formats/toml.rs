//! Settings of other programs as `mtproxy migrate` reads them: the part of TOML that they use, and the words of
//! a command line. Whole texts of the operator's.
//!
//! TOML: tables and arrays of tables, strings on one line, numbers, booleans, arrays, tables in braces. Not:
//! strings over several lines, dotted keys.

use alloc::string::String;
use alloc::vec::Vec;

/// One key with its values: one, or those of an array. A key in braces follows the one before with a dot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Setting {
    /// The table and the key, with dots between.
    pub name: String,
    /// Which table it is of an array of tables, or any.
    pub table: usize,
    /// As text.
    pub values: Vec<String>,
}

/// Reads TOML; the error is the number of the line that is none.
pub fn parse_toml(text: &str) -> Result<Vec<Setting>, usize> {
    let mut all = Vec::new();
    let (mut prefix, mut table) = (String::new(), 0_usize);
    let mut lines = (1_usize..).zip(text.lines());
    while let Some((number, line)) = lines.next() {
        let mut statement = String::from(without_comment(line).trim());
        if let Some(header) = statement.strip_prefix('[') {
            let name = header.trim_matches(['[', ']', ' ']);
            prefix = name.split('.').map(bare).fold(String::new(), joined);
            table = table.saturating_add(1);
            continue;
        }
        if statement.is_empty() {
            continue;
        }
        while depth(&statement) > 0 {
            let (_, next) = lines.next().ok_or(number)?;
            statement.push(' ');
            statement.push_str(without_comment(next).trim());
        }
        let (key, value) = statement.split_once('=').ok_or(number)?;
        let name = joined(prefix.clone(), bare(key.trim()));
        for (inner, values) in values(value).ok_or(number)? {
            let name = joined(name.clone(), &inner);
            all.push(Setting {
                name,
                table,
                values,
            });
        }
    }
    Ok(all)
}

fn joined(mut path: String, part: &str) -> String {
    if !path.is_empty() && !part.is_empty() {
        path.push('.');
    }
    path.push_str(part);
    path
}

fn bare(key: &str) -> &str {
    key.trim().trim_matches(['"', '\''])
}

/// Goes over a text, and tells of each character whether it stands in quotes.
fn quoting(text: &str) -> impl Iterator<Item = (usize, char, bool)> + '_ {
    let (mut quote, mut escaped) = (None, false);
    text.char_indices().map(move |(at, c)| {
        let inside = quote.is_some();
        match quote {
            _ if escaped => escaped = false,
            Some('"') if c == '\\' => escaped = true,
            Some(open) if c == open => quote = None,
            None if c == '"' || c == '\'' => quote = Some(c),
            _ => {}
        }
        (at, c, inside)
    })
}

fn without_comment(line: &str) -> &str {
    let comment = quoting(line).find(|(_, c, inside)| *c == '#' && !inside);
    comment.and_then(|(at, ..)| line.get(..at)).unwrap_or(line)
}

/// Brackets and braces that are still open.
fn depth(text: &str) -> i32 {
    quoting(text).fold(0, |depth: i32, (_, c, inside)| match c {
        '[' | '{' if !inside => depth.saturating_add(1),
        ']' | '}' if !inside => depth.saturating_sub(1),
        _ => depth,
    })
}

/// The values of a key, those in braces by their own keys.
fn values(text: &str) -> Option<Vec<(String, Vec<String>)>> {
    let mut found: Vec<(String, Vec<String>)> = Vec::new();
    let mut key = String::new();
    let mut rest = text.trim_start();
    let mut any = false;
    while let Some(first) = rest.chars().next() {
        let word = match first {
            '[' | ']' | '{' | '}' | ',' => {
                any = true;
                if first != '[' {
                    key.clear();
                }
                rest = rest.get(1..)?.trim_start();
                continue;
            }
            '"' | '\'' => {
                let mut marks = quoting(rest).skip(1);
                let (end, ..) = marks.find(|(at, c, inside)| {
                    let is_escaped = first == '"' && rest.get(..*at).is_some_and(odd_backslashes);
                    *c == first && *inside && !is_escaped
                })?;
                let word = unescaped(rest.get(1..end)?, first);
                rest = rest.get(end.saturating_add(1)..)?;
                word
            }
            _ => {
                let end = rest.find([',', ']', '}', '=', ' ']).unwrap_or(rest.len());
                let word = rest.get(..end)?.into();
                rest = rest.get(end..)?;
                word
            }
        };
        rest = rest.trim_start();
        any = true;
        if let Some(after) = rest.strip_prefix('=') {
            key = word;
            rest = after.trim_start();
            continue;
        }
        match found.iter_mut().find(|(known, _)| *known == key) {
            Some((_, words)) => words.push(word),
            None => found.push((key.clone(), Vec::from([word]))),
        }
    }
    any.then_some(found)
}

fn odd_backslashes(text: &str) -> bool {
    text.bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 1
}

fn unescaped(text: &str, quote: char) -> String {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' if quote == '"' => out.extend(chars.next()),
            c => out.push(c),
        }
    }
    out
}

/// The words of a command line, as a shell or a unit splits them: quotes and backslashes.
pub fn words(line: &str) -> Vec<String> {
    let mut all = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None | Some('"'), '\\') => word.get_or_insert_default().extend(chars.next()),
            (None, c) if c.is_whitespace() => all.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    all.extend(word);
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;

    fn read(text: &str) -> Vec<String> {
        let line = |s: Setting| format!("{} {} {:?}", s.table, s.name, s.values);
        parse_toml(text).unwrap().into_iter().map(line).collect()
    }

    #[test]
    fn what_is_read_of_toml() {
        for (text, wanted) in [
            ("", &[][..]),
            ("a = 1 # b = 2", &["0 a [\"1\"]"]),
            ("a = \"x # y\\\"z\" # w", &["0 a [\"x # y\\\"z\"]"]),
            ("a = 'C:\\x'", &["0 a [\"C:\\\\x\"]"]),
            (
                "a = [1, \"b\", # c\n true,\n]\nd = 2",
                &["0 a [\"1\", \"b\", \"true\"]", "0 d [\"2\"]"],
            ),
            ("a = []", &[]),
            (
                "[x.\"y\"]\n\"a b\" = 1.5\n[[z]]\nc=1\n[[z]]\nc=2",
                &["1 x.y.a b [\"1.5\"]", "2 z.c [\"1\"]", "3 z.c [\"2\"]"],
            ),
            (
                "d = [\n{ name = \"a\", at = \"b:1\" },\n{name=\"c\"}]",
                &["0 d.name [\"a\", \"c\"]", "0 d.at [\"b:1\"]"],
            ),
            (
                "e = 2026-12-31T23:59:59Z",
                &["0 e [\"2026-12-31T23:59:59Z\"]"],
            ),
        ] {
            assert_eq!(read(text), wanted, "{text}");
        }
    }

    #[test]
    fn what_is_no_toml() {
        for (text, line) in [
            ("a", 1),
            ("a = 1\n\nb", 3),
            ("a = \"x", 1),
            ("a =", 1),
            ("x = [1,\n2", 1),
        ] {
            assert_eq!(parse_toml(text), Err(line), "{text}");
        }
    }

    #[test]
    fn words_of_a_command_line() {
        let line = "/opt/a  -S 0 '-u' \"a b\" c\\ d \"e\\\"f\" ''";
        assert_eq!(
            words(line),
            ["/opt/a", "-S", "0", "-u", "a b", "c d", "e\"f", ""]
        );
    }
}
