//! The domains of fake TLS: what clients may name, where the site of each is, and what its first flight
//! looks like. The operator names the domains, the mask thread (`probe`) finds out the rest, and client
//! threads read it. One lock a site, held for a look; client threads wait on it for the first lookup.

use std::io::Write;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::{Arc, Condvar, MutexGuard};
use std::time::Duration;

use mtproxy::limits::SITE_CONNECT;
use mtproxy::proto::faketls::client_hello::{self, ClientHello, RANDOM_AT, RANDOM_END};
use mtproxy::proto::faketls::probe::{Choice, Model};
use mtproxy::proto::faketls::record;
use mtproxy::proto::proxy_protocol;

use crate::base::lock::{self, Mutex};
use crate::base::outgoing::{self, Dialled};
use crate::base::{log, net, sys};

/// All domains, in the operator's order; the first one is for strangers that name none of them.
pub struct Sites {
    pub sites: Vec<Arc<Site>>,
    /// Where this server listens.
    ours: Vec<SocketAddr>,
    /// They are all at --mask.
    is_own_mask: bool,
    /// Connections to them begin with a PROXY protocol header.
    proxy_protocol: bool,
    /// --mask-private: name servers may lead to private addresses.
    pub(super) private: bool,
}

/// A domain that fake-TLS clients may name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Domain {
    /// What clients send as the server's name: lower case, no trailing dot; an IPv6 address without
    /// brackets.
    pub name: String,
    /// Where its site is. Not given: 443 (80 for visitors of port 80).
    pub port: Option<u16>,
}

impl Domain {
    /// The domain that an ee secret names. A name of dots alone stays one: it has no site, but nothing
    /// may be served without fake TLS for it.
    pub fn named(name: &str) -> Domain {
        let bare = name.trim_end_matches('.');
        let name = if bare.is_empty() { name } else { bare };
        Domain {
            name: name.to_ascii_lowercase(),
            port: None,
        }
    }
}

/// One domain and its site.
pub struct Site {
    /// What clients name.
    pub name: String,
    /// Where the site is; a name or an IP address.
    pub(super) host: String,
    /// None: 443, or 80 for visitors of port 80.
    port: Option<u16>,
    state: Mutex<State>,
    resolved: Condvar,
}

/// What a site does with a first record that its keys don't fit.
#[derive(Clone)]
pub struct Rejection {
    /// What it sends, a record as a rule; empty: nothing.
    pub records: Vec<u8>,
    /// It resets the connection instead of closing it.
    pub reset: bool,
    /// After so long.
    pub delay: Duration,
}

impl Rejection {
    /// As OpenSSL does: an encrypted alert, then an orderly end.
    fn usual() -> Rejection {
        let mut records = record::header(ALERT_LEN).to_vec();
        records.resize(record::HEADER + ALERT_LEN, 0);
        Rejection {
            records,
            reset: false,
            delay: Duration::ZERO,
        }
    }
}

/// Payload of an encrypted alert: level, description, type, tag (RFC 8446 5.2, 6).
const ALERT_LEN: usize = 19;

/// What the mask thread's last look at a site has found.
#[derive(Clone, Copy, Default)]
pub struct Look {
    /// When it was, unix seconds; 0: there was none yet.
    pub at: u64,
    /// All was found that clients' answers are modelled on.
    pub is_well: bool,
    /// The site speaks TLS 1.3.
    pub tls13: bool,
    /// It takes X25519MLKEM768.
    pub mlkem: bool,
}

pub(super) struct State {
    pub(super) look: Look,
    /// None: not looked up yet.
    pub(super) addresses: Option<Vec<IpAddr>>,
    pub(super) model: Model,
    pub(super) rejection: Rejection,
    /// The random of the ClientHello that the site is being probed with.
    pub(super) probe: Option<[u8; 32]>,
    /// That ClientHello has come back to this server. If the site sends nothing else, it leads here.
    pub(super) came_back: bool,
}

/// A mask that leads back to this server; the whole sentence.
pub struct LeadsBack(pub String);

impl Sites {
    /// The sites of these domains, or all at `mask`; what is known of sites `before` is kept. An error if one is
    /// known to be this server.
    pub fn new(
        domains: &[Domain],
        mask: Option<&(String, u16)>,
        (proxy_protocol, private): (bool, bool),
        ours: &[SocketAddr],
        before: Option<&Sites>,
    ) -> Result<Sites, LeadsBack> {
        let site = |domain: &Domain| {
            let (host, port) = match mask {
                Some((host, port)) => (host, Some(*port)),
                None => (&domain.name, domain.port),
            };
            let same = |site: &&Arc<Site>| {
                site.name == domain.name && site.host == *host && site.port == port
            };
            let mut known = before.iter().flat_map(|before| &before.sites);
            if let Some(known) = known.find(same) {
                return known.clone();
            }
            // What needs no name server is known at once.
            let known = match host.parse::<IpAddr>() {
                Ok(ip) => vec![ip],
                Err(_) => net::hosts_file(host),
            };
            let state = State {
                look: Look::default(),
                addresses: (!known.is_empty()).then_some(known),
                model: Model::unknown(sys::random_array().map_or(0, u32::from_ne_bytes)),
                rejection: Rejection::usual(),
                probe: None,
                came_back: false,
            };
            Arc::new(Site {
                name: domain.name.clone(),
                host: host.clone(),
                port,
                state: Mutex::new(state),
                resolved: Condvar::new(),
            })
        };
        let sites = Sites {
            sites: domains.iter().map(site).collect(),
            ours: ours.to_vec(),
            is_own_mask: mask.is_some(),
            proxy_protocol,
            private,
        };
        for site in &sites.sites {
            if let Some(address) = sites.own_address(site) {
                let flag = if mask.is_some() { "--mask" } else { "-D" };
                let text = format!("{flag}: {address} is this server itself");
                return Err(LeadsBack(text));
            }
        }
        Ok(sites)
    }

    /// Whether these are the same sites, with all that is known of them, and reached in the same way.
    pub fn is_same(&self, other: &Sites) -> bool {
        let mut both = self.sites.iter().zip(&other.sites);
        both.all(|(own, other)| Arc::ptr_eq(own, other))
            && self.sites.len() == other.sites.len()
            && self.proxy_protocol == other.proxy_protocol
            && self.private == other.private
    }

    /// Connects to the first of a site's addresses that accepts, on behalf of a visitor: its address and
    /// ours that it is connected to go into the PROXY protocol header. None: for the mask thread.
    pub fn dial(
        &self,
        addresses: &[SocketAddr],
        visitor: Option<(SocketAddr, SocketAddr)>,
    ) -> Option<Dialled> {
        // A web server of this machine can't be reached by way of another one.
        let is_here = self.is_own_mask && addresses.iter().all(|to| to.ip().is_loopback());
        let mut dialled = match is_here {
            true => outgoing::dial_here(addresses, None, SITE_CONNECT),
            false => outgoing::dial_any(addresses, None, SITE_CONNECT),
        }
        .ok()?;
        let socket = &mut dialled.socket;
        if self.proxy_protocol {
            let (client, ours) = match visitor {
                Some(both) => both,
                None => (socket.local_addr().ok()?, socket.peer_addr().ok()?),
            };
            let header = proxy_protocol::v2_header(client, ours);
            socket.write_all(&header).ok()?;
        }
        Some(dialled)
    }

    /// The site of the name that a hello asks for.
    pub fn named(&self, name: &[u8]) -> Option<&Site> {
        let mut sites = self.sites.iter().map(|site| &**site);
        sites.find(|site| client_hello::is_same_name(name, &site.name))
    }

    /// Every site.
    pub fn all(&self) -> &[Arc<Site>] {
        &self.sites
    }

    /// The site for those that name none.
    pub fn default(&self) -> Option<&Site> {
        self.sites.first().map(|site| &**site)
    }

    /// Whether a stranger's first bytes are the mask thread's own probe, come back to this server.
    pub fn is_own_probe(&self, received: &[u8]) -> bool {
        let hello = proxy_protocol::behind_header(received);
        let Some(random) = hello.get(RANDOM_AT..RANDOM_END) else {
            return false;
        };
        self.sites.iter().any(|site| {
            let mut state = site.state();
            let came_back = state.probe.is_some_and(|probe| probe == random);
            state.came_back |= came_back;
            came_back
        })
    }

    /// An address of this server's own among those known of a site.
    pub(super) fn own_address(&self, site: &Site) -> Option<SocketAddr> {
        let known = site.state().addresses.clone().unwrap_or_default();
        let ports = [site.port.unwrap_or(443), site.port.unwrap_or(80)];
        let addresses = known
            .iter()
            .flat_map(|ip| ports.map(|port| SocketAddr::new(*ip, port)));
        addresses.into_iter().find(|address| self.is_own(*address))
    }

    fn is_own(&self, address: SocketAddr) -> bool {
        let ip = address.ip().to_canonical();
        self.ours.iter().any(|own| {
            let takes_all = own.ip().is_unspecified() && (own.is_ipv6() || ip.is_ipv4());
            own.port() == address.port()
                && (own.ip().to_canonical() == ip || takes_all && is_local(ip))
        })
    }
}

/// Whether an address is one of this machine's.
pub fn is_local(ip: IpAddr) -> bool {
    ip.is_loopback() || ip.is_unspecified() || UdpSocket::bind((ip, 0)).is_ok()
}

impl Site {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// What the last look has found.
    pub fn look(&self) -> Look {
        self.state().look
    }

    pub(super) fn noted(&self, note: impl FnOnce(&mut Look)) {
        note(&mut self.state().look);
    }

    pub(super) fn set_addresses(&self, addresses: Vec<IpAddr>) {
        self.state().addresses = Some(addresses);
        self.resolved.notify_all();
    }

    /// Where the site is for a visitor of our port `port`. Waits a while for the first lookup.
    pub fn addresses(&self, port: u16, wait: Duration) -> Vec<SocketAddr> {
        let unknown = |state: &mut State| state.addresses.is_none();
        let state = lock::wait_while(&self.resolved, self.state(), wait, unknown);
        let usual = if port == 80 { 80 } else { 443 };
        let known = state.addresses.iter().flatten();
        known
            .map(|ip| SocketAddr::new(*ip, self.port.unwrap_or(usual)))
            .collect()
    }

    /// What the site would answer to this ClientHello.
    pub fn choose(&self, hello: &ClientHello, hybrid: bool, random: u32) -> Choice {
        self.state().model.choose(hello, hybrid, random)
    }

    /// What the site does with a first record that its keys don't fit.
    pub fn rejection(&self) -> Rejection {
        self.state().rejection.clone()
    }

    pub(super) fn warn(&self, what: &str) {
        log::say(format_args!("warning: -D {}: {what}", self.name));
    }
}
