//! From flags and files to the rules of the door: what is read, and what is made of it. Called by the server, at
//! start and for a reload, which hands in the rules before. All input is the operator's; an error is a sentence
//! and leaves everything as it was.

use std::net::SocketAddr;
use std::sync::Arc;

use crossbeam_channel::Sender;

use crate::base::gauge::Gauge;
use crate::direct::{Direct, table::Table};
use crate::door::admission::Admission;
use crate::door::replay::Replays;
use crate::door::rules::{FakeTls, Fallback, Road, Rules};
use crate::door::sites::{Domain, LeadsBack, Sites};
use crate::door::visitors::Visitors;
use crate::middle::dcs::{Dcs, MainTask};
use crate::middle::{nat::NatRules, session::Middle};
use crate::operator::access::{self, Secrets};
use crate::operator::pages::FileFacts;
use crate::operator::{Fatal, options::Config, start};
use crate::stats::Account;

/// What stands in files, and what names are resolved to.
pub struct Files {
    /// In middle mode, and the file that it is of.
    pub dcs: Option<Dcs>,
    pub config_file: Option<FileFacts>,
    pub table: Table,
    pub secrets: Secrets,
    /// What fake-TLS clients may name; without any there is no fake TLS.
    pub domains: Vec<Domain>,
}

/// What outlives the rules that it is a part of.
pub struct Lasting {
    pub admission: Arc<Admission>,
    pub replays: Arc<Replays>,
    pub visitors: Arc<Visitors>,
    /// Clients that go direct in middle mode, and how many may.
    pub fallbacks: (Arc<Gauge>, u32),
}

/// Reads what the flags name. Sets of the table `before` whose targets are the same are kept; new ones are
/// started through `requests`.
pub fn read(
    config: &Config,
    requests: &Sender<MainTask>,
    before: Option<&Dcs>,
) -> Result<Files, Fatal> {
    let (file, config_file) = start::read_config(config)?.unzip();
    let dcs = file.map(|file| Dcs::new(&file, config.slots_per_set(), requests, before));
    let table = start::table(config)?;
    let secrets = access::load(config)?;
    let domains = access::domains(config, &secrets.entries);
    Ok(Files {
        dcs,
        config_file,
        table,
        secrets,
        domains,
    })
}

/// The sites of fake TLS, if there are domains. `ours` is where this server listens.
pub fn sites(
    config: &Config,
    domains: &[Domain],
    ours: &[SocketAddr],
) -> Result<Option<Arc<Sites>>, Fatal> {
    if domains.is_empty() {
        return Ok(None);
    }
    let flags = (config.mask_proxy_protocol, config.mask_private);
    let sites = Sites::new(domains, config.mask.as_ref(), flags, ours);
    let sites = sites.map_err(|LeadsBack(text)| Fatal(text))?;
    Ok(Some(Arc::new(sites)))
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
    Rules {
        admission: lasting.admission.clone(),
        fronts: config.fronts(),
        secrets: entries.iter().map(|entry| entry.secret).collect(),
        accounts: entries.iter().map(Account::of).collect(),
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
