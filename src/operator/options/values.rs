//! What the values of flags may be: each function notes one value in [`Typed`] or says what was
//! expected. Called by the rows of `flags` only.

use crate::operator::options::{DcOverride, Typed};
use mtproxy::formats::cidr::Network;
use mtproxy::limits::{MAX_HOST_NAME, MAX_NAT_RULES, MAX_PORTS, MAX_SECRETS, MAX_STATS_NETS};
use mtproxy::proto::secret::{SecretEntry, parse_hex16};
use mtproxy::proto::wire::{AdTag, DcId};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::time::Duration;

/// Why a value was refused.
pub enum Wrong {
    /// What was expected; the value may be shown.
    Expected(String),
    /// The same, with an exit code of its own.
    Exit(u8, String),
    /// The whole sentence; the value may be a secret.
    Hidden(String),
}

/// A plain decimal number in `range`: no sign, no space.
pub fn number(text: &str, range: RangeInclusive<u32>) -> Result<u32, Wrong> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let value = text
        .parse()
        .ok()
        .filter(|value| digits && range.contains(value));
    value.ok_or_else(|| {
        Wrong::Expected(format!(
            "a number from {} to {}",
            range.start(),
            range.end()
        ))
    })
}

fn port(text: &str, range: RangeInclusive<u16>) -> Option<u16> {
    let range = u32::from(*range.start())..=u32::from(*range.end());
    number(text, range)
        .ok()
        .and_then(|port| u16::try_from(port).ok())
}

pub fn apply_http_ports(typed: &mut Typed, text: &str) -> Result<(), Wrong> {
    for item in text.split(',') {
        let Some(port) = port(item, 0..=u16::MAX) else {
            let what = "ports from 1 to 65535 with commas between (0: the kernel chooses)";
            return Err(Wrong::Expected(what.into()));
        };
        if port != 0 && typed.ports.contains(&port) {
            return Err(Wrong::Expected(format!("port {port} only once")));
        }
        typed.ports.push(port);
    }
    match typed.ports.len() <= MAX_PORTS {
        true => Ok(()),
        false => Err(Wrong::Expected(format!("at most {MAX_PORTS} ports"))),
    }
}

pub fn apply_secret(typed: &mut Typed, text: &str) -> Result<(), Wrong> {
    let entry = SecretEntry::parse(text).map_err(|error| Wrong::Hidden(error.to_string()))?;
    let number = typed.secrets.len() + 1;
    for (first, known) in (1..).zip(&typed.secrets) {
        if let Some(clash) = entry.clash(known) {
            let (this, other) = (numbered(number, &entry), numbered(first, known));
            return Err(Wrong::Hidden(format!("{this} {clash} {other}")));
        }
    }
    if number > MAX_SECRETS {
        let text = format!("expected at most {} secrets", MAX_SECRETS);
        return Err(Wrong::Hidden(text));
    }
    typed.secrets.push(entry);
    Ok(())
}

/// How errors name a secret of -S: `number 2`, or `number 2 (label)`.
pub fn numbered(number: usize, entry: &SecretEntry) -> String {
    match &entry.label {
        Some(label) => format!("number {number} ({label})"),
        None => format!("number {number}"),
    }
}

pub fn apply_secret_file(typed: &mut Typed, text: &str) -> Result<(), Wrong> {
    if SecretEntry::parse(text).is_ok() {
        let text = "expected a file's name, got a secret: that goes to -S".into();
        return Err(Wrong::Hidden(text));
    }
    if text.is_empty() {
        return Err(Wrong::Expected("a file's name".into()));
    }
    typed.secret_file = Some(text.into());
    Ok(())
}

pub fn apply_user(typed: &mut Typed, text: &str) -> Result<(), Wrong> {
    if text.is_empty() {
        return Err(Wrong::Expected("a user's name".into()));
    }
    typed.user = Some(text.into());
    Ok(())
}

pub fn apply_verbosity(typed: &mut Typed, text: Option<&str>) -> Result<(), Wrong> {
    typed.verbosity = match text {
        Some(text) => number(text, 0..=MAX_COUNT)?,
        None => typed.verbosity.saturating_add(1),
    };
    Ok(())
}

pub fn apply_address(typed: &mut Typed, text: &str) -> Result<(), Wrong> {
    let address = text.parse().ok();
    let what = || Wrong::Exit(4, "an IPv4 address".into());
    typed.address = Some(address.ok_or_else(what)?);
    Ok(())
}

pub fn apply_aes_pwd(typed: &mut Typed, text: &str) -> Result<(), Wrong> {
    if text.is_empty() {
        return Err(Wrong::Expected("a file's name".into()));
    }
    typed.aes_pwd = Some(text.into());
    Ok(())
}

pub fn apply_server(typed: &mut Typed, text: &str) -> Result<(), Wrong> {
    let what = "a name or an IP address without a port";
    typed.server = Some(host(text).ok_or(Wrong::Expected(what.into()))?);
    Ok(())
}

pub fn apply_dc_override(typed: &mut Typed, text: &str) -> Result<(), Wrong> {
    let parsed = text.split_once(':').and_then(|(id, address)| {
        let (host, port) = host_port(address)?;
        Some(DcOverride {
            id: DcId(id.parse().ok().filter(|id| *id != 0 && *id != i16::MIN)?),
            host,
            port,
        })
    });
    let what = "ID:HOST:PORT with the number of a data centre, IPv6 addresses in brackets";
    let parsed = parsed.ok_or(Wrong::Expected(what.into()))?;
    typed.dc_overrides.push(parsed);
    Ok(())
}

/// `HOST:PORT`, the host as [`host`] gives it, the port not 0.
pub fn host_port(text: &str) -> Option<(String, u16)> {
    let (name, digits) = text.rsplit_once(':')?;
    // Without its brackets an IPv6 address would swallow the port.
    let named = !name.contains(':') || name.starts_with('[');
    Some((host(name).filter(|_| named)?, port(digits, 1..=u16::MAX)?))
}

/// A host's name or an IP address, IPv6 with or without brackets; without them what comes back.
pub fn host(text: &str) -> Option<String> {
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
    if let Ok(address) = bare.unwrap_or(text).parse::<Ipv6Addr>() {
        return Some(address.to_string());
    }
    let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let fits = (1..=MAX_HOST_NAME).contains(&text.len()) && text.bytes().all(known);
    fits.then(|| text.into())
}

pub fn apply_proxy_tag(typed: &mut Typed, text: &str) -> Result<(), Wrong> {
    let tag = parse_hex16(text.as_bytes());
    typed.ad_tag = Some(AdTag(tag.ok_or_else(|| {
        let length = text.chars().count();
        Wrong::Hidden(format!(
            "expected 32 hexadecimal digits, got {length} characters"
        ))
    })?));
    Ok(())
}

pub fn apply_ping_interval(typed: &mut Typed, text: &str) -> Result<(), Wrong> {
    let interval = milliseconds(text).filter(|ms| (1_000..=3_600_000).contains(ms));
    let what = || Wrong::Expected("seconds from 1 to 3600, a fraction allowed".into());
    typed.ping_interval = Some(Duration::from_millis(interval.ok_or_else(what)?));
    Ok(())
}

/// Seconds with up to three decimals. Floating point would take 40 KB of the binary.
fn milliseconds(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |s: &str| s.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || fraction.len() > 3 {
        return None;
    }
    let thousandths: u64 = format!("{fraction:0<3}").parse().ok()?;
    whole
        .parse::<u64>()
        .ok()?
        .checked_mul(1000)?
        .checked_add(thousandths)
}

pub fn apply_port(typed: &mut Typed, text: &str) -> Result<(), Wrong> {
    let ports = match text.split_once(':') {
        None => port(text, 0..=u16::MAX).map(|port| port..=port),
        Some((first, last)) => match (port(first, 1..=u16::MAX), port(last, 1..=u16::MAX)) {
            (Some(first), Some(last)) if first <= last => Some(first..=last),
            _ => None,
        },
    };
    let what = "a port up to 65535 (0: the kernel chooses), or a range FIRST:LAST";
    typed.stats_ports = Some(ports.ok_or(Wrong::Expected(what.into()))?);
    Ok(())
}

pub fn apply_stats_net(typed: &mut Typed, text: &str) -> Result<(), Wrong> {
    let what = "an IP address or a network, as in 10.0.0.0/8";
    let network = Network::parse(text).ok_or(Wrong::Expected(what.into()))?;
    if typed.stats_nets.len() >= MAX_STATS_NETS {
        return Err(Wrong::Expected(format!(
            "at most {MAX_STATS_NETS} networks"
        )));
    }
    typed.stats_nets.push(network);
    Ok(())
}

pub fn apply_nat_info(typed: &mut Typed, text: &str) -> Result<(), Wrong> {
    let rule = text.split_once(':').and_then(|(local, global)| {
        let local: Ipv4Addr = local.parse().ok()?;
        Some((local, global.parse().ok()?))
    });
    let Some(rule) = rule else {
        return Err(Wrong::Expected("two IPv4 addresses, LOCAL:GLOBAL".into()));
    };
    if typed.nat_rules.len() >= MAX_NAT_RULES {
        return Err(Wrong::Expected(format!("at most {MAX_NAT_RULES} rules")));
    }
    typed.nat_rules.push(rule);
    Ok(())
}

pub fn apply_buffers(typed: &mut Typed, text: &str) -> Result<(), Wrong> {
    let shift = match text.bytes().last().map(|byte| byte.to_ascii_lowercase()) {
        Some(b'k') => 10,
        Some(b'm') => 20,
        Some(b'g') => 30,
        Some(b't') => 40,
        _ => 0,
    };
    let digits = if shift == 0 {
        text
    } else {
        &text[..text.len() - 1]
    };
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    let value: Option<u64> = digits.parse().ok().filter(|value| plain && *value > 0);
    let what = "bytes as a number above 0, or one with k, m, g or t behind it";
    let bytes = value.and_then(|value| value.checked_mul(1 << shift));
    typed.buffer_bytes = Some(bytes.ok_or(Wrong::Expected(what.into()))?);
    Ok(())
}

/// Largest number for counts: C's int.
pub const MAX_COUNT: u32 = i32::MAX as u32;
