//! The daemon: threads, sockets, files. `sys` calls [`start`] from the C entry point.
//!
//! A connection comes through the `door` and takes one of two roads, `middle` or `direct`; the `operator`'s
//! side starts all, watches it and changes it; all stand on `base` and on the library. Arrows point down
//! only: server → operator → web → door → middle | direct → pair, stream → stats → base → the library. The roads
//! name neither each other nor the door (`tests/layers.rs`).
#![cfg_attr(not(test), no_main)]
#![deny(unsafe_code)]

/// What everything stands on.
mod base {
    pub mod bell;
    pub mod buffers;
    pub mod clock;
    pub mod gauge;
    pub mod http;
    pub mod lock;
    pub mod log;
    pub mod net;
    pub mod outgoing;
    pub mod queue;
    pub mod records;
    #[allow(unsafe_code)] // the one place
    pub mod sys;
    pub mod threads;
}
mod direct;
mod door;
/// Through Telegram's middle proxies.
mod middle {
    pub mod dcs;
    pub mod dial;
    pub mod http;
    mod http_response;
    pub mod link;
    pub mod memory;
    pub mod nat;
    mod outbox;
    mod reader;
    pub mod registry;
    pub mod session;
    pub mod slot;
    mod slot_reader;
    mod slot_writer;
    mod writer;
}
/// What the operator gives, sees and asks for.
mod operator {
    pub mod access;
    pub mod capacity;
    mod client;
    pub mod doctor;
    pub mod files;
    mod findings;
    pub mod front;
    pub mod links;
    pub mod load;
    pub mod migrate;
    pub mod notify;
    pub mod options;
    pub mod pages;
    pub mod ping;
    mod proc;
    pub mod reload;
    pub mod report;
    pub mod sandbox;
    pub mod service;
    pub mod start;
    pub mod usage;

    /// Why the server did not start, or a command failed; the whole sentence.
    #[derive(Debug)]
    pub struct Fatal(pub String);
}
mod pair;
mod server;
mod stats;
mod stream;
mod web;

use std::ffi::OsString;
use std::io::Write;

use base::log;
use operator::options::{self, Command};
use operator::{access, doctor, front, links, migrate, ping, service};

/// Runs the command line and returns the exit code: 0 stopped or all well, 1 failed at work, 2
/// usage, 4 bad --address.
pub fn start(args: Vec<OsString>) -> u8 {
    std::panic::set_hook(Box::new(log::panicked));
    let code = run(args);
    log::flush();
    code
}

fn print(text: &str) -> u8 {
    let _ = std::io::stdout().write_all(text.as_bytes());
    0
}

fn run(args: Vec<OsString>) -> u8 {
    let result = match options::parse(args) {
        Ok(Command::Run(config)) => server::run(*config),
        Ok(Command::Link(config)) => links::print(&config),
        Ok(Command::Front(front, config)) => front::print(&config, front),
        Ok(Command::Secret(domain)) => access::print_new(domain),
        Ok(Command::Service(service)) => service::print(&service),
        Ok(Command::Migrate(file)) => migrate::print(&file),
        Ok(Command::Ping(asked)) => return ping::run(&asked),
        Ok(Command::Doctor(config, how)) => return doctor::run(*config, how),
        Ok(Command::Usage(text)) => {
            log::say(format_args!("{text}"));
            return 2;
        }
        Ok(Command::Help) => {
            log::say(format_args!("{}", options::help()));
            return 2;
        }
        Ok(Command::Version) => {
            return print(concat!("mtproxy ", env!("CARGO_PKG_VERSION"), "\n"));
        }
        Ok(Command::Sample) => access::print_sample(options::SAMPLE),
        Err(error) => {
            log::say(format_args!("mtproxy: {}", error.text));
            return error.code;
        }
    };
    match result {
        Ok(()) => 0,
        Err(fatal) => {
            log::say(format_args!("mtproxy: {}", fatal.0));
            1
        }
    }
}
