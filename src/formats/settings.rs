//! Lines of the file of --config: `name value`, `#` begins a comment. A value in quotes of either kind is
//! taken as it stands; without, it ends before a comment, spaces at its ends don't count. Called by
//! the daemon's parser of flags, which knows the names.

/// A line that says something: a name, and its value if there is one.
pub type Setting<'a> = (&'a str, Option<&'a str>);

/// Takes a line apart; None if there is only a comment on it. An error says what was expected.
pub fn parse_line(line: &str) -> Result<Option<Setting<'_>>, &'static str> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let rest = rest.trim_start();
    for quote in ['"', '\''] {
        let Some(inner) = rest.strip_prefix(quote) else {
            continue;
        };
        let (value, behind) = inner.split_once(quote).ok_or(UNCLOSED)?;
        let behind = behind.trim_start();
        return match behind.is_empty() || behind.starts_with('#') {
            true => Ok(Some((name, Some(value)))),
            false => Err(BEHIND),
        };
    }
    let before = |(at, _)| rest.get(..at).unwrap_or_default();
    let mut fronts = rest.match_indices('#').map(before);
    let front = fronts.find(|front| front.is_empty() || front.ends_with(char::is_whitespace));
    let value = front.unwrap_or(rest).trim_end();
    Ok(Some((name, (!value.is_empty()).then_some(value))))
}

const UNCLOSED: &str = "expected a quote at the value's end, as at its beginning";
const BEHIND: &str = "expected nothing but a comment behind the value's closing quote";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_values_quotes_and_comments() {
        for (line, wanted) in [
            ("", None),
            (" \t", None),
            ("# port 1", None),
            ("  #", None),
            ("direct", Some(("direct", None))),
            (" direct \t# yes", Some(("direct", None))),
            ("port 1", Some(("port", Some("1")))),
            ("port\t 1:2  # both\r", Some(("port", Some("1:2")))),
            ("user a#b", Some(("user", Some("a#b")))),
            (
                "secret k:l:1 a=2 b=3 #c",
                Some(("secret", Some("k:l:1 a=2 b=3"))),
            ),
            ("state \" a # b \"", Some(("state", Some(" a # b ")))),
            ("state 'a\"b' # c", Some(("state", Some("a\"b")))),
            ("state \"\"#c", Some(("state", Some("")))),
            ("state it's", Some(("state", Some("it's")))),
        ] {
            assert_eq!(parse_line(line), Ok(wanted), "{line}");
        }
        for (line, wanted) in [
            ("a \"b", UNCLOSED),
            ("a 'b\"", UNCLOSED),
            ("a \"b\" c", BEHIND),
            ("a \"b\"c", BEHIND),
        ] {
            assert_eq!(parse_line(line), Err(wanted), "{line}");
        }
    }
}
