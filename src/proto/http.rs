//! HTTP/1 heads, as far as a proxy needs them: requests to the statistics port, and those that clients
//! wrap their packets in (protocol.md 10.1, 10.3). Requests are strangers' bytes: at most
//! [`MAX_HTTP_HEAD`] of them are looked at, and whatever two programs could read in two ways is
//! refused.
//!
//! ```text
//! METHOD SP TARGET [SP HTTP/1.0 | HTTP/1.1] CRLF
//! NAME ":" VALUE CRLF ...
//! CRLF
//! ```
//!
//! A line may end in LF alone. Without a version the first line is all. Corresponds to the C proxy's
//! `net-http-server.c`.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;

use crate::formats::date::HttpDate;
use crate::limits::{MAX_HTTP_FIELD, MAX_HTTP_HEAD};

/// A method that is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Method {
    /// GET
    Get,
    /// HEAD
    Head,
    /// POST
    Post,
    /// OPTIONS
    Options,
    /// DELETE
    Delete,
}

/// A response's status.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Status(pub u16);

impl Status {
    /// All is well.
    pub const OK: Status = Status(200);
    /// The head is malformed, or too long.
    pub const BAD_REQUEST: Status = Status(400);
    /// There is nothing of that name, or not for the one who asks.
    pub const NOT_FOUND: Status = Status(404);
    /// A POST doesn't say how long its body is.
    pub const LENGTH_REQUIRED: Status = Status(411);
    /// A body that is too long, or one where none belongs.
    pub const TOO_LARGE: Status = Status(413);
    /// The target is too long.
    pub const TARGET_TOO_LONG: Status = Status(414);
    /// No response could be made.
    pub const FAILED: Status = Status(500);
    /// A method or an encoding that isn't served.
    pub const NOT_IMPLEMENTED: Status = Status(501);

    /// The standard's words for it.
    pub fn text(self) -> &'static str {
        match self.0 {
            200 => "OK",
            400 => "Bad Request",
            404 => "Not Found",
            411 => "Length Required",
            413 => "Request Entity Too Large",
            414 => "Request URI Too Long",
            429 => "Too Many Requests",
            500 => "Internal Server Error",
            501 => "Not Implemented",
            _ => "Unknown",
        }
    }
}

/// A request's head.
#[derive(Debug)]
pub struct Request<'a> {
    /// What is asked.
    pub method: Method,
    /// Of what: as it was sent, with whatever stands behind a `?`; not empty, no control character.
    pub target: &'a [u8],
    /// Whether the connection is wanted for more. Only if it says so, whatever the version.
    pub keep_alive: bool,
    /// Bytes of the body, if it says how many; always with POST, and never more than 0 without.
    pub content_length: Option<u64>,
    fields: &'a [u8],
}

/// Whether these bytes begin a request. Anything else is closed without a word.
pub fn is_request(first: &[u8; 4]) -> bool {
    matches!(first, b"GET " | b"HEAD" | b"POST" | b"OPTI")
}

/// Length of the head that `bytes` begin with; None if there is more to come. Looks behind the first
/// `searched` bytes only, where an earlier call found no end. An error if it is too long.
pub fn head_len(bytes: &[u8], searched: usize) -> Result<Option<usize>, Status> {
    let seen = bytes.get(..MAX_HTTP_HEAD).unwrap_or(bytes);
    let first_line = lines(seen).next().unwrap_or_default();
    let complete = first_line.len() < seen.len();
    let end = if complete && first_line.split(|byte| *byte == b' ').count() == 2 {
        seen.iter().position(|byte| *byte == b'\n')
    } else {
        let from = searched.saturating_sub(3);
        let tail = seen.get(from..).unwrap_or_default();
        let ends = |at: usize| {
            let rest = tail.get(at..).unwrap_or_default();
            rest.starts_with(b"\n\n") || rest.starts_with(b"\n\r\n")
        };
        let at = (0..tail.len()).find(|at| ends(*at));
        at.map(|at| {
            let cr = tail.get(at.saturating_add(1)) == Some(&b'\r');
            from.saturating_add(at)
                .saturating_add(if cr { 2 } else { 1 })
        })
    };
    match end {
        Some(end) => Ok(Some(end.saturating_add(1))),
        None if bytes.len() >= MAX_HTTP_HEAD => Err(Status::BAD_REQUEST),
        None => Ok(None),
    }
}

impl Request<'_> {
    /// Reads a head of the length that [`head_len`] gave. Errors are the status to respond with, and end the connection:
    /// 400 if it is malformed, 411 and 413 for the absence and presence of a body, 501 for a body
    /// without a length.
    pub fn parse(head: &[u8]) -> Result<Request<'_>, Status> {
        let wrong = Status::BAD_REQUEST;
        let first_line = lines(head).next().unwrap_or_default();
        let mut words = first_line.split(|byte| *byte == b' ');
        let method = match words.next() {
            Some(b"GET") => Method::Get,
            Some(b"HEAD") => Method::Head,
            Some(b"POST") => Method::Post,
            Some(b"OPTIONS") => Method::Options,
            Some(b"DELETE") => Method::Delete,
            _ => return Err(wrong),
        };
        let target = words.next().filter(|target| !target.is_empty());
        let target = target.filter(|target| target.iter().all(u8::is_ascii_graphic));
        let (None | Some(b"HTTP/1.0" | b"HTTP/1.1"), None) = (words.next(), words.next()) else {
            return Err(wrong);
        };
        let fields = head.split(|byte| *byte == b'\n').next();
        let fields = fields.map_or(0, |line| line.len().saturating_add(1));
        let mut request = Request {
            method,
            target: target.ok_or(wrong)?,
            keep_alive: false,
            content_length: None,
            fields: head.get(fields..).unwrap_or_default(),
        };
        request.read_fields()?;
        match (method, request.content_length) {
            (Method::Post, None) => Err(Status::LENGTH_REQUIRED),
            (Method::Post, Some(_)) | (_, None | Some(0)) => Ok(request),
            (_, Some(_)) => Err(Status::TOO_LARGE),
        }
    }

    fn read_fields(&mut self) -> Result<(), Status> {
        let wrong = Status::BAD_REQUEST;
        for line in lines(self.fields).take_while(|line| !line.is_empty()) {
            let (name, value) = field(line).ok_or(wrong)?;
            if name.eq_ignore_ascii_case(b"connection") {
                self.keep_alive = value.eq_ignore_ascii_case(b"keep-alive");
            } else if name.eq_ignore_ascii_case(b"content-length") {
                let length = decimal(value).ok_or(wrong)?;
                if self.content_length.replace(length).is_some() {
                    return Err(wrong);
                }
            } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
                return Err(Status::NOT_IMPLEMENTED);
            }
        }
        Ok(())
    }

    /// The value of the first field of that name, in whatever case.
    #[inline(never)] // asked for in many places
    pub fn field(&self, name: &str) -> Option<&[u8]> {
        let mut all = lines(self.fields).map_while(field);
        let found = all.find(|(own, _)| own.eq_ignore_ascii_case(name.as_bytes()));
        found.map(|(_, value)| value)
    }
}

impl<'a> Request<'a> {
    /// The value of the only field of that name; None if there are several.
    pub fn only(&self, name: &str) -> Option<&'a [u8]> {
        let mut all = self.named(name);
        all.next().filter(|_| all.next().is_none())
    }

    /// The value of the last field of that name.
    pub fn last(&self, name: &str) -> Option<&'a [u8]> {
        self.named(name).last()
    }

    fn named(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        let all = lines(self.fields).map_while(field);
        let own = move |(own, _): &(&[u8], _)| own.eq_ignore_ascii_case(name.as_bytes());
        all.filter(own).map(|(_, value)| value)
    }
}

/// Lines without what ends them; behind the last one an empty one.
fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let ended = text.split(|byte| *byte == b'\n');
    ended.map(|line| line.strip_suffix(b"\r").unwrap_or(line))
}

/// Name and value. None: continued lines, names with spaces, control characters.
fn field(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let (name, value) = line.split_at_checked(colon)?;
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    let is_text = |byte: &u8| *byte == b'\t' || !byte.is_ascii_control();
    let value = value.get(1..)?.trim_ascii();
    let fits = !name.is_empty() && name.iter().all(is_token) && value.iter().all(is_text);
    fits.then_some((name, value))
}

/// A number of at most 18 digits, which 64 bits hold.
fn decimal(text: &[u8]) -> Option<u64> {
    let plain = (1..=18).contains(&text.len()) && text.iter().all(u8::is_ascii_digit);
    let text = core::str::from_utf8(text).ok().filter(|_| plain)?;
    text.parse().ok()
}

/// What middle proxies are told of a client's request: three fields of its head (Origin, Referer,
/// User-Agent; empty if missing), as an item of PROXY_REQ (protocol.md 7.2).
pub fn fields_item(fields: [&[u8]; 3]) -> Vec<u8> {
    const TL_HTTP: u32 = 0xd45a_b381;
    let mut item = TL_HTTP.to_le_bytes().to_vec();
    for field in fields {
        let text = field.get(..MAX_HTTP_FIELD).unwrap_or(field);
        // A TL string: its length in one byte or four, itself, zeros up to a whole word.
        match text.len() {
            len @ 0..254 => item.push(len as u8),
            len => item.extend_from_slice(&((len as u32) << 8 | 254).to_le_bytes()),
        }
        item.extend_from_slice(text);
        item.resize(item.len().next_multiple_of(4), 0);
    }
    item
}

/// A response's head.
pub struct ResponseHead<'a> {
    /// Its status.
    pub status: Status,
    /// What its body is.
    pub content_type: &'a str,
    /// Whether the connection stays open.
    pub keep_alive: bool,
    /// Bytes of its body.
    pub length: usize,
    /// Further fields, whole lines.
    pub more: &'a str,
}

impl ResponseHead<'_> {
    /// The head at `now`, unix seconds, in the C program's order.
    pub fn encode(&self, now: u64) -> String {
        let mut out = String::with_capacity(256);
        let connection = if self.keep_alive {
            "keep-alive"
        } else {
            "close"
        };
        let _ = write!(
            out,
            "HTTP/1.1 {} {}\r\nServer: MTProxy/1.0\r\nDate: {}\r\nContent-Type: {}\r\n\
             Connection: {connection}\r\nContent-Length: {}\r\n{}\r\n",
            self.status.0,
            self.status.text(),
            HttpDate(now),
            self.content_type,
            self.length,
            self.more,
        );
        out
    }
}

/// The body of a response that is an error; text/html.
pub fn error_page(status: Status) -> String {
    let (number, text) = (status.0, status.text());
    format!(
        "<html>\r\n<head><title>{number} {text}</title></head>\r\n\
         <body><h1>{number} {text}</h1></body>\r\n</html>\r\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    #[test]
    fn fields_as_strings() {
        for len in [0, 1, 3, 4, 253, 254, 256, 1021, 1022, 1023, 20_000] {
            let text = vec![b'a'; len];
            let len = len.min(1022);
            let mut wanted = vec![0x81, 0xb3, 0x5a, 0xd4];
            match u8::try_from(len).ok().filter(|len| *len < 254) {
                Some(short) => wanted.push(short),
                None => wanted.extend([254, len as u8, (len >> 8) as u8, 0]),
            }
            wanted.extend(&text[..len]);
            wanted.resize(wanted.len().next_multiple_of(4), 0);
            wanted.extend(*b"\0\0\0\0\x03bcd");
            assert_eq!(fields_item([&text, b"", b"bcd"]), wanted, "{len}");
        }
    }

    fn parse(text: &str) -> Result<Request<'_>, u16> {
        Request::parse(text.as_bytes()).map_err(|status| status.0)
    }

    fn error(text: &str) -> u16 {
        parse(text).map(|_| 0).unwrap_err()
    }

    #[test]
    fn a_request_as_clients_send_it() {
        let text = "GET /stats HTTP/1.1\r\nHost: localhost:8888\r\naccept: */*\r\n\
                    CONNECTION:  Keep-Alive \r\nEmpty:\r\n\r\n";
        assert_eq!(head_len(text.as_bytes(), 0), Ok(Some(text.len())));
        let request = parse(text).unwrap();
        assert_eq!(
            (request.method, request.target),
            (Method::Get, &b"/stats"[..])
        );
        assert_eq!((request.keep_alive, request.content_length), (true, None));
        assert_eq!(request.field("HOST"), Some(&b"localhost:8888"[..]));
        assert_eq!(request.field("Accept"), Some(&b"*/*"[..]));
        assert_eq!(request.field("empty"), Some(&b""[..]));
        assert_eq!(request.field("Hos"), None);
        assert_eq!(request.field("X-Forwarded-For"), None);
    }

    #[test]
    fn versions_and_the_connection() {
        for (head, keep) in [
            ("GET /a?b=c HTTP/1.0\r\n\r\n", false),
            ("GET /a HTTP/1.1\n\n", false),
            ("GET /a HTTP/1.1\nConnection: close\n\n", false),
            ("GET /a HTTP/1.1\nConnection: keep-alive, te\n\n", false),
            ("GET /a HTTP/1.0\nConnection: KEEP-ALIVE\n\n", true),
            ("GET /a\r\n", false),
        ] {
            assert_eq!(head_len(head.as_bytes(), 0), Ok(Some(head.len())), "{head}");
            assert_eq!(parse(head).unwrap().keep_alive, keep, "{head}");
        }
        for version in [
            "HTTP/1.2",
            "HTTP/2.0",
            "http/1.1",
            "HTTP/1.1 x",
            "",
            " HTTP/1.1",
        ] {
            assert_eq!(
                error(&format!("GET /a {version}\r\n\r\n")),
                400,
                "{version}"
            );
        }
    }

    #[test]
    fn malformed_heads() {
        for head in [
            "GET  HTTP/1.1\r\n\r\n",
            "GET /a\tb HTTP/1.1\r\n\r\n",
            "GETX /a HTTP/1.1\r\n\r\n",
            "get /a HTTP/1.1\r\n\r\n",
            "OPTIMAL /a HTTP/1.1\r\n\r\n",
            "GET /a HTTP/1.1\r\nno colon\r\n\r\n",
            "GET /a HTTP/1.1\r\n: none\r\n\r\n",
            "GET /a HTTP/1.1\r\nHost : b\r\n\r\n",
            "GET /a HTTP/1.1\r\nA: b\r\n c\r\n\r\n",
            "GET /a HTTP/1.1\r\nA: b\0\r\n\r\n",
            "GET /a HTTP/1.1\r\nA: b\rX: c\r\n\r\n",
            "POST /a HTTP/1.1\r\nContent-Length: +4\r\n\r\n",
            "POST /a HTTP/1.1\r\nContent-Length: 4, 4\r\n\r\n",
            "POST /a HTTP/1.1\r\nContent-Length: 4\r\nContent-Length: 4\r\n\r\n",
            "POST /a HTTP/1.1\r\nContent-Length: 9999999999999999999\r\n\r\n",
            "",
        ] {
            assert_eq!(error(head), 400, "{head:?}");
        }
    }

    #[test]
    fn bodies_belong_to_posts_and_have_a_length() {
        let with = |method: &str, field: &str| format!("{method} /api HTTP/1.1\r\n{field}\r\n\r\n");
        let length = |text: &str| parse(text).map(|request| request.content_length);
        assert_eq!(length(&with("POST", "content-length: 40")), Ok(Some(40)));
        assert_eq!(length(&with("POST", "Content-Length: 0")), Ok(Some(0)));
        assert_eq!(length(&with("GET", "Content-Length: 0")), Ok(Some(0)));
        assert_eq!(length(&with("POST", "A: b")), Err(411));
        for method in ["GET", "HEAD", "OPTIONS"] {
            assert_eq!(length(&with(method, "Content-Length: 1")), Err(413));
            assert_eq!(length(&with(method, "A: b")), Ok(None));
        }
        let chunked = with("POST", "Transfer-Encoding: chunked\r\nContent-Length: 4");
        assert_eq!(length(&chunked), Err(501));
    }

    #[test]
    fn byte_by_byte_the_end_is_found_where_it_is() {
        for head in [
            "GET /stats HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /stats HTTP/1.0\n\n",
            "GET /stats HTTP/1.0\nA: b\n\r\n",
            "HEAD /stats\n",
        ] {
            let text = format!("{head}GET /next HTTP/1.1\r\n\r\n");
            let mut searched = 0;
            let mut found = None;
            for len in 0..=text.len() {
                let bytes = &text.as_bytes()[..len];
                let step = head_len(bytes, searched).unwrap();
                assert_eq!(step, head_len(bytes, 0).unwrap(), "{bytes:?}");
                found = found.or(step.map(|end| (len, end)));
                if step.is_none() {
                    searched = len;
                }
            }
            assert_eq!(found, Some((head.len(), head.len())), "{head:?}");
        }
    }

    #[test]
    fn the_longest_head() {
        let mut text = Vec::from(&b"GET /stats HTTP/1.1\r\nA: "[..]);
        text.resize(MAX_HTTP_HEAD - 4, b'b');
        assert_eq!(head_len(&text, 0), Ok(None));
        text.extend(b"\r\n\r\n");
        assert_eq!(head_len(&text, 0), Ok(Some(MAX_HTTP_HEAD)));
        assert!(Request::parse(&text).is_ok());
        text.insert(30, b'c');
        assert_eq!(head_len(&text, 0), Err(Status::BAD_REQUEST));
    }

    #[test]
    fn first_bytes() {
        for first in [b"GET ", b"HEAD", b"POST", b"OPTI"] {
            assert!(is_request(first));
        }
        for first in [b"PUT ", b"get ", b"GETX", b"\x16\x03\x01\x02"] {
            assert!(!is_request(first));
        }
    }

    #[test]
    fn answers() {
        let head = ResponseHead {
            status: Status::NOT_FOUND,
            content_type: "text/html",
            keep_alive: true,
            length: error_page(Status::NOT_FOUND).len(),
            more: "A: b\r\n",
        };
        let wanted = "HTTP/1.1 404 Not Found\r\nServer: MTProxy/1.0\r\n\
                      Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Type: text/html\r\n\
                      Connection: keep-alive\r\nContent-Length: 97\r\nA: b\r\n\r\n";
        assert_eq!(head.encode(784_111_777), wanted);
    }
}
