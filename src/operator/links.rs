//! Links and their QR code: shown by `server` at start, and by `mtproxy link`.
//!
//! Links hold secrets. They go to standard output only, and at start only if somebody is known to look there
//! (design.md 5). All input is the operator's. The C proxy shows no links.

use std::io::{self, IsTerminal, Write};
use std::net::{IpAddr, SocketAddr, UdpSocket};

use mtproxy::formats::secret::{Form, SecretEntry, spell, spell_short};
use mtproxy::formats::{link, qr};
use mtproxy::limits::LINK_PORT;

use crate::base::{log, net};
use crate::middle::nat::NatRules;
use crate::operator::access::{self, Secrets};
use crate::operator::{Fatal, options::Config};

/// `mtproxy link`: shows the links of a server without starting it.
pub fn print(config: &Config) -> Result<(), Fatal> {
    let entries = access::read(config)?;
    let port = config.first_port().unwrap_or(0);
    show(config, &entries, port, config.qr).map_err(|e| Fatal(format!("{UNWRITTEN}: {e}")))
}

/// Shows links and QR code if a terminal, --print-links or a made-up secret asks for them; else says
/// what would. `port` is the one that the first listener has.
pub fn show_at_start(config: &Config, secrets: &Secrets, addresses: &[SocketAddr]) {
    if secrets.entries.is_empty() {
        return;
    }
    if !(secrets.made_up || config.print_links || io::stdout().is_terminal()) {
        return log::say(format_args!(
            "links: `mtproxy link` with the same flags shows them; they hold the secret"
        ));
    }
    if secrets.made_up {
        log::say(format_args!(
            "no -S is given: the secret in this link was made up and ends with this run"
        ));
    }
    // Clients of unix sockets come by way of a front, whose port isn't known.
    let port = addresses.first().map_or(LINK_PORT, SocketAddr::port);
    if let Err(e) = show(config, &secrets.entries, port, true) {
        log::say(format_args!("warning: {UNWRITTEN}: {e}"));
    }
}

/// Writes links, and the first one's QR code if `qr`, to standard output; what is unclear about them is said
/// on standard error.
fn show(config: &Config, entries: &[SecretEntry], port: u16, qr: bool) -> io::Result<()> {
    let found = match config.has_only_pages() {
        true => Ok(String::new()), // pages alone, which have names
        false => find_server(config),
    };
    let server = found.as_deref().unwrap_or(PLACEHOLDER);
    if let Err(local) = &found {
        let why = match local {
            Some(ip) => format!("{ip} is no public address"),
            None => "this machine's address is not known".into(),
        };
        log::say(format_args!(
            "links: {why}: put the right one in the place of {PLACEHOLDER}, or give --server HOST"
        ));
    }
    let mut text = links(config, entries, server, port);
    if qr && found.is_err() {
        log::say(format_args!("links: no QR code without an address"));
    } else if qr {
        // Spelled short: link and code are to fit a terminal of 24 lines.
        let first = entries.first().map(|entry| {
            let secret = spell_short(&entry.secret, &served_form(config, entries, entry));
            let [link, _] = link::links(server, port, &secret);
            link
        });
        match first.and_then(|link| qr::draw(link.as_bytes())) {
            Some(drawing) => text.push_str(&drawing),
            None => log::say(format_args!("links: the first is too long for a QR code")),
        }
    }
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Both links of each secret, and those for each page, a line each, with its label as a comment above.
fn links(config: &Config, entries: &[SecretEntry], server: &str, port: u16) -> String {
    let mut text = String::new();
    for entry in entries {
        let form = served_form(config, entries, entry);
        if let Some(label) = &entry.label {
            text.push_str(&format!("# {label}\n"));
        }
        let own = match config.has_only_pages() {
            true => None,
            false => Some(link::links(server, port, &spell(&entry.secret, &form))),
        };
        let padded = config.padded_only || entry.form != Form::Plain;
        let places = config.web.iter();
        let of_pages = places.map(|place| link::web_links(place, &entry.secret, padded));
        for link in own.into_iter().chain(of_pages).flatten() {
            text.push_str(&format!("{link}\n"));
        }
    }
    text
}

/// The form of a secret in which it is served.
pub fn served_form(config: &Config, entries: &[SecretEntry], entry: &SecretEntry) -> Form {
    match (&entry.form, access::domains(config, entries).first()) {
        // With a domain nothing else is served.
        (Form::Plain | Form::Padded, Some(domain)) => access::fake_tls(domain),
        // A plain one would lead clients to a transport that is refused.
        (Form::Plain, None) if config.padded_only => Form::Padded,
        (form, _) => form.clone(),
    }
}

/// Where clients reach this machine: --server, else the address that the default route goes out from,
/// if it is public. The error is the address that is not.
pub fn find_server(config: &Config) -> Result<String, Option<IpAddr>> {
    if let Some(server) = &config.server {
        return Ok(server.clone());
    }
    let nat = NatRules(config.nat_rules.clone());
    let outside = |ip: IpAddr| nat.translate(SocketAddr::new(ip, 0)).ip();
    let given = config.address;
    let first = given.or_else(|| source_towards("0.0.0.0:0", SOMEWHERE_V4));
    let first = first.map(outside);
    let is_on_all = config.ipv6 && given.is_none();
    let ipv6 = is_on_all.then(|| source_towards("[::]:0", SOMEWHERE_V6));
    let public = [first, ipv6.flatten()]
        .into_iter()
        .flatten()
        .find(|ip| net::is_global(*ip));
    public.map(|ip| ip.to_string()).ok_or(first)
}

/// The address that the kernel would send from to `target`, out of `any`. Connecting a UDP socket sends
/// nothing.
pub fn source_towards(any: &str, target: &str) -> Option<IpAddr> {
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(target).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// What is said when standard output takes nothing.
const UNWRITTEN: &str = "the links can't be written";
/// Stands in links for an address that is not known.
const PLACEHOLDER: &str = "YOUR-ADDRESS";
/// Addresses of data centre 2: any public one would do.
pub const SOMEWHERE_V4: &str = "149.154.167.51:443";
const SOMEWHERE_V6: &str = "[2001:67c:4e8:f002::a]:443";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::options;
    use crate::operator::options::Command;

    const A: &str = "00112233445566778899aabbccddeeff";

    fn config(flags: &str) -> Config {
        let words = flags.split_whitespace().map(Into::into);
        match options::parse(words) {
            Ok(Command::Run(config)) => *config,
            other => panic!("{flags}: {other:?}"),
        }
    }

    fn links_of(flags: &str) -> Vec<String> {
        let config = config(flags);
        let text = links(&config, &config.secrets, "h", 443);
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn two_lines_a_secret_and_its_label_above() {
        let other = "11112222333344445555666677778888";
        let flags = format!("-H 1 -S {A} -S dd{other}:bob:3");
        let query = |secret: &str| format!("proxy?server=h&port=443&secret={secret}");
        let lines = [
            format!("tg://{}", query(A)),
            format!("https://t.me/{}", query(A)),
            "# bob".into(),
            format!("tg://{}", query(&format!("dd{other}"))),
            format!("https://t.me/{}", query(&format!("dd{other}"))),
        ];
        assert_eq!(links_of(&flags), lines);
    }

    #[test]
    fn the_form_is_one_that_is_served() {
        let secrets = |flags: String| -> Vec<String> {
            let lines = links_of(&format!("-H 1 {flags}"));
            let secret = |line: &String| Some(line.split_once("secret=")?.1.to_owned());
            lines.iter().step_by(2).filter_map(secret).collect()
        };
        let other = "11112222333344445555666677778888";
        assert_eq!(secrets(format!("-R -S {A}")), [format!("dd{A}")]);
        // Each with its own domain, and all others with the first one.
        let (ee, given) = (format!("ee{A}612e62"), format!("ee{other}632E64"));
        let flags = format!("-S dd{A} -S {given} -D A.b. -D x");
        assert_eq!(
            secrets(flags),
            [&ee, &given.to_lowercase()].map(Clone::clone)
        );
        let wanted = [format!("ee{other}632e64"), format!("ee{A}632e64")];
        assert_eq!(secrets(format!("-R -S ee{other}632e64 -S {A}")), wanted);
    }

    #[test]
    fn where_clients_reach_us() {
        let found = |flags: &str| find_server(&config(flags));
        assert_eq!(found("--server proxy.example"), Ok("proxy.example".into()));
        assert_eq!(found("--server [2001:db8::1]"), Ok("2001:db8::1".into()));
        assert_eq!(found("--address 8.8.8.8"), Ok("8.8.8.8".into()));
        let private = "10.0.0.2".parse().unwrap();
        assert_eq!(found("--address 10.0.0.2"), Err(Some(private)));
        let behind = "--address 10.0.0.2 --nat-info 10.0.0.2:9.9.9.9";
        assert_eq!(found(behind), Ok("9.9.9.9".into()));
        // On the way to this machine itself the kernel's answer is known.
        let here = source_towards("0.0.0.0:0", "127.0.0.1:443");
        assert_eq!(here, Some("127.0.0.1".parse().unwrap()));
    }
}
