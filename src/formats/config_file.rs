//! Telegram's configuration file: which middle proxies serve which data centre (protocol.md 8).
//!
//! The daemon reads the file at start, parses it here and gets either all of it or one error; names are
//! resolved by a function that it hands in. The text comes from Telegram by an operator's download:
//! not hostile by trade, but any bytes are taken without a panic.
//!
//! ```text
//! file      = { directive }
//! directive = keyword ... ";"
//! "proxy" host ":" port              cluster 0
//! "proxy_for" int SPACE host ":" port
//! "default" int                      cluster used for unknown ids (default 0)
//! "min_connections" uint             1 .. max
//! "max_connections" uint             min .. 1000
//! "timeout" uint                     10 .. 30000 (milliseconds)
//! ```
//!
//! The last three are checked and otherwise unused. Keywords are matched by prefix, as in C. An error
//! is C's line (`parse-config.c`, `mtproto-config.c`): `NAME:LINE: fatal: TEXT near REST`. LINE is the
//! count of newlines before the error, so the second line is 1; on the first line `NAME:LINE: ` is left
//! out.

use alloc::{format, string::String, vec::Vec};
use core::fmt::Display;
use core::net::{IpAddr, SocketAddr};
use core::ops::RangeInclusive;

use crate::limits::{MAX_CLUSTERS, MAX_CONFIG_FILE, MAX_HOST, MAX_NEAR, MAX_TARGETS};
use crate::proto::wire::DcId;

/// A parsed file. At least one cluster, no cluster without a target, at most [`MAX_TARGETS`] of these.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigFile {
    /// In the file's order; at most [`MAX_CLUSTERS`], ids are distinct.
    pub clusters: Vec<Cluster>,
    /// The cluster for unknown ids. The file need not have a cluster of this id.
    pub default_dc: DcId,
}

/// The middle proxies of one data centre.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cluster {
    /// The id as the file writes it, negative for media; 0 for `proxy` lines.
    pub dc: DcId,
    /// In the file's order, at least one; repeated lines stay repeated.
    pub targets: Vec<SocketAddr>,
}

/// Turns a host name and a port into the address to dial; None if there is none.
pub type Resolve<'a> = &'a mut dyn FnMut(&str, u16) -> Option<SocketAddr>;

/// Parses the whole text of the file called `name`. `resolve` is called once for each proxy line whose
/// host is no IP literal (1..63 letters, digits, `.`, `-`, `_`). The first error ends it and nothing is
/// kept; of the file an error shows printable ASCII only.
pub fn parse(name: &str, text: &[u8], resolve: Resolve) -> Result<ConfigFile, String> {
    let mut cursor = Cursor {
        name,
        rest: text,
        newlines: 0,
    };
    if text.len() > MAX_CONFIG_FILE {
        let error = format!("configuration file longer than {MAX_CONFIG_FILE} bytes");
        return Err(cursor.fail(error));
    }
    let mut file = ConfigFile {
        clusters: Vec::new(),
        default_dc: DcId(0),
    };
    let (mut min, mut max) = (4, 8);
    cursor.skip_white();
    while !cursor.rest.is_empty() {
        if cursor.keyword("min_connections") {
            min = cursor.number(1..=max, "min connections")?;
        } else if cursor.keyword("max_connections") {
            max = cursor.number(min..=1000, "max connections")?;
        } else if cursor.keyword("timeout") {
            cursor.number(10..=30_000, "timeout")?;
        } else if cursor.keyword("default") {
            file.default_dc = cursor.dc()?;
        } else if cursor.keyword("proxy_for") {
            // Before "proxy", with which it begins.
            let dc = cursor.dc()?;
            if !cursor.rest.first().copied().is_some_and(is_blank) {
                return Err(cursor.fail("space expected after target id"));
            }
            file.add(dc, &mut cursor, resolve)?;
        } else if cursor.keyword("proxy") {
            file.add(DcId(0), &mut cursor, resolve)?;
        } else {
            return Err(cursor.fail("'proxy <ip>:<port>;' expected"));
        }
        cursor.expect(";")?;
        cursor.skip_white();
    }
    if file.clusters.is_empty() {
        let error = "expected to find a mtproto-proxy configuration with `proxy' directives";
        return Err(cursor.fail(error));
    }
    Ok(file)
}

impl ConfigFile {
    /// Reads `host:port` and adds it to the cluster of `dc`.
    fn add(&mut self, dc: DcId, cursor: &mut Cursor, resolve: Resolve) -> Result<(), String> {
        cursor.take(is_blank);
        let continues = self.clusters.last().is_some_and(|last| last.dc == dc);
        if !continues && self.clusters.iter().any(|cluster| cluster.dc == dc) {
            return Err(cursor.fail(format!("proxies for dc {} intermixed", dc.0)));
        }
        if !continues && self.clusters.len() >= MAX_CLUSTERS {
            return Err(cursor.fail("too many auth clusters"));
        }
        let targets = self.clusters.iter().map(|cluster| cluster.targets.len());
        if targets.sum::<usize>() >= MAX_TARGETS {
            return Err(cursor.fail(format!("too many targets ({MAX_TARGETS})")));
        }
        let target = cursor.target(resolve)?;
        match self.clusters.last_mut().filter(|_| continues) {
            Some(cluster) => cluster.targets.push(target),
            None => self.clusters.push(Cluster {
                dc,
                targets: Vec::from([target]),
            }),
        }
        Ok(())
    }
}

/// The parser's position.
#[derive(Clone, Copy)]
struct Cursor<'a> {
    /// The file's.
    name: &'a str,
    rest: &'a [u8],
    newlines: usize,
}

impl<'a> Cursor<'a> {
    /// The line that says what is wrong here.
    fn fail(&self, what: impl Display) -> String {
        let line = self.rest.split(|byte| matches!(byte, b'\r' | b'\n')).next();
        let near = line.unwrap_or_default().iter().take(MAX_NEAR);
        let shown = near.map(|byte| match byte {
            b' '..=b'~' => char::from(*byte),
            _ => '?', // it may reach a terminal
        });
        let shown = String::from_iter(shown);
        match self.newlines {
            0 => format!("fatal: {what} near {shown}"),
            line => format!("{}:{line}: fatal: {what} near {shown}", self.name),
        }
    }

    /// The bytes in front that `wanted` accepts, maybe none; newlines are counted.
    fn take(&mut self, wanted: fn(u8) -> bool) -> &'a str {
        let length = self.rest.iter().take_while(|byte| wanted(**byte)).count();
        let (taken, rest) = self.rest.split_at_checked(length).unwrap_or_default();
        let newlines = taken.iter().filter(|byte| **byte == b'\n').count();
        self.newlines = self.newlines.saturating_add(newlines);
        self.rest = rest;
        core::str::from_utf8(taken).unwrap_or_default()
    }

    /// White space and comments.
    fn skip_white(&mut self) {
        self.take(is_white);
        while self.rest.first() == Some(&b'#') {
            self.take(|byte| byte != b'\n');
            self.take(is_white);
        }
    }

    fn keyword(&mut self, word: &str) -> bool {
        let rest = self.rest.strip_prefix(word.as_bytes());
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    /// `what` after white space.
    fn expect(&mut self, what: &str) -> Result<(), String> {
        self.skip_white();
        match self.keyword(what) {
            true => Ok(()),
            false => Err(self.fail(format!("{what} expected"))),
        }
    }

    /// Digits in front, None if there are none; huge numbers become u32::MAX.
    fn digits(&mut self) -> Option<u32> {
        let digits = self.take(|byte| byte.is_ascii_digit());
        (!digits.is_empty()).then(|| digits.parse().unwrap_or(u32::MAX))
    }

    /// An unsigned number of `range` after white space.
    fn number(&mut self, range: RangeInclusive<u32>, what: &str) -> Result<u32, String> {
        self.skip_white();
        let at = *self;
        let value = self.digits().filter(|value| range.contains(value));
        value.ok_or_else(|| at.fail(format!("invalid {what}")))
    }

    /// A data-centre id after white space.
    fn dc(&mut self) -> Result<DcId, String> {
        self.skip_white();
        let at = *self;
        let negative = self.keyword("-");
        let magnitude = self.digits().map(i64::from);
        let value = magnitude.map(|m| if negative { m.saturating_neg() } else { m });
        let id = value.and_then(|value| i16::try_from(value).ok());
        id.map(DcId).ok_or_else(|| {
            at.fail("invalid target id (only integers between -32768 and 32767 are allowed)")
        })
    }

    /// `host:port`, and its address.
    fn target(&mut self, resolve: Resolve) -> Result<SocketAddr, String> {
        let at = *self;
        let host = self.host();
        if host.is_empty() || host.len() > MAX_HOST {
            return Err(at.fail("hostname expected"));
        }
        let unknown = || at.fail(format!("cannot resolve '{host}'"));
        let literal = match host.strip_prefix('[') {
            Some(rest) => {
                let ip = rest.strip_suffix(']').and_then(|ip| ip.parse().ok());
                Some(IpAddr::V6(ip.ok_or_else(unknown)?))
            }
            None => host.parse().ok().map(IpAddr::V4),
        };
        self.expect(":")?;
        let port = self.port()?;
        let address = match literal {
            Some(ip) => Some(SocketAddr::new(ip, port)),
            None => resolve(host, port),
        };
        address.ok_or_else(unknown)
    }

    /// A host with its brackets; the closing one may be missing.
    fn host(&mut self) -> &'a str {
        let start = self.rest;
        if self.keyword("[") {
            self.take(|byte| is_host(byte) || byte == b':');
            self.keyword("]");
        } else {
            self.take(is_host);
        }
        let length = start.len().saturating_sub(self.rest.len());
        core::str::from_utf8(start.get(..length).unwrap_or_default()).unwrap_or_default()
    }

    fn port(&mut self) -> Result<u16, String> {
        self.take(is_blank);
        let at = *self;
        match self.digits().unwrap_or(0) {
            0 => Err(at.fail("port number expected")),
            port => {
                u16::try_from(port).map_err(|_| at.fail(format!("port number {port} out of range")))
            }
        }
    }
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

fn is_white(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

fn is_host(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_')
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    /// Today's shape (protocol.md 8.4).
    const TODAY: &str = "# force_probability 10 10
default 2;
proxy_for 1 149.154.175.50:8888;
proxy_for -1 149.154.175.50:8888;
proxy_for 2 149.154.161.144:8888;
proxy_for -2 149.154.161.184:8888;
proxy_for 203 91.105.192.110:443;
proxy_for -203 91.105.192.110:443;
proxy_for 3 149.154.175.100:8888;
proxy_for -3 149.154.175.100:8888;
proxy_for 4 91.108.4.212:8888;
proxy_for 4 91.108.4.139:8888;
proxy_for -4 149.154.164.250:8888;
proxy_for -4 149.154.165.109:8888;
proxy_for 5 91.108.56.152:8888;
proxy_for 5 91.108.56.117:8888;
proxy_for -5 91.108.56.152:8888;
proxy_for -5 91.108.56.117:8888;
";

    fn parse_text(text: &str) -> Result<ConfigFile, String> {
        parse("conf", text.as_bytes(), &mut |_, _| None)
    }

    /// The error line for a file that is called `conf`.
    fn error_line(text: &str) -> String {
        parse_text(text).unwrap_err()
    }

    fn targets(file: &ConfigFile) -> usize {
        file.clusters.iter().map(|c| c.targets.len()).sum()
    }

    fn addresses(file: &ConfigFile) -> Vec<(i16, Vec<String>)> {
        let texts = |c: &Cluster| c.targets.iter().map(|t| format!("{t}")).collect();
        file.clusters.iter().map(|c| (c.dc.0, texts(c))).collect()
    }

    #[test]
    fn the_verdicts_of_the_c_proxy() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/config");
        let (mut good, mut bad) = (0, 0);
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = String::from(path.file_name().unwrap().to_str().unwrap());
            let result = parse("conf", &std::fs::read(&path).unwrap(), &mut |_, _| None);
            match name.split('-').next() {
                Some("ok") => good += usize::from(result.is_ok()),
                Some("bad") => bad += usize::from(result.is_err()),
                _ => panic!("{name} is neither ok-* nor bad-*"),
            }
            let verdict = if result.is_ok() { "ok-" } else { "bad-" };
            assert!(name.starts_with(verdict), "{name}: {result:?}");
        }
        assert_eq!((good, bad), (6, 14));
    }

    #[test]
    fn todays_file() {
        let file = parse_text(TODAY).unwrap();
        assert_eq!((file.default_dc, targets(&file)), (DcId(2), 16));
        let ids: Vec<i16> = file.clusters.iter().map(|c| c.dc.0).collect();
        assert_eq!(ids, [1, -1, 2, -2, 203, -203, 3, -3, 4, -4, 5, -5]);
        let four = &file.clusters[8].targets;
        let wanted = ["91.108.4.212:8888", "91.108.4.139:8888"];
        assert_eq!(four, &wanted.map(|t| t.parse().unwrap()));
    }

    #[test]
    fn white_space_comments_and_prefixes() {
        let wanted = [(0, vec![String::from("1.2.3.4:80")])];
        for text in [
            "proxy 1.2.3.4:80;",
            "proxy1.2.3.4:80;",
            "\t\r\n proxy \t1.2.3.4\r\n\t:\t 80 # why\n;#",
            "#x;\n#y\nproxy 1.2.3.4 # host\n # and port\n:80#port\n;# no line end",
            "default#x\n2;proxy 1.2.3.4:80;",
            "default2;min_connections1;max_connections1000;timeout30000;proxy 1.2.3.4:80;",
            "timeout\n10;proxy 1.2.3.4:080;",
        ] {
            let file = parse_text(text).unwrap_or_else(|e| panic!("{text:?}: {e}"));
            assert_eq!(addresses(&file), wanted, "{text:?}");
        }
    }

    #[test]
    fn ids_reach_both_ends_of_16_bits() {
        let file =
            parse_text("default -32768;proxy_for-32768\t1.2.3.4:1;proxy_for 32767  5.6.7.8:65535;");
        let file = file.unwrap();
        assert_eq!(file.default_dc, DcId(-32768));
        let wanted = [
            (-32768, vec!["1.2.3.4:1".into()]),
            (32767, vec!["5.6.7.8:65535".into()]),
        ];
        assert_eq!(addresses(&file), wanted);
        // `proxy` and `proxy_for 0` are one cluster; repeated lines count.
        let file = parse_text("proxy 1.2.3.4:1;proxy_for -0 1.2.3.4:1;").unwrap();
        assert_eq!((file.clusters.len(), targets(&file)), (1, 2));
        assert_eq!(file.clusters[0].targets.len(), 2);
    }

    #[test]
    fn names_are_resolved_once_with_their_port() {
        let mut asked = vec![];
        let text = b"proxy_for 1 a-b_c.example:80;proxy_for 1 1.2.3.4:9;proxy_for 1 [::1]:9;proxy_for 2 1.2.3:7;";
        let file = parse("conf", text, &mut |name, port| {
            asked.push((String::from(name), port));
            Some(SocketAddr::from(([192, 0, 2, 1], port)))
        });
        let file = file.unwrap();
        assert_eq!(asked, [("a-b_c.example".into(), 80), ("1.2.3".into(), 7)]);
        let first = ["192.0.2.1:80", "1.2.3.4:9", "[::1]:9"].map(String::from);
        assert_eq!(addresses(&file)[0], (1, Vec::from(first)));
    }

    #[test]
    fn every_error_has_its_text_and_place() {
        for (text, wanted) in [
            ("proxy 1.2.3.4:80", "fatal: ; expected near "),
            (
                "proxy 1.2.3.4:80\n\nproxy",
                "conf:2: fatal: ; expected near proxy",
            ),
            (
                "proxy 1.2.3.4:80 123456789012345678901;",
                "fatal: ; expected near 12345678901234567890",
            ),
            ("proxy 1.2.3.4;", "fatal: : expected near ;"),
            (
                "proxy 1.2.3.4\n#\n80;",
                "conf:2: fatal: : expected near 80;",
            ),
            (
                "#\nproxy_fo 1.2.3.4:80;",
                "conf:1: fatal: : expected near 1.2.3.4:80;",
            ),
            ("proxy :80;", "fatal: hostname expected near :80;"),
            ("proxy\n1.2.3.4:80;", "fatal: hostname expected near "),
            ("proxy #x\n1.2.3.4:80;", "fatal: hostname expected near #x"),
            (
                "\nproxy  host:80;\n",
                "conf:1: fatal: cannot resolve 'host' near host:80;",
            ),
            (
                "proxy [::1:80;",
                "fatal: cannot resolve '[::1:80' near [::1:80;",
            ),
            (
                "proxy [::1 :80;",
                "fatal: cannot resolve '[::1' near [::1 :80;",
            ),
            ("proxy []:80;", "fatal: cannot resolve '[]' near []:80;"),
            (
                "proxy [1.2.3.4]:80;",
                "fatal: cannot resolve '[1.2.3.4]' near [1.2.3.4]:80;",
            ),
            ("proxy 1.2.3.4:;", "fatal: port number expected near ;"),
            ("proxy 1.2.3.4:\n80;", "fatal: port number expected near "),
            ("proxy 1.2.3.4:0;", "fatal: port number expected near 0;"),
            ("proxy 1.2.3.4:-1;", "fatal: port number expected near -1;"),
            (
                "proxy 1.2.3.4:65536;",
                "fatal: port number 65536 out of range near 65536;",
            ),
            ("timeout 9;", "fatal: invalid timeout near 9;"),
            ("timeout 30001;", "fatal: invalid timeout near 30001;"),
            ("timeout;", "fatal: invalid timeout near ;"),
            ("timeout -10;", "fatal: invalid timeout near -10;"),
            (
                "timeout 18446744073709551626;",
                "fatal: invalid timeout near 18446744073709551626",
            ),
            (
                "min_connections 0;",
                "fatal: invalid min connections near 0;",
            ),
            (
                "min_connections 9;",
                "fatal: invalid min connections near 9;",
            ),
            (
                "max_connections 3;",
                "fatal: invalid max connections near 3;",
            ),
            (
                "max_connections 1001;",
                "fatal: invalid max connections near 1001;",
            ),
            (
                "max_connections 4;min_connections 5;",
                "fatal: invalid min connections near 5;",
            ),
            ("foo 1;", "fatal: 'proxy <ip>:<port>;' expected near foo 1;"),
            (";", "fatal: 'proxy <ip>:<port>;' expected near ;"),
            (
                "\n\r\nPROXY 1.2.3.4:80;",
                "conf:2: fatal: 'proxy <ip>:<port>;' expected near PROXY 1.2.3.4:80;",
            ),
            (
                "\u{1b}[31m\0\t\u{e9}x\rz\n",
                "fatal: 'proxy <ip>:<port>;' expected near ?[31m????x",
            ),
        ] {
            assert_eq!(error_line(text), wanted, "{text:?}");
        }
    }

    #[test]
    fn errors_of_ids_and_whole_files() {
        let id =
            "fatal: invalid target id (only integers between -32768 and 32767 are allowed) near";
        for (text, near) in [
            ("proxy_for 32768 1.2.3.4:80;", "32768 1.2.3.4:80;"),
            ("proxy_for -32769 1.2.3.4:80;", "-32769 1.2.3.4:80;"),
            (
                "proxy_for 99999999999999999999 1.2.3.4:80;",
                "99999999999999999999",
            ),
            ("proxy_for - 1 1.2.3.4:80;", "- 1 1.2.3.4:80;"),
            ("proxy_for host:80;", "host:80;"),
            ("default;", ";"),
            ("default +2;", "+2;"),
        ] {
            assert_eq!(error_line(text), format!("{id} {near}"));
        }
        let mixed = "proxy_for 1 1.2.3.4:8;\nproxy_for 2 1.2.3.4:8;\nproxy_for 1  1.2.3.4:8;";
        let none =
            "fatal: expected to find a mtproto-proxy configuration with `proxy' directives near ";
        for (text, wanted) in [
            (
                "proxy_for 2\n1.2.3.4:80;",
                "fatal: space expected after target id near ",
            ),
            (
                "proxy_for 2#\n1.2.3.4:80;",
                "fatal: space expected after target id near #",
            ),
            (
                mixed,
                "conf:2: fatal: proxies for dc 1 intermixed near 1.2.3.4:8;",
            ),
            ("", none),
            ("#", none),
            ("default 2;\n", &format!("conf:1: {none}")),
        ] {
            assert_eq!(error_line(text), wanted);
        }
    }

    #[test]
    fn a_failed_min_or_max_needs_the_right_order() {
        assert!(parse_text("max_connections 1000;min_connections 1000;proxy 1.2.3.4:1;").is_ok());
        assert!(parse_text("min_connections 8;max_connections 8;proxy 1.2.3.4:1;").is_ok());
        assert!(parse_text("min_connections 10;max_connections 20;proxy 1.2.3.4:1;").is_err());
    }

    #[test]
    fn a_missing_cluster_as_default_is_no_error() {
        let file = parse_text("default 7;proxy 1.2.3.4:80;default 8;").unwrap();
        assert_eq!(file.default_dc, DcId(8));
    }

    #[test]
    fn at_most_4096_lines() {
        let line = "proxy 192.0.2.1:80;\n";
        assert_eq!(targets(&parse_text(&line.repeat(4096)).unwrap()), 4096);
        let wanted = "conf:4096: fatal: too many targets (4096) near 192.0.2.1:80;";
        assert_eq!(error_line(&line.repeat(4097)), wanted);
    }

    #[test]
    fn at_most_1024_clusters() {
        let line = |id: usize| format!("proxy_for {id} 192.0.2.1:80;\n");
        let mut text: String = (1..=1024).map(line).collect();
        assert_eq!(parse_text(&text).unwrap().clusters.len(), 1024);
        // The last one may still grow.
        let more = parse_text(&format!("{text}{}", line(1024))).unwrap();
        assert_eq!(targets(&more), 1025);
        text.push_str(&line(1025));
        let wanted = "conf:1024: fatal: too many auth clusters near 192.0.2.1:80;";
        assert_eq!(error_line(&text), wanted);
    }

    #[test]
    fn a_host_has_1_to_63_characters() {
        let mut resolve = |_: &str, port| Some(SocketAddr::from(([192, 0, 2, 1], port)));
        let line = |length| format!("proxy {}:80;", "h".repeat(length));
        assert!(parse("conf", line(1).as_bytes(), &mut resolve).is_ok());
        assert!(parse("conf", line(63).as_bytes(), &mut resolve).is_ok());
        let wanted = format!("fatal: cannot resolve '{0:h<63}' near {0:h<20}", "");
        assert_eq!(error_line(&line(63)), wanted);
        let error = parse("conf", line(64).as_bytes(), &mut resolve).unwrap_err();
        assert!(error.starts_with("fatal: hostname expected near hhh"));
    }

    #[test]
    fn at_most_16_mebibytes() {
        let mut text = vec![b'\n'; MAX_CONFIG_FILE];
        text[..17].copy_from_slice(b"proxy 1.2.3.4:80;");
        assert!(parse("conf", &text, &mut |_, _| None).is_ok());
        text.push(b'\n');
        let error = parse("conf", &text, &mut |_, _| None).unwrap_err();
        let wanted = "fatal: configuration file longer than 16777216 bytes near proxy 1.2.3.4:80;";
        assert_eq!(error, wanted);
    }

    #[test]
    fn no_truncation_and_no_odd_byte_panics() {
        let mut resolve = |_: &str, port| Some(SocketAddr::from(([192, 0, 2, 1], port)));
        let text = format!(
            "{TODAY}min_connections 1;max_connections 9;timeout 10;proxy [::1]:1;proxy a.b:2;"
        );
        let text = text.as_bytes();
        for length in 0..text.len() {
            // Cut after a semicolon it is a shorter file; anywhere else nothing of it is taken.
            let cut = text[..length].trim_ascii_end();
            let result = parse("n", cut, &mut resolve);
            assert!(result.is_err() || cut.ends_with(b";"), "{length}");
        }
        let mut odd = text.to_vec();
        for place in 0..odd.len() {
            for byte in [0, b'\n', b'#', b'-', b';', b':', b'[', b'9', 0xff] {
                odd[place] = byte;
                if let Err(error) = parse("n", &odd, &mut resolve) {
                    assert!(error.contains("fatal: "));
                }
            }
            odd[place] = text[place];
        }
    }
}
