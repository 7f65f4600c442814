//! A client of proxy type WEB: opens a page as the apps do, begins its session, and carries streams in lanes.
//! [`Carrier`] does for the usual clients what an app and its page do: each connection to it is a lane.

use super::obfuscated2::Secret;
use super::proxy::Proxy;
use super::random::random_bytes;
use super::sockets::{dial, is_end, listener};
use super::wait::uninterrupted;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

/// The name of the usual page.
pub const HOST: &str = "proxy.example.com";

pub const OPEN: u8 = 1;
pub const DATA: u8 = 2;
pub const CLOSE: u8 = 3;
pub const WINDOW: u8 = 4;

pub fn base64url(bytes: &[u8]) -> String {
    let digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let bit = |at: usize| bytes.get(at / 8).map_or(0, |byte| byte >> (7 - at % 8) & 1);
    let value = |place: usize| (0..6).fold(0, |all, i| all << 1 | bit(place * 6 + i));
    let count = (bytes.len() * 8).div_ceil(6);
    (0..count)
        .map(|place| char::from(digits[usize::from(value(place))]))
        .collect()
}

/// What a page is opened with.
pub fn capability(host: &str, path: &str, key: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any key");
    match path {
        "" => mac.update(format!("tdesktop-web-proxy-bridge-v1\n{host}").as_bytes()),
        _ => mac.update(format!("tdesktop-web-proxy-bridge-v2\n{host}\n{path}").as_bytes()),
    }
    base64url(&mac.finalize().into_bytes())
}

/// Where the proxy takes requests of the web server in front.
pub fn web_address(proxy: &Proxy) -> SocketAddr {
    let line = proxy.wait_for_line("the web address", |line| line.starts_with("web pages on "));
    line.trim_start_matches("web pages on ")
        .parse()
        .expect("an address")
}

/// A response.
pub struct Response {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Response {
    pub fn field(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines();
        lines.find_map(|line| {
            let (own, value) = line.split_once(':')?;
            own.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }
}

/// Sends one request and reads all of the response, which ends with the connection.
pub fn ask(address: SocketAddr, request: &[u8]) -> Response {
    let mut stream = dial(address);
    stream.write_all(request).expect("a request");
    let mut all = Vec::new();
    match stream.read_to_end(&mut all) {
        Err(error) if !is_end(&error) => panic!("no end of the response: {error}"),
        _ => {}
    }
    let end = all
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .expect("a whole head");
    let head = String::from_utf8(all[..end].to_vec()).expect("a head of text");
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
    Response {
        status: status.expect("a status"),
        body: all[end + 4..].to_vec(),
        head,
    }
}

/// A page's place, and where its web server is reached.
#[derive(Clone)]
pub struct Page {
    pub address: SocketAddr,
    pub host: String,
    /// `/` or `/PATH/`.
    pub base: String,
    /// Further fields of each request, whole lines.
    pub fields: String,
}

impl Page {
    /// The usual one, reached directly.
    pub fn of(proxy: &Proxy) -> Page {
        Page {
            address: web_address(proxy),
            host: HOST.to_owned(),
            base: "/".to_owned(),
            fields: String::new(),
        }
    }

    pub fn get(&self, query: &str) -> Response {
        let Page {
            host, base, fields, ..
        } = self;
        let text = format!(
            "GET {base}{query} HTTP/1.1\r\nHost: {host}\r\n{fields}Connection: close\r\n\r\n"
        );
        ask(self.address, text.as_bytes())
    }

    /// Opens the page with this key's capability; gives its token.
    pub fn bootstrap(&self, key: &[u8]) -> String {
        let path = self.base.trim_matches('/');
        let response = self.get(&format!("?bridge={}", capability(&self.host, path, key)));
        assert_eq!(response.status, 200, "{}", response.head);
        let text = String::from_utf8(response.body).expect("a page of text");
        let (_, behind) = text.split_once("const bootstrap=\"").expect("a token");
        behind[..43].to_owned()
    }

    pub fn post(&self, method: &str, token: &str, fields: &str, body: &[u8]) -> Response {
        let Page {
            host,
            base,
            fields: own,
            ..
        } = self;
        let head = format!(
            "{method} {base}api/v1/session HTTP/1.1\r\nHost: {host}\r\n{own}Connection: close\r\n\
             Authorization: Bearer {token}\r\n{fields}\r\n"
        );
        ask(self.address, &[head.as_bytes(), body].concat())
    }

    /// Asks for the session of a page's token.
    pub fn begin(&self, bootstrap: &str) -> Response {
        let fields = "Content-Type: application/octet-stream\r\nContent-Length: 9\r\n";
        self.post("POST", bootstrap, fields, &[0x10, 0, 0, 0, 0, 0, 0, 1, 1])
    }

    /// A session of this key's page; its token.
    pub fn session(&self, key: &[u8]) -> String {
        let response = self.begin(&self.bootstrap(key));
        assert_eq!(response.status, 200, "{}", response.head);
        assert_eq!(response.body, [0x11, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(response.field("X-Carrier-Mode"), Some("websocket-lanes"));
        response
            .field("X-Session-Token")
            .expect("a token")
            .to_owned()
    }

    /// Ends a session; the status.
    pub fn end(&self, session: &str) -> u16 {
        self.post("DELETE", session, "", b"").status
    }

    /// A lane's handshake with these fields of the WebSocket; the response's status and the connection.
    pub fn upgrade(&self, fields: &str) -> (u16, TcpStream) {
        let Page {
            host,
            base,
            fields: own,
            ..
        } = self;
        let mut stream = dial(self.address);
        let text = format!(
            "GET {base}api/v1/ws HTTP/1.1\r\nHost: {host}\r\n{own}Connection: Upgrade\r\n\
             Upgrade: websocket\r\n{fields}\r\n"
        );
        stream.write_all(text.as_bytes()).expect("a request");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            uninterrupted(|| stream.read_exact(&mut byte)).expect("a whole head");
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).expect("a head of text");
        let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
        if status == Some(101) {
            assert!(
                head.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"),
                "{head}"
            );
            assert!(!head.contains("Extensions"), "{head}");
        }
        (status.expect("a status"), stream)
    }

    /// A lane with this number; nothing is said on it yet.
    pub fn lane(&self, session: &str, number: u32) -> Lane {
        let protocol = format!("tproxy-lane-v1.{session}.{number}");
        let (status, stream) = self.upgrade(&upgrade_fields(&protocol));
        assert_eq!(status, 101);
        Lane { stream, number }
    }
}

/// The fields of a right handshake.
pub fn upgrade_fields(protocol: &str) -> String {
    format!(
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Protocol: {protocol}\r\n\
         Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
    )
}

/// A lane's frame.
pub fn frame(kind: u8, number: u32, payload: &[u8]) -> Vec<u8> {
    let head = (u64::from(kind) << 56) | (u64::from(number) << 32) | payload.len() as u64;
    [&head.to_be_bytes()[..], payload].concat()
}

/// A client's frame of the WebSocket, masked.
pub fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    match payload.len() {
        len @ 0..126 => out.push(0x80 | len as u8),
        len @ 126..65_536 => {
            out.push(0x80 | 126);
            out.extend((len as u16).to_be_bytes());
        }
        len => {
            out.push(0x80 | 127);
            out.extend((len as u64).to_be_bytes());
        }
    }
    let mask = random_bytes::<4>();
    out.extend(mask);
    out.extend(
        payload
            .iter()
            .zip(mask.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
    out
}

/// What the relay says on a lane.
#[derive(Debug, PartialEq, Eq)]
pub enum Said {
    Data(Vec<u8>),
    Window(u32),
    Close,
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    /// The WebSocket's close frame.
    End(u16),
    /// The connection has ended.
    Gone,
}

pub struct Lane {
    pub stream: TcpStream,
    pub number: u32,
}

impl Lane {
    pub fn send(&self, bytes: &[u8]) {
        // A relay that has ended the lane says so to the next read.
        let _ = (&self.stream).write_all(bytes);
    }

    /// A message of these frames.
    pub fn message(&self, frames: &[(u8, &[u8])]) {
        let each = frames
            .iter()
            .map(|(kind, payload)| frame(*kind, self.number, payload));
        self.send(&masked(0x82, &each.collect::<Vec<_>>().concat()));
    }

    fn read(&self, len: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; len];
        let mut done = 0;
        while done < len {
            match uninterrupted(|| (&self.stream).read(&mut bytes[done..])) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(error) if is_end(&error) => break,
                Err(error) => panic!("nothing more from the relay: {error}"),
            }
        }
        (done == len).then_some(bytes)
    }

    /// The next thing; messages are one frame each, whole and unmasked.
    pub fn hear(&self) -> Said {
        let Some(start) = self.read(2) else {
            return Said::Gone;
        };
        assert_eq!(start[1] & 0x80, 0, "a server masks nothing");
        let len = match start[1] {
            126 => u64::from(u16::from_be_bytes(
                self.read(2).unwrap().try_into().unwrap(),
            )),
            127 => u64::from_be_bytes(self.read(8).unwrap().try_into().unwrap()),
            len => len.into(),
        };
        let payload = self.read(len as usize).expect("a whole message");
        match start[0] {
            0x89 => return Said::Ping(payload),
            0x8a => return Said::Pong(payload),
            0x88 => return Said::End(u16::from_be_bytes([payload[0], payload[1]])),
            first => assert_eq!(first, 0x82),
        }
        let (head, body) = payload.split_at(8);
        assert_eq!(head[1..4], self.number.to_be_bytes()[1..]);
        assert_eq!(head[4..], (body.len() as u32).to_be_bytes());
        match head[0] {
            DATA => {
                assert!((1..=65_536).contains(&body.len()));
                Said::Data(body.to_vec())
            }
            CLOSE => Said::Close,
            WINDOW => Said::Window(u32::from_be_bytes(body.try_into().expect("4 bytes"))),
            kind => panic!("a frame of kind {kind}"),
        }
    }
}

/// Carries what the usual clients say, each connection in a lane of one session.
pub struct Carrier {
    /// Where clients connect.
    pub address: SocketAddr,
}

/// Credit upwards.
type Credit = Arc<(Mutex<u64>, Condvar)>;

impl Carrier {
    /// A session of this page and secret; `padded`: by its dd form.
    pub fn start(page: &Page, secret: &Secret, padded: bool) -> Carrier {
        let key = if padded {
            [&[0xdd], &secret[..]].concat()
        } else {
            secret.to_vec()
        };
        let session = page.session(&key);
        let listener = listener(Ipv4Addr::LOCALHOST.into());
        let address = listener.local_addr().expect("its address");
        let page = page.clone();
        thread::spawn(move || {
            for (number, stream) in (1..).zip(listener.incoming().map_while(Result::ok)) {
                let lane = page.lane(&session, number);
                thread::spawn(move || carry(&stream, &lane));
            }
        });
        Carrier { address }
    }
}

/// Carries one stream to its end.
fn carry(stream: &TcpStream, lane: &Lane) {
    let credit: Credit = Arc::new((Mutex::new(4 << 20), Condvar::new()));
    thread::scope(|scope| {
        let up_credit = credit.clone();
        scope.spawn(move || up(stream, lane, &up_credit));
        loop {
            match lane.hear() {
                Said::Data(bytes) => {
                    if (&mut &*stream).write_all(&bytes).is_err() {
                        break;
                    }
                    lane.message(&[(WINDOW, &(bytes.len() as u32).to_be_bytes())]);
                }
                Said::Window(more) => {
                    *credit.0.lock().expect("credit") += u64::from(more);
                    credit.1.notify_all();
                }
                Said::Ping(payload) => lane.send(&masked(0x8a, &payload)),
                Said::Pong(_) => {}
                Said::Close | Said::End(_) | Said::Gone => break,
            }
        }
        // Far more than any window: whoever waits for credit goes on to the socket, which has ended.
        *credit.0.lock().expect("credit") = 1 << 40;
        credit.1.notify_all();
        let _ = stream.shutdown(Shutdown::Both);
        let _ = lane.stream.shutdown(Shutdown::Both);
    });
}

fn up(mut stream: &TcpStream, lane: &Lane, credit: &Credit) {
    let mut bytes = vec![0; 100_000];
    let mut begun = false;
    while let Ok(n) = uninterrupted(|| stream.read(&mut bytes)) {
        if n == 0 {
            break;
        }
        let mut rest = &bytes[..n];
        while !rest.is_empty() {
            let mut left = credit.0.lock().expect("credit");
            while *left == 0 {
                left = credit.1.wait(left).expect("credit");
            }
            let (now, later) = rest.split_at(rest.len().min(*left as usize));
            *left -= now.len() as u64;
            drop(left);
            let open: &[(u8, &[u8])] = if begun { &[] } else { &[(OPEN, b"")] };
            begun = true;
            lane.message(&[open, &[(DATA, now)]].concat());
            rest = later;
        }
    }
    lane.message(&[(CLOSE, b"")]);
    let _ = lane.stream.shutdown(Shutdown::Write);
}
