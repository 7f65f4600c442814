//! MTProto packets over HTTP: the set-up, and requests as clients post them.

use super::http::{Answer, Figures, SERVING, ask, next_packet, stats_address};
use super::message::{Command, Message};
use super::middle_proxy::{MiddleProxy, Options};
use super::proxy::{Proxy, Setup, owned};
use super::sockets::dial;
use std::io::Write;
use std::net::TcpStream;

/// A middle proxy behind a proxy without secrets. The proxy goes first when they are dropped.
pub struct Open {
    pub proxy: Proxy,
    pub middle: MiddleProxy,
}

impl Open {
    pub fn start(arguments: &[&str]) -> Open {
        let middle = MiddleProxy::start(Options::default());
        let mut setup = Setup::new(format!("default 2;\n{}", middle.config_line(2)));
        let all = [&SERVING[..], arguments].concat();
        setup.arguments = owned(&all);
        Open {
            proxy: Proxy::start(&setup),
            middle,
        }
    }

    pub fn dial(&self) -> TcpStream {
        dial(self.proxy.address())
    }

    /// The answer to the only request of a connection, and the end behind it.
    pub fn ask(&self, request: &[u8]) -> Answer {
        ask(self.proxy.address(), request)
    }

    pub fn figures(&self) -> Figures {
        Figures::of_stats(stats_address(&self.proxy))
    }
}

pub fn post(fields: &str, message: &[u8]) -> Vec<u8> {
    post_to("/api", fields, message)
}

pub fn post_to(target: &str, fields: &str, message: &[u8]) -> Vec<u8> {
    let length = message.len();
    let head = format!("POST {target} HTTP/1.1\r\nContent-Length: {length}\r\n{fields}\r\n");
    [head.as_bytes(), message].concat()
}

pub const KEEP: &str = "Connection: keep-alive\r\n";

pub fn send(mut stream: &TcpStream, bytes: &[u8]) {
    stream.write_all(bytes).expect("send");
}

/// The answer to a packet that comes back.
pub fn expect_back(stream: &TcpStream, message: &[u8]) -> Answer {
    let (answer, body) = next_packet(stream).expect("an answer");
    assert_eq!(answer.status(), 200, "{}", answer.head);
    assert!(body == message, "another packet than was sent");
    answer
}

pub fn swallowed() -> (u32, Vec<u8>) {
    let tag = Message::echo(0).tag;
    (tag, Message::new(Command::Swallow, tag).encode())
}
