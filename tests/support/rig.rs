//! The usual set-up: one middle proxy behind one proxy, and clients with the usual secret.

use super::client::{Client, Dialer};
use super::framing::Transport;
use super::message::Message;
use super::middle_link::Link;
use super::middle_proxy::{MiddleProxy, Options};
use super::obfuscated2::Secret;
use super::proxy::{Proxy, Setup, owned};
use super::rpc;
use std::net::SocketAddr;

pub const SECRET: Secret = *b"sixteen bytes ok";

pub struct Rig {
    // The proxy goes first, so that its middle proxy sees an end rather than a wrong beginning.
    pub proxy: Proxy,
    pub middle: MiddleProxy,
}

impl Rig {
    /// One target that is DC 2 and the default.
    pub fn start() -> Rig {
        Rig::with(&[], Options::default())
    }

    pub fn with(arguments: &[&str], options: Options) -> Rig {
        let middle = MiddleProxy::start(options);
        let mut setup = Setup::new(format!("default 2;\n{}", middle.config_line(2)));
        setup.secrets = vec![SECRET];
        setup.proxy_secret = middle.proxy_secret().to_vec();
        setup.arguments = owned(arguments);
        Rig {
            proxy: Proxy::start(&setup),
            middle,
        }
    }

    pub fn dial(&self, transport: Transport) -> Client {
        dialer(self.proxy.address(), transport).dial()
    }
}

/// A client of DC 2 with the usual secret.
pub fn dialer(address: SocketAddr, transport: Transport) -> Dialer {
    Dialer {
        address,
        transport,
        secret: Some(SECRET),
        dc: 2,
        one_byte_writes: false,
        tls: None,
    }
}

/// A proxy with the usual secret.
pub fn proxy_with(config: String, arguments: &[&str]) -> Proxy {
    let mut setup = Setup::new(config);
    setup.secrets = vec![SECRET];
    setup.arguments = owned(arguments);
    Proxy::start(&setup)
}

/// A client of another data centre.
pub fn client_of(proxy: &Proxy, dc: i16) -> Client {
    let mut dialer = dialer(proxy.address(), Transport::Intermediate);
    dialer.dc = dc;
    dialer.dial()
}

/// The id that the proxy gave to a client, by an echo.
pub fn id_of(middle: &MiddleProxy, client: &mut Client) -> u64 {
    let message = Message::echo(0);
    client.send(&message.encode());
    assert_eq!(client.packet(), message.encode());
    middle.request(message.tag).conn_id
}

/// Sends a client so many answers, each of `length` bytes that are its number.
pub fn send_answers(link: &Link, conn_id: u64, count: u8, length: usize) {
    for number in 0..count {
        let answer = vec![number; length];
        assert!(link.send(&[&rpc::answer(conn_id, 0, &answer)]));
    }
}

/// The same; all are in the proxy then, and far more than the sockets hold.
pub fn queue_answers(middle: &MiddleProxy, client: &mut Client, count: u8, length: usize) {
    let conn_id = id_of(middle, client);
    let link = middle.link_of(conn_id);
    send_answers(&link, conn_id, count, length);
    // Once the PONG is here the proxy has taken all of it.
    middle.ping(&link, conn_id.to_le_bytes());
}

pub fn expect_answers(client: &mut Client, count: u8, length: usize) {
    for number in 0..count {
        expect_answer(client, number, length);
    }
}

pub fn expect_answer(client: &mut Client, number: u8, length: usize) {
    let answer = client.packet();
    assert!(
        answer == vec![number; length],
        "answer {number} is lost or out of order"
    );
}
