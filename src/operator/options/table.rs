//! The table of flags: one row each, with a flag's names, its value, its help and the function that
//! notes it in `Typed`. To add a flag is to add a row and a field.

use crate::operator::options::Command;
use crate::operator::options::flags::{Apply, Flag};
use crate::operator::options::tls::{
    apply_domain, apply_hybrid, apply_mask, apply_mask_max, apply_skew,
};
use crate::operator::options::values::{
    MAX_COUNT, apply_address, apply_aes_pwd, apply_buffers, apply_dc_override, apply_http_ports,
    apply_nat_info, apply_ping_interval, apply_port, apply_proxy_tag, apply_secret,
    apply_secret_file, apply_server, apply_stats_net, apply_user, apply_verbosity, number,
};

/// Every flag, in the order of the help: capitals and digits, small letters, long ones.
pub const FLAGS: &[Flag] = &[
    Flag {
        short: Some('6'),
        long: "ipv6",
        value: "",
        help: "listen for clients on IPv6, which takes IPv4 clients too",
        apply: Apply::Alone(|typed| typed.ipv6 = true),
    },
    Flag {
        short: Some('C'),
        long: "max-special-connections",
        value: " N",
        help: "serve at most N clients at a time (default: what the system's limits allow)",
        apply: Apply::Value(|typed, text| {
            typed.max_clients = Some(number(text, 1..=MAX_COUNT)?);
            Ok(())
        }),
    },
    Flag {
        short: Some('D'),
        long: "domain",
        value: " HOST[:PORT]",
        help: "serve fake TLS only, as this web site; who doesn't know the secret is taken to the site \
               itself, on this port (default 443); IPv6 in brackets; repeatable, the first is for \
               visitors who name none; the domain of an ee secret counts too",
        apply: Apply::Value(apply_domain),
    },
    Flag {
        short: Some('H'),
        long: "http-ports",
        value: " PORT[,PORT]",
        help: "ports for clients, at most 128; needed, unless a secret is made up (then 8443); \
               0 lets the kernel choose",
        apply: Apply::Value(apply_http_ports),
    },
    Flag {
        short: Some('M'),
        long: "slaves",
        value: " N",
        help: "connections to each set of middle proxies, 0 to 256: 0 is 2 (default), above 16 is 16; \
               in the C program worker processes, of which this one needs none",
        apply: Apply::Value(|typed, text| {
            typed.slots = number(text, 0..=256)?;
            Ok(())
        }),
    },
    Flag {
        short: Some('P'),
        long: "proxy-tag",
        value: " TAG",
        help: "the tag of the sponsored channel from @MTProxybot, 32 hexadecimal digits; needs a \
               configuration file",
        apply: Apply::Value(apply_proxy_tag),
    },
    Flag {
        short: Some('R'),
        long: "random-padding-only",
        value: "",
        help: "serve only clients that pad their packets (links with a dd secret)",
        apply: Apply::Alone(|typed| typed.padded_only = true),
    },
    Flag {
        short: Some('S'),
        long: "mtproto-secret",
        value: " SECRET[:LABEL[:LIMIT]]",
        help: "a secret that clients must know: 32 hexadecimal digits, the same with dd in front \
               (padded packets) or with ee in front and a domain behind (fake TLS), or base64url of \
               these; a label is its name in messages, a limit \
               how many clients may use it at a time; up to 16 times",
        apply: Apply::Value(apply_secret),
    },
    Flag {
        short: Some('T'),
        long: "ping-interval",
        value: " SECONDS",
        help: "ping middle proxies this often, 1 to 3600, default 60; \
               the C program parsed it and never pinged",
        apply: Apply::Value(apply_ping_interval),
    },
    Flag {
        short: Some('W'),
        long: "window-clamp",
        value: " BYTES",
        help: "limit of a client's TCP window, default 131072, with fake TLS none; 0 for none",
        apply: Apply::Value(|typed, text| {
            typed.window_clamp = Some(number(text, 0..=MAX_COUNT)?);
            Ok(())
        }),
    },
    Flag {
        short: Some('b'),
        long: "backlog",
        value: " N",
        help: "clients that may wait to be accepted, default 8192 (the system may cut it)",
        apply: Apply::Value(|typed, text| {
            typed.backlog = i32::try_from(number(text, 1..=MAX_COUNT)?).ok();
            Ok(())
        }),
    },
    Flag {
        short: Some('c'),
        long: "connections",
        value: " N",
        help: "use at most N file descriptors (default: what the system allows)",
        apply: Apply::Value(|typed, text| {
            typed.connections = Some(number(text, 1..=MAX_COUNT)?);
            Ok(())
        }),
    },
    Flag {
        short: Some('h'),
        long: "help",
        value: "",
        help: "print this text, exit 2",
        apply: Apply::Alone(|typed| typed.instead = Some(Command::Help)),
    },
    Flag {
        short: Some('p'),
        long: "port",
        value: " PORT[:LAST]",
        help: "port for statistics (with --http-stats), or the first free one of a range; 0 lets the \
               kernel choose",
        apply: Apply::Value(apply_port),
    },
    Flag {
        short: Some('u'),
        long: "user",
        value: " NAME",
        help: "become this user when started as root (default: mtproxy, else nobody)",
        apply: Apply::Value(apply_user),
    },
    Flag {
        short: Some('v'),
        long: "verbosity",
        value: "[=N]",
        help: "log more; each -v adds one, --verbosity=N sets it",
        apply: Apply::Optional(apply_verbosity),
    },
    Flag {
        short: None,
        long: "address",
        value: " IPV4",
        help: "listen on this address (not with -6) and dial middle proxies from it",
        apply: Apply::Value(apply_address),
    },
    Flag {
        short: None,
        long: "aes-pwd",
        value: " FILE",
        help: "Telegram's proxy-secret file (default: secret in the current directory)",
        apply: Apply::Value(apply_aes_pwd),
    },
    Flag {
        short: None,
        long: "allow-plain",
        value: "",
        help: "fake TLS: serve clients without it too; who sends the right bytes then sees that this \
               is no web site",
        apply: Apply::Alone(|typed| typed.allow_plain = true),
    },
    Flag {
        short: None,
        long: "dc-override",
        value: " ID:HOST:PORT",
        help: "direct mode: reach this data centre here instead of at its own address (IPv6 in brackets); \
               repeatable, several of one ID are tried in order",
        apply: Apply::Value(apply_dc_override),
    },
    Flag {
        short: None,
        long: "direct",
        value: "",
        help: "take clients straight to Telegram even if there is a configuration file",
        apply: Apply::Alone(|typed| typed.direct = true),
    },
    Flag {
        short: None,
        long: "http-stats",
        value: "",
        help: "serve /stats and /metrics over HTTP on the port of -p, to this machine only",
        apply: Apply::Alone(|typed| typed.http_stats = true),
    },
    Flag {
        short: None,
        long: "mask",
        value: " HOST:PORT",
        help: "fake TLS: take everybody who isn't a client here, such as to a web server of one's own \
               (IPv6 in brackets), instead of to the site of the domain that was asked for",
        apply: Apply::Value(apply_mask),
    },
    Flag {
        short: None,
        long: "mask-max",
        value: " N",
        help: "fake TLS: take at most N such visitors there at a time, default 64; more are closed, with \
               0 all of them",
        apply: Apply::Value(apply_mask_max),
    },
    Flag {
        short: None,
        long: "mask-proxy-protocol",
        value: "",
        help: "tell the server of --mask the visitor's address, in a PROXY protocol v2 header, which \
               it must expect",
        apply: Apply::Alone(|typed| typed.mask_proxy_protocol = true),
    },
    Flag {
        short: None,
        long: "msg-buffers-size",
        value: " BYTES[kmgt]",
        help: "memory for packets on their way (default: a quarter of the memory, at most 256m)",
        apply: Apply::Value(apply_buffers),
    },
    Flag {
        short: None,
        long: "nat-info",
        value: " LOCAL:GLOBAL",
        help: "a local IPv4 address and the one that Telegram sees in its place; up to 16 times",
        apply: Apply::Value(apply_nat_info),
    },
    Flag {
        short: None,
        long: "no-fallback",
        value: "",
        help: "with a configuration file: don't take clients straight to Telegram while no middle \
               proxy of their data centre can be reached",
        apply: Apply::Alone(|typed| typed.no_fallback = true),
    },
    Flag {
        short: None,
        long: "open",
        value: "",
        help: "serve everybody, also clients that don't obfuscate what they send; goes without -S; without a \
               configuration file no secret is made up then",
        apply: Apply::Alone(|typed| typed.open = true),
    },
    Flag {
        short: None,
        long: "prefer-ipv6",
        value: "",
        help: "direct mode: try the IPv6 addresses of a data centre first",
        apply: Apply::Alone(|typed| typed.prefer_ipv6 = true),
    },
    Flag {
        short: None,
        long: "print-links",
        value: "",
        help: "show the links at start even if standard output is no terminal; they hold the secret",
        apply: Apply::Alone(|typed| typed.print_links = true),
    },
    Flag {
        short: None,
        long: "qr",
        value: "",
        help: "only for link: show a QR code of the first link too",
        apply: Apply::Alone(|typed| typed.qr = true),
    },
    Flag {
        short: None,
        long: "secret-file",
        value: " FILE",
        help: "a file with a secret a line, spelled as for -S; # begins a comment",
        apply: Apply::Value(apply_secret_file),
    },
    Flag {
        short: None,
        long: "server",
        value: " HOST",
        help: "the name or address that links show (default: this machine's public address)",
        apply: Apply::Value(apply_server),
    },
    Flag {
        short: None,
        long: "stats-allow-net",
        value: " NET",
        help: "serve statistics to this address or network too (10.0.0.0/8), and then on all addresses; \
               repeatable",
        apply: Apply::Value(apply_stats_net),
    },
    Flag {
        short: None,
        long: "tls-hybrid",
        value: " on/off",
        help: "fake TLS: off never answers with a key of the hybrid group X25519MLKEM768, even if the \
               site does; default on",
        apply: Apply::Value(apply_hybrid),
    },
    Flag {
        short: None,
        long: "tls-skew",
        value: " BACK[,AHEAD]",
        help: "fake TLS: seconds that a client's clock may be behind this one, and ahead of it; \
               default 600,3",
        apply: Apply::Value(apply_skew),
    },
    Flag {
        short: None,
        long: "version",
        value: "",
        help: "print the version, exit 0",
        apply: Apply::Alone(|typed| typed.instead = Some(Command::Version)),
    },
];
