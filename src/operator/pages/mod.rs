//! Statistics over HTTP (protocol.md 10.1): `/stats`, a line for each figure, for people and scripts;
//! `/metrics`, the same for Prometheus. Both are read from the counters when somebody asks. `/health` says
//! that the process serves, to whoever starts it anew otherwise.
//!
//! Who may ask: this machine, without a sign that the request was passed on for somebody else, and the
//! networks of --stats-allow-net. Everybody else is told that there is nothing, by a thread apart. A few
//! threads, which exist from the start, accept and serve, each one connection at a time for a bounded
//! time, so that slow or silent peers cost little.

mod exposition;
mod live;
mod metrics;
mod stats_page;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, bounded};
use mtproxy::formats::cidr::Network;
use mtproxy::limits::{READ_SMALL, STATS_CONNECTIONS, STATS_LIFETIME, STATS_REFUSAL};
use mtproxy::proto::http::{self, Method, Request, ResponseHead, Status};

use crate::base::http::{Input, NoHead};
use crate::base::{buffers::Buffer, clock, net, threads};
use crate::operator::pages::live::Live;
pub use crate::operator::pages::live::{Facts, FileFacts, Telegram};
use crate::stats::STATS;

/// What is served, and to whom.
pub struct Site {
    facts: Facts,
    /// To the thread that turns others away.
    others: Sender<(TcpStream, IpAddr)>,
}

/// Starts the threads that serve these facts to this machine and to the networks of --stats-allow-net.
pub fn start(listeners: &[Arc<TcpListener>], facts: Facts) -> std::io::Result<()> {
    let (others, turned_away) = bounded(STATS_CONNECTIONS);
    let site = Arc::new(Site { facts, others });
    // A panic must not end the service.
    for listener in listeners {
        for _ in 0..STATS_CONNECTIONS {
            let (listener, site) = (listener.clone(), site.clone());
            let run = move || while !threads::guarded(|| run(&listener, &site)) {};
            threads::spawn("stats", run)?;
        }
    }
    threads::spawn("stats", move || {
        for (socket, peer) in turned_away {
            threads::guarded(|| serve(&site, &socket, peer, STATS_REFUSAL));
        }
    })
}

/// Accepts connections and serves them, until the listener is shut down. Who may not ask keeps nobody who
/// may from an answer: another thread turns them away, or they are closed.
fn run(listener: &TcpListener, site: &Site) {
    loop {
        match net::accept(listener) {
            Ok(Some((socket, peer))) => {
                let peer = peer.ip().to_canonical();
                match is_here(peer) || is_in(&site.facts.config.stats_nets, peer) {
                    true => serve(site, &socket, peer, STATS_LIFETIME),
                    false => drop(site.others.try_send((socket, peer))),
                }
            }
            Ok(None) => return,
            // Mostly no descriptors: asking again at once would only take the processor.
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}

/// Serves one connection to its end.
fn serve(site: &Site, socket: &TcpStream, peer: IpAddr, lifetime: Duration) {
    let deadline = Instant::now() + lifetime;
    let mut small = [0; READ_SMALL];
    let mut input = Input::new(&mut small, 0);
    loop {
        let response = match input.head(deadline, socket) {
            Ok(len) => {
                let received = std::mem::take(&mut input.bytes);
                if input.bytes.append(&received.filled()[len..]).is_err() {
                    return;
                }
                answer(site, received, len, peer)
            }
            Err(NoHead::Refused(status)) => Response::error(status, false),
            Err(NoHead::NotHttp | NoHead::Io(_)) => return,
        };
        let counter = match response.head.status {
            Status::OK => &STATS.stats_requests,
            _ => &STATS.stats_refusals,
        };
        counter.add(1);
        let text = response.head.encode(clock::unix()) + &response.body;
        if net::write_before(deadline, socket, text.as_bytes()).is_err() {
            return;
        }
        if !response.head.keep_alive {
            return input.finish(deadline, socket);
        }
    }
}

/// What a request gets.
struct Response {
    head: ResponseHead<'static>,
    body: String,
}

impl Response {
    fn new(status: Status, content_type: &'static str, keep_alive: bool, body: String) -> Response {
        let head = ResponseHead {
            status,
            content_type,
            keep_alive,
            length: body.len(),
            more: "",
        };
        Response { head, body }
    }

    #[inline(never)] // small, not fast
    fn error(status: Status, keep_alive: bool) -> Response {
        Response::new(status, "text/html", keep_alive, http::error_page(status))
    }
}

/// Answers the request whose head is the first `len` bytes of `received`.
fn answer(site: &Site, received: Buffer, len: usize, peer: IpAddr) -> Response {
    let request = match Request::parse(&received.filled()[..len]) {
        Ok(request) => request,
        Err(status) => return Response::error(status, false),
    };
    let is_head = request.method == Method::Head;
    let is_plain = request.content_length.is_none() && (is_head || request.method == Method::Get);
    let mut keep_alive = request.keep_alive;
    let page = match request.target {
        _ if !may_ask(&site.facts.config.stats_nets, peer, &request) => {
            keep_alive = false;
            Err(Status::NOT_FOUND)
        }
        _ if !is_plain => {
            keep_alive = false;
            Err(Status::NOT_IMPLEMENTED)
        }
        b"/stats" => Ok(("text/plain", stats_page::render as fn(&Live) -> String)),
        b"/metrics" => Ok(("text/plain; version=0.0.4", metrics::render as _)),
        b"/health" => Ok(("text/plain", (|_: &Live| String::from("ok\n")) as _)),
        _ => Err(Status::NOT_FOUND),
    };
    drop(received); // the pages say how many buffers are in use
    let mut response = match page {
        Ok((content_type, render)) => {
            let body = render(&Live::collect(&site.facts));
            Response::new(Status::OK, content_type, keep_alive, body)
        }
        Err(status) => Response::error(status, keep_alive),
    };
    if is_head {
        response.body.clear(); // its length is told all the same
    }
    response
}

fn is_here(peer: IpAddr) -> bool {
    peer == Ipv4Addr::LOCALHOST || peer == Ipv6Addr::LOCALHOST
}

fn is_in(networks: &[Network], peer: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(peer))
}

/// Whether the peer is of an allowed network, or this machine, which does not ask for somebody else.
fn may_ask(allowed: &[Network], peer: IpAddr, request: &Request) -> bool {
    let mut signs = ["Forwarded", "X-Forwarded-For"].into_iter();
    let is_passed_on = signs.any(|name| request.field(name).is_some());
    is_in(allowed, peer) || (is_here(peer) && !is_passed_on)
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
