//! Behaviour of the program, over loopback, with the binary that cargo built. One module per promise; the
//! peers in support/ are written from the protocol description and share no code with src/.
//!
//! Everything: `cargo test --test tests`. A few tests wait for real deadlines (10 s for strangers, 30 s
//! for a stalled middle proxy), so more threads than cores end sooner: add `-- --test-threads=8`.
//!
//! The short form serves for cross-built binaries, which emulation makes slow:
//!
//! ```text
//! MTPROXY_BIN=target/mipsel-unknown-linux-musl/release/mtproxy MTPROXY_RUNNER=qemu-mipsel-static \
//!     cargo test --test tests -- transports:: routing:: relay::bulk_1mib quick_ack:: endings::basic
//! ```

mod support;

// The peers themselves.
mod direct_peers;
mod faketls_peers;
mod vectors;
mod vectors_link;

// The program.
mod address_lists;
mod addresses;
mod admission;
mod allowances;
mod backend_stall;
mod backends;
mod background;
mod clock;
mod commands;
mod direct;
mod direct_addresses;
mod direct_ends;
mod direct_fallback;
mod doctor;
mod endings;
mod faketls;
mod faketls_compare;
mod faketls_deadlines;
mod faketls_endings;
mod faketls_mask;
mod faketls_names;
mod faketls_nginx;
mod faketls_no_look;
mod faketls_probe;
mod faketls_records;
mod faketls_regressions;
mod faketls_regressions_records;
mod faketls_sites;
mod faketls_strangers;
mod faults;
mod flags;
mod flags_table;
mod fronts;
mod hostile;
mod http_connections;
mod http_transport;
mod idle;
mod limits;
mod listening;
mod memory;
mod middle_dh;
mod migrate;
mod mistakes;
mod ping;
mod plain;
mod process;
mod promptness;
mod qr;
mod quick_ack;
mod regression_backends;
mod regression_endings;
mod regression_process;
mod relay;
mod reload;
mod replays;
mod routing;
mod sandbox;
mod secrets;
mod service;
mod slow_client;
mod soak;
mod socks;
mod stalled_log;
mod start;
mod statistics;
mod statistics_http;
mod statistics_state;
mod statistics_tools;
mod stopping;
mod strangers;
mod summary;
mod transports;
mod verbosity;
mod web;
mod web_access;
mod web_door;
mod web_nginx;
mod web_page;

// The house.
mod layers;
mod readme;
mod sizes;
mod source_text;
