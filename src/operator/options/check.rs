//! The second stage of the command line: what only shows when everything is typed, and the defaults.
//!
//! Called by `parse` for `run` and for `link`. The flags of fake TLS are checked in `tls`; what depends
//! on a file's text is left to whoever reads that file.

use crate::operator::options::{Command, Config, LinkRequest, Typed, UsageError, help, tls};
use mtproxy::limits;
use std::path::PathBuf;

/// For `run`.
pub fn check_run(mut typed: Typed) -> Result<Command, UsageError> {
    let error = |text: &str| Err(UsageError::new(text.into()));
    if typed.qr {
        return error("--qr: only for mtproxy link; a start shows it with the links");
    }
    let has_secrets = !typed.secrets.is_empty() || typed.secret_file.is_some();
    if typed.open && has_secrets {
        return error("--open: goes neither with -S nor with --secret-file");
    }
    let direct = typed.direct || typed.files.is_empty();
    if direct && typed.ad_tag.is_some() {
        return error(
            "-P/--proxy-tag: only middle proxies show a sponsored channel: it needs a configuration \
             file and goes without --direct",
        );
    }
    if typed.ports.is_empty() && direct && !has_secrets {
        typed.ports.push(DEFAULT_PORT);
    }
    if typed.ports.is_empty() {
        return error(
            "-H/--http-ports: expected at least one port for clients, for example -H 443",
        );
    }
    Ok(Command::Run(Box::new(check(typed)?)))
}

/// For `link`, which shows what `run` with the same flags would serve.
pub fn check_link(mut typed: Typed) -> Result<Command, UsageError> {
    let error = |text: &str| Err(UsageError::new(text.into()));
    if typed.secrets.is_empty() && typed.secret_file.is_none() {
        return error("link: expected the secret of the proxy, -S SECRET or --secret-file FILE");
    }
    if typed.ports.is_empty() {
        typed.ports.push(LINK_PORT);
    }
    if typed.ports[0] == 0 {
        return error("link: expected the port of the proxy, got -H 0");
    }
    let qr = typed.qr;
    let config = check(typed)?;
    Ok(Command::Link(Box::new(LinkRequest { config, qr })))
}

/// What both have in common, and the defaults.
fn check(typed: Typed) -> Result<Config, UsageError> {
    let given = typed.files.len();
    if given > 1 {
        // The arguments are not repeated: one may be a secret that lost its -S.
        let text = format!(
            "expected at most one configuration file, got {given}\n{}",
            help()
        );
        return Err(UsageError::new(text));
    }
    let direct = typed.direct || typed.files.is_empty();
    let needs_domain = tls::check(&typed, direct)?;
    check_stats(&typed)?;
    let window_clamp = window_clamp(&typed);
    let config_file = typed.files.into_iter().next().map(PathBuf::from);
    let has_secrets = !typed.secrets.is_empty() || typed.secret_file.is_some();
    Ok(Config {
        ports: typed.ports,
        ipv6: typed.ipv6,
        address: typed.address,
        secrets: typed.secrets,
        secret_file: typed.secret_file,
        open: !has_secrets && (typed.open || !direct),
        clear: !has_secrets && typed.open,
        domains: typed.domains,
        mask: typed.mask,
        mask_proxy_protocol: typed.mask_proxy_protocol,
        mask_max: typed.mask_max.unwrap_or(limits::MASK_MAX),
        tls_skew: typed.tls_skew.unwrap_or(tls::SKEW),
        tls_hybrid: typed.tls_hybrid.unwrap_or(true),
        allow_plain: typed.allow_plain,
        needs_domain,
        padded_only: typed.padded_only,
        ad_tag: typed.ad_tag,
        config_file,
        direct,
        dc_overrides: typed.dc_overrides,
        prefer_ipv6: typed.prefer_ipv6,
        fallback: !typed.no_fallback,
        server: typed.server,
        print_links: typed.print_links,
        aes_pwd_given: typed.aes_pwd.is_some(),
        aes_pwd: typed.aes_pwd.unwrap_or("secret".into()),
        max_clients: typed.max_clients,
        connections: typed.connections,
        slots_per_set: slots_per_set(typed.slots),
        slots_asked: typed.slots,
        ping_interval: typed.ping_interval.unwrap_or(limits::PING_INTERVAL),
        window_clamp,
        backlog: typed.backlog.unwrap_or(BACKLOG),
        stats_ports: typed.stats_ports,
        http_stats: typed.http_stats,
        stats_nets: typed.stats_nets,
        user: typed.user,
        verbosity: typed.verbosity,
        nat_rules: typed.nat_rules,
        buffer_bytes: typed.buffer_bytes,
    })
}

/// The statistics port and what goes with it.
fn check_stats(typed: &Typed) -> Result<(), UsageError> {
    if typed.http_stats && typed.stats_ports.is_none() {
        let text = "fatal: port isn't defined".into();
        return Err(UsageError { text, code: 1 });
    }
    if !typed.http_stats && !typed.stats_nets.is_empty() {
        let text = "--stats-allow-net: expected --http-stats too, with -p";
        return Err(UsageError::new(text.into()));
    }
    Ok(())
}

/// -M as it is used.
fn slots_per_set(asked: u32) -> usize {
    match usize::try_from(asked) {
        Ok(0) => limits::DEFAULT_SLOTS,
        Ok(slots) => slots.min(limits::MAX_SLOTS),
        Err(_) => limits::MAX_SLOTS,
    }
}

fn window_clamp(typed: &Typed) -> u32 {
    let default = match tls::has_domain(typed) {
        // A web server's window isn't clamped either. C: the same.
        true => 0,
        false => WINDOW_CLAMP,
    };
    typed.window_clamp.unwrap_or(default)
}

/// The port of a proxy whose secret is made up: no privileges are needed for it.
const DEFAULT_PORT: u16 = 8443;
/// The port in links if -H doesn't say: most proxies have it.
const LINK_PORT: u16 = 443;
/// -W's default, bytes. C: the same.
const WINDOW_CLAMP: u32 = 131_072;
/// -b's default. C: the same.
const BACKLOG: i32 = 8192;
