//! All fuzz targets in one program: TARGET names the one to run, and its seeds are written to the directory
//! CORPUS first. Each feeds any bytes to a parser of strangers' bytes, or of texts, and panics where what the
//! parser promises doesn't hold; most compare a stream that comes whole with the same stream in pieces.
#![no_main]

mod heads;
mod records;
mod rpc;
mod seeds;
mod streams;
mod texts;
mod web;

use std::env;
use std::sync::OnceLock;

/// One parser, or several that go together.
struct Target {
    name: &'static str,
    run: fn(&[u8]),
    /// Files below testdata/: their hexadecimal values are seeds, or the whole file where there are none.
    files: &'static [&'static str],
    seeds: &'static [&'static [u8]],
}

const TARGETS: &[Target] = &[
    target(
        "client_hello",
        heads::client_hello,
        &["vectors/fake_tls.txt"],
        &[],
    ),
    target(
        "site_flight",
        heads::site_flight,
        &["vectors/fake_tls.txt"],
        &[],
    ),
    target(
        "tls_records",
        records::tls_records,
        &["vectors/fake_tls.txt"],
        &[],
    ),
    target(
        "obfuscated2",
        streams::obfuscated2,
        &["vectors/obfuscated2.txt"],
        &[],
    ),
    target(
        "transports",
        streams::transports,
        &["vectors/framing.txt"],
        &[],
    ),
    target("http_head", heads::http_head, &[], seeds::HTTP),
    target("proxy_header", heads::proxy_header, &[], seeds::PROXY),
    target("socks_reply", heads::socks_reply, &[], seeds::SOCKS),
    target(
        "middle_frames",
        streams::middle_frames,
        &["vectors/rpc_transcript.txt"],
        &[],
    ),
    target(
        "rpc",
        rpc::rpc,
        &["vectors/rpc_transcript.txt", "vectors/rpc_proxy_req.txt"],
        &[],
    ),
    target(
        "websocket",
        web::websocket,
        &["vectors/web.txt"],
        seeds::WEBSOCKET,
    ),
    target(
        "web_lane",
        web::lane,
        &["vectors/web.txt"],
        seeds::WEBSOCKET,
    ),
    target(
        "config",
        texts::config,
        &[
            "config/ok-00-usual-shape.conf",
            "config/ok-03-ipv6-in-brackets.conf",
            "config/bad-15-intermixed.conf",
        ],
        &[],
    ),
    target("secret", texts::secret, &[], seeds::SECRETS),
    target(
        "settings",
        texts::settings,
        &["mtproxy.conf", "migrate/telemt.toml", "migrate/c-line.sh"],
        &[],
    ),
    target("link", texts::link, &[], seeds::LINKS),
];

const fn target(
    name: &'static str,
    run: fn(&[u8]),
    files: &'static [&'static str],
    seeds: &'static [&'static [u8]],
) -> Target {
    Target {
        name,
        run,
        files,
        seeds,
    }
}

static CHOSEN: OnceLock<&Target> = OnceLock::new();

libfuzzer_sys::fuzz_target!(
    init: {
        let name = env::var("TARGET").unwrap_or_default();
        let Some(chosen) = TARGETS.iter().find(|target| target.name == name) else {
            // This is how run.sh learns the names.
            TARGETS.iter().for_each(|target| println!("{}", target.name));
            std::process::exit(if name.is_empty() { 0 } else { 1 });
        };
        if let Ok(corpus) = env::var("CORPUS") {
            seeds::write(corpus.as_ref(), chosen.files, chosen.seeds);
        }
        CHOSEN.get_or_init(|| chosen);
    },
    |data: &[u8]| {
        if let Some(target) = CHOSEN.get() {
            (target.run)(data);
        }
    }
);

/// The input's last byte, which says how a stream is cut, and all before it.
fn split(data: &[u8]) -> (&[u8], u8) {
    match data {
        [bytes @ .., cut] => (bytes, *cut),
        [] => (data, 0),
    }
}

/// A stream in pieces: single bytes where `cut` is a multiple of 8, else of up to 128 bytes.
fn pieces(mut bytes: &[u8], cut: u8) -> impl Iterator<Item = &[u8]> {
    let (mut state, most) = (u32::from(cut), 1 << (cut % 8));
    std::iter::from_fn(move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let len = (1 + (state >> 16) as usize % most).min(bytes.len());
        let (piece, rest) = bytes.split_at(len);
        bytes = rest;
        (!piece.is_empty()).then_some(piece)
    })
}

/// Bytes that look random and are the same each time.
fn noise(seed: u8) -> impl FnMut(&mut [u8]) {
    let mut state = u64::from(seed) + 1;
    move |out| {
        for byte in out {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            *byte = (state >> 56) as u8;
        }
    }
}
