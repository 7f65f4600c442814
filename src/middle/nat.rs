//! Addresses behind NAT. Middle proxies derive keys from the addresses that they see, so ours have to
//! be translated first (protocol.md 6.3): `--nat-info LOCAL:GLOBAL`, first match, IPv4, ports as is.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// The rules, in order.
#[derive(Default)]
pub struct NatRules(pub Vec<(Ipv4Addr, Ipv4Addr)>);

impl NatRules {
    /// The address as the outside sees it.
    pub fn translate(&self, address: SocketAddr) -> SocketAddr {
        let IpAddr::V4(ip) = address.ip().to_canonical() else {
            return address;
        };
        self.rule(ip).map_or(address, |global| {
            SocketAddr::new(IpAddr::V4(global), address.port())
        })
    }

    fn rule(&self, ip: Ipv4Addr) -> Option<Ipv4Addr> {
        self.0
            .iter()
            .find(|(local, _)| *local == ip)
            .map(|(_, global)| *global)
    }

    /// Whether an address is private and no rule says how the outside sees it.
    pub fn is_missing_for(&self, address: SocketAddr) -> bool {
        let IpAddr::V4(ip) = address.ip().to_canonical() else {
            return false;
        };
        let [a, b, ..] = ip.octets();
        let shared = a == 100 && (64..128).contains(&b);
        (ip.is_private() || shared || ip.is_link_local()) && self.rule(ip).is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_first_rule_wins_and_ports_stay() {
        let rule = |a: &str, b: &str| (a.parse().unwrap(), b.parse().unwrap());
        let rules = NatRules(vec![
            rule("10.0.0.1", "203.0.113.1"),
            rule("10.0.0.1", "203.0.113.2"),
        ]);
        assert_eq!(rules.translate(at("10.0.0.1:5")), at("203.0.113.1:5"));
        assert_eq!(
            rules.translate(at("[::ffff:10.0.0.1]:5")),
            at("203.0.113.1:5")
        );
        assert_eq!(rules.translate(at("10.0.0.2:5")), at("10.0.0.2:5"));
        assert_eq!(
            rules.translate(at("[2001:db8::1]:5")),
            at("[2001:db8::1]:5")
        );
        assert!(!rules.is_missing_for(at("10.0.0.1:5")));
        assert!(rules.is_missing_for(at("10.0.0.2:5")));
        let same = NatRules(vec![rule("10.0.0.2", "10.0.0.2")]);
        assert!(
            !same.is_missing_for(at("10.0.0.2:5")),
            "the operator has said so"
        );
    }

    #[test]
    fn only_private_addresses_need_a_rule() {
        let rules = NatRules::default();
        for private in [
            "192.168.1.1:1",
            "172.16.0.1:1",
            "10.1.1.1:1",
            "100.64.0.1:1",
            "169.254.1.1:1",
        ] {
            assert!(rules.is_missing_for(at(private)), "{private}");
        }
        for public in [
            "203.0.113.1:1",
            "127.0.0.1:1",
            "100.128.0.1:1",
            "[2001:db8::1]:1",
        ] {
            assert!(!rules.is_missing_for(at(public)), "{public}");
        }
    }
}
