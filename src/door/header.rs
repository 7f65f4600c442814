//! A client's first bytes, up to the complete obfuscated2 header, against real deadlines: a byte a
//! second does not extend them. Where there is no secret a client may begin otherwise: with a request
//! over HTTP, and with --open it needn't obfuscate. In fake TLS (`tls`) there is more before that
//! header. Without, bytes that fit no secret are read and discarded until the deadline, so that a
//! stranger learns nothing from the answer or from its time.

use std::ops::Range;
use std::time::Instant;

use mtproxy::limits::{CLIENT_HANDSHAKE, HEADER_LEN, HEADER_PROOF, READ_SMALL};
use mtproxy::proto::http;
use mtproxy::proto::obfuscated2::{self, Accepted};
use mtproxy::proto::transport::Transport;

use super::admission::Newcomer;
use super::proxied;
use super::rules::Rules;
use super::sites::Site;
use crate::base::buffers::Buffer;
use crate::middle::http::FirstRequest;
use crate::stats::{Close, STATS};
use crate::stream::{self, ClientStream, Layer, Layers};

/// Who a connection is.
pub enum Found<'a> {
    /// A client that knows a secret, if there is any.
    Client(ClientStream<'a>),
    /// Who is to be shown a site.
    Stranger(Stranger<'a>),
    /// Somebody who begins with a request over HTTP.
    Http(FirstRequest<'a>),
    /// Nobody: the connection is to be closed.
    Ended(Close),
}

/// Who is to be shown a site.
pub struct Stranger<'a> {
    /// The one whose name was asked for, else the first.
    pub site: &'a Site,
    /// All that came.
    pub received: Received<'a>,
}

/// What has come so far: on the thread's stack, or in a pooled buffer when it is more.
pub struct Received<'a> {
    pub small: &'a mut [u8; READ_SMALL],
    pub large: Option<Buffer>,
    pub len: usize,
    /// Its sender has shut down its sending side.
    pub ended: bool,
}

impl Received<'_> {
    /// Nothing has come.
    pub fn new(small: &mut [u8; READ_SMALL]) -> Received<'_> {
        let (large, len, ended) = (None, 0, false);
        Received {
            small,
            large,
            len,
            ended,
        }
    }

    /// All of it.
    pub fn bytes(&self) -> &[u8] {
        match &self.large {
            Some(large) => &large[..self.len],
            None => &self.small[..self.len],
        }
    }

    /// Reads more behind what has come, which is less than `most` bytes.
    pub fn read_more(
        &mut self,
        newcomer: &mut Newcomer,
        deadline: Instant,
        most: usize,
    ) -> Result<(), Close> {
        let room = self.large.as_ref().map_or(READ_SMALL, |large| large.len());
        if self.len == room {
            let mut larger = newcomer.buffer((2 * room).min(most))?;
            larger[..room].copy_from_slice(self.bytes());
            self.large = Some(larger);
        }
        let place = match &mut self.large {
            Some(large) => &mut large[self.len..],
            None => &mut self.small[self.len..],
        };
        self.len += read_before(deadline, newcomer, place)?;
        Ok(())
    }
}

/// An accepted header, and where in the buffer the bytes behind it lie.
pub struct Opened(Layers, Range<usize>);

impl Opened {
    /// The client whose header and first bytes are in `small`.
    pub fn client(self, small: &mut [u8; READ_SMALL]) -> Found<'_> {
        Found::Client(self.stream(small))
    }

    /// The same, of a client that is known to be one.
    pub fn stream(self, small: &mut [u8; READ_SMALL]) -> ClientStream<'_> {
        ClientStream {
            layers: self.0,
            small,
            pending: self.1,
        }
    }
}

/// Reads all that comes before a client's packets, and what comes with it.
pub fn enter<'a>(
    newcomer: &mut Newcomer,
    rules: &Rules,
    small: &'a mut [u8; READ_SMALL],
) -> Found<'a> {
    let deadline = Instant::now() + CLIENT_HANDSHAKE;
    if rules.refuse(newcomer.peer.ip()) {
        discard(newcomer, deadline, small);
        return Found::Ended(Close::AddressRefused);
    }
    let mut len = 0;
    if rules.secrets.is_empty() {
        match without_header(newcomer, rules, small, &mut len, deadline) {
            Ok(Begins::WithHeader) => {}
            Ok(Begins::Clear(opened)) => return opened.client(small),
            Ok(Begins::WithRequest) => {
                return Found::Http(FirstRequest {
                    small,
                    len,
                    deadline,
                });
            }
            Err(reason) => return Found::Ended(reason),
        }
    }
    match plain(newcomer, rules, small, &mut len, deadline) {
        Ok(Some(opened)) => opened.client(small),
        Ok(None) => {
            proxied::warn_of_header(newcomer, &small[..len]);
            discard(newcomer, deadline, small);
            Found::Ended(Close::NoSecretFits)
        }
        Err(reason) => {
            proxied::warn_of_header(newcomer, &small[..len]);
            Found::Ended(reason)
        }
    }
}

/// How a connection begins where there is no secret.
enum Begins {
    /// Obfuscated, as far as can be seen.
    WithHeader,
    /// With a transport's own first bytes.
    Clear(Opened),
    /// With a request over HTTP.
    WithRequest,
}

fn without_header(
    newcomer: &mut Newcomer,
    rules: &Rules,
    small: &mut [u8; READ_SMALL],
    len: &mut usize,
    deadline: Instant,
) -> Result<Begins, Close> {
    while *len < 4 {
        *len += read_before(deadline, newcomer, &mut small[*len..])?;
        let clear = Transport::from_start(&small[..*len]).filter(|_| rules.clear);
        if let Some((transport, start)) = clear
            && (transport == Transport::PaddedIntermediate || !rules.padded_only)
        {
            let accepted = Box::new(Accepted::clear(transport, rules.default_dc()));
            return opened(newcomer, accepted, Layer::Nothing, start..*len).map(Begins::Clear);
        }
    }
    let is_request = small.first_chunk().is_some_and(http::is_request);
    Ok(match is_request && !rules.padded_only {
        true => Begins::WithRequest,
        false => Begins::WithHeader,
    })
}

/// Reads the header behind the first `len` bytes of `small`. None: it fits no secret.
pub fn plain(
    newcomer: &mut Newcomer,
    rules: &Rules,
    small: &mut [u8; READ_SMALL],
    len: &mut usize,
    deadline: Instant,
) -> Result<Option<Opened>, Close> {
    while *len < HEADER_LEN {
        *len += read_before(deadline, newcomer, &mut small[*len..])?;
    }
    open(newcomer, rules, &mut small[..*len], Layer::Nothing)
}

/// Opens the streams of the header that `bytes` begin with, of whichever secret. Inside fake TLS clients pad.
/// None: it fits no secret.
pub fn open(
    newcomer: &mut Newcomer,
    rules: &Rules,
    bytes: &mut [u8],
    layer: Layer,
) -> Result<Option<Opened>, Close> {
    open_with(newcomer, rules, 0..rules.secrets.len(), (bytes, layer))
}

/// The same, of one of these secrets alone.
pub fn open_with(
    newcomer: &mut Newcomer,
    rules: &Rules,
    which: Range<usize>,
    (bytes, layer): (&mut [u8], Layer),
) -> Result<Option<Opened>, Close> {
    let is_tls = matches!(layer, Layer::Tls(_));
    let padded_only = rules.padded_only || is_tls;
    let header = bytes.first_chunk::<HEADER_LEN>();
    if which.is_empty() && !rules.secrets.is_empty() {
        return Ok(None); // below, no secret means that none is needed
    }
    let secrets = &rules.secrets[which.clone()];
    let accepted = header.and_then(|h| obfuscated2::accept(h, secrets, padded_only));
    let Some(mut accepted) = accepted.map(Box::new) else {
        return Ok(None);
    };
    accepted.secret_index += which.start;
    // Nor does a secret that lets in nobody else differ from a wrong one.
    let account = rules.account(accepted.secret_index);
    if !account.admits(newcomer.peer.ip()) {
        return Ok(None);
    }
    // A replay is read and discarded like what fits no secret. Inside TLS the ClientHello was new.
    let can_prove = !is_tls && !rules.secrets.is_empty();
    if can_prove && !rules.replays.admit(&bytes[..HEADER_PROOF]) {
        STATS.headers_replayed.add(1);
        return Ok(None);
    }
    accepted.receive.apply(&mut bytes[HEADER_LEN..]);
    opened(newcomer, accepted, layer, HEADER_LEN..bytes.len()).map(Some)
}

fn opened(
    newcomer: &mut Newcomer,
    accepted: Box<Accepted>,
    layer: Layer,
    pending: Range<usize>,
) -> Result<Opened, Close> {
    newcomer.prove()?;
    let layers = Layers::new(accepted, layer);
    let waits = newcomer.socket().set_read_timeout(layers.patience());
    waits.map_err(|_| Close::ClientLost)?;
    Ok(Opened(layers, pending))
}

/// Reads and forgets whatever comes until the deadline.
pub fn discard(newcomer: &mut Newcomer, deadline: Instant, small: &mut [u8; READ_SMALL]) {
    while read_before(deadline, newcomer, small).is_ok() {}
}

/// Reads at least one byte before the deadline.
pub fn read_before(
    deadline: Instant,
    newcomer: &mut Newcomer,
    buf: &mut [u8],
) -> Result<usize, Close> {
    match stream::read_before(deadline, Close::HandshakeTimeout, newcomer.socket(), buf) {
        Err(Close::ClientGone) => Err(newcomer.ending()),
        result => {
            newcomer.has_sent()?;
            result
        }
    }
}
