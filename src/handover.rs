//! What a client's handshake hands to whoever takes the client to its data centre without a middle
//! proxy: the place where `client` and `direct` meet.

use std::net::TcpStream;
use std::ops::Range;

use mtproxy::limits::READ_SMALL;
use mtproxy::proto::faketls::record::Deframer;
use mtproxy::proto::obfuscated2::Accepted;

use crate::stats::{Close, Guest};

/// A client whose handshake is done.
pub struct Handover<'a> {
    /// Its connection.
    pub socket: TcpStream,
    /// Its streams and wishes.
    pub accepted: Box<Accepted>,
    /// A buffer on the client thread's stack.
    pub small: &'a mut [u8; READ_SMALL],
    /// Where in `small` bytes of the client lie that are decrypted and not yet passed on.
    pub pending: Range<usize>,
    /// In fake TLS: takes the records apart that it sends from here on.
    pub tls: Option<Deframer>,
    /// Its place among those of its kind, and what counts its bytes.
    pub guest: Guest,
}

/// Serves such a client to its end, counts the reason, and says it.
pub type Direct = Box<dyn Fn(Handover) -> Close + Send + Sync>;
