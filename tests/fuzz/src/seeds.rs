//! What the fuzzer begins with: vectors of testdata/, and a few inputs that no vector has.

use std::fs;
use std::path::Path;

pub const HTTP: &[&[u8]] = &[
    b"GET /stats\n ",
    b"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n\r\nrest ",
    b"POST /api HTTP/1.1\r\nContent-Length: 40\r\nOrigin: b\r\nReferer: c\r\nUser-Agent: d\r\n\r\n ",
    b"OPTIONS /api HTTP/1.0\nTransfer-Encoding: chunked\n\n ",
];

pub const PROXY: &[&[u8]] = &[
    b"PROXY TCP4 192.0.2.1 198.51.100.1 50000 443\r\nrest",
    b"PROXY TCP6 2001:db8::1 2001:db8::2 50000 443\r\n",
    b"PROXY UNKNOWN\r\n",
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x01\xc6\x33\x64\x01\xc3\x50\x01\xbb",
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x13\xc0\0\x02\x01\xc6\x33\x64\x01\xc3\x50\x01\xbb\x03\0\x04abcd",
    b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0",
];

pub const SOCKS: &[&[u8]] = &[
    b"\x05\0\0\x01\x7f\0\0\x01\x1f\x90rest",
    b"\x05\0\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x1f\x90",
    b"\x05\0\0\x03\x09localhost\x1f\x90",
    b"\x05\x05\0\x01\0\0\0\0\0\0",
];

pub const WEBSOCKET: &[&[u8]] = &[
    // A binary frame with an OPEN of lane 1, and a DATA of 4 bytes; a ping; both without masks.
    b"\x82\x88\0\0\0\0\x01\0\0\x01\0\0\0\0\x82\x8c\0\0\0\0\x02\0\0\x01\0\0\0\x04abcd ",
    b"\x02\x84\0\0\0\0abcd\x80\x81\0\0\0\0e\x89\x82abcdhi\x88\x80abcd ",
    // Frames of lanes alone.
    b"\x01\0\0\x01\0\0\0\0\x02\0\0\x01\0\0\0\x04abcd\x04\0\0\x01\0\0\0\x04\0\0\x10\0\x03\0\0\x01\0\0\0\0 ",
];

pub const SECRETS: &[&[u8]] = &[
    b"00112233445566778899aabbccddeeff",
    b"dd00112233445566778899aabbccddeeff:label:5 max-ips=3 rate=1m",
    b"ee00112233445566778899aabbccddeeff6578616d706c652e6f7267:a quota=3g quota-reset=monthly:5",
    b"7gARIjNEVWZ3iJmqu8zd7v9leGFtcGxlLm9yZw expires=2027-01-31T12:00Z",
];

pub const LINKS: &[&[u8]] = &[
    b"tg://proxy?server=a.example&port=443&secret=dd00112233445566778899aabbccddeeff",
    b"https://t.me/proxy?server=%5B2001:db8::1%5D&port=443&secret=AAECAwQFBgcICQoLDA0ODw#x",
    b"t.me/webproxy?server=a.example%2Fb&secret=AAECAwQFBgcICQoLDA0ODw",
    b"tg://proxy?server=[]&port=443&secret=dd00112233445566778899aabbccddeeff",
    b"web.example.org/path/below",
];

/// Writes the seeds of a target to a directory.
pub fn write(corpus: &Path, files: &[&str], inline: &[&[u8]]) {
    let mut all: Vec<Vec<u8>> = inline.iter().map(|seed| seed.to_vec()).collect();
    for file in files {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../testdata")
            .join(file);
        let text = fs::read_to_string(path).expect("a file of testdata");
        let values = text
            .lines()
            .filter_map(|line| hex(line.split_once(" = ")?.1));
        let before = all.len();
        // With one byte more, for how it is cut.
        all.extend(values.map(|value| [value, vec![3]].concat()));
        if all.len() == before {
            all.push(text.into_bytes());
        }
    }
    fs::create_dir_all(corpus).expect("a directory for the corpus");
    for (number, seed) in all.iter().enumerate() {
        fs::write(corpus.join(format!("seed-{number}")), seed).expect("write a seed");
    }
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let byte = |pair: &[u8]| match *pair {
        [high, low] => Some((digit(high)? << 4 | digit(low)?) as u8),
        _ => None,
    };
    text.as_bytes().chunks(2).map(byte).collect()
}
