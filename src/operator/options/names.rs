//! How a flag is found by the name that was typed, and what is said of an unknown name. Called by `parse`.
//! What was typed may be a misplaced secret: a name as long as one isn't repeated.

use super::config::UsageError;
use super::flag::Flag;
use super::table::FLAGS;

/// The C program's flags that this program doesn't have, with spaces between names, and why little is lost.
const FLAGS_OF_C: &[(&str, &str)] = &[
    (
        "-d --daemonize",
        "a service manager keeps programs in the background",
    ),
    ("-l --log", "messages go to standard error"),
    ("--nice", "a service manager sets it"),
    (
        "--disable-tcp",
        "without -p there is no port for statistics",
    ),
    ("--crc32c", "it is on anyway"),
    (
        "--cpu-threads --io-threads --multithread --tcp-cpu-threads --tcp-iothreads",
        "clients have threads of their own",
    ),
    ("--allow-skip-dh --force-dh", "it had no effect"),
    ("--max-accept-rate", "-C bounds the number of clients"),
    ("--max-dh-accept-rate", "what it is for isn't served"),
];

/// The row of a long name or of an unambiguous beginning of one.
pub fn find_long(name: &str) -> Result<&'static Flag, UsageError> {
    if let Some(flag) = FLAGS.iter().find(|flag| flag.long() == name) {
        return Ok(flag);
    }
    let starts = |flag: &&Flag| !name.is_empty() && flag.long().starts_with(name);
    let matching: Vec<&'static Flag> = FLAGS.iter().filter(starts).collect();
    match matching.as_slice() {
        [flag] => Ok(flag),
        [] => Err(unknown_long(name)),
        several => {
            let names: Vec<String> = several.iter().map(|f| format!("--{}", f.long())).collect();
            let text = format!("--{name} may mean {}", names.join(" or "));
            Err(UsageError::new(text))
        }
    }
}

/// Flags of the C program that aren't here and have a value.
const VALUES_OF_C: &str = "-l --log --cpu-threads --io-threads --tcp-cpu-threads --tcp-iothreads --max-accept-rate \
                           --max-dh-accept-rate";

/// Whether this flag of the C program, which isn't here, has a value.
pub fn takes_value_in_c(name: &str) -> bool {
    VALUES_OF_C.split(' ').any(|known| known == name)
}

/// Whether there is a flag of exactly this long name.
pub fn is_known(name: &str) -> bool {
    FLAGS.iter().any(|flag| flag.long() == name)
}

/// The row of a letter.
pub fn find_short(letter: char) -> Result<&'static Flag, UsageError> {
    let known = |letter: char| FLAGS.iter().find(|flag| flag.short() == Some(letter));
    if let Some(flag) = known(letter) {
        return Ok(flag);
    }
    let upper = known(letter.to_ascii_uppercase());
    let other_case = upper.or_else(|| known(letter.to_ascii_lowercase()));
    let hint = other_case.map(|flag| format!("did you mean {}?", flag.label()));
    Err(unknown(&format!("-{letter}"), hint))
}

fn unknown_long(name: &str) -> UsageError {
    let near = FLAGS.iter().filter(|flag| is_near(name, flag.long()));
    let near = near.min_by_key(|flag| distance(name, flag.long()));
    let hint = near.map(|flag| format!("the nearest known one is {}", flag.label()));
    let shown = if name.len() < SHORTEST_SECRET {
        name
    } else {
        "..."
    };
    unknown(&format!("--{shown}"), hint)
}

fn unknown(name: &str, hint: Option<String>) -> UsageError {
    let is_named = |names: &str| names.split(' ').any(|known| known == name);
    let of_c = FLAGS_OF_C.iter().find(|(names, _)| is_named(names));
    UsageError::new(match of_c {
        Some((_, why)) => format!("{name}: the C program's flag; not supported here yet: {why}"),
        None => {
            let hint = hint.unwrap_or("--help lists all".into());
            format!("unknown flag {name}; {hint}")
        }
    })
}

/// Whether `typed` is probably meant to be this flag: a typing error or two away from it (one for short
/// names), or its name with something behind. Anything more would suggest flags that mean something else.
fn is_near(typed: &str, long: &str) -> bool {
    let most = (long.len() / 3).clamp(1, 2);
    distance(typed, long) <= most || (long.len() >= 4 && typed.starts_with(long))
}

/// Insertions, deletions and replacements of characters that make `a` into `b`.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, to) in b.chars().enumerate() {
            let replaced = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row.last().copied().unwrap_or(0)
}

/// Characters of the shortest secret: 16 bytes in base64url.
pub const SHORTEST_SECRET: usize = 22;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_that_mean_something_else_are_not_suggested() {
        let text = |name: &str| find_long(name).err().map(|error| error.text);
        for (name, wanted) in [
            (
                "ip-allowlist",
                "unknown flag --ip-allowlist; --help lists all",
            ),
            ("host", "unknown flag --host; --help lists all"),
            (
                "domain-name",
                "unknown flag --domain-name; the nearest known one is -D/--domain",
            ),
            (
                "mask-proxy-protocoll",
                "unknown flag --mask-proxy-protocoll; the nearest known one is --mask-proxy-protocol",
            ),
            ("prot", "unknown flag --prot; --help lists all"),
            (
                "prt",
                "unknown flag --prt; the nearest known one is -p/--port",
            ),
            (
                "allow-skip-dh",
                "--allow-skip-dh: the C program's flag; not supported here yet: it had no effect",
            ),
            (
                "multithread",
                "--multithread: the C program's flag; not supported here yet: clients have threads of \
                 their own",
            ),
        ] {
            assert_eq!(text(name).as_deref(), Some(wanted));
        }
        for (names, _) in FLAGS_OF_C {
            for name in names.split(' ') {
                let error = match name.strip_prefix("--") {
                    Some(long) => find_long(long).err(),
                    None => find_short(name.chars().nth(1).unwrap()).err(),
                };
                let start = format!("{name}: the C program's flag;");
                assert!(
                    error.is_some_and(|error| error.text.starts_with(&start)),
                    "{name}"
                );
            }
        }
    }

    #[test]
    fn distances() {
        for (a, b, wanted) in [
            ("", "", 0),
            ("a", "", 1),
            ("", "ab", 2),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(distance(a, b), wanted);
        }
    }
}
