//! Telegram's configuration file: which middle proxies serve which data centre (protocol.md 8).
//!
//! The daemon reads the file (at start and at a reload), parses it here and either gets all of it or
//! one error; names are resolved by a function that it hands in. The text comes from Telegram over
//! an operator's download: not hostile by trade, but any bytes are taken without a panic.
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
//! The last three are checked and otherwise unused. Keywords are matched by prefix, as in C. Error
//! texts and line numbers are C's (`parse-config.c`, `mtproto-config.c`): a line number is the count
//! of newlines before the error, so the first line has none and the second is 1.

use self::ConfigErrorKind as Kind;
use crate::limits::{MAX_CLUSTERS, MAX_CONFIG_FILE, MAX_HOST, MAX_NEAR, MAX_TARGETS};
use crate::proto::wire::DcId;
use alloc::{format, string::String, vec::Vec};
use core::fmt;
use core::net::{IpAddr, SocketAddr};
use core::ops::RangeInclusive;

/// A parsed file. At least one cluster, and no cluster without a target.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigFile {
    /// In the file's order; at most [`MAX_CLUSTERS`], ids are distinct.
    pub clusters: Vec<Cluster>,
    /// The cluster for unknown ids. The file need not have a cluster of this id.
    pub default_dc: DcId,
    /// Proxy lines of the file, at most [`MAX_TARGETS`].
    pub targets: usize,
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

/// Parses a whole file. `resolve` is called once for each proxy line whose host is no IP literal
/// (1..63 letters, digits, `.`, `-`, `_`). The first error ends it and nothing is kept.
pub fn parse(text: &[u8], resolve: Resolve) -> Result<ConfigFile, ConfigError> {
    let (rest, newlines) = (text, 0);
    let mut cursor = Cursor { rest, newlines };
    if text.len() > MAX_CONFIG_FILE {
        return Err(cursor.fail(Kind::TooLong));
    }
    let file = ConfigFile {
        clusters: Vec::new(),
        default_dc: DcId(0),
        targets: 0,
    };
    let mut parser = Parser {
        file,
        min_connections: 4,
        max_connections: 8,
    };
    cursor.skip_white();
    while !cursor.rest.is_empty() {
        parser.directive(&mut cursor, resolve)?;
        cursor.expect(b';')?;
        cursor.skip_white();
    }
    if parser.file.targets == 0 {
        return Err(cursor.fail(Kind::NoProxies));
    }
    Ok(parser.file)
}

/// What is wrong with a file, and where.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ConfigError {
    /// Newlines before the error; None while on the first line.
    pub line: Option<u32>,
    /// What is wrong.
    pub kind: ConfigErrorKind,
    /// Up to 20 characters of what follows on the line; anything but printable ASCII is a `?`.
    pub near: Excerpt<MAX_NEAR>,
}

impl ConfigError {
    /// The C proxy's line: `NAME:LINE: fatal: TEXT near REST`, on the first line without `NAME:LINE: `.
    pub fn render(&self, file_name: &str) -> String {
        let place = self.line.map(|line| format!("{file_name}:{line}: "));
        format!("{}{self}", place.unwrap_or_default())
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "fatal: {} near {}", self.kind, self.near.as_str())
    }
}

/// The ways a file can be wrong. `Display` gives the C proxy's text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConfigErrorKind {
    /// `:` or `;` is missing.
    Expected(char),
    /// No host, or one of more than 63 characters.
    HostnameExpected,
    /// An unknown name, or a `[` that holds no IPv6 address or isn't closed.
    CannotResolve(Excerpt<MAX_HOST>),
    /// No port, or 0.
    PortExpected,
    /// A port above 65535 (at most u32::MAX is shown).
    PortOutOfRange(u32),
    /// No number, or outside -32768..32767.
    InvalidTargetId,
    /// Neither a space nor a tab after the target id.
    SpaceExpected,
    /// Lines of another cluster stand between those of this one.
    Intermixed(DcId),
    /// More than [`MAX_TARGETS`] proxy lines.
    TooManyTargets,
    /// More than [`MAX_CLUSTERS`] distinct ids.
    TooManyClusters,
    /// A timeout, minimum or maximum (this word) without a number, or outside its range.
    Invalid(&'static str),
    /// A directive begins with no keyword.
    UnknownKeyword,
    /// A file without any proxy line.
    NoProxies,
    /// More than [`MAX_CONFIG_FILE`] bytes.
    TooLong,
}

impl fmt::Display for ConfigErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Expected(what) => write!(f, "{what} expected"),
            Self::HostnameExpected => f.write_str("hostname expected"),
            Self::CannotResolve(host) => write!(f, "cannot resolve '{}'", host.as_str()),
            Self::PortExpected => f.write_str("port number expected"),
            Self::PortOutOfRange(port) => write!(f, "port number {port} out of range"),
            Self::InvalidTargetId => f.write_str(INVALID_ID),
            Self::SpaceExpected => f.write_str("space expected after target id"),
            Self::Intermixed(dc) => write!(f, "proxies for dc {} intermixed", dc.0),
            Self::TooManyTargets => write!(f, "too many targets ({MAX_TARGETS})"),
            Self::TooManyClusters => f.write_str("too many auth clusters"),
            Self::Invalid(what) => write!(f, "invalid {what}"),
            Self::UnknownKeyword => f.write_str("'proxy <ip>:<port>;' expected"),
            Self::NoProxies => f.write_str(NO_PROXIES),
            Self::TooLong => write!(f, "configuration file longer than {MAX_CONFIG_FILE} bytes"),
        }
    }
}

/// The file's words in an error, at most `N` bytes: so errors are `Copy` and need no allocation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Excerpt<const N: usize> {
    bytes: [u8; N],
    length: usize,
}

impl<const N: usize> Excerpt<N> {
    /// Copies the beginning of `source`. It may reach a terminal: only printable ASCII stays.
    fn new(source: &[u8]) -> Excerpt<N> {
        let mut bytes = [0; N];
        for (byte, from) in bytes.iter_mut().zip(source) {
            *byte = if matches!(from, b' '..=b'~') {
                *from
            } else {
                b'?'
            };
        }
        let length = source.len().min(N);
        Excerpt { bytes, length }
    }

    /// The text, printable ASCII.
    pub fn as_str(&self) -> &str {
        let bytes = self.bytes.get(..self.length).unwrap_or_default();
        core::str::from_utf8(bytes).unwrap_or_default()
    }
}

/// What the directives so far add up to.
struct Parser {
    file: ConfigFile,
    min_connections: u32,
    max_connections: u32,
}

impl Parser {
    /// One directive, up to its semicolon.
    fn directive(&mut self, cursor: &mut Cursor, resolve: Resolve) -> Result<(), ConfigError> {
        if cursor.keyword(b"min_connections") {
            let range = 1..=self.max_connections;
            self.min_connections = cursor.number(range, Kind::Invalid("min connections"))?;
        } else if cursor.keyword(b"max_connections") {
            let range = self.min_connections..=1000;
            self.max_connections = cursor.number(range, Kind::Invalid("max connections"))?;
        } else if cursor.keyword(b"timeout") {
            cursor.number(10..=30_000, Kind::Invalid("timeout"))?;
        } else if cursor.keyword(b"default") {
            self.file.default_dc = cursor.target_id()?;
        } else if cursor.keyword(b"proxy_for") {
            // Before "proxy", of which every "proxy_for" begins.
            let dc = cursor.target_id()?;
            if !cursor.rest.first().copied().is_some_and(is_blank) {
                return Err(cursor.fail(Kind::SpaceExpected));
            }
            self.add(dc, cursor, resolve)?;
        } else if cursor.keyword(b"proxy") {
            self.add(DcId(0), cursor, resolve)?;
        } else {
            return Err(cursor.fail(Kind::UnknownKeyword));
        }
        Ok(())
    }

    /// `host:port`, added to the cluster of `dc`.
    fn add(&mut self, dc: DcId, cursor: &mut Cursor, resolve: Resolve) -> Result<(), ConfigError> {
        cursor.take(is_blank);
        let continues = self.file.clusters.last().is_some_and(|last| last.dc == dc);
        if !continues {
            if self.file.clusters.iter().any(|cluster| cluster.dc == dc) {
                return Err(cursor.fail(Kind::Intermixed(dc)));
            }
            if self.file.clusters.len() >= MAX_CLUSTERS {
                return Err(cursor.fail(Kind::TooManyClusters));
            }
        }
        if self.file.targets >= MAX_TARGETS {
            return Err(cursor.fail(Kind::TooManyTargets));
        }
        let target = cursor.target(resolve)?;
        self.file.targets = self.file.targets.saturating_add(1);
        if !continues {
            let targets = Vec::new();
            self.file.clusters.push(Cluster { dc, targets });
        }
        if let Some(cluster) = self.file.clusters.last_mut() {
            cluster.targets.push(target);
        }
        Ok(())
    }
}

/// Where the parser stands.
#[derive(Clone, Copy)]
struct Cursor<'a> {
    rest: &'a [u8],
    newlines: usize,
}

impl<'a> Cursor<'a> {
    fn fail(&self, kind: Kind) -> ConfigError {
        let line = self.rest.split(|byte| matches!(byte, b'\r' | b'\n')).next();
        let line = line.unwrap_or_default();
        ConfigError {
            line: u32::try_from(self.newlines).ok().filter(|line| *line > 0),
            kind,
            near: Excerpt::new(line),
        }
    }

    /// The bytes in front that `wanted` accepts, maybe none; newlines are counted.
    fn take(&mut self, wanted: fn(u8) -> bool) -> &'a [u8] {
        let length = self.rest.iter().take_while(|byte| wanted(**byte)).count();
        let (taken, rest) = self.rest.split_at_checked(length).unwrap_or_default();
        let newlines = taken.iter().filter(|byte| **byte == b'\n').count();
        self.newlines = self.newlines.saturating_add(newlines);
        self.rest = rest;
        taken
    }

    /// White space and comments.
    fn skip_white(&mut self) {
        self.take(is_white);
        while self.rest.first() == Some(&b'#') {
            self.take(|byte| byte != b'\n');
            self.take(is_white);
        }
    }

    fn keyword(&mut self, word: &[u8]) -> bool {
        let rest = self.rest.strip_prefix(word);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    /// `what` after white space.
    fn expect(&mut self, what: u8) -> Result<(), ConfigError> {
        self.skip_white();
        match self.keyword(&[what]) {
            true => Ok(()),
            false => Err(self.fail(Kind::Expected(char::from(what)))),
        }
    }

    /// Digits in front, None if there are none; huge numbers become u32::MAX.
    fn digits(&mut self) -> Option<u32> {
        let digits = self.take(|byte| byte.is_ascii_digit());
        let digits = core::str::from_utf8(digits).unwrap_or_default();
        (!digits.is_empty()).then(|| digits.parse().unwrap_or(u32::MAX))
    }

    /// An unsigned number of `range` after white space.
    fn number(&mut self, range: RangeInclusive<u32>, wrong: Kind) -> Result<u32, ConfigError> {
        self.skip_white();
        let at = *self;
        let value = self.digits().filter(|value| range.contains(value));
        value.ok_or_else(|| at.fail(wrong))
    }

    /// A data-centre id after white space.
    fn target_id(&mut self) -> Result<DcId, ConfigError> {
        self.skip_white();
        let at = *self;
        let negative = self.keyword(b"-");
        let magnitude = self.digits().map(i64::from);
        let value = magnitude.map(|m| if negative { m.saturating_neg() } else { m });
        let id = value.and_then(|value| i16::try_from(value).ok());
        id.map(DcId).ok_or(at.fail(Kind::InvalidTargetId))
    }

    /// `host:port`, and its address.
    fn target(&mut self, resolve: Resolve) -> Result<SocketAddr, ConfigError> {
        let at = *self;
        let host = self.host();
        if host.is_empty() || host.len() > MAX_HOST {
            return Err(at.fail(Kind::HostnameExpected));
        }
        let unknown = Kind::CannotResolve(Excerpt::new(host));
        let name = core::str::from_utf8(host).unwrap_or_default();
        let literal = match name.strip_prefix('[') {
            Some(rest) => {
                let ip = rest.strip_suffix(']').and_then(|ip| ip.parse().ok());
                Some(IpAddr::V6(ip.ok_or_else(|| at.fail(unknown))?))
            }
            None => name.parse().ok().map(IpAddr::V4),
        };
        self.expect(b':')?;
        let port = self.port()?;
        let address = match literal {
            Some(ip) => Some(SocketAddr::new(ip, port)),
            None => resolve(name, port),
        };
        address.ok_or_else(|| at.fail(unknown))
    }

    /// A host with its brackets; the closing one may be missing.
    fn host(&mut self) -> &'a [u8] {
        let start = self.rest;
        if self.keyword(b"[") {
            self.take(|byte| is_host(byte) || byte == b':');
            self.keyword(b"]");
        } else {
            self.take(is_host);
        }
        let length = start.len().saturating_sub(self.rest.len());
        start.get(..length).unwrap_or_default()
    }

    fn port(&mut self) -> Result<u16, ConfigError> {
        self.take(is_blank);
        let at = *self;
        let port = self.digits().unwrap_or(0);
        if port == 0 {
            return Err(at.fail(Kind::PortExpected));
        }
        u16::try_from(port).map_err(|_| at.fail(Kind::PortOutOfRange(port)))
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

const INVALID_ID: &str = "invalid target id (only integers between -32768 and 32767 are allowed)";
const NO_PROXIES: &str = "expected to find a mtproto-proxy configuration with `proxy' directives";

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

    fn parse_text(text: &str) -> Result<ConfigFile, ConfigError> {
        parse(text.as_bytes(), &mut |_, _| None)
    }

    /// The error line for a file that is called `conf`.
    fn error_line(text: &str) -> String {
        parse_text(text).unwrap_err().render("conf")
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
            let result = parse(&std::fs::read(&path).unwrap(), &mut |_, _| None);
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
        assert_eq!((file.default_dc, file.targets), (DcId(2), 16));
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
        assert_eq!((file.clusters.len(), file.targets), (1, 2));
        assert_eq!(file.clusters[0].targets.len(), 2);
    }

    #[test]
    fn names_are_resolved_once_with_their_port() {
        let mut asked = vec![];
        let text = b"proxy_for 1 a-b_c.example:80;proxy_for 1 1.2.3.4:9;proxy_for 1 [::1]:9;proxy_for 2 1.2.3:7;";
        let file = parse(text, &mut |name, port| {
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
        assert_eq!(parse_text(&line.repeat(4096)).unwrap().targets, 4096);
        let wanted = "conf:4096: fatal: too many targets (4096) near 192.0.2.1:80;";
        assert_eq!(error_line(&line.repeat(4097)), wanted);
    }

    #[test]
    fn at_most_1024_clusters() {
        let line = |id: usize| format!("proxy_for {id} 192.0.2.1:80;\n");
        let mut text: String = (1..=1024).map(line).collect();
        assert_eq!(parse_text(&text).unwrap().clusters.len(), 1024);
        // The last one may still grow.
        assert_eq!(
            parse_text(&format!("{text}{}", line(1024)))
                .unwrap()
                .targets,
            1025
        );
        text.push_str(&line(1025));
        let wanted = "conf:1024: fatal: too many auth clusters near 192.0.2.1:80;";
        assert_eq!(error_line(&text), wanted);
    }

    #[test]
    fn a_host_has_1_to_63_characters() {
        let mut resolve = |_: &str, port| Some(SocketAddr::from(([192, 0, 2, 1], port)));
        let line = |length| format!("proxy {}:80;", "h".repeat(length));
        assert!(parse(line(1).as_bytes(), &mut resolve).is_ok());
        assert!(parse(line(63).as_bytes(), &mut resolve).is_ok());
        let wanted = ConfigErrorKind::CannotResolve(Excerpt::new("h".repeat(63).as_bytes()));
        assert_eq!(parse_text(&line(63)).unwrap_err().kind, wanted);
        let error = parse(line(64).as_bytes(), &mut resolve).unwrap_err();
        assert_eq!(error.kind, ConfigErrorKind::HostnameExpected);
    }

    #[test]
    fn at_most_16_mebibytes() {
        let mut text = vec![b'\n'; MAX_CONFIG_FILE];
        text[..17].copy_from_slice(b"proxy 1.2.3.4:80;");
        assert!(parse(&text, &mut |_, _| None).is_ok());
        text.push(b'\n');
        let error = parse(&text, &mut |_, _| None).unwrap_err();
        assert_eq!(error.kind, ConfigErrorKind::TooLong);
        assert!(
            format!("{error}").starts_with("fatal: configuration file longer than 16777216 bytes")
        );
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
            let result = parse(cut, &mut resolve);
            assert!(result.is_err() || cut.ends_with(b";"), "{length}");
        }
        let mut odd = text.to_vec();
        for place in 0..odd.len() {
            for byte in [0, b'\n', b'#', b'-', b';', b':', b'[', b'9', 0xff] {
                odd[place] = byte;
                if let Err(error) = parse(&odd, &mut resolve) {
                    assert!(error.render("n").contains("fatal: "));
                }
            }
            odd[place] = text[place];
        }
    }
}
