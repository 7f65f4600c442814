//! Networks as operators write them: an address, or `ADDRESS/BITS` (RFC 4632, RFC 4291). They are what
//! `--stats-allow-net` takes, and a line each the files of `--ip-allowlist` and `--ip-blocklist`.

use alloc::{format, string::String, vec::Vec};
use core::net::{IpAddr, Ipv6Addr};

use crate::limits::MAX_LIST_NETWORKS;
use crate::proto::wire::decimal;

/// A network: all addresses that begin with the same bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Network {
    /// IPv4 in its mapped form, so that one comparison serves both.
    first: u128,
    mask: u128,
}

impl Network {
    /// Parses an address with or without a number of bits. None if it is neither, or if later bits are
    /// set: 10.1.0.0/8 is more likely a mistake than intended.
    pub fn parse(text: &str) -> Option<Network> {
        let (ip, bits) = match text.split_once('/') {
            Some((ip, bits)) => (ip, Some(bits)),
            None => (text, None),
        };
        let ip: IpAddr = ip.parse().ok()?;
        let most = if ip.is_ipv4() { 32 } else { 128 };
        let bits: u32 = match bits {
            Some(bits) => decimal(bits.as_bytes())?,
            None => most,
        };
        let mask = u128::MAX.checked_shl(most.checked_sub(bits)?).unwrap_or(0);
        let first = number(ip);
        (first & mask == first).then_some(Network { first, mask })
    }

    /// Whether an address, IPv4 also in its mapped form, belongs to it.
    pub fn contains(&self, ip: IpAddr) -> bool {
        number(ip) & self.mask == self.first
    }
}

/// Many networks, 17 bytes each.
#[derive(Debug)]
pub struct List {
    /// The first address of each, ascending. No network is part of another one.
    firsts: Vec<u128>,
    /// How many bits each fixes, in the same order.
    bits: Vec<u8>,
}

impl List {
    /// Parses the text of the file called `name`: a network a line, `#` begins a comment. The error is a
    /// sentence that names file and line.
    pub fn parse(text: &str, name: &str) -> Result<List, String> {
        let mut all = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            let network = Network::parse(line).ok_or_else(|| {
                format!("{name}:{number}: expected an IP address or a network, as in 10.0.0.0/8, got {line:?}")
            })?;
            if all.len() >= MAX_LIST_NETWORKS {
                return Err(format!(
                    "{name}:{number}: expected at most {MAX_LIST_NETWORKS} networks"
                ));
            }
            all.push((network.first, network.mask));
        }
        // The larger of two that begin with the same address comes first.
        all.sort_unstable();
        let mut last: Option<Network> = None;
        all.retain(|&(first, mask)| {
            let is_part = last.is_some_and(|last| first & last.mask == last.first);
            if !is_part {
                last = Some(Network { first, mask });
            }
            !is_part
        });
        let bits = |(_, mask): &(u128, u128)| u8::try_from(mask.leading_ones()).unwrap_or(128);
        Ok(List {
            firsts: all.iter().map(|(first, _)| *first).collect(),
            bits: all.iter().map(bits).collect(),
        })
    }

    /// Whether an address, IPv4 also in its mapped form, belongs to one of them.
    pub fn contains(&self, ip: IpAddr) -> bool {
        let ip = number(ip);
        let above = self.firsts.partition_point(|first| *first <= ip);
        let last = above.checked_sub(1);
        let found = last.and_then(|at| Some((*self.firsts.get(at)?, *self.bits.get(at)?)));
        found.is_some_and(|(first, bits)| {
            let free = 128_u32.saturating_sub(bits.into());
            let mask = u128::MAX.checked_shl(free).unwrap_or(0);
            ip & mask == first
        })
    }

    /// Bytes that it takes.
    pub fn bytes(&self) -> usize {
        let firsts = self.firsts.capacity().saturating_mul(size_of::<u128>());
        firsts.saturating_add(self.bits.capacity())
    }
}

fn number(ip: IpAddr) -> u128 {
    let wide: Ipv6Addr = match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    wide.to_bits()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_belong_or_do_not() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.1.2", "11.0.0.0"),
            ("192.0.2.7", "192.0.2.7", "192.0.2.6"),
            ("192.0.2.4/31", "::ffff:192.0.2.5", "192.0.2.6"),
            ("0.0.0.0/0", "255.1.2.3", "2001:db8::1"),
            ("2001:db8::/32", "2001:db8:ffff::", "2001:db9::"),
            ("::1", "::1", "::2"),
            ("::/0", "2001:db8::", "::"),
        ] {
            let parsed = Network::parse(network).unwrap();
            assert!(parsed.contains(inside.parse().unwrap()), "{network}");
            let is_all = network == "::/0";
            assert_eq!(
                parsed.contains(outside.parse().unwrap()),
                is_all,
                "{network}"
            );
        }
    }

    #[test]
    fn lists_hold_what_their_lines_say() {
        let text = "# ours\n10.0.0.0/8  # all\n\n10.1.0.0/16\n192.0.2.7\r\n2001:db8::/32\n10.0.0.0/9\n\
                    198.51.100.0/24\n2001:db8::5\n192.0.2.8\n";
        let list = List::parse(text, "f").unwrap();
        assert_eq!(list.firsts.len(), 5);
        for (ip, wanted) in [
            ("9.255.255.255", false),
            ("10.0.0.0", true),
            ("10.200.3.4", true),
            ("10.255.255.255", true),
            ("11.0.0.0", false),
            ("192.0.2.6", false),
            ("192.0.2.7", true),
            ("::ffff:192.0.2.8", true),
            ("192.0.2.9", false),
            ("198.51.100.255", true),
            ("2001:db8:ffff::1", true),
            ("2001:db7:ffff::1", false),
            ("::", false),
            ("ffff::", false),
        ] {
            assert_eq!(list.contains(ip.parse().unwrap()), wanted, "{ip}");
        }
        let all = List::parse("::/0\n1.2.3.4", "f").unwrap();
        assert!(all.contains("1.2.3.4".parse().unwrap()) && all.contains("::".parse().unwrap()));
        let none = List::parse("#", "f").unwrap();
        assert!(!none.contains("::".parse().unwrap()));
        for (text, wanted) in [
            (
                "\n10.0.0.1/8",
                "f:2: expected an IP address or a network, as in 10.0.0.0/8, got \"10.0.0.1/8\"",
            ),
            ("::1 ::2", "f:1: expected an IP address"),
        ] {
            assert!(List::parse(text, "f").unwrap_err().starts_with(wanted));
        }
    }

    #[test]
    fn a_hundred_thousand_networks_take_less_than_2_mb() {
        let mut text = String::new();
        for n in 0..MAX_LIST_NETWORKS {
            text.push_str(&format!("2001:db8:{:x}:{:x}::/64\n", n >> 16, n & 0xffff));
        }
        let list = List::parse(&text, "f").unwrap();
        assert_eq!(list.firsts.len(), 100_000);
        assert!(list.bytes() <= 2_000_000, "{}", list.bytes());
        assert!(list.contains("2001:db8:1:869f::9".parse().unwrap()));
        assert!(!list.contains("2001:db8:1:86a0::9".parse().unwrap()));
        text.push_str("::1\n");
        let error = List::parse(&text, "f").unwrap_err();
        assert_eq!(error, "f:100001: expected at most 100000 networks");
    }

    #[test]
    fn what_is_no_network() {
        for text in [
            "",
            "10",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.0/+8",
            "10.0.0.0/8/8",
            "10.1.0.0/8",
            "::/129",
            "a/8",
            "[::1]",
            "2001:db8::1/32",
            " ::1",
        ] {
            assert_eq!(Network::parse(text), None, "{text}");
        }
    }
}
