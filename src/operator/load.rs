//! From flags and files to the rules of the door: what is read, and what is made of it. Called by the server, at
//! start and for a reload, which hands in the rules before. All input is the operator's; an error is a sentence
//! and leaves everything as it was.

use std::fmt::Display;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use crossbeam_channel::Sender;
use mtproxy::formats::cidr::List;
use mtproxy::limits::MAX_LIST_FILE;
use mtproxy::proto::secret::ProxySecret;
use mtproxy::proto::wire::DcId;

use crate::base::gauge::Gauge;
use crate::base::lock::Mutex;
use crate::base::{clock, sys};
use crate::direct::{Direct, table::Table};
use crate::door::admission::Admission;
use crate::door::replay::Replays;
use crate::door::rules::{FakeTls, Fallback, Lists, Road, Rules};
use crate::door::sites::{Domain, LeadsBack, Sites};
use crate::door::visitors::Visitors;
use crate::middle::dcs::{Dcs, MainTask};
use crate::middle::{dial::Dialer, nat::NatRules, session::Middle};
use crate::operator::access::{self, Secrets};
use crate::operator::files::read_file;
use crate::operator::pages::Telegram;
use crate::operator::{Fatal, options::Config, start};
use crate::stats::Account;

/// What stands in files, and what names are resolved to.
pub struct Files {
    /// In middle mode.
    pub dcs: Option<Dcs>,
    /// Telegram's, if it is there.
    pub proxy_secret: Option<ProxySecret>,
    /// The files of these.
    pub telegram: Telegram,
    pub table: Table,
    pub lists: Lists,
    pub secrets: Secrets,
    /// What fake-TLS clients may name; without any there is no fake TLS.
    pub domains: Vec<Domain>,
}

impl Files {
    /// The data centres that are served, and the one that serves clients of all others.
    pub fn served(&self) -> (Vec<DcId>, DcId) {
        let dcs = self.dcs.as_ref();
        dcs.map_or_else(|| self.table.served(), Dcs::served)
    }
}

/// What outlives the rules that it is a part of.
pub struct Lasting {
    pub admission: Arc<Admission>,
    pub replays: Arc<Replays>,
    pub visitors: Arc<Visitors>,
    pub lists: Arc<Mutex<Lists>>,
    /// Clients that go direct in middle mode, and how many may.
    pub fallbacks: (Arc<Gauge>, u32),
}

/// Reads what the flags name. Sets of the rules `before` whose targets are the same are kept; new ones are
/// started through `requests`.
pub fn read(
    config: &Config,
    requests: &Sender<MainTask>,
    before: Option<&Rules>,
) -> Result<Files, Fatal> {
    let (file, config_file) = start::read_config(config, before.is_none())?.unzip();
    let before = before.and_then(Rules::dcs);
    let dcs = file.map(|file| Dcs::new(&file, config.slots_per_set(), requests, before));
    let (proxy_secret, secret_file) = start::read_proxy_secret(config)?.unzip();
    let telegram = Telegram {
        config: config_file,
        proxy_secret: secret_file,
        reloaded: 0,
    };
    let table = start::table(config)?;
    let lists = Lists {
        allowed: list("--ip-allowlist", config.allowed.as_deref())?,
        blocked: list("--ip-blocklist", config.blocked.as_deref())?,
    };
    let secrets = access::load(config)?;
    let domains = access::domains(config, &secrets.entries);
    Ok(Files {
        dcs,
        proxy_secret,
        telegram,
        table,
        lists,
        secrets,
        domains,
    })
}

fn list(flag: &str, path: Option<&Path>) -> Result<Option<List>, Fatal> {
    let Some(path) = path else { return Ok(None) };
    let name = path.display().to_string();
    let failed = |text: &dyn Display| Fatal(format!("{flag}: can't read {name}: {text}"));
    let bytes = read_file(path, MAX_LIST_FILE).map_err(|e| failed(&e))?;
    if bytes.len() > MAX_LIST_FILE {
        return Err(failed(&"expected at most 16 MiB"));
    }
    let text = std::str::from_utf8(&bytes).map_err(|e| failed(&e))?;
    List::parse(text.trim_start_matches('\u{feff}'), &name)
        .map(Some)
        .map_err(Fatal)
}

/// The sites of fake TLS, if there are domains. `ours` is where this server listens; what is known of sites
/// `before` is kept.
pub fn sites(
    config: &Config,
    domains: &[Domain],
    ours: &[SocketAddr],
    before: Option<Arc<Sites>>,
) -> Result<Option<Arc<Sites>>, Fatal> {
    if domains.is_empty() {
        return Ok(None);
    }
    let flags = (config.mask_proxy_protocol, config.mask_private);
    let sites = Sites::new(
        domains,
        config.mask.as_ref(),
        flags,
        ours,
        before.as_deref(),
    );
    let sites = sites.map_err(|LeadsBack(text)| Fatal(text))?;
    let same = before.filter(|before| before.is_same(&sites));
    Ok(Some(same.unwrap_or_else(|| Arc::new(sites))))
}

/// The rules that all of this makes.
pub fn rules(config: &Config, files: Files, sites: Option<Arc<Sites>>, lasting: &Lasting) -> Rules {
    let tls = sites.map(|sites| FakeTls {
        sites,
        skew: (config.skew_back.0, config.skew_ahead.0),
        hybrid: !config.no_hybrid,
        allow_plain: config.allow_plain,
        any_sni: config.any_sni,
        visitors: lasting.visitors.clone(),
    });
    let entries = &files.secrets.entries;
    *lasting.lists.lock() = files.lists;
    Rules {
        admission: lasting.admission.clone(),
        fronts: config.fronts(),
        secrets: entries.iter().map(|entry| entry.secret).collect(),
        accounts: entries.iter().map(Account::of).collect(),
        lists: lasting.lists.clone(),
        tls,
        replays: lasting.replays.clone(),
        padded_only: config.padded_only,
        clear: config.open,
        road: road(config, files.dcs, files.table, &lasting.fallbacks),
    }
}

/// The way to Telegram: middle mode with data centres, else direct mode.
fn road(
    config: &Config,
    dcs: Option<Dcs>,
    table: Table,
    (clients, most): &(Arc<Gauge>, u32),
) -> Road {
    let direct = Direct {
        table,
        source: config.source(),
    };
    let Some(dcs) = dcs else {
        return Road::Direct(direct);
    };
    let middle = Middle {
        dcs,
        nat: NatRules(config.nat_rules.clone()),
        ad_tag: config.ad_tag,
    };
    let fallback = config.has_fallback().then(|| Fallback {
        direct,
        clients: clients.clone(),
        most: *most,
    });
    Road::Middle(middle, fallback)
}

/// What connections to middle proxies are made with.
pub fn dialer(config: &Config, secret: ProxySecret) -> Dialer {
    Dialer {
        secret: Mutex::new(secret),
        source: config.source(),
        nat: NatRules(config.nat_rules.clone()),
        force_dh: config.force_dh,
        ping_interval: config.ping_interval(),
        checksums: sys::checksums(),
        start_time: clock::unix() as u32,
    }
}
