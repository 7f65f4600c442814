//! `mtproxy link`: the links of a server, without starting it.

use crate::operator::options::LinkRequest;
use crate::operator::{access, links};

/// Prints the links to standard output. The error is a sentence for the operator.
pub fn run(request: &LinkRequest) -> Result<(), String> {
    let config = &request.config;
    let entries = access::read(config)?;
    let shown = links::Request {
        entries: &entries,
        port: config.ports.first().copied().unwrap_or(0),
        qr: request.qr,
    };
    links::show(config, &shown).map_err(|e| format!("the links can't be written: {e}"))
}
