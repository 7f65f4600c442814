//! The daemon: threads, sockets, files. `sys` calls [`start`] from the C entry point.
//!
//! Layers, top may use below, never sideways between `client`, `backend`, `direct` and `admin_http`
//! (`tests/layers.rs`): main → commands, server → client | backend | direct | admin_http → registry,
//! outbox, uplink, pair, dcs, sites, replay, handover, links, access, nat → threads, buffers, capacity,
//! options, stats, records, log, clock → sys → the library.
#![cfg_attr(not(test), no_main)]
#![deny(unsafe_code)]

mod access;
mod admin_http;
mod backend;
mod buffers;
mod capacity;
mod client;
mod clock;
/// What the program does besides to serve.
mod commands {
    pub mod link;
    pub mod secret;
}
mod dcs;
mod direct;
mod handover;
mod links;
mod log;
mod nat;
mod options;
mod outbox;
mod pair;
mod records;
mod registry;
mod replay;
mod server;
mod sites;
mod stats;
#[allow(unsafe_code)] // the one place
mod sys;
mod threads;
mod uplink;

use std::ffi::OsString;
use std::io::Write;

use options::Command;

/// Runs the command line and returns the exit code: 0 stopped or all well, 1 failed at work, 2
/// usage, 4 bad --address.
pub fn start(args: Vec<OsString>) -> u8 {
    let error = match options::parse(args) {
        Ok(Command::Help) => {
            log::say(format_args!("{}", options::help()));
            return 2;
        }
        Ok(Command::Version) => {
            let version = concat!("mtproxy ", env!("CARGO_PKG_VERSION"), "\n");
            let _ = std::io::stdout().write_all(version.as_bytes());
            return 0;
        }
        Ok(Command::Link(request)) => match commands::link::run(&request) {
            Ok(()) => return 0,
            Err(text) => (text, 1),
        },
        Ok(Command::Secret(domain)) => match commands::secret::run(domain) {
            Ok(()) => return 0,
            Err(text) => (text, 1),
        },
        Ok(Command::Run(config)) => match server::run(*config) {
            Ok(()) => return 0,
            Err(fatal) => (fatal.0, 1),
        },
        Err(error) => {
            let code = error.code;
            (error.text, code)
        }
    };
    let (text, code) = error;
    log::say(format_args!("mtproxy: {text}"));
    code
}
