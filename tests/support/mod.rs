//! Test peers and helpers. They are written from the protocol description over the dependency crates,
//! never over this project's library, so that a mistake there can't hide behind the same mistake here.

pub mod attack;
pub mod bystander;
pub mod client;
pub mod command;
pub mod crypto;
pub mod dc;
pub mod dc_link;
pub mod direct_rig;
pub mod framing;
pub mod http;
pub mod http_post;
pub mod mask_site;
pub mod message;
pub mod middle_link;
pub mod middle_proxy;
pub mod middle_wire;
pub mod nginx;
pub mod obfuscated2;
pub mod own_network;
pub mod programs;
pub mod proxy;
pub mod random;
pub mod rig;
pub mod rpc;
pub mod service;
pub mod sockets;
pub mod tls_client;
pub mod tls_flight;
pub mod tls_hello;
pub mod tls_rig;
pub mod transfers;
pub mod unread;
pub mod vectors;
pub mod wait;
