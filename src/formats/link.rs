//! Links that give a client the proxy: `tg://proxy?...` and `https://t.me/proxy?...`.
//!
//! Called by the daemon's start and by `mtproxy link`. Input comes from the operator. What is returned holds
//! a secret: it must go to the operator and nowhere else. The C proxy leaves links to its reader.

use alloc::format;
use alloc::string::String;

/// Both links of one secret: the one that a device with Telegram opens without asking anybody, and the one
/// that any browser opens. `server` is a host's name or an IP address, of letters, digits, `-`, `_`, `.` and
/// `:` only, since nothing is escaped; `port` is not 0.
pub fn links(server: &str, port: u16, secret: &str) -> [String; 2] {
    ["tg://", "https://t.me/"]
        .map(|start| format!("{start}proxy?server={server}&port={port}&secret={secret}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_links() {
        let wanted = [
            "tg://proxy?server=2001:db8::1&port=443&secret=dd00",
            "https://t.me/proxy?server=2001:db8::1&port=443&secret=dd00",
        ];
        assert_eq!(links("2001:db8::1", 443, "dd00"), wanted);
    }
}
