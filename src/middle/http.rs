//! Clients that wrap their packets in HTTP requests, as pages in a browser do (protocol.md 10.3): a POST
//! has a packet as its body, and the answer to it is the body of the response. They prove no secret, so
//! they are served where there is none.
//!
//! One request is under way at a time. While it is, and between two, the thread waits in a read: so it
//! sees a client that goes away, and what comes too early it keeps, a bufferful, for later.

use std::io::ErrorKind;
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::time::Instant;

use mtproxy::limits::{
    HTTP_ANSWER, HTTP_IDLE, HTTP_REQUEST, MAX_HTTP_BODY, MAX_HTTP_TARGET, READ_SMALL,
};
use mtproxy::proto::http::{self, Method, Request, Status};
use mtproxy::proto::middle::frame::{FRAME_HEAD, SEAL_ROOM};
use mtproxy::proto::mtproto;
use mtproxy::proto::transport::Transport;

use super::exchange::Reply;
use super::outbox::{Manner, Outbox};
use super::reader;
use super::session::{Middle, Session};
use crate::base::buffers::Buffer;
use crate::base::net;
use crate::stats::{Close, Guest, STATS};

/// How far a first request has come: its first `len` bytes are in `small`.
pub struct Start<'a> {
    pub small: &'a mut [u8; READ_SMALL],
    pub len: usize,
    /// Of its last byte.
    pub deadline: Instant,
}

/// Serves one connection to its end, and counts it.
#[inline(never)] // an idle client's thread keeps the deepest stack that it ever used
pub fn serve(road: &Middle, ends: (TcpStream, SocketAddr), start: Start) -> Close {
    let Start {
        small,
        len,
        deadline,
    } = start;
    let Some(guest) = Guest::enter(0, road.dcs.default_dc(), Transport::Http) else {
        return Close::SecretFull.counted();
    };
    let session = match Session::enter(road, ends, None, (Outbox::clear(), false), guest) {
        Ok(session) => session,
        Err(reason) => return reason,
    };
    let mut input = Buffer::default();
    append(&mut input, &small[..len]);
    let mut connection = Connection {
        session,
        road,
        small,
        input,
    };
    let reason = connection.run(deadline);
    connection.session.end(reason)
}

/// In direct mode there is nobody to forward packets to.
#[inline(never)] // as `serve`
pub fn refuse(socket: &TcpStream, start: Start) -> Close {
    let mut head = start.small[..start.len].to_vec();
    while let Ok(None) = http::head_len(&head, 0) {
        match read_before(start.deadline, socket, start.small) {
            Ok(n) => head.extend_from_slice(&start.small[..n]),
            Err(reason) => return reason.counted(),
        }
    }
    let close = Close::HttpRefused.counted();
    let reply = Reply::Error(Status::NOT_IMPLEMENTED).encode(Manner::default());
    if net::write_before(start.deadline, socket, &reply).is_ok() {
        let _ = socket.shutdown(Shutdown::Write);
        while read_before(start.deadline, socket, start.small).is_ok() {}
    }
    close
}

struct Connection<'a> {
    session: Session,
    road: &'a Middle,
    small: &'a mut [u8; READ_SMALL],
    /// What has come and is not dealt with. None of it is held while the connection is idle.
    input: Buffer,
}

/// Why a request does not go out.
enum Stop {
    /// The connection is to end.
    End(Close),
    /// It is answered here.
    Reply(Reply<'static>, Manner, Close),
}

impl Connection<'_> {
    fn run(&mut self, mut deadline: Instant) -> Close {
        let mut late = Close::HandshakeTimeout;
        loop {
            match self.request(deadline) {
                Ok(()) => {}
                Err(Stop::End(Close::HandshakeTimeout)) => return late,
                Err(Stop::End(reason)) => return reason,
                Err(Stop::Reply(reply, manner, reason)) => {
                    self.session.client.reply(&reply, manner, reason);
                }
            }
            self.session.client.receiving(0);
            if let Err(reason) = self.wait() {
                return reason;
            }
            (deadline, late) = (Instant::now() + HTTP_REQUEST, Close::HttpIdle);
        }
    }

    /// Reads a request and sends it to a middle proxy.
    fn request(&mut self, deadline: Instant) -> Result<(), Stop> {
        let len = self.head_len(deadline)?;
        let head = std::mem::take(&mut self.input);
        let (head, rest) = head.filled().split_at(len);
        let request = Request::parse(head).map_err(malformed)?;
        let (manner, verdict) = judge(&request);
        let refuse = |status, reason| Stop::Reply(Reply::Error(status), manner, reason);
        let body = match verdict {
            Ok(Some(body)) => body,
            Ok(None) => {
                append(&mut self.input, rest);
                return Err(Stop::Reply(Reply::Preflight, manner, Close::HttpDone));
            }
            Err(status) => return Err(refuse(status, Close::HttpRefused)),
        };
        let fields = ["Origin", "Referer", "User-Agent"];
        let fields = fields.map(|name| request.field(name).unwrap_or_default());
        let mut origin = self.session.origin;
        origin.client = client_address(&request, origin.client);
        let start = FRAME_HEAD + origin.http_head_len(&fields);
        let mut packet = self.read_body(start, body, rest, deadline)?;
        let Some(kind) = mtproto::classify(packet.filled()) else {
            STATS.filtered_queries.add(1);
            return Err(refuse(Status::NOT_FOUND, Close::HttpRefused));
        };
        let dcs = &self.road.dcs;
        let set = dcs.route(dcs.default_dc());
        let (link, conn) = reader::choose(set, &self.session.client)
            .map_err(|reason| refuse(Status::FAILED, reason))?;
        origin.conn = conn;
        origin.encode_http_head(kind, &fields, &mut packet[FRAME_HEAD..start]);
        packet.filled.start = FRAME_HEAD;
        let client = &self.session.client;
        client.expect(conn, manner);
        let abandoned = || client.ending().is_some();
        if link.send(packet, &abandoned).is_err() {
            client.fail(Close::BackendLost);
            return Ok(());
        }
        STATS.http_queries.add(1);
        client.traffic.queries.add(1);
        client.traffic.query_bytes.add(body as u64);
        client.touch();
        Ok(())
    }

    /// Length of the head that comes next.
    fn head_len(&mut self, deadline: Instant) -> Result<usize, Stop> {
        let mut searched = 0;
        loop {
            let bytes = self.input.filled();
            match bytes.first_chunk() {
                Some(first) if !http::is_request(first) => {
                    return Err(Stop::End(Close::HttpRefused));
                }
                Some(_) => match http::head_len(bytes, searched).map_err(malformed)? {
                    Some(len) => return Ok(len),
                    None => searched = bytes.len(),
                },
                None => {}
            }
            self.read_more(deadline).map_err(Stop::End)?;
        }
    }

    /// A buffer with `len` bytes from `start` on, the first of which may be in `rest`; what is behind
    /// them stays for later.
    fn read_body(
        &mut self,
        start: usize,
        len: usize,
        rest: &[u8],
        deadline: Instant,
    ) -> Result<Buffer, Stop> {
        let (now, later) = rest.split_at(rest.len().min(len));
        append(&mut self.input, later);
        let end = start + len;
        // What has come decides, not what is declared.
        let likely = start + 2 * now.len();
        let mut packet = Buffer::new(end.min(likely) + SEAL_ROOM);
        let mut at = start + now.len();
        packet[start..at].copy_from_slice(now);
        while at < end {
            if at + SEAL_ROOM >= packet.len() {
                packet = reader::grown(&packet, at, end + SEAL_ROOM);
            }
            self.session.client.receiving(packet.len());
            let room = end.min(packet.len() - SEAL_ROOM);
            let read = read_before(deadline, &self.session.client.socket, &mut packet[at..room]);
            at += read.map_err(Stop::End)?;
        }
        packet.filled = start..end;
        Ok(packet)
    }

    /// Waits for the answer, and then for the next request's first byte.
    fn wait(&mut self) -> Result<(), Close> {
        let late = Instant::now() + HTTP_ANSWER;
        loop {
            let (now, ending) = (Instant::now(), self.session.client.ending().is_some());
            let expecting = self.session.client.is_expecting();
            if ending {
                // It may still fetch what waits for it.
                self.input = Buffer::default();
            } else if !expecting {
                break;
            } else if now >= late {
                self.session.client.fail(Close::HttpLate);
                continue;
            }
            if self.input.filled.len() >= READ_SMALL {
                self.session
                    .client
                    .wait_for_answer(HTTP_IDLE.min(late - now));
                continue;
            }
            let step = if ending {
                now + HTTP_IDLE
            } else {
                late.min(now + HTTP_IDLE)
            };
            match self.read_more(step) {
                Ok(()) | Err(Close::HandshakeTimeout) => {}
                Err(reason) => return Err(reason),
            }
        }
        if self.input.filled.is_empty() {
            let idle = Instant::now() + HTTP_IDLE;
            self.read_more(idle).map_err(|reason| match reason {
                Close::HandshakeTimeout => Close::HttpIdle,
                reason => reason,
            })?;
        }
        Ok(())
    }

    #[inline(never)]
    fn read_more(&mut self, deadline: Instant) -> Result<(), Close> {
        let len = read_before(deadline, &self.session.client.socket, self.small)?;
        append(&mut self.input, &self.small[..len]);
        Ok(())
    }
}

/// Reads at least one byte before the deadline.
fn read_before(deadline: Instant, socket: &TcpStream, buf: &mut [u8]) -> Result<usize, Close> {
    match net::read_before(deadline, socket, buf) {
        Ok(0) => Err(Close::ClientGone),
        Ok(n) => Ok(n),
        Err(e) if e.kind() == ErrorKind::TimedOut => Err(Close::HandshakeTimeout),
        Err(_) => Err(Close::ClientLost),
    }
}

/// Adds bytes to what is filled.
#[inline(never)]
fn append(buffer: &mut Buffer, more: &[u8]) {
    if more.is_empty() {
        return;
    }
    let end = buffer.filled.end + more.len();
    if end > buffer.len() {
        let mut larger = Buffer::new(end);
        larger[..buffer.filled.end].copy_from_slice(buffer.filled());
        larger.filled = buffer.filled.clone();
        *buffer = larger;
    }
    buffer[end - more.len()..end].copy_from_slice(more);
    buffer.filled.end = end;
}

fn malformed(status: Status) -> Stop {
    if status == Status::BAD_REQUEST {
        STATS.http_bad_headers.add(1);
    }
    let reply = Reply::Error(status);
    Stop::Reply(reply, Manner::default(), Close::HttpRefused)
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
        Method::Get | Method::Head => Err(Status::NOT_IMPLEMENTED),
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
