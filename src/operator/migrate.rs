//! `mtproxy migrate FILE`: the flags that do what the configuration of another program says, as a command line
//! and as lines for --config; what has no equivalent is listed.
//!
//! The file is the operator's. What is printed may hold its secrets, and goes to standard output alone.

use std::io::Write;
use std::path::Path;

use mtproxy::formats::secret::SecretEntry;
use mtproxy::formats::toml::{self, Setting};
use mtproxy::limits::MAX_SECRET_FILE;

use crate::operator::options::{knows, spelled_or_lost};
use crate::operator::{Fatal, files::read_file};

/// What a file says.
#[derive(Default)]
struct Found {
    /// Long names and values, in order.
    flags: Vec<(String, Option<String>)>,
    /// Settings without an equivalent.
    lost: Vec<String>,
    /// Middle mode, whose two files the other program fetches itself.
    middle: bool,
}

/// Prints it.
pub fn print(path: &Path) -> Result<(), Fatal> {
    let name = path.display();
    let bytes =
        read_file(path, MAX_SECRET_FILE).map_err(|e| Fatal(format!("can't read {name}: {e}")))?;
    let text = String::from_utf8(bytes).map_err(|_| Fatal(format!("{name}: expected text")))?;
    let (whose, found) = read(&text).map_err(|e| Fatal(format!("{name}{e}")))?;
    let written = std::io::stdout().write_all(found.show(whose).as_bytes());
    written.map_err(|e| Fatal(format!("the flags can't be written: {e}")))
}

/// Whose file it is, and what it says; the error follows the file's name.
fn read(text: &str) -> Result<(&'static str, Found), String> {
    let is_line =
        |line: &str| line.trim_start().starts_with("ExecStart=") || line.contains("mtproto-proxy");
    if text.lines().any(is_line) {
        return Ok(("the C program", command_line(text)));
    }
    let all = toml::parse_toml(text).map_err(|line| format!(":{line}: expected KEY = VALUE"))?;
    let begins = |start: &str| all.iter().any(|setting| setting.name.starts_with(start));
    let mut found = Found::default();
    let (whose, rows) = if begins("access.") || begins("censorship.") || begins("general.") {
        found.telemt(&all);
        ("telemt", TELEMT)
    } else if begins("bind-to") || begins("defense.") || begins("network.") {
        ("mtg", MTG)
    } else if begins("secret.") || begins("port") || begins("direct") {
        found.teleproxy(&all);
        ("teleproxy", TELEPROXY)
    } else {
        return Err(
            ": expected the configuration of teleproxy, mtg or telemt, or a command line".into(),
        );
    };
    for setting in &all {
        found.take(setting, rows);
    }
    Ok((whose, found))
}

impl Found {
    fn flag(&mut self, name: &str, value: Option<String>) {
        let is_new = !self
            .flags
            .iter()
            .any(|(known, old)| known == name && *old == value);
        match (knows(name), value) {
            (true, value) if is_new => self.flags.push((name.into(), value)),
            (true, _) => {}
            (false, value) => self
                .lost
                .push(format!("{name} {}", value.unwrap_or_default())),
        }
    }

    /// By the rows of a program: its name for a setting and ours, or what else is to be done.
    fn take(&mut self, setting: &Setting, rows: &[(&str, &str)]) {
        let fits = |row: &&(&str, &str)| match row.0.strip_suffix('*') {
            Some(start) => setting.name.starts_with(start),
            None => setting.name == row.0,
        };
        let Some((_, ours)) = rows.iter().find(fits) else {
            let values = setting.values.join(", ");
            return self.lost.push(format!("{} = {values}", setting.name));
        };
        for value in &setting.values {
            match (*ours, value.as_str()) {
                ("", _) | (_, "false" | "") | ("address", "0.0.0.0") => {}
                ("address", "::") => self.flag("ipv6", None),
                ("listen", value) => self.listen(value),
                ("statistics", value) => {
                    let (_, port) = value.rsplit_once(':').unwrap_or(("", value));
                    self.flag("port", Some(port.into()));
                    self.flag("http-stats", None);
                }
                ("prefer", value) if value.ends_with("ipv6") => self.flag("prefer-ipv6", None),
                ("prefer", _) => {}
                ("skew", value) => match seconds(value) {
                    Some(seconds) => self.flag("tls-skew", Some(format!("{seconds},{seconds}"))),
                    None => self.lost.push(format!("{} = {value}", setting.name)),
                },
                (name, "true") => self.flag(name, None),
                (name, value) => self.flag(name, Some(value.into())),
            }
        }
    }

    fn listen(&mut self, address: &str) {
        let (host, port) = address.rsplit_once(':').unwrap_or(("", address));
        self.flag("http-ports", Some(port.into()));
        match host.trim_matches(['[', ']']) {
            "" | "0.0.0.0" => {}
            "::" => self.flag("ipv6", None),
            host => {
                if host.contains(':') {
                    self.flag("ipv6", None);
                }
                self.flag("address", Some(host.into()));
            }
        }
    }

    /// A secret with the name of its user and how many clients may use it at a time.
    fn secret(&mut self, secret: &str, label: Option<&String>, limit: Option<&String>) {
        let limit = limit.filter(|limit| *limit != "0");
        let mut text = secret.to_owned();
        if label.is_some() || limit.is_some() {
            text = format!("{text}:{}", label.map_or("", |label| label));
        }
        if let Some(limit) = limit {
            text = format!("{text}:{limit}");
        }
        match SecretEntry::parse(&text) {
            Ok(_) => self.flag("mtproto-secret", Some(text)),
            Err(e) => self.lost.push(format!("a secret: {e}")),
        }
    }

    fn teleproxy(&mut self, all: &[Setting]) {
        let of = |table: usize, name: &str| value(all, |s| s.table == table && s.name == name);
        for key in all.iter().filter(|setting| setting.name == "secret.key") {
            let (label, limit) = (of(key.table, "secret.label"), of(key.table, "secret.limit"));
            self.secret(&key.values[0], label, limit);
        }
        for dc in all
            .iter()
            .filter(|setting| setting.name == "dc_override.dc")
        {
            let host = of(dc.table, "dc_override.host").map_or("", |host| host);
            let port = of(dc.table, "dc_override.port").map_or("443", |port| port);
            let host = if host.contains(':') {
                format!("[{host}]")
            } else {
                host.into()
            };
            self.flag(
                "dc-override",
                Some(format!("{}:{host}:{port}", dc.values[0])),
            );
        }
        self.middle = value(all, |s| s.name == "direct").is_none_or(|direct| direct != "true");
    }

    fn telemt(&mut self, all: &[Setting]) {
        let of = |name: &str| value(all, |s| s.name == name);
        for user in all {
            if let Some(name) = user.name.strip_prefix("access.users.") {
                let limit = of(&format!("access.user_max_tcp_conns.{name}"));
                self.secret(&user.values[0], Some(&name.to_owned()), limit);
            }
        }
        let is_on =
            |name: &str| of(&format!("general.modes.{name}")).is_some_and(|mode| mode == "true");
        let (classic, secure) = (is_on("classic"), is_on("secure"));
        let tls = of("general.modes.tls").is_none_or(|mode| mode == "true");
        match (tls, classic || secure) {
            (true, true) => self.flag("allow-plain", None),
            (false, true) if !classic => self.flag("random-padding-only", None),
            _ => {}
        }
        if tls && let Some(domain) = of("censorship.tls_domain") {
            self.flag("domain", Some(domain.clone()));
        }
        if let Some(host) = of("censorship.mask_host") {
            let port = of("censorship.mask_port").map_or("443", |port| port);
            self.flag("mask", Some(format!("{host}:{port}")));
        }
        self.middle = of("general.use_middle_proxy").is_some_and(|used| used == "true");
    }

    fn show(&self, whose: &str) -> String {
        let mut text = format!("# {whose}: the same as a command line\nmtproxy");
        let mut lines = String::new();
        let mut file = "";
        for (name, value) in &self.flags {
            match value {
                Some(value) if name.is_empty() => file = value,
                Some(value) => {
                    text.push_str(&format!(" --{name}={}", shell(value)));
                    lines.push_str(&format!("{name} {value}\n"));
                }
                None => {
                    text.push_str(&format!(" --{name}"));
                    lines.push_str(&format!("{name}\n"));
                }
            }
        }
        if !file.is_empty() {
            text.push_str(&format!(" {}", shell(file)));
            lines.push_str(&format!(
                "# with {file} as the one argument that is no flag\n"
            ));
        }
        text.push_str(&format!("\n\n# and as lines for --config\n{lines}"));
        if self.middle {
            text.push_str(
                "\n# Middle mode needs --aes-pwd proxy-secret and proxy-multi.conf, Telegram's two files, fetched daily.\n",
            );
        }
        for lost in &self.lost {
            text.push_str(&format!("# no equivalent: {lost}\n"));
        }
        text
    }
}

fn value(all: &[Setting], fits: impl Fn(&Setting) -> bool) -> Option<&String> {
    all.iter().find(|setting| fits(setting))?.values.first()
}

/// `5s` or `1m` in seconds.
fn seconds(text: &str) -> Option<u32> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let factor = ["s", "m", "h"].iter().position(|known| *known == unit)?;
    number
        .parse::<u32>()
        .ok()?
        .checked_mul([1, 60, 3600][factor])
}

/// As a word of a shell.
fn shell(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:,@%+=".contains(c);
    match word.chars().all(is_plain) {
        true => word.into(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}

/// The C program's, alone or in a unit.
fn command_line(text: &str) -> Found {
    let text = text.replace("\\\n", " ");
    let value = |name: &str| {
        let mut lines = text.lines().map(str::trim);
        lines.find_map(|line| line.strip_prefix(name))
    };
    let folder = value("WorkingDirectory=").unwrap_or("");
    let mut lines = text.lines();
    let line = value("ExecStart=").or_else(|| lines.find(|line| line.contains("mtproto-proxy")));
    let mut words = toml::words(line.unwrap_or(""));
    let program = words
        .iter()
        .position(|word| word.ends_with("mtproto-proxy"));
    words.drain(..=program.unwrap_or(0));
    let (flags, file, lost) = spelled_or_lost(words.into_iter().map(Into::into).collect());
    let place = |path: String| Path::new(folder).join(path).display().to_string();
    let mut found = Found {
        lost,
        ..Found::default()
    };
    for (name, value) in flags {
        let value = if name == "aes-pwd" {
            value.map(place)
        } else {
            value
        };
        found.flags.push((name.into(), value));
    }
    if let Some(file) = file {
        // Without a name: the one argument that is no flag.
        found.flags.push((String::new(), Some(place(file))));
    }
    found
}

/// Their names and ours; without one of ours nothing is to be done.
const TELEPROXY: &[(&str, &str)] = &[
    ("port", "http-ports"),
    ("stats_port", "port"),
    ("bind", "address"),
    ("ipv6", "ipv6"),
    ("workers", ""),
    ("max_connections", "max-special-connections"),
    ("maxconn", "connections"),
    ("user", "user"),
    ("direct", "direct"),
    ("proxy_tag", "proxy-tag"),
    ("socks5", "socks5"),
    ("domain", "domain"),
    ("domain.name", "domain"),
    ("http_stats", "http-stats"),
    ("stats_allow_net", "stats-allow-net"),
    ("ip_blocklist", "ip-blocklist"),
    ("ip_allowlist", "ip-allowlist"),
    ("random_padding_only", "random-padding-only"),
    ("proxy_protocol", "proxy-protocol"),
    ("drain_timeout_secs", "drain"),
    ("secret.key", ""),
    ("secret.label", ""),
    ("secret.limit", ""),
    ("dc_override.*", ""),
];

const MTG: &[(&str, &str)] = &[
    ("secret", "mtproto-secret"),
    ("bind-to", "listen"),
    ("concurrency", "max-special-connections"),
    ("prefer-ip", "prefer"),
    ("proxy-protocol-listener", "proxy-protocol"),
    ("domain-fronting-proxy-protocol", "mask-proxy-protocol"),
    ("domain-fronting.proxy-protocol", "mask-proxy-protocol"),
    ("tolerate-time-skewness", "skew"),
    ("defense.time.allow-skewness", "skew"),
    ("defense.time.enabled", ""),
    ("defense.anti-replay.*", ""),
    ("stats.prometheus.bind-to", "statistics"),
    ("stats.prometheus.*", ""),
    ("network.proxies", "socks5"),
    ("network.public-ip.ipv4", "server"),
    ("network.dns", ""),
    ("network.doh-ip", ""),
    ("tcp-buffer", ""),
    ("debug", "verbosity"),
];

const TELEMT: &[(&str, &str)] = &[
    ("server.port", "http-ports"),
    ("server.listeners.ip", "address"),
    ("server.listen_addr_ipv4", "address"),
    ("server.max_connections", "max-special-connections"),
    ("server.metrics_port", "statistics"),
    ("server.metrics_listen", "statistics"),
    ("server.metrics_whitelist", "stats-allow-net"),
    ("server.proxy_protocol", "proxy-protocol"),
    ("general.ad_tag", "proxy-tag"),
    ("general.prefer_ipv6", "prefer-ipv6"),
    ("general.proxy_secret_path", "aes-pwd"),
    ("general.links.public_host", "server"),
    ("general.links.show", ""),
    ("general.use_middle_proxy", ""),
    ("general.fast_mode", ""),
    ("general.modes.*", ""),
    ("general.log_level", ""),
    ("show_link", ""),
    ("censorship.tls_domains", "domain"),
    ("censorship.mask*", ""),
    ("censorship.tls_*", ""),
    ("access.users.*", ""),
    ("access.user_max_tcp_conns.*", ""),
];
