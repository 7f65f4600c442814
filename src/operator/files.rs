//! The files that the server reads at start, and the names in them. Nothing here is from strangers, but
//! any bytes are taken; what can't be used ends the start with a sentence that names it.

use std::fmt::Display;
use std::io::Read;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;

use mtproxy::formats::config_file::{self, ConfigFile};
use mtproxy::limits;
use mtproxy::proto::secret::ProxySecret;
use mtproxy::proto::wire::DcId;

use crate::base::log;
use crate::operator::Fatal;
use crate::operator::options::Config;
use crate::operator::pages::FileFacts;

/// Telegram's configuration.
pub fn read_config(path: &Path) -> Result<(ConfigFile, FileFacts), Fatal> {
    let name = path.display();
    let unreadable = |e| Fatal(format!("can't read configuration file {name}: {e}"));
    let mut text = Vec::new();
    let file = std::fs::File::open(path).map_err(unreadable)?;
    // One byte more than the parser takes, so that it says what is wrong.
    file.take(limits::MAX_CONFIG_FILE as u64 + 1)
        .read_to_end(&mut text)
        .map_err(unreadable)?;
    let parsed = config_file::parse(&name.to_string(), &text, &mut resolve).map_err(|line| {
        // The C program's lines, for scripts that look for them.
        log::say(format_args!("{line}"));
        log::say(format_args!("new configuration was not applied"));
        Fatal("config check failed! (code -1)".into())
    })?;
    Ok((parsed, FileFacts::new(path, &text)))
}

/// A name's first address, IPv4 before IPv6. A name without a dot is only looked for in the hosts
/// file (protocol.md 8.1): the resolver would try it in the machine's own domain.
fn resolve(host: &str, port: u16) -> Option<SocketAddr> {
    let addresses: Vec<SocketAddr> = if host.contains(['.', ':']) {
        (host, port).to_socket_addrs().ok()?.collect()
    } else {
        let hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
        let lines = hosts
            .lines()
            .map(|line| line.split('#').next().unwrap_or_default());
        let fields = lines.map(|line| line.split_whitespace().collect::<Vec<&str>>());
        let named = fields.filter(|f| f.iter().skip(1).any(|name| name.eq_ignore_ascii_case(host)));
        named
            .filter_map(|f| Some(SocketAddr::new(f.first()?.parse().ok()?, port)))
            .collect()
    };
    addresses
        .iter()
        .find(|a| a.is_ipv4())
        .or(addresses.first())
        .copied()
}

/// Without --aes-pwd a missing file is no error, as in the C proxy, but nothing can work then.
pub fn read_proxy_secret(config: &Config) -> Result<Option<(ProxySecret, FileFacts)>, Fatal> {
    let name = config.aes_pwd.display();
    let wrong = |why: &dyn Display| {
        Fatal(format!(
            "fatal: cannot load secret definition file {name}: {why}"
        ))
    };
    match std::fs::read(&config.aes_pwd) {
        Ok(bytes) => {
            let secret = ProxySecret::new(&bytes).map_err(|e| wrong(&e))?;
            Ok(Some((secret, FileFacts::new(&config.aes_pwd, &bytes))))
        }
        Err(_) if !config.aes_pwd_given => Ok(None),
        Err(e) => Err(wrong(&e)),
    }
}

/// The addresses of --dc-override, names resolved.
pub fn overrides(config: &Config) -> Result<Vec<(DcId, SocketAddr)>, Fatal> {
    let address = |row: &crate::operator::options::DcOverride| {
        let unknown = || Fatal(format!("--dc-override: can't resolve {}", row.host));
        let ip = row
            .host
            .parse()
            .ok()
            .map(|ip| SocketAddr::new(ip, row.port));
        let found = ip.or_else(|| resolve(&row.host, row.port));
        Ok((row.id, found.ok_or_else(unknown)?))
    };
    config.dc_overrides.iter().map(address).collect()
}
