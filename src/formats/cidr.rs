//! Networks as operators write them: an address, or `ADDRESS/BITS` (RFC 4632, RFC 4291). They are what
//! `--stats-allow-net` takes.

use core::net::{IpAddr, Ipv6Addr};

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
        let (most, before) = if ip.is_ipv4() { (32, 96) } else { (128, 0) };
        let bits = match bits {
            Some(bits) if bits.bytes().all(|byte| byte.is_ascii_digit()) => bits.parse().ok()?,
            Some(_) => return None,
            None => most,
        };
        let host = u32::checked_sub(most, bits)?;
        let network_bits = u32::checked_sub(128, host).filter(|bits| *bits >= before)?;
        let mask = match network_bits {
            0 => 0,
            _ => u128::MAX.checked_shl(host)?,
        };
        let first = number(ip);
        (first & mask == first).then_some(Network { first, mask })
    }

    /// Whether an address, IPv4 also in its mapped form, belongs to it.
    pub fn contains(&self, ip: IpAddr) -> bool {
        number(ip) & self.mask == self.first
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
