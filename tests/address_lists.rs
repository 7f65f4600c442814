//! Lists of addresses: to whom is refused the proxy is what it is to a stranger.

use crate::support::client::Dialer;
use crate::support::dc::{Behaviour, DataCentre};
use crate::support::framing::Transport;
use crate::support::mask_site::{MaskSite, Visit, silent};
use crate::support::proxy::{Files, Proxy, run_to_end};
use crate::support::rig::{SECRET, dialer};
use crate::support::sockets::{dial, hears_nothing};
use crate::support::tls_hello::Kind;
use crate::support::tls_rig::{DOMAIN, tls_dialer};
use crate::support::vectors::to_hex;
use std::io::Write;
use std::time::Duration;

struct Rig {
    proxy: Proxy,
    files: Files,
    _centre: DataCentre,
}

impl Rig {
    fn start(allowed: &str, blocked: &str, more: &[&str]) -> Rig {
        let (files, centre) = (Files::new(), DataCentre::start(Behaviour::Serve));
        let (place, secret) = (centre.as_dc(2), to_hex(&SECRET));
        let mut all = vec![
            "--direct",
            "-H",
            "0",
            "-S",
            &secret,
            "--dc-override",
            &place,
        ];
        let allow = files.write("allowed", allowed.as_bytes());
        let block = files.write("blocked", blocked.as_bytes());
        if !allowed.is_empty() {
            all.extend(["--ip-allowlist", &allow]);
        }
        all.extend(["--ip-blocklist", &block]);
        all.extend(more);
        Rig {
            proxy: Proxy::start_with(&all),
            files,
            _centre: centre,
        }
    }

    /// Other lists.
    fn reload(&self, allowed: &str, blocked: &str, count: usize) {
        self.files.write("allowed", allowed.as_bytes());
        self.files.write("blocked", blocked.as_bytes());
        self.proxy.signal("HUP");
        self.proxy.wait_for_events("reloaded", count);
    }

    fn plain(&self) -> Dialer {
        dialer(self.proxy.address(), Transport::Intermediate)
    }
}

const ELSEWHERE: &str = "203.0.113.0/24\n";
const HERE: &str = "203.0.113.0/24\n127.0.0.0/8 # this machine\n";

#[test]
fn who_is_refused_hears_nothing() {
    let rig = Rig::start(HERE, ELSEWHERE, &[]);
    let mut client = rig.plain().dial();
    client.echo(10);
    let mut refused = 0;
    for (number, (allowed, blocked)) in [(ELSEWHERE, ELSEWHERE), (HERE, HERE), ("#", "")]
        .into_iter()
        .enumerate()
    {
        rig.reload(allowed, blocked, number + 1);
        let mut other = rig.plain().dial();
        other.send(b"a client's first packet");
        hears_nothing(&other.stream, Duration::from_millis(300));
        refused += 1;
        // Who was let in before stays.
        client.echo(10);
    }
    rig.reload(HERE, "", 4);
    rig.plain().dial().echo(10);
    let summary = rig.proxy.stop();
    assert!(summary.count("closed_no_secret_fits") == 0);
    assert_eq!(summary.count("closed_address_refused"), refused);
}

#[test]
fn who_is_refused_sees_the_site() {
    let site = MaskSite::with(silent());
    let domain = site.as_domain(DOMAIN);
    let rig = Rig::start("", HERE, &["-D", &domain, "--allow-plain"]);
    let said = Kind::Today.signed(DOMAIN, &SECRET);
    let mut stream = dial(rig.proxy.address());
    stream.write_all(&said).expect("send");
    site.wait_for_bytes(&said);
    let _plain = rig.plain().dial();
    let is_plain = |visit: &Visit| visit.received.len() == 64;
    site.wait_for("what a client without fake TLS sends", is_plain);
    rig.reload("", ELSEWHERE, 1);
    tls_dialer(rig.proxy.address(), Kind::Today).dial().echo(10);
    rig.plain().dial().echo(10);
    let summary = rig.proxy.stop();
    assert_eq!(summary.count("tls_refused_address"), 1);
    assert_eq!(summary.count("tls_refused_not_tls"), 1);
}

#[test]
fn a_wrong_list_ends_the_start() {
    let files = Files::new();
    let wrong = files.write("list", b"# ours\n10.0.0.0/8\n10.0.0.256\n");
    for (flag, path, wanted) in [
        (
            "--ip-blocklist",
            &wrong,
            "list:3: expected an IP address or a network, as in 10.0.0.0/8, got \"10.0.0.256\"",
        ),
        (
            "--ip-allowlist",
            &files.missing(),
            "--ip-allowlist: can't read ",
        ),
    ] {
        let refusal = run_to_end(&["--direct", "-H", "0", "-S", &to_hex(&SECRET), flag, path]);
        assert_eq!(refusal.code, Some(1));
        assert!(refusal.text.contains(wanted), "{}", refusal.text);
    }
}
