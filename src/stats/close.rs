//! Why connections end: one row a reason, which is the word in the log, the name of a counter, and whether it
//! is a refusal.

use super::row::Row;
use crate::base::gauge::Counter;

macro_rules! close_reasons {
    ($($variant:ident $word:ident: $help:literal $($refusal:ident)?,)*) => {
        /// Why a client's connection ended.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u8)]
        pub enum Close {
            $(#[doc = $help] $variant,)*
        }

        static REASONS: [Reason; [$(Close::$variant),*].len()] = [$(Reason {
            word: stringify!($word),
            is_refusal: !stringify!($($refusal)?).is_empty(),
            count: Counter::new(),
        },)*];
    };
}

struct Reason {
    word: &'static str,
    /// Whether it means that a client was not served.
    is_refusal: bool,
    count: Counter,
}

close_reasons! {
    ClientGone client_gone: "the client closed",
    ClientLost client_lost: "the client's connection broke",
    HandshakeTimeout handshake_timeout: "no whole header within the deadline" refusal,
    NoSecretFits no_secret_fits: "the header fits no secret; read and discarded until the deadline" refusal,
    Dropped dropped: "it had proven no secret, and others needed its place or memory",
    ClientLimit client_limit: "the limit of clients is reached",
    Masked masked: "a stranger, whom the mask site was to be shown",
    BadRecord bad_record: "in fake TLS an alert, or another record than data" refusal,
    BadLength bad_length: "a packet length that the transport forbids" refusal,
    SecretFull secret_full: "the secret's limit of clients is reached" refusal,
    UnknownDc unknown_dc: "no middle proxy is configured for the data centre" refusal,
    NoBackend no_backend: "no middle proxy became ready in time" refusal,
    BackendLost backend_lost: "the client's middle-proxy connection was lost",
    BackendClosed backend_closed: "the middle proxy asked to close",
    DcUnreachable dc_unreachable: "no address of the data centre could be reached" refusal,
    DcClosed dc_closed: "the data centre closed",
    DcLost dc_lost: "the connection to the data centre broke",
    HalfOpen half_open: "one half had ended and the other made no progress",
    HttpDone http_done: "an HTTP connection that was not to be kept was served",
    HttpRefused http_refused: "a request over HTTP that is no client's",
    HttpIdle http_idle: "no further HTTP request in time, or not a whole one",
    HttpLate http_late: "no response to an HTTP request in time",
    Flood flood: "too much unread",
    Evicted evicted: "memory was short",
    Stalled stalled: "the client did not fetch the rest in time",
    NoThread no_thread: "no thread for the client's writer" refusal,
    Panicked panicked: "a bug; it was logged",
    Stopping stopping: "the server stops",
    SecretAddresses secret_addresses: "the secret's limit of addresses is reached" refusal,
    SecretQuota secret_quota: "the secret's quota is used up",
    SecretExpired secret_expired: "the secret has expired",
    AddressRefused address_refused: "a list refuses its address; read and discarded until the deadline" refusal,
    Drained drained: "a reload had removed its secret or its middle proxies",
    ProxyHeader proxy_header: "no PROXY protocol header within its deadline, or a malformed one" refusal,
    BadLane bad_lane: "a web page's lane broke its protocol" refusal,
    Silent silent: "a web page's lane gave no sign of life",
}

impl Close {
    /// The word for the log and for the counter's name.
    pub fn word(self) -> &'static str {
        REASONS.get(self as usize).map_or("", |reason| reason.word)
    }

    /// Counts an end. To be called before the client can see it.
    pub fn counted(self) -> Close {
        if let Some(reason) = REASONS.get(self as usize) {
            reason.count.add(1);
        }
        self
    }

    /// Every reason, named by its word, and how many connections ended so.
    #[inline(never)] // small, not fast
    pub fn rows() -> Vec<Row> {
        let rows = REASONS.iter().map(|reason| Row {
            name: reason.word,
            help: "",
            refusal: if reason.is_refusal { reason.word } else { "" },
            value: reason.count.value(),
        });
        rows.collect()
    }
}
