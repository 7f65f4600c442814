//! What HTTP clients are sent (protocol.md 10.3), as text. `http` calls it.

use mtproxy::proto::http::{self, Answer, Status};

use crate::base::clock;

/// What a request asks of its response.
#[derive(Clone, Copy, Default)]
pub struct Manner {
    /// The connection stays open.
    pub keep_alive: bool,
    /// A page of another site may read it: it has the CORS lines.
    pub cors: bool,
    /// It has no body.
    pub head_only: bool,
}

/// What a request is answered with.
#[derive(Clone, Copy)]
pub enum Response<'a> {
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

impl<'a> Response<'a> {
    /// For what a middle proxy has sent: a packet, or the number of an error, -404 for 404.
    pub fn of(data: &'a [u8], is_error: bool) -> Response<'a> {
        let Ok(number) = <[u8; 4]>::try_from(data) else {
            return Response::Packet(data);
        };
        match u16::try_from(i32::from_le_bytes(number).unsigned_abs()) {
            _ if !is_error => Response::Packet(data),
            Ok(known @ 400..=599) => Response::Error(Status(known)),
            _ => Response::Error(Status::FAILED),
        }
    }

    /// Whether the connection stays open behind it.
    pub fn stays_open(self, manner: Manner) -> bool {
        manner.keep_alive && !matches!(self, Response::Error(_))
    }

    /// Its bytes.
    pub fn encode(self, manner: Manner) -> Vec<u8> {
        let page;
        let (status, content_type, body) = match self {
            Response::Packet(packet) => (Status::OK, "application/octet-stream", packet),
            Response::Preflight => (Status::OK, "text/plain", &[][..]),
            Response::Error(status) => {
                page = http::error_page(status);
                (status, "text/html", page.as_bytes())
            }
        };
        let mut more = String::new();
        if matches!(self, Response::Preflight) {
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
            let data = i32::to_le_bytes(number);
            let found = Response::of(&data, true);
            assert!(
                matches!(found, Response::Error(Status(n)) if n == wanted),
                "{number}"
            );
        }
        for (data, is_error) in [(&[0; 4][..], false), (&[0; 8], true)] {
            assert!(matches!(Response::of(data, is_error), Response::Packet(_)));
        }
    }

    #[test]
    fn errors_end_the_connection_whatever_was_asked_for() {
        let manner = Manner {
            keep_alive: true,
            cors: true,
            head_only: false,
        };
        let text = |response: Response| String::from_utf8(response.encode(manner)).unwrap();
        let error = text(Response::Error(Status::NOT_FOUND));
        assert!(error.contains("\r\nConnection: close\r\n") && error.contains(CORS));
        assert!(error.ends_with("</html>\r\n") && !error.contains(NO_CACHE));
        let preflight = text(Response::Preflight);
        assert!(preflight.contains("\r\nConnection: keep-alive\r\n"));
        assert!(preflight.contains(NO_CACHE) && preflight.ends_with("1728000\r\n\r\n"));
        let packet = text(Response::Packet(b"abcd"));
        assert!(packet.contains("Content-Length: 4\r\n") && packet.ends_with("\r\n\r\nabcd"));
    }
}
