//! Who gets no further than a web page's capability: whose address is refused, and whose secret is gone.

use crate::support::dc::{Behaviour, DataCentre};
use crate::support::direct_rig::DirectRig;
use crate::support::framing::Transport;
use crate::support::obfuscated2::{Header, Secret};
use crate::support::proxy::{Files, Proxy};
use crate::support::rig::SECRET;
use crate::support::vectors::to_hex;
use crate::support::web::*;

fn hear_of(page: &Page, session: &str, number: u32, secret: Option<&Secret>) -> Said {
    let lane = page.lane(session, number);
    let header = Header::random(Transport::Padded, 2, secret).wire;
    lane.message(&[(OPEN, b""), (DATA, &header)]);
    lane.hear()
}

#[test]
fn a_removed_secrets_session_opens_to_nobody() {
    let (files, centre) = (Files::new(), DataCentre::start(Behaviour::Serve));
    let gone = [7; 16];
    let fixed = format!(
        "direct\nweb {HOST}\nweb-listen 127.0.0.1:0\ndc-override {}\nmtproto-secret {}\n",
        centre.as_dc(2),
        to_hex(&SECRET)
    );
    let both = format!("{fixed}mtproto-secret {}\n", to_hex(&gone));
    let config = files.write("config", both.as_bytes());
    let proxy = Proxy::start_with(&["--config", &config]);
    let page = Page::of(&proxy);
    let session = page.session(&gone);
    assert_eq!(hear_of(&page, &session, 1, Some(&gone)), Said::Window(64));
    files.write("config", fixed.as_bytes());
    proxy.signal("HUP");
    proxy.wait_for_events("reloaded", 1);
    // None: a header as clients send it where there is no secret.
    for (number, secret) in [(2, None), (3, Some(&gone)), (4, Some(&SECRET))] {
        assert_eq!(hear_of(&page, &session, number, secret), Said::Close);
    }
}

#[test]
fn who_is_refused_sees_the_site() {
    let files = Files::new();
    let list = files.write("blocked", b"192.0.2.0/24\n");
    let arguments = ["--web", HOST, "--web-listen", "127.0.0.1:0"];
    let rig = DirectRig::with(
        Behaviour::Serve,
        &[&arguments[..], &["--ip-blocklist", &list]].concat(),
    );
    let from = |ip: &str| Page {
        fields: format!("X-Real-IP: {ip}\r\n"),
        ..Page::of(&rig.proxy)
    };
    let (admitted, refused) = (from("198.51.100.7"), from("192.0.2.7"));
    let session = admitted.session(&SECRET);
    let token = admitted.bootstrap(&SECRET);
    let query = format!("?bridge={}", capability(HOST, "", &SECRET));
    assert_eq!(refused.get(&query).status, 418);
    assert_eq!(refused.begin(&token).status, 418);
    let fields = upgrade_fields(&format!("tproxy-lane-v1.{session}.1"));
    assert_eq!(refused.upgrade(&fields).0, 418);
    assert_eq!(
        hear_of(&admitted, &session, 2, Some(&SECRET)),
        Said::Window(64)
    );
}
