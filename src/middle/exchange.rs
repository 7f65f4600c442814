//! Clients of the HTTP transport (protocol.md 10.3): one request at a time, each under an id of its own,
//! and one answer. Whoever takes the request out of the outbox gives the answer: the middle proxy's
//! thread, or the client's own when it has waited too long.

use crate::base::gauge::Gauge;
use crate::base::lock;
use crate::base::lock::Mutex;
use std::sync::{Arc, Condvar};
use std::time::{Duration, Instant};

use mtproxy::proto::http::{self, Answer, Status};
use mtproxy::proto::wire::ConnId;

use crate::base::clock;
use crate::middle::outbox::{Exchange, Manner};
use crate::middle::registry::{Client, release};
use crate::stats::{Close, PENDING};

/// Notified when a request is answered whose client's thread waits for that.
static ANSWERED: (Mutex<()>, Condvar) = (Mutex::new(()), Condvar::new());

/// What a request is answered with.
pub enum Reply<'a> {
    /// A packet.
    Packet(&'a [u8]),
    /// What a browser wants to hear before it sends one.
    Preflight,
    /// An error, which ends the connection.
    Error(Status),
}

const CORS: &str = "Access-Control-Allow-Origin: *\r\n\
    Access-Control-Allow-Methods: POST, OPTIONS\r\n\
    Access-Control-Allow-Headers: origin, content-type\r\n\
    Access-Control-Max-Age: 1728000\r\n";
const NO_CACHE: &str = "Cache-Control: no-store\r\nPragma: no-cache\r\n";

impl Reply<'_> {
    fn stays_open(&self, manner: Manner) -> bool {
        manner.keep_alive && !matches!(self, Reply::Error(_))
    }

    pub fn encode(&self, manner: Manner) -> Vec<u8> {
        let page;
        let (status, content_type, body) = match self {
            Reply::Packet(packet) => (Status::OK, "application/octet-stream", *packet),
            Reply::Preflight => (Status::OK, "text/plain", &[][..]),
            Reply::Error(status) => {
                page = http::error_page(*status);
                (*status, "text/html", page.as_bytes())
            }
        };
        let mut more = String::new();
        if matches!(self, Reply::Preflight) {
            more.push_str(NO_CACHE);
        }
        if manner.cors {
            more.push_str(CORS);
        }
        let head = Answer {
            status,
            content_type,
            keep_alive: self.stays_open(manner),
            length: body.len(),
            more: &more,
        };
        let mut bytes = head.head(clock::unix()).into_bytes();
        if !manner.head_only {
            bytes.extend_from_slice(body);
        }
        bytes
    }
}

/// The status that an error's number stands for: 404 for -404.
fn status_of(number: &[u8; 4]) -> Status {
    let number = i32::from_le_bytes(*number).unsigned_abs();
    match u16::try_from(number) {
        Ok(known @ 400..=599) => Status(known),
        _ => Status::FAILED,
    }
}

impl Client {
    /// A request is about to go out under this id, and to be answered in this manner.
    pub fn expect(&self, conn: ConnId, manner: Manner) {
        self.outbox().exchange = Some(Box::new(Exchange {
            conn,
            manner,
            wake: false,
            pending: Gauge::enter(&PENDING),
        }));
    }

    /// Whether a request has no answer yet.
    pub fn is_expecting(&self) -> bool {
        self.outbox().exchange.is_some()
    }

    /// Waits until there is an answer, or the client is being closed, or for so long.
    pub fn wait_for_answer(&self, wait: Duration) {
        let until = Instant::now() + wait;
        let (lock, answered) = &ANSWERED;
        let mut guard = lock.lock();
        loop {
            match &mut self.outbox().exchange {
                Some(exchange) => exchange.wake = true,
                None => return,
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            (guard, _) = lock::wait_for(answered, guard, left);
        }
    }

    /// The middle proxy has answered the request that has this id. Never blocks.
    pub fn answer(self: &Arc<Client>, conn: ConnId, data: &[u8], is_error: bool) {
        release(self, Some(conn));
        let reply = match data.first_chunk() {
            Some(number) if is_error && data.len() == 4 => Reply::Error(status_of(number)),
            _ => Reply::Packet(data),
        };
        self.reply_to(Some(conn), &reply, Close::HttpDone);
    }

    /// The client's request won't be answered: says so, if there is one, and ends the connection.
    pub fn fail(self: &Arc<Client>, reason: Close) -> bool {
        self.reply_to(None, &Reply::Error(Status::FAILED), reason)
    }

    /// Answers the request that waits, if it is the one of this id; false if there is none.
    fn reply_to(self: &Arc<Client>, only: Option<ConnId>, reply: &Reply, reason: Close) -> bool {
        let mut outbox = self.outbox();
        let wanted = |exchange: &mut Box<Exchange>| only.is_none_or(|id| id == exchange.conn);
        let Some(exchange) = outbox.exchange.take_if(wanted) else {
            return false;
        };
        let Exchange {
            manner,
            wake,
            pending,
            ..
        } = *exchange;
        drop(pending); // before the client can see the answer
        // In one go: whoever finds no request any more may be the next to answer.
        let outcome = outbox.deliver(&self.socket, &mut reply.encode(manner));
        drop(outbox);
        self.settle(outcome);
        if !reply.stays_open(manner) {
            self.finish(reason);
        }
        notify(wake);
        true
    }

    /// Answers a request that did not go out.
    pub fn reply(self: &Arc<Client>, reply: &Reply, manner: Manner, reason: Close) {
        self.put(&mut reply.encode(manner));
        if !reply.stays_open(manner) {
            self.finish(reason);
        }
    }

    /// Nobody wants an answer any more.
    pub(super) fn forget_request(&self) {
        let forgotten = self.outbox().exchange.take();
        notify(forgotten.is_some_and(|exchange| exchange.wake));
    }
}

fn notify(wake: bool) {
    if wake {
        drop(ANSWERED.0.lock());
        ANSWERED.1.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_errors_become_statuses() {
        for (number, wanted) in [
            (-404, 404),
            (-429, 429),
            (-444, 444),
            (-1, 500),
            (i32::MIN, 500),
            (-65_940, 500), // 404 above 2^16
        ] {
            let status = status_of(&i32::to_le_bytes(number));
            assert_eq!(status.0, wanted, "{number}");
        }
    }

    #[test]
    fn errors_end_the_connection_whatever_was_asked_for() {
        let manner = Manner {
            keep_alive: true,
            cors: true,
            head_only: false,
        };
        let text = |reply: &Reply| String::from_utf8(reply.encode(manner)).unwrap();
        let error = text(&Reply::Error(Status::NOT_FOUND));
        assert!(error.contains("\r\nConnection: close\r\n") && error.contains(CORS));
        assert!(error.ends_with("</html>\r\n") && !error.contains(NO_CACHE));
        let preflight = text(&Reply::Preflight);
        assert!(preflight.contains("\r\nConnection: keep-alive\r\n"));
        assert!(preflight.contains(NO_CACHE) && preflight.ends_with("1728000\r\n\r\n"));
        let packet = text(&Reply::Packet(b"abcd"));
        assert!(packet.contains("Content-Length: 4\r\n") && packet.ends_with("\r\n\r\nabcd"));
    }
}
