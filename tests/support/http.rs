//! Asks for statistics over a bare socket, and reads both pages. Shares nothing with the program's own
//! HTTP.

use super::proxy::Proxy;
use super::sockets::{dial, read_bytes};
use super::wait::{PATIENCE, uninterrupted, until_within};
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};

/// What makes a proxy serve them.
pub const SERVING: [&str; 3] = ["-p", "0", "--http-stats"];

/// Where they are served to this machine.
pub fn stats_address(proxy: &Proxy) -> SocketAddr {
    let line = proxy.wait_for_line("the stats port", |line| line.starts_with("stats on port "));
    let port = line.rsplit(' ').next().and_then(|port| port.parse().ok());
    (Ipv4Addr::LOCALHOST, port.expect("a stats port")).into()
}

/// An answer's head and body.
pub struct Answer {
    /// Without the empty line.
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn status(&self) -> u16 {
        let number = self.head.split(' ').nth(1);
        number.and_then(|n| n.parse().ok()).expect("a status")
    }

    pub fn field(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().skip(1);
        let mut fields = lines.filter_map(|line| line.split_once(": "));
        fields.find_map(|(own, value)| (own == name).then_some(value))
    }
}

/// Reads the next answer; None at the connection's end.
pub fn next_answer(stream: &TcpStream) -> Option<Answer> {
    let (mut answer, body) = next_packet(stream)?;
    answer.body = String::from_utf8(body).expect("a body of text");
    Some(answer)
}

/// Reads the next answer and its body of bytes, which is as long as it says.
pub fn next_packet(mut stream: &TcpStream) -> Option<(Answer, Vec<u8>)> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if uninterrupted(|| stream.read(&mut byte)).expect("an answer or an end") == 0 {
            assert!(head.is_empty(), "an end within a head");
            return None;
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).expect("a head of text");
    let head = head.trim_end().to_owned();
    let answer = Answer {
        head,
        body: String::new(),
    };
    let length = answer.field("Content-Length").expect("a length");
    let length = length.parse().expect("a number");
    let body = read_bytes(stream, length, "the whole body");
    Some((answer, body))
}

/// Sends bytes on a connection of their own; its one answer, and the end behind it.
pub fn ask(address: SocketAddr, request: &[u8]) -> Answer {
    let stream = dial(address);
    (&stream).write_all(request).expect("send a request");
    let answer = next_answer(&stream).expect("an answer");
    assert!(next_answer(&stream).is_none(), "more than one answer");
    answer
}

/// The body of a page.
pub fn page(address: SocketAddr, target: &str) -> String {
    let answer = ask(address, format!("GET {target} HTTP/1.1\r\n\r\n").as_bytes());
    assert_eq!(answer.status(), 200, "{}", answer.head);
    answer.body
}

/// The lines of a page, by what stands before the value.
pub struct Figures(HashMap<String, String>);

impl Figures {
    /// `/stats`
    pub fn of_stats(address: SocketAddr) -> Figures {
        Figures::read(&page(address, "/stats"), '\t')
    }

    /// `/metrics`
    pub fn of_metrics(address: SocketAddr) -> Figures {
        Figures::read(&page(address, "/metrics"), ' ')
    }

    fn read(text: &str, separator: char) -> Figures {
        let mut all = HashMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (name, value) = line.rsplit_once(separator).expect("a name and a value");
            let before = all.insert(name.to_owned(), value.to_owned());
            assert!(before.is_none(), "{name} twice");
        }
        Figures(all)
    }

    pub fn text(&self, name: &str) -> &str {
        self.0
            .get(name)
            .unwrap_or_else(|| panic!("no {name} in {:#?}", self.0))
    }

    pub fn number(&self, name: &str) -> u64 {
        self.text(name).parse().expect("a number")
    }

    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Asserts these values.
    pub fn expect(&self, wanted: &[(&str, u64)]) {
        for (name, value) in wanted {
            assert_eq!(self.number(name), *value, "{name}");
        }
    }
}

/// Asks again and again until the figures fit.
pub fn wait_for(read: impl Fn() -> Figures, what: &str, fit: impl Fn(&Figures) -> bool) -> Figures {
    let mut last = None;
    let found = until_within(PATIENCE, || {
        let figures = read();
        if fit(&figures) {
            return Some(figures);
        }
        last = Some(figures.0);
        None
    });
    found.unwrap_or_else(|| panic!("in vain for {what}: {last:#?}"))
}
