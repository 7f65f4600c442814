//! The first flight of a TLS server (RFC 8446 4.1.3, protocol.md 5.4, 5.5): made up for probes of the mask
//! site, and taken apart to compare the proxy's with a real one. Encrypted records are random bytes.

use super::random::random_bytes;
use super::tls_client::{CHANGE_CIPHER_SPEC, record};
use super::tls_hello::{SESSION_ID, extension, handshake, vec16};

/// How a server answers.
#[derive(Clone, Debug)]
pub struct Look {
    /// None: the first TLS 1.3 one of the client's list.
    pub cipher: Option<u16>,
    /// X25519MLKEM768 if the client has a share for it, else X25519.
    pub hybrid: bool,
    /// Supported versions in front of the key share.
    pub versions_first: bool,
    /// Payloads of the encrypted records.
    pub records: Vec<usize>,
}

impl Default for Look {
    fn default() -> Look {
        Look {
            cipher: None,
            hybrid: false,
            versions_first: false,
            // Encrypted extensions, a chain of certificates, its proof, Finished.
            records: vec![36, 2_750, 281, 53],
        }
    }
}

impl Look {
    /// The answer to a hello: ServerHello, change of ciphers, encrypted records.
    pub fn answer(&self, hello: &[u8]) -> Vec<u8> {
        let group = if self.hybrid && has_share(hello, 0x11ec, 1_216) {
            0x11ec_u16
        } else {
            0x001d
        };
        let length = if group == 0x11ec { 1_120 } else { 32 };
        let share = [&group.to_be_bytes(), &vec16(&random(length))[..]].concat();
        let mut extensions = [extension(0x0033, &share), extension(0x002b, &[3, 4])];
        if self.versions_first {
            extensions.reverse();
        }
        let cipher = self.cipher.unwrap_or_else(|| first_cipher(hello));
        let mut flight = server_hello(hello, &random_bytes(), cipher, &extensions.concat());
        flight.extend(CHANGE_CIPHER_SPEC);
        for length in &self.records {
            flight.extend(record(&random(*length)));
        }
        flight
    }
}

/// The ServerHello that asks for another hello, for the group of P-256 (RFC 8446 4.1.4).
pub fn retry_request(hello: &[u8]) -> Vec<u8> {
    const RETRY: &str = "cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c";
    let random = super::vectors::from_hex(RETRY)
        .try_into()
        .expect("32 bytes");
    let extensions = [extension(0x0033, &[0x00, 0x17]), extension(0x002b, &[3, 4])].concat();
    let mut flight = server_hello(hello, &random, first_cipher(hello), &extensions);
    flight.extend(CHANGE_CIPHER_SPEC);
    flight
}

/// A server that knows nothing newer than TLS 1.2.
pub fn old_version(hello: &[u8]) -> Vec<u8> {
    let mut flight = server_hello(hello, &random_bytes(), 0xc02f, &extension(0xff01, &[0]));
    let certificate = handshake(11, &random(2_000));
    flight.extend([&[0x16, 3, 3], &vec16(&certificate)[..]].concat());
    flight
}

/// A fatal alert: 40 is handshake_failure, 112 unrecognized_name.
pub fn alert(description: u8) -> Vec<u8> {
    vec![0x15, 3, 3, 0, 2, 2, description]
}

fn server_hello(hello: &[u8], random: &[u8; 32], cipher: u16, extensions: &[u8]) -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend(random);
    body.push(32);
    body.extend(&hello[SESSION_ID]);
    body.extend(cipher.to_be_bytes());
    body.push(0);
    body.extend(vec16(extensions));
    [&[0x16, 3, 3], &vec16(&handshake(2, &body))[..]].concat()
}

fn random(length: usize) -> Vec<u8> {
    let seed = u32::from_le_bytes(random_bytes());
    super::random::Stream::new(seed).take(length)
}

fn word(bytes: &[u8], at: usize) -> usize {
    usize::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]))
}

/// Whether these bytes are a ClientHello in one record, whole.
pub fn is_hello(bytes: &[u8]) -> bool {
    bytes.len() >= 100
        && bytes.starts_with(&[0x16, 3, 1])
        && bytes[5] == 1
        && bytes.len() == 5 + word(bytes, 3)
}

/// The first cipher of TLS 1.3 in a hello.
pub fn first_cipher(hello: &[u8]) -> u16 {
    let list = hello[78..78 + word(hello, 76)].chunks(2);
    let mut ciphers = list.map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
    let first = ciphers.find(|cipher| (0x1301..=0x1303).contains(cipher));
    first.expect("a hello with a cipher of TLS 1.3")
}

/// The extensions of a hello in their order.
pub fn extensions(hello: &[u8]) -> Vec<(u16, Vec<u8>)> {
    let ciphers = 76 + 2 + word(hello, 76);
    // No compression is two bytes.
    let mut rest = &hello[ciphers + 2 + 2..];
    let mut found = Vec::new();
    while !rest.is_empty() {
        let length = word(rest, 2);
        let id = u16::from_be_bytes([rest[0], rest[1]]);
        found.push((id, rest[4..4 + length].to_vec()));
        rest = &rest[4 + length..];
    }
    found
}

/// Looks for the head of such a share; random bytes that look like one are out of the question.
fn has_share(hello: &[u8], group: u16, length: u16) -> bool {
    let head = [group.to_be_bytes(), length.to_be_bytes()].concat();
    hello.windows(4).any(|four| four == head)
}

/// A first flight taken apart.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Flight {
    /// Everything, headers included.
    pub total: usize,
    /// Payload of the ServerHello's record.
    pub server_hello: usize,
    pub cipher: u16,
    pub group: u16,
    /// The ServerHello's extensions in their order.
    pub extensions: Vec<u16>,
    pub session_echoed: bool,
    pub change_cipher_spec: bool,
    /// Payloads of the encrypted records.
    pub records: Vec<usize>,
    /// Random, key share and the encrypted bytes, which no two connections have in common.
    pub random: Vec<u8>,
    pub share: Vec<u8>,
}

impl Flight {
    /// Of bytes that are nothing but one flight; None when they are not.
    pub fn parse(bytes: &[u8], hello: &[u8]) -> Option<Flight> {
        let mut records = Vec::new();
        let mut rest = bytes;
        while !rest.is_empty() {
            let length = word(rest.get(..5)?, 3);
            let payload = rest.get(5..5 + length)?;
            records.push((rest[0], payload));
            rest = &rest[5 + length..];
        }
        let (kind, server_hello) = *records.first()?;
        if kind != 0x16 || server_hello.len() < 74 || server_hello[0] != 2 {
            return None;
        }
        let after = &records[1..];
        let change_cipher_spec = after.first() == Some(&(0x14, &[1]));
        let encrypted = &after[usize::from(change_cipher_spec)..];
        if encrypted.iter().any(|(kind, _)| *kind != 0x17) {
            return None;
        }
        let mut flight = Flight {
            total: bytes.len(),
            server_hello: server_hello.len(),
            cipher: u16::from_be_bytes([server_hello[71], server_hello[72]]),
            group: 0,
            extensions: Vec::new(),
            session_echoed: server_hello[38] == 32 && server_hello[39..71] == hello[SESSION_ID],
            change_cipher_spec,
            records: encrypted.iter().map(|(_, payload)| payload.len()).collect(),
            random: server_hello[6..38].to_vec(),
            share: Vec::new(),
        };
        flight.read_extensions(server_hello.get(76..)?)?;
        Some(flight)
    }

    fn read_extensions(&mut self, mut rest: &[u8]) -> Option<()> {
        while !rest.is_empty() {
            let length = word(rest.get(..4)?, 2);
            let body = rest.get(4..4 + length)?;
            let id = u16::from_be_bytes([rest[0], rest[1]]);
            self.extensions.push(id);
            if id == 0x0033 {
                self.group = u16::from_be_bytes([*body.first()?, *body.get(1)?]);
                self.share = body.get(4..).unwrap_or_default().to_vec();
            }
            rest = &rest[4 + length..];
        }
        Some(())
    }
}
