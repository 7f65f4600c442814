//! The protocol core of `mtproxy`: everything that parses strangers' bytes or touches keys.
//!
//! This crate does no I/O, reads no clock and draws no random numbers: the daemon (`src/main.rs`)
//! hands it bytes, times and randomness. It is `no_std`, has no unsafe code, and must not panic on
//! any input; the lints below hold it to that.
//!
//! | module | what it is |
//! |---|---|
//! | [`limits`] | every number: sizes, deadlines, caps |
//! | [`crypto`] | AES-256 CTR and CBC streams, both CRCs, the middle-proxy key derivation |
//! | [`proto::wire`] | bounded reader and writer, newtypes |
//! | [`proto::secret`] | client secrets and Telegram's proxy-secret, redacted |
//! | [`formats::secret`] | client secrets as operators write them |
//! | [`formats::link`] | links for clients |
//! | [`formats::qr`] | their QR codes |
//! | [`proto::obfuscated2`] | the 64-byte header, both roles |
//! | [`proto::transport`] | abridged, intermediate, padded intermediate |
//! | [`proto::faketls`] | ClientHello, answer, records, and what a real site answers |
//! | [`proto::proxy_protocol`] | whose connection it is, told to a web server |
//! | [`proto::mtproto`] | which client messages may be forwarded |
//! | [`proto::rpc`] | what is said with a middle proxy |
//! | [`proto::middle`] | how it is said: frames and handshake |
//! | [`proto::http`] | heads of HTTP requests and answers |
//! | [`formats::config_file`] | Telegram's list of middle proxies |
//! | [`formats::cidr`] | networks, as operators write them |
#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::string_slice,
        clippy::arithmetic_side_effects
    )
)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod limits;

/// Ciphers, checksums and key derivation: thin, tested layers over the dependency crates.
pub mod crypto {
    pub mod cbc;
    pub mod crc32;
    pub mod ctr;
    pub mod middle_key;
    pub mod random;
}

/// Wire forms and texts, one module each.
pub mod proto {
    /// An obfuscated2 stream that looks like TLS 1.3 (protocol.md 5).
    pub mod faketls {
        pub mod client_hello;
        mod fields;
        mod flight;
        mod model;
        pub mod probe;
        pub mod record;
        pub mod server_hello;
    }
    pub mod http;
    /// The encrypted link to Telegram's middle proxies.
    pub mod middle {
        pub mod frame;
        pub mod handshake;
    }
    pub mod mtproto;
    pub mod obfuscated2;
    pub mod proxy_protocol;
    pub mod rpc;
    pub mod secret;
    pub mod transport;
    pub mod wire;
}

/// What operators see and write.
pub mod formats {
    pub mod cidr;
    pub mod config_file;
    pub mod date;
    pub mod link;
    pub mod qr;
    pub mod secret;
}

#[cfg(test)]
mod vectors;
