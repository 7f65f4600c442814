//! A middle proxy that stops reading: its clients are held back by TCP, no memory grows, the clients of other
//! targets don't notice, and after 30 s the link is given up.

use crate::support::framing::Transport;
use crate::support::middle_proxy::MiddleProxy;
use crate::support::rig::{dialer, proxy_with};
use crate::support::transfers::upload_until_held;
use std::thread;

const CLIENTS: usize = 20;

/// All clients together have 1.25 GiB to send.
const PEAK_MEMORY: u64 = 128 << 20;

#[test]
fn holds_its_clients_back_and_is_given_up() {
    let (stalled, other) = (MiddleProxy::serving(), MiddleProxy::serving());
    let proxy = proxy_with(
        format!("{}{}", stalled.config_line(2), other.config_line(3)),
        &["-M", "1"],
    );
    let mut clients: Vec<_> = (0..CLIENTS)
        .map(|_| dialer(proxy.address(), Transport::Intermediate).dial())
        .collect();
    for client in &mut clients {
        client.echo(10);
    }
    let mut bystander = dialer(proxy.address(), Transport::Padded);
    bystander.dc = 3;
    let mut bystander = bystander.dial();
    stalled.stall(true);
    thread::scope(|scope| {
        let uploads: Vec<_> = clients
            .iter_mut()
            // As large as may be: a bound that counts messages alone would show in the memory.
            .map(|client| scope.spawn(|| upload_until_held(client, 1_000_000)))
            .collect();
        bystander.echo(50_000);
        for upload in uploads {
            upload.join().expect("an upload");
            bystander.echo(50_000);
        }
    });
    let peak = proxy.peak_memory();
    assert!(peak < PEAK_MEMORY, "{peak} bytes at the peak");

    let event = proxy.wait_for_events("backend_lost", 1).remove(0);
    assert_eq!(event.text("target"), stalled.address.to_string());
    for client in &mut clients {
        client.drain_until_closed();
    }
    bystander.echo(50_000);
    // A new link takes the place of the old one, which the test never reads again.
    stalled.kill_links();
    stalled.stall(false);
    dialer(proxy.address(), Transport::Padded).dial().echo(10);
}
