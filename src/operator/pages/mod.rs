//! Statistics over HTTP (protocol.md 10.1): `/stats`, a line for each figure, for people and scripts;
//! `/metrics`, the same for Prometheus. Both are read from the counters when somebody asks.
//!
//! Who may ask: this machine, without a sign that the request was passed on for somebody else, and the
//! networks of --stats-allow-net. Everybody else is told that there is nothing. A connection has a
//! thread of its own for a bounded time, and of these threads there are few, so that slow or silent
//! askers cost little.

mod exposition;
mod live;
mod metrics;
mod stats_page;

use crate::base::lock;
use crate::base::lock::Mutex;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar};
use std::time::{Duration, Instant};

use mtproxy::formats::cidr::Network;
use mtproxy::limits::{READ_SMALL, STATS_CONNECTIONS, STATS_LIFETIME};
use mtproxy::proto::http::{self, Answer, Method, Request, Status};

use crate::base::buffers::Buffer;
use crate::base::http::{Input, NoHead};
use crate::base::{clock, log, net, threads};
use crate::operator::pages::live::Live;
pub use crate::operator::pages::live::{Facts, FileFacts};
use crate::stats::STATS;

/// What is served, and to whom.
pub struct Site {
    facts: Facts,
    /// --stats-allow-net
    allowed: Vec<Network>,
    /// How many connections are being served.
    busy: Mutex<usize>,
    /// Notified when one ends.
    ended: Condvar,
}

impl Site {
    /// A site of these facts for this machine and for `allowed`.
    pub fn new(facts: Facts, allowed: Vec<Network>) -> Site {
        Site {
            facts,
            allowed,
            busy: Mutex::new(0),
            ended: Condvar::new(),
        }
    }

    /// Takes a place; waits until fewer than the most are taken, which is not long: each has a
    /// deadline.
    fn enter(&self) {
        let mut busy = self.busy.lock();
        while *busy >= STATS_CONNECTIONS {
            busy = lock::wait(&self.ended, busy);
        }
        *busy += 1;
    }

    fn leave(&self) {
        *self.busy.lock() -= 1;
        self.ended.notify_one();
    }
}

/// Accepts connections until the listener is shut down.
pub fn run(listener: &TcpListener, site: &Arc<Site>) {
    loop {
        match listener.accept() {
            Ok((socket, peer)) => admit(socket, peer.ip().to_canonical(), site),
            Err(e) if e.kind() == ErrorKind::InvalidInput => return, // shut down
            // Mostly no descriptors: asking again at once would only take the processor.
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}

fn admit(socket: TcpStream, peer: IpAddr, site: &Arc<Site>) {
    site.enter();
    let for_thread = site.clone();
    let spawned = threads::spawn("stats", move || {
        threads::guarded(|| serve(&for_thread, &socket, peer));
        for_thread.leave();
    });
    if let Err(e) = spawned {
        log::event(format_args!("stats_failed error=\"{e}\""));
        site.leave();
    }
}

/// Serves one connection to its end.
fn serve(site: &Site, socket: &TcpStream, peer: IpAddr) {
    let deadline = Instant::now() + STATS_LIFETIME;
    let mut small = [0; READ_SMALL];
    let mut input = Input::new(&mut small, 0);
    loop {
        let reply = match input.head(deadline, socket) {
            Ok(len) => {
                let received = std::mem::take(&mut input.bytes);
                input.bytes.append(&received.filled()[len..]);
                answer(site, received, len, peer)
            }
            Err(NoHead::Refused(status)) => Reply::error(status),
            Err(NoHead::NotHttp | NoHead::Io(_)) => return,
        };
        let counter = match reply.status {
            Status::OK => &STATS.stats_requests,
            _ => &STATS.stats_refusals,
        };
        counter.add(1);
        if net::write_before(deadline, socket, reply.encode().as_bytes()).is_err() {
            return;
        }
        if !reply.keep_alive {
            return input.finish(deadline, socket);
        }
    }
}

/// What is said to a request.
struct Reply {
    status: Status,
    content_type: &'static str,
    keep_alive: bool,
    /// Without the body, as HEAD wants it.
    head_only: bool,
    body: String,
}

impl Reply {
    #[inline(never)] // small, not fast
    fn error(status: Status) -> Reply {
        Reply {
            status,
            content_type: "text/html",
            keep_alive: false,
            head_only: false,
            body: http::error_page(status),
        }
    }

    fn encode(&self) -> String {
        let head = Answer {
            status: self.status,
            content_type: self.content_type,
            keep_alive: self.keep_alive,
            length: self.body.len(),
            more: "",
        };
        let mut text = head.head(clock::unix());
        if !self.head_only {
            text.push_str(&self.body);
        }
        text
    }
}

/// Answers the request whose head is the first `len` bytes of `received`.
fn answer(site: &Site, received: Buffer, len: usize, peer: IpAddr) -> Reply {
    let request = match Request::parse(&received.filled()[..len]) {
        Ok(request) => request,
        Err(status) => return Reply::error(status),
    };
    if !may_ask(&site.allowed, peer, &request) {
        return Reply::error(Status::NOT_FOUND);
    }
    if request.method != Method::Get || request.content_length.is_some() {
        return Reply {
            head_only: request.method == Method::Head,
            ..Reply::error(Status::NOT_IMPLEMENTED)
        };
    }
    let keep_alive = request.keep_alive;
    let (content_type, render): (_, fn(&Facts, &Live) -> String) = match request.target {
        b"/stats" => ("text/plain", stats_page::render),
        b"/metrics" => ("text/plain; version=0.0.4", metrics::render),
        _ => {
            return Reply {
                keep_alive,
                ..Reply::error(Status::NOT_FOUND)
            };
        }
    };
    drop(received); // the pages say how many buffers are in use
    Reply {
        status: Status::OK,
        content_type,
        keep_alive,
        head_only: false,
        body: render(&site.facts, &Live::collect(&site.facts)),
    }
}

/// Whether the peer is of an allowed network, or this machine itself, not for somebody else.
fn may_ask(allowed: &[Network], peer: IpAddr, request: &Request) -> bool {
    let is_passed_on = || {
        let names = ["Forwarded", "X-Forwarded-For"];
        names.iter().any(|name| request.field(name).is_some())
    };
    let is_here = [
        IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::LOCALHOST),
    ]
    .contains(&peer);
    allowed.iter().any(|network| network.contains(peer)) || (is_here && !is_passed_on())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asks(allowed: &[&str], peer: &str, field: &str) -> bool {
        let allowed: Vec<Network> = allowed.iter().map(|n| Network::parse(n).unwrap()).collect();
        let head = format!("GET /stats HTTP/1.1\r\n{field}\r\n\r\n");
        let request = Request::parse(head.as_bytes()).unwrap();
        may_ask(&allowed, peer.parse().unwrap(), &request)
    }

    #[test]
    fn this_machine_may_ask_for_itself_only() {
        for (peer, wanted) in [
            ("127.0.0.1", true),
            ("::1", true),
            ("127.0.0.2", false),
            ("192.0.2.1", false),
            ("::", false),
        ] {
            assert_eq!(asks(&[], peer, "A: b"), wanted, "{peer}");
        }
        for field in [
            "Forwarded: for=a",
            "x-forwarded-for: 192.0.2.1",
            "X-FORWARDED-FOR:",
        ] {
            assert!(!asks(&[], "127.0.0.1", field), "{field}");
            assert!(!asks(&["10.0.0.0/8"], "::1", field), "{field}");
        }
    }

    #[test]
    fn networks_are_let_in_on_purpose() {
        let nets = ["10.0.0.0/8", "127.0.0.0/8"];
        assert!(asks(&nets, "10.1.2.3", "X-Forwarded-For: 192.0.2.1"));
        assert!(asks(&nets, "127.0.0.1", "Forwarded: for=a"));
        assert!(asks(&nets, "::1", "A: b"));
        assert!(!asks(&nets, "192.0.2.1", "A: b"));
    }
}
