//! Clients that wrap their packets in HTTP requests, as pages in a browser do (protocol.md 10.3): a POST
//! has a packet as its body, and the response's body is the answer to it. They prove no secret, so
//! they are served where there is none.
//!
//! One request is in flight at a time. While it is, and between two, the client's thread waits in a
//! read: so it sees a client that goes away, and what comes too early it keeps, a bufferful, for later.
//! The middle proxy's thread sends the response ([`answer`], [`fail`]).
//!
//! A packet that may not be forwarded gets 404, where other transports stay silent; an error of Telegram's
//! becomes the status (-404 is 404); when the middle proxy is lost or closes, or nothing comes in time
//! (`HTTP_ANSWER`), it is 500. Each of these closes the connection. `Connection: keep-alive` keeps it for
//! the next request (`HTTP_IDLE`). A client that ends its half while it waits is taken for gone.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use mtproxy::limits::{
    HTTP_ANSWER, HTTP_IDLE, HTTP_REQUEST, MAX_HTTP_BODY, MAX_HTTP_TARGET, READ_SMALL,
};
use mtproxy::proto::http::{self, Method, Request, Status};
use mtproxy::proto::middle::frame::FRAME_HEAD;
use mtproxy::proto::mtproto;
use mtproxy::proto::wire::ConnId;

use super::http_response::{Manner, Response};
use super::memory;
use super::outbox::Outbox;
use super::registry::{self, Client};
use super::session::{Middle, Session};
use super::writer;
use crate::base::buffers::Buffer;
use crate::base::gauge::{Gauge, Place};
use crate::base::http::{Input, NoHead};
use crate::base::lock::Mutex;
use crate::base::net;
use crate::stats::{Close, Guest, OPEN, PENDING, STATS};
use crate::stream;

/// How far a connection's first request has come: its first `len` bytes are in `small`.
pub struct FirstRequest<'a> {
    pub small: &'a mut [u8; READ_SMALL],
    pub len: usize,
    /// Of its last byte.
    pub deadline: Instant,
}

/// In direct mode there is nobody to forward packets to.
#[inline(never)] // as `serve`
pub fn refuse(socket: &TcpStream, first: FirstRequest) -> Close {
    let deadline = first.deadline;
    let mut input = Input::new(first.small, first.len);
    if let Err(NoHead::Io(e)) = input.head(deadline, socket) {
        return stream::reason(&e, Close::HandshakeTimeout).counted();
    }
    let reason = Close::HttpRefused.counted();
    let response = Response::Error(Status::NOT_IMPLEMENTED).encode(Manner::default());
    if net::write_before(deadline, socket, &response).is_ok() {
        input.finish(deadline, socket);
    }
    reason
}

/// Serves one connection to its end, and counts it.
#[inline(never)] // an idle client's thread keeps the deepest stack that it ever used
pub fn serve(road: &Middle, ends: (TcpStream, SocketAddr), first: FirstRequest) {
    let dc = road.dcs.default_dc();
    // Where no secret is set, nothing is refused.
    let Ok(guest) = Guest::enter((&OPEN, None), ends.1, dc, None) else {
        return;
    };
    let (set, outbox) = (road.dcs.route(dc), (Outbox::clear(), false));
    let Some(mut session) = Session::enter(road, ends, set, outbox, guest) else {
        return;
    };
    let reason = Requests {
        session: &mut session,
        input: Input::new(first.small, first.len),
    }
    .run(first.deadline);
    session.end(reason);
}

/// The requests of one connection.
struct Requests<'a> {
    session: &'a mut Session,
    /// What has come and is not dealt with. None of it is held while the connection is idle.
    input: Input<'a>,
}

impl Drop for Requests<'_> {
    fn drop(&mut self) {
        take(&self.session.client, None);
    }
}

/// Why a request does not go out.
enum Unsent {
    /// The connection is to end.
    End(Close),
    /// It is answered here; if that ends the connection, for this reason.
    Respond(Response<'static>, Manner, Close),
}

impl Requests<'_> {
    fn run(&mut self, mut deadline: Instant) -> Close {
        let mut late = Close::HandshakeTimeout;
        loop {
            match self.forward(deadline, late) {
                Ok(()) => {}
                Err(Unsent::End(reason)) => return reason,
                Err(Unsent::Respond(response, manner, reason)) => {
                    let client = &self.session.client;
                    writer::put(client, &mut response.encode(manner));
                    if !response.stays_open(manner) {
                        client.finish(reason);
                    }
                }
            }
            memory::receiving(&self.session.client, 0);
            if let Err(reason) = self.wait() {
                return reason;
            }
            (deadline, late) = (Instant::now() + HTTP_REQUEST, Close::HttpIdle);
        }
    }

    /// Reads a request and sends it to a middle proxy. `late`: why the connection ends if it isn't there
    /// before the deadline.
    fn forward(&mut self, deadline: Instant, late: Close) -> Result<(), Unsent> {
        let head = self.input.head(deadline, &self.session.client.socket);
        let len = head.map_err(|no_head| match no_head {
            NoHead::Refused(status) => malformed(status),
            NoHead::NotHttp => Unsent::End(Close::HttpRefused),
            NoHead::Io(e) => Unsent::End(stream::reason(&e, late)),
        })?;
        let received = std::mem::take(&mut self.input.bytes);
        let (head, behind) = received.filled().split_at(len);
        let request = Request::parse(head).map_err(malformed)?;
        let (manner, verdict) = judge(&request);
        let refuse = |status, reason| Unsent::Respond(Response::Error(status), manner, reason);
        let body = verdict.map_err(|status| refuse(status, Close::HttpRefused))?;
        let (mut begun, early) = behind.split_at(behind.len().min(body.unwrap_or(0)));
        let kept = self.input.bytes.append(early);
        kept.map_err(|_| Unsent::End(Close::Evicted))?;
        let Some(body) = body else {
            return Err(Unsent::Respond(
                Response::Preflight,
                manner,
                Close::HttpDone,
            ));
        };

        let fields = ["Origin", "Referer", "User-Agent"];
        let item = http::fields_item(fields.map(|name| request.field(name).unwrap_or_default()));
        let start = FRAME_HEAD + self.session.origin.head_len(&item);
        let socket = &self.session.client.socket;
        let likely = 2 * begun.len();
        let mut read = |out: &mut [u8]| match begun.split_off(..out.len().min(begun.len())) {
            Some(now @ [_, ..]) => {
                out[..now.len()].copy_from_slice(now);
                Ok(now.len())
            }
            _ => stream::read_before(deadline, late, socket, out),
        };
        let packet = self
            .session
            .read_packet(start..start + body, likely, &mut read);
        let mut packet = packet.map_err(Unsent::End)?;
        let Some(kind) = mtproto::classify(packet.filled()) else {
            STATS.filtered_queries.add(1);
            return Err(refuse(Status::NOT_FOUND, Close::HttpRefused));
        };
        let pinned = self.session.pin();
        pinned.map_err(|reason| refuse(Status::FAILED, reason))?;
        let mut origin = self.session.origin;
        origin.client = client_address(&request, origin.client);
        origin.encode_head(kind, false, &item, &mut packet[FRAME_HEAD..start]);
        packet.filled.start = FRAME_HEAD;
        let client = &self.session.client;
        expect(client, origin.conn, manner);
        match self.session.send(packet, body) {
            true => STATS.http_queries.add(1),
            false => {
                fail(client, Close::BackendLost);
            }
        }
        Ok(())
    }

    /// Waits until no request is in flight, and then for the next one's first byte.
    fn wait(&mut self) -> Result<(), Close> {
        let client = &self.session.client;
        let late = Instant::now() + HTTP_ANSWER;
        loop {
            let (now, ending) = (Instant::now(), client.ending().is_some());
            if ending {
                // It may still fetch what waits for it.
                self.input.bytes = Buffer::default();
            } else if !is_in_flight(client) {
                break;
            } else if now >= late {
                fail(client, Close::HttpLate);
                continue;
            }
            let step = HTTP_IDLE.min(late.saturating_duration_since(now));
            let step = if ending { HTTP_IDLE } else { step };
            if self.input.bytes.filled.len() >= READ_SMALL {
                thread::park_timeout(step);
                continue;
            }
            if let Err(e) = self.input.read(now + step, &client.socket)
                && e.kind() != ErrorKind::TimedOut
            {
                return Err(stream::reason(&e, Close::HttpIdle));
            }
        }
        if !self.input.bytes.filled.is_empty() {
            return Ok(());
        }
        let idle = self.input.read(Instant::now() + HTTP_IDLE, &client.socket);
        idle.map_err(|e| stream::reason(&e, Close::HttpIdle))
    }
}

/// A request that is not answered yet. Whoever takes it out of the table answers it.
struct InFlight {
    client: Arc<Client>,
    /// The id that it was sent under.
    conn: ConnId,
    manner: Manner,
    /// Counts it.
    pending: Place<&'static Gauge>,
}

/// Requests in flight, by the places of their clients in the registry. Locked behind a client's outbox:
/// a response is on its way before the client's thread can see that the request has been answered, and
/// answers the next.
static IN_FLIGHT: Mutex<Vec<Option<InFlight>>> = Mutex::new(Vec::new());

/// A request is about to be sent under this id.
fn expect(client: &Arc<Client>, conn: ConnId, manner: Manner) {
    let pending = Gauge::enter(&PENDING);
    let mut all = IN_FLIGHT.lock();
    let place = client.place as usize;
    if place >= all.len() {
        all.resize_with(place + 1, || None);
    }
    all[place] = Some(InFlight {
        client: client.clone(),
        conn,
        manner,
        pending,
    });
}

/// Takes a client's request out, `only` if it was sent under this id.
fn take(client: &Client, only: Option<ConnId>) -> Option<InFlight> {
    let wanted = |request: &mut InFlight| {
        let own = std::ptr::eq(&*request.client, client);
        own && only.is_none_or(|id| id == request.conn)
    };
    let mut all = IN_FLIGHT.lock();
    all.get_mut(client.place as usize)?.take_if(wanted)
}

fn is_in_flight(client: &Client) -> bool {
    let _answered = client.outbox();
    let all = IN_FLIGHT.lock();
    all.get(client.place as usize).is_some_and(Option::is_some)
}

/// The middle proxy has answered the request that was sent under this id. Never blocks.
pub fn answer(client: &Arc<Client>, conn: ConnId, data: &[u8], is_error: bool) {
    registry::unpin(client, Some(conn));
    let response = Response::of(data, is_error);
    respond(client, Some(conn), response, Close::HttpDone);
}

/// There will be no answer: says so and ends the connection, if a request is in flight.
pub fn fail(client: &Arc<Client>, reason: Close) -> bool {
    respond(client, None, Response::Error(Status::FAILED), reason)
}

/// Answers the request in flight, `only` if it was sent under this id; false if there is none.
fn respond(client: &Arc<Client>, only: Option<ConnId>, response: Response, reason: Close) -> bool {
    let mut outbox = client.outbox();
    let Some(request) = take(client, only) else {
        return false;
    };
    drop(request.pending); // before the client can see the response
    let mut bytes = response.encode(request.manner);
    let delivery = outbox.deliver(&client.socket, &mut bytes, false);
    drop(outbox);
    writer::settle(client, delivery);
    match response.stays_open(request.manner) {
        true => client.wake(),
        false => client.finish(reason),
    }
    true
}

fn malformed(status: Status) -> Unsent {
    if status == Status::BAD_REQUEST {
        STATS.http_bad_headers.add(1);
    }
    let response = Response::Error(status);
    Unsent::Respond(response, Manner::default(), Close::HttpRefused)
}

/// How a request is to be answered, and what it asks for: to forward a packet of so many bytes, or, with
/// None, whether that is allowed.
fn judge(request: &Request) -> (Manner, Result<Option<usize>, Status>) {
    let target = request.target;
    let path = target.split(|byte| *byte == b'?').next();
    let api = path.and_then(|path| path.strip_prefix(b"/api"));
    let manner = Manner {
        keep_alive: request.keep_alive,
        cors: api.is_some_and(|behind| behind.starts_with(b"w")),
        head_only: request.method == Method::Head,
    };
    let len = request.content_length.unwrap_or(0);
    let verdict = match request.method {
        _ if target.len() > MAX_HTTP_TARGET => Err(Status::TARGET_TOO_LONG),
        Method::Get | Method::Head | Method::Delete => Err(Status::NOT_IMPLEMENTED),
        _ if api.is_none() => Err(Status::NOT_FOUND),
        Method::Options => Ok(None),
        Method::Post if len >= MAX_HTTP_BODY => Err(Status::TOO_LARGE),
        Method::Post if len == 0 || !len.is_multiple_of(4) => Err(Status::NOT_FOUND),
        Method::Post => Ok(Some(len as usize)),
    };
    (manner, verdict)
}

/// The peer's address, or what it says that its own peer's is: a web server in front of this program is
/// believed if it is on this machine or in 10/8.
fn client_address(request: &Request, mut peer: SocketAddr) -> SocketAddr {
    let is_near = |ip: IpAddr| match ip.to_canonical() {
        IpAddr::V4(ip) => matches!(ip.octets()[0], 10 | 127),
        IpAddr::V6(_) => false,
    };
    if is_near(peer.ip()) {
        let text = |name| std::str::from_utf8(request.field(name)?).ok();
        if let Some(ip) = text("X-Real-IP").and_then(|text| text.parse().ok()) {
            peer.set_ip(ip);
        }
        if let Some(port) = text("X-Real-Port").and_then(|text| text.parse().ok()) {
            peer.set_port(port);
        }
    }
    peer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(head: &str) -> (Manner, Result<Option<usize>, u16>) {
        let text = format!("{head}\r\n\r\n");
        let (manner, verdict) = judge(&Request::parse(text.as_bytes()).unwrap());
        (manner, verdict.map_err(|status| status.0))
    }

    #[test]
    fn what_is_asked_for() {
        for (head, wanted) in [
            ("POST /api HTTP/1.1\r\nContent-Length: 40", Ok(Some(40))),
            (
                "POST /apiw1?x=y1234 HTTP/1.1\r\nContent-Length: 4",
                Ok(Some(4)),
            ),
            (
                "POST /apiw1?x=y12345 HTTP/1.1\r\nContent-Length: 4",
                Err(414),
            ),
            ("POST /apx HTTP/1.1\r\nContent-Length: 4", Err(404)),
            ("POST /?/api HTTP/1.1\r\nContent-Length: 4", Err(404)),
            ("POST /api HTTP/1.1\r\nContent-Length: 0", Err(404)),
            ("POST /api HTTP/1.1\r\nContent-Length: 42", Err(404)),
            (
                "POST /api HTTP/1.1\r\nContent-Length: 1044476",
                Ok(Some(1_044_476)),
            ),
            ("POST /api HTTP/1.1\r\nContent-Length: 1044480", Err(413)),
            ("OPTIONS /api HTTP/1.1", Ok(None)),
            ("OPTIONS / HTTP/1.1", Err(404)),
            ("GET /api HTTP/1.1", Err(501)),
            ("HEAD /api HTTP/1.1", Err(501)),
        ] {
            assert_eq!(judged(head).1, wanted, "{head}");
        }
        let (manner, _) = judged("OPTIONS /apiw HTTP/1.1\r\nConnection: keep-alive");
        assert!(manner.cors && manner.keep_alive && !manner.head_only);
        let (manner, _) = judged("HEAD /api?w HTTP/1.1");
        assert!(!manner.cors && !manner.keep_alive && manner.head_only);
    }

    #[test]
    fn a_near_web_server_is_believed() {
        let from = |peer: &str, fields: &str| {
            let head = format!("POST /api HTTP/1.1\r\nContent-Length: 4\r\n{fields}\r\n\r\n");
            let request = Request::parse(head.as_bytes()).unwrap();
            client_address(&request, peer.parse().unwrap()).to_string()
        };
        let both = "X-Real-IP: 192.0.2.7\r\nX-Real-Port: 77";
        for near in [
            "127.0.0.1:5",
            "10.9.8.7:5",
            "[::ffff:10.1.1.1]:5",
            "127.255.0.1:5",
        ] {
            assert_eq!(from(near, both), "192.0.2.7:77", "{near}");
        }
        for far in ["192.168.0.1:5", "[::1]:5", "11.0.0.1:5"] {
            assert_eq!(from(far, both), far);
        }
        let near = "127.0.0.1:5";
        assert_eq!(from(near, "x-real-ip: 2001:db8::1"), "[2001:db8::1]:5");
        assert_eq!(from(near, "X-Real-Port: 6"), "127.0.0.1:6");
        assert_eq!(from(near, "X-Real-IP: a\r\nX-Real-Port: 65536"), near);
    }
}
