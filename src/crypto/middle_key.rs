//! Keys of a middle-proxy connection (protocol.md 6.3): MD5 and SHA-1 over a string that holds both
//! nonces, both addresses as each end sees itself, and Telegram's whole proxy-secret; with --force-dh also a
//! Diffie-Hellman value, which goes over the string from its beginning.

use alloc::vec::Vec;
use core::net::{IpAddr, Ipv6Addr, SocketAddr};
use md5::{Digest, Md5};
use sha1::Sha1;

use crate::crypto::ctr::StreamKey;
use crate::crypto::dh::Shared;
use crate::crypto::wipe::wipe;

/// What both ends know after the nonces have been exchanged.
pub struct KeyInputs<'a> {
    /// The middle proxy's nonce.
    pub server_nonce: [u8; 16],
    /// Our nonce.
    pub client_nonce: [u8; 16],
    /// The time we sent with our nonce, unix seconds.
    pub client_time: u32,
    /// The middle proxy's address and port.
    pub server: SocketAddr,
    /// Our address as the middle proxy sees it (translated, behind NAT), and our port.
    pub client: SocketAddr,
    /// The whole proxy-secret file.
    pub secret: &'a [u8],
    /// With Diffie-Hellman, what it gave.
    pub shared: Option<&'a Shared>,
}

/// Keys of both directions.
pub struct MiddleKeys {
    /// What the proxy, the client of this connection, writes with.
    pub write: StreamKey,
    /// What it reads with.
    pub read: StreamKey,
}

/// The MD5 of a file, by which the statistics tell its versions apart, as the C program's do.
pub fn fingerprint(file: &[u8]) -> [u8; 16] {
    Md5::digest(file).into()
}

/// Derives both directions. A v4-mapped IPv6 address counts as IPv4.
pub fn derive(inputs: &KeyInputs) -> MiddleKeys {
    MiddleKeys {
        write: direction(inputs, b"CLIENT"),
        read: direction(inputs, b"SERVER"),
    }
}

fn direction(inputs: &KeyInputs, who: &[u8; 6]) -> StreamKey {
    let mut string = key_string(inputs, who);
    // The hashes of the string without its first byte, and without its first two.
    let md5 = |from: usize| Md5::digest(string.get(from..).unwrap_or_default());
    let mut key = [0; 32];
    let parts = md5(1).into_iter().take(12).chain(Sha1::digest(&string));
    key.iter_mut().zip(parts).for_each(|(k, b)| *k = b);
    let iv = md5(2).into();
    wipe(&mut string);
    StreamKey { key, iv }
}

fn key_string(inputs: &KeyInputs, who: &[u8; 6]) -> Vec<u8> {
    let (server_v4, server_v6) = halves(inputs.server.ip());
    let (client_v4, client_v6) = halves(inputs.client.ip());
    let mut s = Vec::with_capacity(512);
    s.extend(inputs.server_nonce);
    s.extend(inputs.client_nonce);
    s.extend(inputs.client_time.to_le_bytes());
    s.extend(server_v4);
    s.extend(inputs.client.port().to_le_bytes());
    s.extend(who);
    s.extend(client_v4);
    s.extend(inputs.server.port().to_le_bytes());
    s.extend(inputs.secret);
    s.extend(inputs.server_nonce);
    if let (Some(client), Some(server)) = (client_v6, server_v6) {
        s.extend(client.octets());
        s.extend(server.octets());
    }
    s.extend(inputs.client_nonce);
    if let Some(Shared(shared)) = inputs.shared {
        let behind = shared.get(s.len()..).unwrap_or_default();
        s.iter_mut().zip(shared).for_each(|(s, byte)| *s ^= byte);
        s.extend(behind);
    }
    s
}

/// The IPv4 field (reversed octets, zero for IPv6) and the IPv6 address.
fn halves(ip: IpAddr) -> ([u8; 4], Option<Ipv6Addr>) {
    match ip.to_canonical() {
        IpAddr::V4(v4) => (v4.to_bits().to_le_bytes(), None),
        IpAddr::V6(v6) => ([0; 4], Some(v6)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vectors::Vectors;
    use std::format;

    #[test]
    fn vectors() {
        let v = Vectors::load("rpc_key_derivation");
        let mut checked = 0;
        for i in 0..v.number("count") {
            let key = |name: &str| format!("{i}.{name}");
            let v6 = !v.text(&key("client_ipv6")).is_empty();
            let end = |who: &str| {
                let ip = match v6 {
                    true => IpAddr::from(v.array::<16>(&key(&format!("{who}_ipv6")))),
                    false => v.text(&key(&format!("{who}_ipv4"))).parse().unwrap(),
                };
                SocketAddr::new(ip, v.number(&key(&format!("{who}_port"))) as u16)
            };
            let secret = v.bytes(&key("proxy_secret"));
            let has_shared = !v.text(&key("temp_key")).is_empty();
            let shared = has_shared.then(|| Shared(v.array(&key("temp_key"))));
            let inputs = KeyInputs {
                server_nonce: v.array(&key("nonce_server")),
                client_nonce: v.array(&key("nonce_client")),
                client_time: v.number(&key("client_timestamp")) as u32,
                server: end("server"),
                client: end("client"),
                secret: &secret,
                shared: shared.as_ref(),
            };
            assert_eq!(
                key_string(&inputs, b"CLIENT"),
                v.bytes(&key("string_client"))
            );
            assert_eq!(
                key_string(&inputs, b"SERVER"),
                v.bytes(&key("string_server"))
            );
            let keys = derive(&inputs);
            assert_eq!(keys.write.key, v.array(&key("client_write_key")));
            assert_eq!(keys.write.iv, v.array(&key("client_write_iv")));
            assert_eq!(keys.read.key, v.array(&key("client_read_key")));
            assert_eq!(keys.read.iv, v.array(&key("client_read_iv")));
            checked += 1;
        }
        assert_eq!(checked, 5);
    }

    #[test]
    fn v4_mapped_counts_as_v4() {
        let plain: IpAddr = "192.0.2.1".parse().unwrap();
        let mapped: IpAddr = "::ffff:192.0.2.1".parse().unwrap();
        assert_eq!(halves(plain), halves(mapped));
        assert_eq!(halves(plain).0, [1, 2, 0, 192]);
    }
}
