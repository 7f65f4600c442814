//! The help: the commands, and an entry for each row of the table.

use super::table::FLAGS;
use std::fmt::Write;

/// The usage text: one entry for each row of the table.
pub fn help() -> String {
    let mut text = String::from(USAGE);
    for flag in FLAGS {
        let indent = if flag.short().is_some() {
            "  "
        } else {
            "      "
        };
        let _ = write!(text, "{indent}{}\n       ", flag.spelling);
        let mut column = 7;
        for word in flag.help.split(' ') {
            if column + 1 + word.len() > HELP_WIDTH {
                text.push_str("\n       ");
                column = 7;
            }
            let _ = write!(text, " {word}");
            column += 1 + word.len();
        }
        text.push('\n');
    }
    text
}

/// What begins the help.
const USAGE: &str = "usage: mtproxy [-H PORT] [-S SECRET] [-D DOMAIN] [FLAGS]
       mtproxy -H PORT -S SECRET [-P TAG] --aes-pwd FILE [FLAGS] CONFIG
       mtproxy COMMAND ...

Without CONFIG clients are taken straight to Telegram, and without -S a secret is
made up and its link shown. With -D the proxy passes for a web site (fake TLS).
CONFIG is Telegram's list of middle proxies, https://core.telegram.org/getProxyConfig,
and FILE https://core.telegram.org/getProxySecret. Both change: fetch them daily.
Commands:
  run                      what is done without a command
  link FLAGS [--qr]        print the links of a server with these flags
  secret [DOMAIN]          make up a secret, for fake TLS with a domain
  doctor FLAGS [CONFIG]    look whether a server with these flags can work
  ping LINK                try any proxy by its link
  service systemd|openwrt|docker FLAGS [CONFIG]    print what starts the server
  service nginx|caddy --web HOST    print the configuration of its web server
  migrate FILE             print the flags for a configuration of teleproxy, mtg,
                           telemt or the C program
  config                   print a sample for --config
  help                     print this text
doctor, ping, service and migrate have a --help of their own. Flags:

";

/// Columns of the help.
const HELP_WIDTH: usize = 80;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_shows_every_row_within_its_width() {
        let help = help();
        let words: Vec<&str> = help.split_whitespace().collect();
        let words = words.join(" ");
        for flag in FLAGS {
            assert!(words.contains(&format!("{} {}", flag.spelling, flag.help)));
        }
        let table = help.splitn(3, "\n\n").nth(2).unwrap();
        let fits = |line: &str| line.len() <= HELP_WIDTH && line == line.trim_end();
        assert!(table.lines().all(fits));
    }

    /// The rows as the README shows them.
    fn markdown() -> String {
        let mut text = String::from("| flag | value | meaning |\n|---|---|---|\n");
        for flag in FLAGS {
            let end = flag.spelling.find(flag.long()).unwrap_or(0) + flag.long().len();
            let (names, value) = flag.spelling.split_at(end);
            let names = names.replace(", ", "`, `");
            let value = match value.trim() {
                "" => String::new(),
                value => format!("`{value}` "),
            };
            let _ = writeln!(text, "| `{names}` | {value}| {} |", flag.help);
        }
        text
    }

    #[test]
    fn readme_has_this_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
        let readme = std::fs::read_to_string(path).unwrap_or_default();
        let section = readme
            .split_once("<!-- options:begin -->\n")
            .and_then(|(_, rest)| rest.split_once("<!-- options:end -->"))
            .map(|(section, _)| section);
        let wanted = markdown();
        assert!(
            section.map(str::trim) == Some(wanted.trim()),
            "README.md between <!-- options:begin --> and <!-- options:end --> must be:\n\n{wanted}"
        );
    }
}
