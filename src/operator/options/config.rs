//! What a command line asks for. Every flag has its field here, and [`Config::default`] is what holds
//! without any flag.
//!
//! The rows of `table` fill a [`Config`] in place; `check` holds it to the rules that involve several flags.
//! Fields are kept as they were given, and what follows from several of them is a method.

use crate::base::outgoing::Socks5;
use crate::base::sys;
use crate::door::sites::Domain;
use mtproxy::formats::cidr::Network;
use mtproxy::formats::secret::{Form, SecretEntry};
use mtproxy::limits;
use mtproxy::proto::web::Place;
use mtproxy::proto::wire::{AdTag, DcId};
use std::ffi::OsString;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What the program is to do.
#[derive(Debug)]
pub enum Command {
    /// Serve.
    Run(Box<Config>),
    /// `link`: print the links of a server with these flags on stdout. The first port is not 0, and there
    /// is -S or --secret-file.
    Link(Box<Config>),
    /// `service nginx` and `service caddy`: print the configuration of a web server in front. There is --web.
    Front(Front, Box<Config>),
    /// `secret`: print a new secret on stdout, for fake TLS if there is a domain.
    Secret(Option<String>),
    /// `ping`: act as a client through the proxy of a link.
    Ping(Ping),
    /// `doctor`: look whether a server with these flags can work.
    Doctor(Box<Config>, Doctor),
    /// `service`: print what starts a server with these flags as a service.
    Service(Box<Service>),
    /// `migrate`: print the flags that do what another program's configuration file says.
    Migrate(PathBuf),
    /// Print a command's own help on stderr, exit 2.
    Usage(&'static str),
    /// Print the help on stderr, exit 2 as C does.
    Help,
    /// Print `mtproxy VERSION` on stdout, exit 0.
    Version,
    /// `config`: print a sample of the file of --config on stdout.
    Sample,
}

/// `ping`: what to ask of whom.
#[derive(Debug)]
pub struct Ping {
    pub link: String,
    /// Data centres, as clients name them.
    pub dcs: Vec<i16>,
    /// Questions to each.
    pub count: u32,
    /// For all of it.
    pub timeout: Duration,
    pub json: bool,
}

/// What `doctor` is to do.
#[derive(Debug, Default)]
pub struct Doctor {
    pub json: bool,
    /// Only whether the own port serves.
    pub own: bool,
    /// The time server to ask, with or without a port.
    pub ntp: Option<String>,
}

/// What `service` is to print.
#[derive(Debug)]
pub struct Service {
    pub kind: Kind,
    pub config: Config,
    /// The long names of the flags that were given, with their values, in order.
    pub flags: Vec<(&'static str, Option<String>)>,
    /// The one argument that is no flag.
    pub file: Option<String>,
}

/// Whose service.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Systemd,
    Openwrt,
    Docker,
}

/// A web server in front of web pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Front {
    Nginx,
    Caddy,
}

/// A command line, checked.
#[derive(Debug, Default, PartialEq)]
pub struct Config {
    /// -H: 1 to 128 ports for clients, none twice but 0, for which the kernel chooses.
    pub ports: Vec<u16>,
    /// -6: listen on IPv6 and mapped IPv4.
    pub ipv6: bool,
    /// --address: listen here; an IPv6 one if there is `ipv6` too.
    pub address: Option<IpAddr>,
    /// --listen, in the order given.
    pub listen: Vec<Listen>,
    /// --reuse-port
    pub reuse_port: bool,
    /// --proxy-protocol: connections begin with a header that says whose they are.
    pub proxy_protocol: bool,
    /// --proxy-protocol-from; then there is `proxy_protocol`. See [`Config::fronts`].
    pub fronts: Vec<Network>,
    /// --socks5
    pub socks5: Option<Socks5>,
    /// --fwmark; 0: none.
    pub mark: u32,
    /// --source. See [`Config::source`].
    pub source: Option<IpAddr>,
    /// -S: at most 16, no secret and no label twice, in the order given.
    pub secrets: Vec<SecretEntry>,
    /// --secret-file
    pub secret_file: Option<PathBuf>,
    /// --open: serve everybody, also clients whose streams aren't obfuscated. See [`Config::is_open`].
    pub open: bool,
    /// -D, in the order given, no name twice; ee secrets have further ones, see `access::domains`.
    pub domains: Vec<Domain>,
    /// --mask: where all strangers go instead of to the site whose name they asked for.
    pub mask: Option<(String, u16)>,
    /// --mask-proxy-protocol; then there is `mask`.
    pub mask_proxy_protocol: bool,
    /// --mask-max: strangers that are served at a time; 0: they are closed.
    pub mask_max: Option<u32>,
    /// --tls-skew: how many seconds a client's clock may be behind ours.
    pub skew_back: Number<{ limits::TLS_SKEW_BACK }>,
    /// --tls-skew: how many seconds it may be ahead.
    pub skew_ahead: Number<{ limits::TLS_SKEW_AHEAD }>,
    /// --tls-hybrid off
    pub no_hybrid: bool,
    /// --allow-plain: clients without fake TLS are served all the same.
    pub allow_plain: bool,
    /// --any-sni: clients may ask for any name.
    pub any_sni: bool,
    /// --mask-private: name servers may lead strangers to private addresses.
    pub mask_private: bool,
    /// --state
    pub state: Option<PathBuf>,
    /// --web, in the order given, none twice; then there are secrets.
    pub web: Vec<Place>,
    /// --web-listen
    pub web_listen: Option<Listen>,
    /// --web-trust
    pub web_nets: Vec<Network>,
    /// -R: only the padded intermediate transport.
    pub padded_only: bool,
    /// -P
    pub ad_tag: Option<AdTag>,
    /// The one argument that is no flag.
    pub config_file: Option<PathBuf>,
    /// --direct. See [`Config::is_direct`].
    pub direct: bool,
    /// --dc-override, in the order given.
    pub dc_overrides: Vec<DcOverride>,
    /// --prefer-ipv6
    pub prefer_ipv6: bool,
    /// --no-fallback. See [`Config::has_fallback`].
    pub no_fallback: bool,
    /// --server: what links show.
    pub server: Option<String>,
    /// --print-links
    pub print_links: bool,
    /// --qr: only for `link`.
    pub qr: bool,
    /// --aes-pwd. Without it a file named `secret` may be there.
    pub aes_pwd: Option<PathBuf>,
    /// -C: at least 1.
    pub max_clients: Option<u32>,
    /// --max-unauthenticated: connections at a time that have proven no secret, at least 2.
    pub max_unauthenticated: Option<u32>,
    /// -c: at least 1.
    pub connections: Option<u32>,
    /// -M, 0 to 256. See [`Config::slots_per_set`].
    pub slots: u32,
    /// -T, 0 for the default. See [`Config::ping_interval`].
    pub ping_milliseconds: u32,
    /// -W. See [`Config::window_clamp`].
    pub window_clamp: Option<u32>,
    /// -b: 1 to what an i32 holds.
    pub backlog: Number<{ limits::BACKLOG }>,
    /// -p: the first port of these that is free; 0..=0 lets the kernel choose.
    pub stats_ports: Option<RangeInclusive<u16>>,
    /// --http-stats; then there is `stats_ports`.
    pub http_stats: bool,
    /// --stats-allow-net; then `http_stats`.
    pub stats_nets: Vec<Network>,
    /// -u: a name or a number, not empty.
    pub user: Option<String>,
    /// -v
    pub verbosity: u32,
    /// --nat-info: at most 16 pairs of local and global address.
    pub nat_rules: Vec<(Ipv4Addr, Ipv4Addr)>,
    /// -d: run in the background.
    pub daemonize: bool,
    /// -l
    pub log_file: Option<PathBuf>,
    /// --chroot
    pub chroot: Option<PathBuf>,
    /// --no-sandbox
    pub no_sandbox: bool,
    /// --nice, -20 to 19: is added to the niceness.
    pub nice: i32,
    /// --max-accept-rate: connections a second, 0 for any number.
    pub accept_rate: u32,
    /// --disable-tcp: then there are neither `stats_ports` nor `http_stats`.
    pub no_stats: bool,
    /// --force-dh
    pub force_dh: bool,
    /// --msg-buffers-size: at least 1 byte.
    pub buffer_bytes: Option<u64>,
    /// --ip-allowlist
    pub allowed: Option<PathBuf>,
    /// --ip-blocklist
    pub blocked: Option<PathBuf>,
    /// --drain
    pub drain: Number<{ limits::DRAIN }>,
    /// --config
    pub settings_file: Option<PathBuf>,
    /// The long names of the flags that were given.
    pub given: Vec<&'static str>,
    /// What a reload takes over: the command line, and what of the file only a start can apply.
    pub kept: Vec<Setting>,
}

/// A number that a flag may change.
#[derive(Debug, PartialEq, Eq)]
pub struct Number<const DEFAULT: u32>(pub u32);

impl<const DEFAULT: u32> Default for Number<DEFAULT> {
    fn default() -> Self {
        Number(DEFAULT)
    }
}

impl Config {
    /// Whether there are secrets, of -S or in a file.
    pub fn has_secrets(&self) -> bool {
        !self.secrets.is_empty() || self.secret_file.is_some()
    }

    /// Telegram's proxy-secret file. C: the same.
    pub fn proxy_secret_file(&self) -> &Path {
        self.aes_pwd.as_deref().unwrap_or(Path::new("secret"))
    }

    /// The first port for clients, -H before --listen; None if all there are is unix sockets or sockets that
    /// the process was started with.
    pub fn first_port(&self) -> Option<u16> {
        let listened = self.listen.iter().find_map(|listen| match listen {
            Listen::Tcp(address) => Some(address.port()),
            Listen::Unix(_) => None,
        });
        self.ports.first().copied().or(listened)
    }

    /// Whether clients are accepted on other sockets than those of ports.
    pub fn listens_elsewhere(&self) -> bool {
        !self.listen.is_empty() || !sys::passed_descriptors().is_empty()
    }

    /// Who says where connections come from: --proxy-protocol-from, or this machine and private networks;
    /// nobody without --proxy-protocol.
    pub fn fronts(&self) -> Vec<Network> {
        match (self.proxy_protocol, self.fronts.is_empty()) {
            (false, _) => Vec::new(),
            (true, false) => self.fronts.clone(),
            (true, true) => NEAR
                .iter()
                .filter_map(|text| Network::parse(text))
                .collect(),
        }
    }

    /// Where connections to Telegram come from: --source, or --address unless only this machine is reached
    /// from there. C: --address.
    pub fn source(&self) -> Option<IpAddr> {
        let leads_out = |address: &IpAddr| !address.to_canonical().is_loopback();
        self.source.or(self.address.filter(leads_out))
    }

    /// Whether clients go straight to Telegram: --direct, or no configuration file.
    pub fn is_direct(&self) -> bool {
        self.direct || self.config_file.is_none()
    }

    /// Whether everybody may enter: no secrets, and --open or, as in C, middle mode. With neither secrets nor
    /// this, a secret is made up.
    pub fn is_open(&self) -> bool {
        !self.has_secrets() && (self.open || !self.is_direct())
    }

    /// Whether the command line names a domain, by -D or by an ee secret of -S.
    pub fn has_domain(&self) -> bool {
        let is_fake_tls = |entry: &SecretEntry| matches!(entry.form, Form::FakeTls(_));
        !self.domains.is_empty() || self.secrets.iter().any(is_fake_tls)
    }

    /// Where web pages are served.
    pub fn web_address(&self) -> Listen {
        let usual = Listen::Tcp((Ipv4Addr::LOCALHOST, limits::WEB_PORT).into());
        self.web_listen.clone().unwrap_or(usual)
    }

    /// Whether there are web pages and nothing else.
    pub fn has_only_pages(&self) -> bool {
        let others = self.first_port().is_some() || self.listens_elsewhere();
        !self.web.is_empty() && !others
    }

    /// Whether clients go direct while none of their middle proxies can be reached. A sponsored channel is
    /// known to middle proxies only.
    pub fn has_fallback(&self) -> bool {
        !self.no_fallback && self.ad_tag.is_none()
    }

    /// How often middle proxies are pinged: 1 s to 1 h.
    pub fn ping_interval(&self) -> Duration {
        match self.ping_milliseconds {
            0 => limits::PING_INTERVAL,
            given => Duration::from_millis(given.into())
                .clamp(limits::MIN_PING_INTERVAL, limits::MAX_PING_INTERVAL),
        }
    }

    /// Connections for each set of targets, 1 to 16.
    pub fn slots_per_set(&self) -> usize {
        match self.slots as usize {
            0 => limits::DEFAULT_SLOTS,
            slots => slots.min(limits::MAX_SLOTS),
        }
    }

    /// The clamp on clients' windows in bytes, 0 for none. A web server's window isn't clamped, so with a
    /// domain none is by default. C: the same.
    pub fn window_clamp(&self) -> u32 {
        let default = match self.has_domain() {
            true => 0,
            false => limits::WINDOW_CLAMP,
        };
        self.window_clamp.unwrap_or(default)
    }
}

/// Loopback and private networks (RFC 1918, RFC 4193).
const NEAR: [&str; 6] = [
    "127.0.0.0/8",
    "::1",
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "fc00::/7",
];

/// --listen
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// --dc-override: the id as clients ask for it, negative for media and never 0; a name, or an IP address
/// without brackets; the port, not 0.
pub type DcOverride = (DcId, (String, u16));

/// A flag as it was given; with an empty name, the one argument that is no flag.
#[derive(Clone, PartialEq)]
pub struct Setting {
    pub name: &'static str,
    pub value: Option<OsString>,
    /// The file and the line that it stands on, if it doesn't come from the command line.
    pub place: Option<String>,
}

impl fmt::Debug for Setting {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name) // the value may be a secret
    }
}

impl Setting {
    /// Whether two settings say the same.
    pub fn equals(&self, other: &Setting) -> bool {
        self.name == other.name && self.value == other.value
    }
}

/// A wrong command line.
#[derive(Debug, PartialEq, Eq)]
pub struct UsageError {
    /// What is wrong, naming flag, value and what was expected; never a secret.
    pub text: String,
    /// The exit code: 2, with the C proxy's exceptions.
    pub code: u8,
}

impl UsageError {
    /// With exit code 2.
    pub fn new(text: impl Into<String>) -> UsageError {
        let text = text.into();
        UsageError { text, code: 2 }
    }

    /// The same, in a file.
    pub fn at(mut self, place: &str) -> UsageError {
        self.text = format!("{place}: {}", self.text);
        self
    }
}
