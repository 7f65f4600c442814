//! SIGTERM loses nothing that was on its way to a client, though the client goes on to speak, and takes no
//! longer than clients do.

use crate::support::client::Client;
use crate::support::dc::Behaviour;
use crate::support::direct_rig::DirectRig;
use crate::support::framing::Transport;
use crate::support::message::{Command, Message};
use crate::support::middle_proxy::Options;
use crate::support::proxy::Proxy;
use crate::support::rig::{Rig, id_of};
use crate::support::rpc;
use crate::support::sockets::wait_until_read;
use std::io::Read;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// What a stop may take at most, with what a busy machine adds.
const SOON: Duration = Duration::from_secs(4);

#[test]
fn middle_mode_delivers_all_responses_to_a_client_that_goes_on_to_speak() {
    const RESPONSES: usize = 140;
    const LENGTH: usize = 64 * 1_024;
    let mut rig = Rig::with(&["-M", "1"], Options::default());
    let mut client = rig.dial(Transport::Intermediate);
    let id = id_of(&rig.middle, &mut client);
    let link = rig.middle.link(0);
    for _ in 0..RESPONSES {
        assert!(link.send(&[&rpc::answer(id, 0, &[7; LENGTH])]));
    }
    // Once the PONG is here the proxy has taken all of them.
    rig.middle.ping(&link, *b"all here");
    let got = bytes_of_a_stop(&mut rig.proxy, client);
    assert_eq!(got, RESPONSES * (4 + LENGTH));
    assert_eq!(rig.proxy.summary().count("closed_stopping"), 1);
}

#[test]
fn direct_mode_delivers_all_responses_to_a_client_that_goes_on_to_speak() {
    const LENGTH: usize = 200_000;
    let mut rig = DirectRig::start(Behaviour::HandOver);
    let client = rig.dial(Transport::Intermediate);
    let mut dc = rig.centre.take();
    assert!(dc.send_raw(&[7; LENGTH]));
    wait_until_read(&dc.stream);
    assert_eq!(bytes_of_a_stop(&mut rig.proxy, client), LENGTH);
    assert_eq!(rig.proxy.summary().count("closed_stopping"), 1);
}

/// Whoever stays silent and does not close when told that nothing more comes does not hold up the end.
#[test]
fn silent_clients_do_not_hold_up_the_end() {
    let mut rig = Rig::start();
    let mut direct = DirectRig::start(Behaviour::Serve);
    let mut clients = [rig.dial(Transport::Padded), direct.dial(Transport::Padded)];
    for (client, proxy) in clients.iter_mut().zip([&mut rig.proxy, &mut direct.proxy]) {
        client.echo(100);
        let begun = Instant::now();
        proxy.signal("TERM");
        assert_eq!(proxy.wait_for_end().code(), Some(0));
        let took = begun.elapsed();
        assert!(took < SOON, "{took:?}");
        client.expect_closed();
        assert_eq!(proxy.summary().count("closed_stopping"), 1);
    }
}

/// Stops the proxy while the client speaks all the time; bytes that the client reads from then on, until
/// the orderly end.
fn bytes_of_a_stop(proxy: &mut Proxy, mut client: Client) -> usize {
    let mut reading: TcpStream = client.stream.try_clone().expect("a second handle");
    let speaks = Arc::new(AtomicBool::new(true));
    let speaking = {
        let speaks = speaks.clone();
        thread::spawn(move || {
            let message = Message::new(Command::Swallow, 0).encode();
            while speaks.load(Ordering::Relaxed) {
                client.send(&message);
                thread::sleep(Duration::from_millis(1));
            }
        })
    };
    let begun = Instant::now();
    proxy.signal("TERM");
    proxy.wait_for_line("the stop", |line| line.ends_with(" stopping"));
    let mut got = 0;
    let mut buffer = vec![0; 65_536];
    // Slowly: so most of it is still with the proxy's system when the proxy has sent it all.
    let result = loop {
        thread::sleep(Duration::from_millis(3));
        match reading.read(&mut buffer) {
            Ok(0) => break Ok(()),
            Ok(count) => got += count,
            Err(error) => break Err(error),
        }
    };
    let read = begun.elapsed();
    speaks.store(false, Ordering::Relaxed);
    speaking.join().expect("the speaker");
    drop(reading);
    assert_eq!(proxy.wait_for_end().code(), Some(0));
    result.unwrap_or_else(|error| panic!("{error} after {got} bytes"));
    let took = begun.elapsed();
    assert!(took < SOON, "{read:?} to read, {took:?} in all");
    got
}
