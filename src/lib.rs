//! The protocol core of `mtproxy`: everything that parses strangers' bytes or touches keys.
//!
//! This crate does no I/O, reads no clock and draws no random numbers: the daemon (`src/main.rs`)
//! hands it bytes, times and randomness. It is `no_std`, has no unsafe code, and must not panic on
//! any input; the lints below hold it to that.
//!
//! | module | what it is |
//! |---|---|
//! | [`limits`] | every number: sizes, deadlines, caps |
//! | **[`crypto`]** | **thin layers over the dependency crates** |
//! | [`crypto::ctr`], [`crypto::cbc`] | AES-256 streams: of clients, of middle proxies |
//! | [`crypto::crc32`] | both checksums of middle proxies' frames |
//! | [`crypto::middle_key`], [`crypto::dh`] | the keys of a middle-proxy connection; Diffie-Hellman for them |
//! | [`crypto::random`] | random padding from a seed |
//! | **[`proto`]** | **wire forms: bytes of strangers, clients, sites and Telegram** |
//! | [`proto::wire`] | bounded reader and writer, newtypes |
//! | [`proto::secret`] | client secrets and Telegram's proxy-secret, redacted |
//! | [`proto::obfuscated2`] | the 64-byte header, both roles |
//! | [`proto::transport`] | abridged, intermediate, padded intermediate |
//! | [`proto::faketls`] | ClientHello, ServerHello, records; probing a site and imitating it |
//! | [`proto::http`] | heads of HTTP requests and responses |
//! | [`proto::mtproto`] | which client messages may be forwarded |
//! | [`proto::rpc`] | messages to and from a middle proxy |
//! | [`proto::middle`] | their encrypted frames, and the handshake |
//! | [`proto::websocket`], [`proto::web`], [`proto::lane`] | the WebSocket and what a web page of Telegram's apps sends in it |
//! | [`proto::base64`] | base64 |
//! | [`proto::proxy_protocol`] | tells a mask site whose connection it gets |
//! | **[`formats`]** | **texts that operators write and see; no stranger's byte** |
//! | [`formats::config_file`] | Telegram's list of middle proxies |
//! | [`formats::secret`] | client secrets as operators write them |
//! | [`formats::link`], [`formats::qr`] | links for clients, and their QR codes |
//! | [`formats::toml`] | configuration of other programs |
//! | [`formats::cidr`] | networks |
//! | [`formats::settings`] | lines of the file of --config |
//! | [`formats::date`] | dates of the log and of HTTP |
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
    pub mod dh;
    pub mod middle_key;
    pub mod random;
    pub mod wipe;
}

/// Wire forms, one module each.
pub mod proto {
    pub mod base64;
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
    pub mod lane;
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
    pub mod socks5;
    pub mod transport;
    pub mod web;
    pub mod websocket;
    pub mod wire;
}

/// What operators see and write.
pub mod formats {
    pub mod allowance;
    pub mod cidr;
    pub mod config_file;
    pub mod date;
    pub mod link;
    pub mod qr;
    pub mod secret;
    pub mod settings;
    pub mod toml;
}

#[cfg(test)]
mod vectors;
