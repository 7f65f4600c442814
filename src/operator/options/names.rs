//! How a flag is found by the name that was typed, and what is said of an unknown name. Called by `parse`.
//! What was typed may be a misplaced secret: a name as long as one isn't repeated.

use super::config::UsageError;
use super::flag::{Apply, Flag};
use super::table::FLAGS;

/// The long names of the C program's flags. Scripts shorten them as far as they are unique there.
const OF_C: &str = "ipv6 max-special-connections domain http-ports slaves proxy-tag mtproto-secret ping-interval \
                    window-clamp backlog connections daemonize help log port user verbosity aes-pwd nice \
                    msg-buffers-size disable-tcp crc32c cpu-threads io-threads multithread tcp-cpu-threads \
                    tcp-iothreads allow-skip-dh force-dh max-accept-rate max-dh-accept-rate nat-info address \
                    http-stats";

/// The row of a long name or of an unambiguous beginning of one: of one flag of the C program, or else of one
/// flag of all.
pub fn find_long(name: &str) -> Result<&'static Flag, UsageError> {
    if let Some(flag) = FLAGS.iter().find(|flag| flag.long() == name) {
        return Ok(flag);
    }
    let starts = |flag: &&Flag| !name.is_empty() && flag.long().starts_with(name);
    let matching: Vec<&'static Flag> = FLAGS.iter().filter(starts).collect();
    let is_of_c = |flag: &&&Flag| OF_C.split(' ').any(|known| known == flag.long());
    let mut of_c = matching.iter().filter(is_of_c);
    if let (Some(flag), None) = (of_c.next(), of_c.next()) {
        return Ok(flag);
    }
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

/// The row of a name in the file of --config, which is not shortened there.
pub fn find_name(name: &str) -> Result<&'static Flag, UsageError> {
    let mut rows = FLAGS.iter().filter(|flag| is_setting(flag));
    rows.find(|flag| flag.long() == name).ok_or_else(|| {
        let near = nearest(name).filter(|flag| is_setting(flag));
        let hint = near.map(|flag| format!("the nearest known one is {}", flag.long()));
        let hint = hint.unwrap_or("mtproxy config prints a sample".into());
        UsageError::new(format!("unknown name {}; {hint}", shown(name)))
    })
}

/// Whether a flag may stand in the file.
fn is_setting(flag: &Flag) -> bool {
    !matches!(flag.apply, Apply::Instead(_)) && flag.long() != "config"
}

fn unknown_long(name: &str) -> UsageError {
    let near = nearest(name);
    let hint = near.map(|flag| format!("the nearest known one is {}", flag.label()));
    unknown(&format!("--{}", shown(name)), hint)
}

fn nearest(name: &str) -> Option<&'static Flag> {
    let near = FLAGS.iter().filter(|flag| is_near(name, flag.long()));
    near.min_by_key(|flag| distance(name, flag.long()))
}

/// What was typed, unless it may be a secret.
fn shown(name: &str) -> &str {
    match name.len() < SHORTEST_SECRET {
        true => name,
        false => "...",
    }
}

fn unknown(name: &str, hint: Option<String>) -> UsageError {
    let hint = hint.unwrap_or("--help lists all".into());
    UsageError::new(format!("unknown flag {name}; {hint}"))
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
        ] {
            assert_eq!(text(name).as_deref(), Some(wanted));
        }
    }

    #[test]
    fn the_c_programs_abbreviations_mean_what_they_mean_there() {
        for (name, wanted) in [
            ("proxy", "proxy-tag"),
            ("pr", "proxy-tag"),
            ("pi", "ping-interval"),
            ("s", "slaves"),
            ("u", "user"),
            ("l", "log"),
            ("w", "window-clamp"),
            ("ve", "verbosity"),
            ("co", "connections"),
            ("al", "allow-skip-dh"),
            ("di", "disable-tcp"),
            ("ip", "ipv6"),
            ("max-s", "max-special-connections"),
            ("max-a", "max-accept-rate"),
            // Flags that are only here, by what the C program's don't begin with.
            ("conf", "config"),
            ("proxy-p", ""),
            ("proxy-c", "proxy-config"),
            ("vers", "version"),
            ("dir", "direct"),
            ("allow-p", "allow-plain"),
            // Ambiguous in the C program too.
            ("p", ""),
            ("max", ""),
            ("http", ""),
            ("", ""),
        ] {
            let found = find_long(name).map_or("", |flag| flag.long());
            assert_eq!(found, wanted, "--{name}");
        }
        for name in OF_C.split(' ') {
            assert!(is_known(name), "{name}");
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
