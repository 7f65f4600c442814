//! Metrics that say how things stand: the sites of -D, other clocks, where clients come from.

use crate::support::framing::Transport;
use crate::support::http::{Figures, SERVING, stats_address, wait_for};
use crate::support::mask_site::{MaskSite, silent};
use crate::support::middle_proxy::Options;
use crate::support::rig::{Rig, dialer};
use crate::support::sockets::dial;
use crate::support::tls_rig::{DOMAIN, Mode, Served};
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{SystemTime, UNIX_EPOCH};

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("a clock after 1970").as_secs()
}

#[test]
fn each_site_is_told_as_it_was_last_seen() {
    const OTHER: &str = "127.0.0.2";
    let begun = now();
    let well = MaskSite::start();
    let mute = MaskSite::start_on(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2)), silent());
    let domains = [well.as_domain(DOMAIN), mute.as_domain(OTHER)];
    let mut arguments: Vec<&str> = domains.iter().flat_map(|text| ["-D", text]).collect();
    arguments.extend(SERVING);
    let served = Served::start(Mode::Direct, &arguments);
    served.dial().echo(100);
    let address = stats_address(&served.proxy);
    let of =
        |figure: &str, domain: &str| format!("mtproxy_mask_site_{figure}{{domain=\"{domain}\"}}");
    let both = |figures: &Figures| {
        let looked = |domain| figures.has(&of("last_look_timestamp_seconds", domain));
        looked(DOMAIN) && looked(OTHER)
    };
    let figures = wait_for(|| Figures::of_metrics(address), "both sites", both);
    for (domain, is_well) in [(DOMAIN, 1), (OTHER, 0)] {
        for figure in ["known", "tls13"] {
            assert_eq!(
                figures.number(&of(figure, domain)),
                is_well,
                "{figure} of {domain}"
            );
        }
        let at = figures.number(&of("last_look_timestamp_seconds", domain));
        assert!((begun..=now()).contains(&at), "{domain} at {at}");
    }
    assert!(figures.number(&of("mlkem", DOMAIN)) <= 1);
    // Clients' clocks are this one; a second may pass in between.
    let skew: i64 = figures
        .text("mtproxy_clock_skew_seconds{against=\"client\"}")
        .parse()
        .expect("a number");
    assert!(skew.abs() < 60, "{skew}");
    assert!(!figures.has("mtproxy_clock_skew_seconds{against=\"middle_proxy\"}"));
    served.stop();
}

#[test]
fn clients_of_one_address_count_once() {
    let arguments = [&SERVING[..], &["--proxy-protocol"]].concat();
    let rig = Rig::with(&arguments, Options::default());
    let clients = ["192.0.2.1", "192.0.2.2", "192.0.2.1"].map(|from| {
        let mut stream = dial(rig.proxy.address());
        let header = format!("PROXY TCP4 {from} 198.51.100.7 54321 443\r\n");
        stream.write_all(header.as_bytes()).expect("send");
        let dialer = dialer(rig.proxy.address(), Transport::Padded);
        let mut client = dialer.over(stream, None, &[]);
        client.echo(100);
        client
    });
    let address = stats_address(&rig.proxy);
    let count = |wanted| {
        let fit = |figures: &Figures| figures.number("mtproxy_client_addresses") == wanted;
        wait_for(
            || Figures::of_metrics(address),
            "the number of addresses",
            fit,
        )
    };
    let figures = count(2);
    let skew = figures.text("mtproxy_clock_skew_seconds{against=\"middle_proxy\"}");
    let skew: i64 = skew.parse().expect("a number");
    assert!(skew.abs() < 60, "{skew}");
    drop(clients);
    count(0);
    rig.proxy.stop();
}
