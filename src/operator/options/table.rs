//! The table of flags: a row holds a flag's names, the name of its value, its help, and what it sets in the
//! [`Config`](super::config::Config). To add a flag is to add a row here and a field there.
//!
//! The parser, the help and the README's table derive from the rows.

use super::config::Command;
use super::flag::Apply::{Alone, Instead, Optional, Value};
use super::flag::Flag;
use super::values::{self, number, set};
use mtproxy::limits::{MAX_COUNT, MAX_DRAIN, MAX_MASK_MAX, MAX_SLOTS_ASKED};

/// A flag of another program that takes a number, and why it has no effect here.
const fn unused(spelling: &'static str, help: &'static str) -> Flag {
    Flag {
        spelling,
        help,
        apply: Value(|_, text| number(text, 0..=MAX_COUNT).map(drop)),
    }
}

/// The same without a value.
const fn unused_alone(spelling: &'static str, help: &'static str) -> Flag {
    Flag {
        spelling,
        help,
        apply: Alone(|_| ()),
    }
}

/// Every flag, in the order of the help: capitals and digits, small letters, long ones.
pub const FLAGS: &[Flag] = &[
    Flag {
        spelling: "-6, --ipv6",
        help: "listen for clients on IPv6, which takes IPv4 clients too",
        apply: Alone(|config| config.ipv6 = true),
    },
    Flag {
        spelling: "-C, --max-special-connections N",
        help: "serve at most N clients at a time (default: what the system's limits allow)",
        apply: Value(|config, text| set(&mut config.max_clients, number(text, 1..=MAX_COUNT))),
    },
    Flag {
        spelling: "-D, --domain HOST[:PORT]",
        help: "serve fake TLS only, as this web site; who doesn't know the secret is taken to the site \
               itself, on this port (default 443); IPv6 in brackets; repeatable, the first is for \
               visitors who name none; the domain of an ee secret counts too",
        apply: Value(|config, text| values::domain(&mut config.domains, text)),
    },
    Flag {
        spelling: "-H, --http-ports PORT[,PORT]",
        help: "ports for clients, at most 128; needed, unless a secret is made up (then 8443); \
               0 lets the kernel choose",
        apply: Value(|config, text| values::client_ports(&mut config.ports, text)),
    },
    Flag {
        spelling: "-M, --slaves N",
        help: "connections to each set of middle proxies, 0 to 256: 0 is 2 (default), above 16 is 16; \
               in the C program worker processes, of which this one needs none",
        apply: Value(|config, text| set(&mut config.slots, number(text, 0..=MAX_SLOTS_ASKED))),
    },
    Flag {
        spelling: "-P, --proxy-tag TAG",
        help: "the tag of the sponsored channel from @MTProxybot, 32 hexadecimal digits; needs a \
               configuration file",
        apply: Value(|config, text| set(&mut config.ad_tag, values::ad_tag(text))),
    },
    Flag {
        spelling: "-R, --random-padding-only",
        help: "serve only clients that pad their packets (links with a dd secret)",
        apply: Alone(|config| config.padded_only = true),
    },
    Flag {
        spelling: "-S, --mtproto-secret SECRET[:LABEL[:LIMIT]]",
        help: "a secret that clients must know: 32 hexadecimal digits, the same with dd in front \
               (padded packets) or with ee in front and a domain behind (fake TLS), or base64url of \
               these; a label is its name in messages, a limit \
               how many clients may use it at a time; up to 16 times",
        apply: Value(|config, text| values::secret(&mut config.secrets, text)),
    },
    Flag {
        spelling: "-T, --ping-interval SECONDS",
        help: "ping middle proxies this often, default 60, fractions allowed; less than 1 is taken as 1 \
               (0 as the default), more than 3600 as 3600; the C program parses it and never pings",
        apply: Value(|config, text| {
            set(&mut config.ping_milliseconds, values::ping_interval(text))
        }),
    },
    Flag {
        spelling: "-W, --window-clamp BYTES",
        help: "limit of a client's TCP window, default 131072, with fake TLS none; 0 for none",
        apply: Value(|config, text| set(&mut config.window_clamp, number(text, 0..=MAX_COUNT))),
    },
    Flag {
        spelling: "-b, --backlog N",
        help: "clients that may wait to be accepted, default 8192 (the system may cut it)",
        apply: Value(|config, text| set(&mut config.backlog.0, number(text, 1..=MAX_COUNT))),
    },
    Flag {
        spelling: "-c, --connections N",
        help: "use at most N file descriptors (default: what the system allows)",
        apply: Value(|config, text| set(&mut config.connections, number(text, 1..=MAX_COUNT))),
    },
    Flag {
        spelling: "-d, --daemonize[=N]",
        help: "run in the background, in a session of its own: the command returns 0 once the server is ready, \
               or else its error; from then on standard error leads nowhere (see -l); --daemonize=0 is off; \
               service managers need none of it",
        apply: Optional(|config, text| values::switch(&mut config.daemonize, text)),
    },
    Flag {
        spelling: "-h, --help",
        help: "print this text, exit 2",
        apply: Instead(|| Command::Help),
    },
    Flag {
        spelling: "-l, --log FILE",
        help: "append the log to this file (mode 0640) instead of standard error, where only a start still says \
               what it does; SIGUSR1 opens the file anew, for log rotation",
        apply: Value(|config, text| set(&mut config.log_file, values::file(text))),
    },
    Flag {
        spelling: "-p, --port PORT[:LAST]",
        help: "port for statistics (with --http-stats), or the first free one of a range; 0 lets the \
               kernel choose",
        apply: Value(|config, text| set(&mut config.stats_ports, values::stats_ports(text))),
    },
    Flag {
        spelling: "-u, --user NAME",
        help: "become this user, a name or a number, when started as root (default: mtproxy, else nobody)",
        apply: Value(|config, text| set(&mut config.user, values::user(text))),
    },
    Flag {
        spelling: "-v, --verbosity[=N]",
        help: "log more: 1 adds a line for each connection that ends, with a client's label, data centre, bytes \
               and seconds; 2 adds one for each client that is let in; each -v adds 1, --verbosity=N sets it",
        apply: Optional(|config, text| values::verbosity(&mut config.verbosity, text)),
    },
    Flag {
        spelling: "--address IP",
        help: "listen on this address, IPv4 or IPv6 (-6 goes with IPv6 only), and connect to Telegram from \
               it, unless it is a loopback address",
        apply: Value(|config, text| set(&mut config.address, values::address(text))),
    },
    Flag {
        spelling: "--aes-pwd FILE",
        help: "Telegram's proxy-secret file (default: secret in the current directory)",
        apply: Value(|config, text| set(&mut config.aes_pwd, values::file(text))),
    },
    Flag {
        spelling: "--allow-plain",
        help: "fake TLS: serve clients without it too; who sends the right bytes then sees that this \
               is no web site",
        apply: Alone(|config| config.allow_plain = true),
    },
    unused_alone(
        "--allow-skip-dh",
        "no effect: without --force-dh no connection has a Diffie-Hellman exchange",
    ),
    Flag {
        spelling: "--any-sni",
        help: "fake TLS: serve clients that know a secret whatever name they ask for, as with the links of \
               an earlier -D",
        apply: Alone(|config| config.any_sni = true),
    },
    Flag {
        spelling: "--chroot DIR",
        help: "see this directory as the whole file system once files are read and ports are open; needs root",
        apply: Value(|config, text| set(&mut config.chroot, values::file(text))),
    },
    Flag {
        spelling: "--config FILE",
        help: "a file of these flags: a line each, the long name without dashes, then its value; # begins a \
               comment; what the command line gives too counts as given there; mtproxy config prints a \
               sample; read again on SIGHUP or when it has changed",
        apply: Value(|config, text| set(&mut config.settings_file, values::file(text))),
    },
    unused(
        "--cpu-threads N",
        "no effect: each client has a thread, and the system spreads them",
    ),
    unused_alone(
        "--crc32c",
        "no effect: these checksums are offered to middle proxies anyway",
    ),
    Flag {
        spelling: "--dc-override ID:HOST:PORT",
        help: "direct mode: reach this data centre here instead of at its own address (IPv6 in brackets); \
               repeatable, several of one ID are tried in order",
        apply: Value(|config, text| values::dc_override(&mut config.dc_overrides, text)),
    },
    unused(
        "--dc-probe-interval SECONDS",
        "no effect: data centres are not probed, the next client finds out",
    ),
    Flag {
        spelling: "--direct",
        help: "take clients straight to Telegram even if there is a configuration file",
        apply: Alone(|config| config.direct = true),
    },
    Flag {
        spelling: "--disable-tcp",
        help: "open no port for statistics, whatever -p and --http-stats say",
        apply: Alone(|config| config.no_stats = true),
    },
    Flag {
        spelling: "--drain SECONDS",
        help: "after a reload that removes a secret or middle proxies, their clients may stay for so long, 0 to \
               86400, default 300",
        apply: Value(|config, text| set(&mut config.drain.0, number(text, 0..=MAX_DRAIN))),
    },
    Flag {
        spelling: "--force-dh",
        help: "agree on the keys of middle proxies by Diffie-Hellman too, and use no middle proxy that does \
               without; the C program takes the flag and never does it",
        apply: Alone(|config| config.force_dh = true),
    },
    Flag {
        spelling: "--fwmark N",
        help: "mark connections to Telegram, to the SOCKS5 server and to sites with this number, for the \
               system's routing (ip rule); the user that the server runs as needs CAP_NET_ADMIN",
        apply: Value(|config, text| set(&mut config.mark, values::mark(text))),
    },
    Flag {
        spelling: "--http-stats",
        help: "serve /stats and /metrics over HTTP on the port of -p, to this machine only",
        apply: Alone(|config| config.http_stats = true),
    },
    unused("--io-threads N", "no effect: see --cpu-threads"),
    Flag {
        spelling: "--ip-allowlist FILE",
        help: "serve only clients whose addresses this file lists, an address or a network a line, at most \
               100000, # begins a comment; others are strangers",
        apply: Value(|config, text| set(&mut config.allowed, values::file(text))),
    },
    Flag {
        spelling: "--ip-blocklist FILE",
        help: "don't serve clients whose addresses this file lists, written as for --ip-allowlist",
        apply: Value(|config, text| set(&mut config.blocked, values::file(text))),
    },
    Flag {
        spelling: "--listen IP:PORT",
        help: "listen for clients here, besides -H: IPv6 in brackets ([::] takes IPv4 too), or the path of a \
               unix socket; repeatable",
        apply: Value(|config, text| values::listen(&mut config.listen, text)),
    },
    Flag {
        spelling: "--mask HOST:PORT",
        help: "fake TLS: take everybody who isn't a client here, such as to a web server of one's own \
               (IPv6 in brackets), instead of to the site of the domain that was asked for",
        apply: Value(|config, text| set(&mut config.mask, values::mask(text))),
    },
    Flag {
        spelling: "--mask-max N",
        help: "fake TLS: take at most N such visitors there at a time (default: one for eight clients, 64 \
               to 512); more wait for a place, with 0 all are closed",
        apply: Value(|config, text| set(&mut config.mask_max, number(text, 0..=MAX_MASK_MAX))),
    },
    Flag {
        spelling: "--mask-private",
        help: "take visitors to a site even if a name server says that its address is a private one; whoever \
               rules the name then chooses what they see of this network",
        apply: Alone(|config| config.mask_private = true),
    },
    Flag {
        spelling: "--mask-proxy-protocol",
        help: "tell the server of --mask the visitor's address, in a PROXY protocol v2 header, which \
               it must expect",
        apply: Alone(|config| config.mask_proxy_protocol = true),
    },
    Flag {
        spelling: "--max-accept-rate N",
        help: "accept at most N connections a second, after a burst of N; further ones are closed and counted; \
               0 for any number (default)",
        apply: Value(|config, text| set(&mut config.accept_rate, number(text, 0..=MAX_COUNT))),
    },
    unused(
        "--max-dh-accept-rate N",
        "no effect: it is for a service on the port of -p that is not here",
    ),
    Flag {
        spelling: "--max-unauthenticated N",
        help: "at most N connections at a time that have proven no secret (default: one for four clients, 64 \
               to 4096); while half of that are there, they are dropped early, by chance and by source",
        apply: Value(|config, text| {
            let most = number(text, 2..=MAX_COUNT);
            set(&mut config.max_unauthenticated, most)
        }),
    },
    Flag {
        spelling: "--msg-buffers-size BYTES[kmgt]",
        help: "memory for packets on their way (default: a quarter of the memory, at most 256m)",
        apply: Value(|config, text| set(&mut config.buffer_bytes, values::bytes(text))),
    },
    Flag {
        spelling: "--multithread[=N]",
        help: "no effect: see --cpu-threads",
        apply: Optional(|_, text| values::switch(&mut false, text)),
    },
    Flag {
        spelling: "--nat-info LOCAL:GLOBAL",
        help: "a local IPv4 address and the one that Telegram sees in its place; up to 16 times",
        apply: Value(|config, text| values::nat_rule(&mut config.nat_rules, text)),
    },
    Flag {
        spelling: "--nice N",
        help: "add N to the niceness, -20 to 19; less than 0 takes root",
        apply: Value(|config, text| set(&mut config.nice, values::niceness(text))),
    },
    Flag {
        spelling: "--no-fallback",
        help: "with a configuration file: don't take clients straight to Telegram while no middle \
               proxy of their data centre can be reached",
        apply: Alone(|config| config.no_fallback = true),
    },
    Flag {
        spelling: "--no-sandbox",
        help: "keep capabilities, system calls and files that serving doesn't need (default: they are given up \
               for good at start)",
        apply: Alone(|config| config.no_sandbox = true),
    },
    Flag {
        spelling: "--open",
        help: "serve everybody, also clients that don't obfuscate what they send; goes without -S; without a \
               configuration file no secret is made up then",
        apply: Alone(|config| config.open = true),
    },
    Flag {
        spelling: "--prefer-ipv6",
        help: "direct mode: try the IPv6 addresses of a data centre first",
        apply: Alone(|config| config.prefer_ipv6 = true),
    },
    Flag {
        spelling: "--print-links",
        help: "show the links at start even if standard output is no terminal; they hold the secret",
        apply: Alone(|config| config.print_links = true),
    },
    Flag {
        spelling: "--proxy-config FILE",
        help: "Telegram's list of middle proxies, as CONFIG; for the file of --config",
        apply: Value(|config, text| set(&mut config.config_file, values::file(text))),
    },
    Flag {
        spelling: "--proxy-protocol",
        help: "a load balancer in front says whose each connection is, in a PROXY protocol header of \
               version 1 or 2; connections without it are closed",
        apply: Alone(|config| config.proxy_protocol = true),
    },
    Flag {
        spelling: "--proxy-protocol-from NET",
        help: "believe it from this address or network only (default: this machine and private networks); \
               repeatable; others are closed",
        apply: Value(|config, text| values::network(&mut config.fronts, text)),
    },
    Flag {
        spelling: "--qr",
        help: "only for link: show a QR code of the first link too",
        apply: Alone(|config| config.qr = true),
    },
    Flag {
        spelling: "--reuse-port",
        help: "several processes of this user may listen on the same ports, and share the clients \
               (SO_REUSEPORT)",
        apply: Alone(|config| config.reuse_port = true),
    },
    Flag {
        spelling: "--secret-file FILE",
        help: "a file with a secret a line, spelled as for -S; # begins a comment",
        apply: Value(|config, text| set(&mut config.secret_file, values::file(text))),
    },
    Flag {
        spelling: "--server HOST",
        help: "the name or address that links show (default: this machine's public address)",
        apply: Value(|config, text| set(&mut config.server, values::server(text))),
    },
    Flag {
        spelling: "--socks5 [USER:PASSWORD@]HOST:PORT",
        help: "reach Telegram and the sites of -D through this SOCKS5 server; middle mode wants one that tells \
               where its connections come from",
        apply: Value(|config, text| set(&mut config.socks5, values::socks5(text))),
    },
    Flag {
        spelling: "--source IP",
        help: "connect to Telegram from this address of the machine (default: see --address)",
        apply: Value(|config, text| set(&mut config.source, values::source(text))),
    },
    Flag {
        spelling: "--state FILE",
        help: "keep what a restart must not forget in this file and FILE.old: which handshakes were used \
               before, bounded; and in FILE.usage what is used of quotas",
        apply: Value(|config, text| set(&mut config.state, values::file(text))),
    },
    Flag {
        spelling: "--stats-allow-net NET",
        help: "serve statistics to this address or network too (10.0.0.0/8), and then on all addresses; \
               repeatable",
        apply: Value(|config, text| values::network(&mut config.stats_nets, text)),
    },
    unused("--tcp-cpu-threads N", "no effect: see --cpu-threads"),
    unused("--tcp-iothreads N", "no effect: see --cpu-threads"),
    Flag {
        spelling: "--tls-hybrid on/off",
        help: "fake TLS: off never answers with a key of the hybrid group X25519MLKEM768, even if the \
               site does; default on",
        apply: Value(|config, text| {
            set(&mut config.no_hybrid, values::on_or_off(text).map(|on| !on))
        }),
    },
    Flag {
        spelling: "--tls-skew BACK[,AHEAD]",
        help: "fake TLS: seconds that a client's clock may be behind this one, and ahead of it; \
               default 600,3",
        apply: Value(|config, text| {
            values::skew(&mut config.skew_back.0, &mut config.skew_ahead.0, text)
        }),
    },
    Flag {
        spelling: "--version",
        help: "print the version, exit 0",
        apply: Instead(|| Command::Version),
    },
    Flag {
        spelling: "--web HOST[/PATH]",
        help: "proxy type WEB: serve the page of this web site to the apps, behind a web server that passes \
               its requests on in clear; repeatable",
        apply: Value(|config, text| values::web(&mut config.web, text)),
    },
    Flag {
        spelling: "--web-listen ADDRESS:PORT",
        help: "where that web server reaches this program, IPv6 in brackets (default 127.0.0.1:8080)",
        apply: Value(|config, text| set(&mut config.web_listen, values::web_listen(text))),
    },
    Flag {
        spelling: "--web-trust NET",
        help: "believe a web server at this address or in this network (10.0.0.0/8) whose request it passes \
               on; repeatable (default: on this machine)",
        apply: Value(|config, text| values::network(&mut config.web_nets, text)),
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_complete_and_distinct() {
        for (index, flag) in FLAGS.iter().enumerate() {
            let (spelling, help) = (flag.spelling, flag.help);
            assert!(
                help.len() > 10 && !help.contains(['|', '\n', '`']),
                "{spelling}"
            );
            assert!(!help.contains("  ") && !help.ends_with('.'), "{spelling}");
            let names = match flag.short() {
                Some(letter) => format!("-{letter}, --{}", flag.long()),
                None => format!("--{}", flag.long()),
            };
            assert!(
                !flag.long().is_empty() && spelling.starts_with(&names),
                "{spelling}"
            );
            let value = &spelling[names.len()..];
            let shape_fits = match flag.apply {
                Alone(_) | Instead(_) => value.is_empty(),
                Optional(_) => value.starts_with("[="),
                Value(_) => value.starts_with(' ') && value.len() > 1,
            };
            assert!(shape_fits, "{spelling}");
            for other in &FLAGS[index + 1..] {
                assert_ne!(flag.long(), other.long());
                assert!(
                    flag.short().is_none() || flag.short() != other.short(),
                    "{spelling}"
                );
            }
        }
    }
}
