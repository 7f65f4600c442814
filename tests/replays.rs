//! Recordings of clients' handshakes: what was accepted once is not accepted again, also after a restart, and
//! whatever time stamp a recording is given.

use crate::support::framing::Transport;
use crate::support::mask_site::{MaskSite, silent};
use crate::support::message::Message;
use crate::support::obfuscated2::Header;
use crate::support::proxy::Files;
use crate::support::rig::{Rig, SECRET};
use crate::support::sockets::{dial, expect_closed, read_bytes};
use crate::support::tls_client::handshake;
use crate::support::tls_hello::{Kind, now, sign};
use crate::support::tls_rig::{DOMAIN, MODES, Served};
use std::fs::{self, Permissions};
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;

/// Without fake TLS a replayed stream hears nothing, while clients go on.
#[test]
fn a_replayed_stream_hears_nothing() {
    let rig = Rig::start();
    let mut bystander = rig.dial(Transport::Padded);
    bystander.echo(1_000);
    let mut header = Header::random(Transport::Intermediate, 2, Some(&SECRET));
    let message = Message::echo(1_000).encode();
    let mut packet = (message.len() as u32).to_le_bytes().to_vec();
    packet.extend(&message);
    header.send.apply(&mut packet);
    let stream = [&header.wire[..], &packet].concat();
    let mut first = dial(rig.proxy.address());
    first.write_all(&stream).expect("send");
    read_bytes(&first, message.len(), "the service's response");
    let mut again = dial(rig.proxy.address());
    again.write_all(&stream).expect("send it again");
    bystander.echo(1_000);
    expect_closed(&again);
    bystander.echo(1_000);
    rig.dial(Transport::Intermediate).echo(10);
    drop((first, again));
    let summary = rig.proxy.stop();
    assert_eq!(summary.count("headers_replayed"), 1);
    assert_eq!(summary.count("closed_no_secret_fits"), 1);
}

/// Goes to the site, which hears all of it.
fn is_taken_for_a_stranger(address: SocketAddr, site: &MaskSite, hello: &[u8]) {
    let mut stream = dial(address);
    stream.write_all(hello).expect("send");
    site.wait_for_bytes(hello);
}

#[test]
fn a_hello_is_remembered_over_a_restart_whatever_its_time_stamp() {
    for mode in MODES {
        let files = Files::new();
        let state = files.path("state");
        // The program may run as nobody.
        let everybody = Permissions::from_mode(0o777);
        fs::set_permissions(files.path(""), everybody).expect("a directory for everybody");
        let site = MaskSite::with(silent());
        let domain = site.as_domain(DOMAIN);
        let start = || Served::start(mode, &["-D", &domain, "--state", &state]);
        let time = now();
        let hello = sign(Kind::Today.unsigned(DOMAIN), &SECRET, time);
        let served = start();
        handshake(&dial(served.address()), &hello, &SECRET);
        is_taken_for_a_stranger(served.address(), &site, &hello);
        // The last 4 bytes of the digest are masked by the time stamp: here it is 5 s older.
        let mut restamped = hello.clone();
        let change = (time ^ (time - 5)).to_le_bytes();
        let masked = restamped[39..43].iter_mut();
        masked
            .zip(change)
            .for_each(|(byte, change)| *byte ^= change);
        is_taken_for_a_stranger(served.address(), &site, &restamped);
        assert_eq!(served.stop().count("tls_refused_replay"), 2);
        let served = start();
        is_taken_for_a_stranger(served.address(), &site, &hello);
        is_taken_for_a_stranger(served.address(), &site, &restamped);
        served.dialer(Kind::Today).dial().echo(100);
        assert_eq!(served.stop().count("tls_refused_replay"), 2);
    }
}
