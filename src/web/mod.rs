//! The door for Telegram's proxy type WEB: a web server in front, which has the certificate and the site,
//! passes on requests under the names of --web, in clear. An app's page is answered here and carries the
//! app's streams back in lanes, a WebSocket each (`proto::web`). A lane is one connection, one stream, one
//! client, and is served by the same threads in the same way as a client that came without a page.
//!
//! Everything else is answered with a status of its own (418), empty: the web server takes it for the order
//! to answer as the site that it is. All bytes are strangers' until a lane's stream has proven the secret
//! that its page was opened for; until then a connection has a stranger's place (`door::admission`).

mod page;
mod sessions;

use std::net::{IpAddr, Shutdown, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use mtproxy::formats::cidr::Network;
use mtproxy::limits::{
    CLIENT_HANDSHAKE, FIRST_RECORD, HEADER_LEN, MAX_HTTP_HEAD, READ_SMALL, WEB_WRITE,
};
use mtproxy::proto::base64;
use mtproxy::proto::http::{self, Method, Request};
use mtproxy::proto::lane::{MAX_LANE, MAX_REPLY, Up};
use mtproxy::proto::web::{HELLO, Place, WELCOME};
use mtproxy::proto::websocket::{self, Code};
use mtproxy::proto::wire::decimal;

use crate::base::{log, net};
use crate::door::admission::Newcomer;
use crate::door::header::{self, Received};
use crate::door::rules::Rules;
use crate::door::serve_client;
use crate::stats::{Close, STATS};
use crate::stream::{ClientStream, Layer};
use sessions::{Begun, LaneOf, Sessions, Token};

/// What is served to web pages.
pub struct Web {
    /// Where pages are.
    pub places: Vec<Place>,
    /// Web servers that are believed whose connection they pass on; none: those on this machine.
    pub trust: Vec<Network>,
    sessions: Arc<Sessions>,
}

impl Web {
    /// Without sessions yet.
    pub fn new(places: Vec<Place>, trust: Vec<Network>) -> std::io::Result<Web> {
        Ok(Web {
            places,
            trust,
            sessions: Arc::new(Sessions::new()?),
        })
    }

    /// Serves one connection to its end.
    pub fn serve(&self, rules: &Rules, newcomer: Newcomer) {
        let mut small = [0; READ_SMALL];
        let mut peer = newcomer.peer;
        let entered = self.enter(rules, newcomer, &mut small, &mut peer);
        let result = match entered {
            Ok((newcomer, stream, _lane)) => serve_client(rules, newcomer, stream),
            Err(reason) => Err(reason.counted()),
        };
        if let Err(reason) = result
            && log::verbosity() > 0
        {
            let reason = reason.word();
            log::event(format_args!("web_closed peer={peer} reason={reason}"));
        }
    }

    /// Reads a request and answers it. Goes on with a lane whose stream has proven its secret.
    #[inline(never)] // an idle client's thread keeps the stack of what is inlined
    fn enter<'a>(
        &self,
        rules: &Rules,
        newcomer: Newcomer,
        small: &'a mut [u8; READ_SMALL],
        peer: &mut SocketAddr,
    ) -> Result<(Newcomer, ClientStream<'a>, LaneOf), Close> {
        let deadline = Instant::now() + CLIENT_HANDSHAKE;
        let (newcomer, answer, behind) = self.ask(rules, newcomer, small, (peer, deadline))?;
        let (lane, number, head) = match answer {
            Answer::Done(head, reason) => {
                let text = head.as_bytes();
                net::write_before(deadline, newcomer.socket(), text)
                    .map_err(|_| Close::ClientLost)?;
                let _ = newcomer.socket().shutdown(Shutdown::Write);
                let mut rest = [0; 512];
                while net::read_more(deadline, newcomer.socket(), &mut rest).is_ok() {}
                return Err(reason);
            }
            Answer::Lane(lane, number, head) => (lane, number, head),
        };
        net::write_before(deadline, newcomer.socket(), head.as_bytes())
            .map_err(|_| Close::ClientLost)?;
        let (newcomer, stream) =
            self.first_frames(rules, newcomer, (small, behind), number, &lane)?;
        Ok((newcomer, stream, lane))
    }

    /// Reads one request's head and decides on the answer; how many bytes came behind it, which are moved to
    /// the front of `small`. From here on the connection is that of whom the web server names.
    #[inline(never)] // as above
    fn ask(
        &self,
        rules: &Rules,
        mut newcomer: Newcomer,
        small: &mut [u8; READ_SMALL],
        (peer, deadline): (&mut SocketAddr, Instant),
    ) -> Result<(Newcomer, Answer, usize), Close> {
        let mut received = Received::new(small);
        let mut searched = 0;
        let len = loop {
            match http::head_len(received.bytes(), searched) {
                Ok(Some(len)) => break len,
                Ok(None) => {}
                Err(_) => return Ok((newcomer, Answer::site(), 0)),
            }
            searched = received.bytes().len();
            received.read_more(&mut newcomer, deadline, MAX_HTTP_HEAD)?;
        };
        let Ok(request) = Request::parse(&received.bytes()[..len]) else {
            return Ok((newcomer, Answer::site(), 0));
        };
        if let Some(ip) = self.visitor(&request, newcomer.peer.ip()) {
            *peer = SocketAddr::new(ip, 0);
            newcomer.comes_from(*peer)?;
        }
        if rules.refuse(newcomer.peer.ip()) {
            return Ok((newcomer, Answer::as_site(Close::AddressRefused), 0));
        }
        let body = &received.bytes()[len..];
        let wanted = match self.judge(rules, &request) {
            Wanted::Answer(answer) => {
                let behind = body.len().min(READ_SMALL);
                let body = received.bytes()[len..len + behind].to_vec();
                received.small[..behind].copy_from_slice(&body);
                return Ok((newcomer, answer, behind));
            }
            Wanted::Session(token) => token,
        };
        while received.bytes().len() < len + HELLO.len() {
            received.read_more(&mut newcomer, deadline, MAX_HTTP_HEAD + HELLO.len())?;
        }
        let is_hello = received.bytes()[len..] == HELLO;
        let answer = match is_hello {
            true => self.begin(rules, &wanted),
            false => Answer::site(),
        };
        Ok((newcomer, answer, 0))
    }

    /// Whose connection it is, if a web server passes it on that is believed.
    fn visitor(&self, request: &Request, peer: IpAddr) -> Option<IpAddr> {
        let peer = peer.to_canonical();
        let is_trusted = match self.trust.as_slice() {
            [] => peer.is_loopback(),
            nets => nets.iter().any(|net| net.contains(peer)),
        };
        let field = request.last("X-Real-IP").or_else(|| {
            let list = request.last("X-Forwarded-For")?;
            list.rsplit(|byte| *byte == b',').next()
        })?;
        let text = std::str::from_utf8(field).ok()?.trim();
        text.parse().ok().filter(|_| is_trusted)
    }

    /// What a request asks for.
    fn judge(&self, rules: &Rules, request: &Request) -> Wanted {
        let place = request.only("Host").and_then(|host| {
            let name = host.strip_suffix(b":443").unwrap_or(host);
            let fits = |place: &&Place| {
                let is_own = name.eq_ignore_ascii_case(place.host.as_bytes());
                is_own && request.target.starts_with(place.base().as_bytes())
            };
            // A page below a path is not its site's own.
            let fitting = self.places.iter().filter(fits);
            fitting.max_by_key(|place| place.path.len())
        });
        let Some(place) = place else {
            return Wanted::Answer(Answer::site());
        };
        let base = place.base();
        let below = &request.target[base.len()..];
        let length = request.content_length.unwrap_or(0);
        let answer = match (request.method, below) {
            (Method::Get, [b'?', query @ ..]) if length == 0 => self.page(rules, place, query),
            (Method::Post, b"api/v1/session") if length == HELLO.len() as u64 => {
                match bearer(request) {
                    Some(token) if is_octets(request) => return Wanted::Session(token),
                    _ => None,
                }
            }
            (Method::Delete, b"api/v1/session") if length == 0 => {
                let token = bearer(request).filter(|token| self.sessions.end(token));
                token.map(|_| Answer::done("204 No Content", "", ""))
            }
            (Method::Get, b"api/v1/ws") if length == 0 => self.lane(request),
            _ => None,
        };
        Wanted::Answer(answer.unwrap_or_else(Answer::site))
    }

    /// The page, if the query is a capability.
    fn page(&self, rules: &Rules, place: &Place, query: &[u8]) -> Option<Answer> {
        let capability = query.strip_prefix(b"bridge=").and_then(read_token);
        // What is none is compared like one: the time tells nothing.
        let secrets = &rules.secrets;
        let fitting = place.secret_of(&capability.unwrap_or_default(), secrets);
        let secret = &secrets[fitting.filter(|_| capability.is_some())?];
        let token = self.sessions.bootstrap(secret).ok()?;
        let (fields, body) = page::page(place, &write_token(&token)).ok()?;
        STATS.web_pages.add(1);
        Some(Answer::done("200 OK", &fields, &body))
    }

    fn begin(&self, rules: &Rules, bootstrap: &Token) -> Answer {
        match self.sessions.begin(bootstrap, &rules.secrets) {
            Begun::Session(token) => {
                STATS.web_sessions.add(1);
                let fields = format!(
                    "Content-Type: application/octet-stream\r\nCache-Control: no-store\r\n\
                     X-Session-Token: {}\r\nX-Carrier-Mode: websocket-lanes\r\nX-Down-Cursor: 0\r\n",
                    write_token(&token)
                );
                // All of its bytes are characters.
                let welcome = std::str::from_utf8(&WELCOME).unwrap_or_default();
                Answer::done("200 OK", &fields, welcome)
            }
            Begun::Full => {
                STATS.web_refused_full.add(1);
                Answer::done("503 Service Unavailable", "Retry-After: 1\r\n", "")
            }
            Begun::Unknown => Answer::site(),
        }
    }

    /// A lane, if the request is a right handshake of one.
    fn lane(&self, request: &Request) -> Option<Answer> {
        let is = |name, value: &str| {
            let field = request.only(name);
            field.is_some_and(|field| field.eq_ignore_ascii_case(value.as_bytes()))
        };
        let connection = request.only("Connection")?;
        let mut words = connection.split(|byte| *byte == b',');
        let upgrades = words.any(|word| word.trim_ascii().eq_ignore_ascii_case(b"upgrade"));
        if !upgrades || !is("Upgrade", "websocket") || !is("Sec-WebSocket-Version", "13") {
            return None;
        }
        let accept = websocket::accept(request.only("Sec-WebSocket-Key")?)?;
        let protocol = request.only("Sec-WebSocket-Protocol")?;
        let named = protocol.strip_prefix(b"tproxy-lane-v1.")?;
        let (token, digits) = named.split_at_checked(43)?;
        let digits = digits.strip_prefix(b".").filter(|d| !d.starts_with(b"0"))?;
        let number = decimal::<u32>(digits).filter(|number| (1..=MAX_LANE).contains(number))?;
        let Some(lane) = self.sessions.open(&read_token(token)?, number) else {
            STATS.web_lanes_refused.add(1);
            return None;
        };
        STATS.web_lanes.add(1);
        let head = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: {}\r\n\r\n",
            String::from_utf8_lossy(protocol)
        );
        Some(Answer::Lane(lane, number, head))
    }

    /// Reads a lane's first frames up to its stream's header, which must prove the lane's secret. Its first
    /// `len` bytes are in `small`.
    #[inline(never)] // as above
    fn first_frames<'a>(
        &self,
        rules: &Rules,
        mut newcomer: Newcomer,
        (small, len): (&'a mut [u8; READ_SMALL], usize),
        number: u32,
        lane: &LaneOf,
    ) -> Result<(Newcomer, ClientStream<'a>), Close> {
        let deadline = Instant::now() + FIRST_RECORD;
        let mut up = Box::new(Up::new(number));
        let mut len = up.deframe(&mut small[..len]);
        while len < HEADER_LEN {
            let mut reply = [0; MAX_REPLY];
            let told = up.reply(&mut reply);
            net::write_before(deadline, newcomer.socket(), &reply[..told])
                .map_err(|_| Close::ClientLost)?;
            match up.ended() {
                None => {}
                Some(Code::NORMAL) => return Err(Close::ClientGone),
                Some(_) => return Err(Close::BadLane),
            }
            let n = header::read_before(deadline, &mut newcomer, &mut small[len..])?;
            len += up.deframe(&mut small[len..len + n]);
        }
        let farewell = up.down().farewell();
        let secrets = &rules.secrets;
        let which = secrets.iter().position(|secret| *secret == lane.secret);
        let bytes = (&mut small[..len], Layer::Lane(up));
        let opened = match which {
            Some(at) => header::open_with(&mut newcomer, rules, at..at + 1, bytes),
            // A reload has removed it. (Among no secrets at all everybody would be let in.)
            None => Ok(None),
        };
        match opened {
            Ok(Some(opened)) => {
                let writes = newcomer.socket().set_write_timeout(Some(WEB_WRITE));
                writes.map_err(|_| Close::ClientLost)?;
                Ok((newcomer, opened.stream(small)))
            }
            // A refusal costs the page this lane alone.
            refused => {
                let _ = net::write_before(deadline, newcomer.socket(), &farewell);
                Err(refused.err().unwrap_or(Close::NoSecretFits))
            }
        }
    }
}

/// What a request asks for.
enum Wanted {
    Answer(Answer),
    /// A session, with this token; a body comes.
    Session(Token),
}

/// What a request gets.
enum Answer {
    /// A whole response, and why the connection ends behind it.
    Done(String, Close),
    /// A lane with this number; the head of a response.
    Lane(LaneOf, u32, String),
}

impl Answer {
    /// The web server is to answer as its site does.
    fn site() -> Answer {
        Answer::as_site(Close::HttpRefused)
    }

    fn as_site(reason: Close) -> Answer {
        Answer::Done(response("418 Site", "", ""), reason)
    }

    fn done(status: &str, fields: &str, body: &str) -> Answer {
        Answer::Done(response(status, fields, body), Close::HttpDone)
    }
}

fn response(status: &str, fields: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n{fields}\r\n{body}"
    )
}

fn bearer(request: &Request) -> Option<Token> {
    let value = request.only("Authorization")?;
    value.strip_prefix(b"Bearer ").and_then(read_token)
}

fn is_octets(request: &Request) -> bool {
    request.only("Content-Type") == Some(b"application/octet-stream")
}

/// 43 digits.
fn read_token(text: &[u8]) -> Option<Token> {
    let bytes = base64::decode(text, base64::URL).filter(|_| text.len() == 43)?;
    bytes.try_into().ok()
}

fn write_token(token: &Token) -> String {
    base64::encode(token, base64::URL)
}
