//! Addresses of Telegram's data centres (protocol.md 8.6), and what --dc-override puts in their place.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};

use mtproxy::limits::{DEFAULT_DC, IPV6_KNOWN};
use mtproxy::proto::wire::DcId;

use crate::base::clock;

const PORT: u16 = 443;

/// Id without its sign, IPv4 addresses, IPv6 address. Media ids have the addresses of their positive
/// ones; 10000 is added in the test environment.
type Row = (u16, &'static [Ipv4Addr], Ipv6Addr);

const ROWS: [Row; 9] = [
    (
        1,
        &[v4(149, 154, 175, 50)],
        v6(0x2001, 0xb28, 0xf23d, 0xf001, 0xa),
    ),
    (
        2,
        &[v4(149, 154, 167, 51), v4(95, 161, 76, 100)],
        v6(0x2001, 0x67c, 0x4e8, 0xf002, 0xa),
    ),
    (
        3,
        &[v4(149, 154, 175, 100)],
        v6(0x2001, 0xb28, 0xf23d, 0xf003, 0xa),
    ),
    (
        4,
        &[v4(149, 154, 167, 91)],
        v6(0x2001, 0x67c, 0x4e8, 0xf004, 0xa),
    ),
    (
        5,
        &[v4(149, 154, 171, 5), v4(91, 108, 56, 100)],
        v6(0x2001, 0xb28, 0xf23f, 0xf005, 0xa),
    ),
    (
        203,
        &[v4(91, 105, 192, 100)],
        Ipv6Addr::new(0x2a0a, 0xf280, 0x203, 0xa, 0x5000, 0, 0, 0x100),
    ),
    (
        10_001,
        &[v4(149, 154, 175, 10)],
        v6(0x2001, 0xb28, 0xf23d, 0xf001, 0xe),
    ),
    (
        10_002,
        &[v4(149, 154, 167, 40)],
        v6(0x2001, 0x67c, 0x4e8, 0xf002, 0xe),
    ),
    (
        10_003,
        &[v4(149, 154, 175, 117)],
        v6(0x2001, 0xb28, 0xf23d, 0xf003, 0xe),
    ),
];

const fn v4(a: u8, b: u8, c: u8, d: u8) -> Ipv4Addr {
    Ipv4Addr::new(a, b, c, d)
}

const fn v6(a: u16, b: u16, c: u16, d: u16, last: u16) -> Ipv6Addr {
    Ipv6Addr::new(a, b, c, d, 0, 0, 0, last)
}

/// Where each data centre is.
pub struct Table {
    /// --dc-override, in order.
    pub overrides: Vec<(DcId, SocketAddr)>,
    /// --prefer-ipv6: IPv6 first.
    pub prefer_ipv6: bool,
}

impl Table {
    /// Addresses to try, in order; false if the id is unknown and these are the default's. IPv6 may come
    /// and go while the server runs, so each time `has_ipv6` is asked whether there is a route.
    pub fn addresses(&self, dc: DcId, has_ipv6: fn() -> bool) -> (Vec<SocketAddr>, bool) {
        let default = DcId(DEFAULT_DC as i16);
        match self.known(dc, has_ipv6) {
            Some(addresses) => (addresses, true),
            None => (self.known(default, has_ipv6).unwrap_or_default(), false),
        }
    }

    /// Every id that has an address, and the one that serves clients of all others.
    pub fn served(&self) -> (Vec<DcId>, DcId) {
        let rows = ROWS.iter().flat_map(|(id, ..)| [*id as i16, -(*id as i16)]);
        // A positive one is its media id's too; there is no override of i16::MIN.
        let overridden = self
            .overrides
            .iter()
            .flat_map(|(id, _)| [id.0, -id.0.abs()]);
        (
            rows.chain(overridden).map(DcId).collect(),
            DcId(DEFAULT_DC as i16),
        )
    }

    fn known(&self, dc: DcId, has_ipv6: fn() -> bool) -> Option<Vec<SocketAddr>> {
        let number = dc.0.unsigned_abs();
        let overridden = |fits: &dyn Fn(DcId) -> bool| -> Vec<SocketAddr> {
            let rows = self.overrides.iter().filter(|(id, _)| fits(*id));
            rows.map(|(_, address)| *address).collect()
        };
        // The id with its sign first, then a positive one for its media id too.
        let exact = overridden(&|id| id == dc);
        if !exact.is_empty() {
            return Some(exact);
        }
        let positive = overridden(&|id| i32::from(id.0) == i32::from(number));
        if !positive.is_empty() {
            return Some(positive);
        }
        let (_, ipv4, ipv6) = ROWS.iter().find(|(id, ..)| *id == number)?;
        let mut ips: Vec<IpAddr> = ipv4.iter().copied().map(IpAddr::V4).collect();
        if has_ipv6() {
            let at = if self.prefer_ipv6 { 0 } else { ips.len() };
            ips.insert(at, IpAddr::V6(*ipv6));
        }
        Some(
            ips.into_iter()
                .map(|ip| SocketAddr::new(ip, PORT))
                .collect(),
        )
    }
}

/// Whether the system knows where to send packets for data centres' IPv6 addresses. Sends none.
pub fn has_ipv6() -> bool {
    /// The answer in the lowest bit, above it when the system was asked.
    static LAST: AtomicU32 = AtomicU32::new(0);
    let now = clock::seconds() + 1;
    let last = LAST.load(Ordering::Relaxed);
    if last > 1 && now - (last >> 1) < IPV6_KNOWN {
        return last & 1 == 1;
    }
    let has_route = has_route();
    LAST.store(now << 1 | u32::from(has_route), Ordering::Relaxed);
    has_route
}

/// Asks the system.
fn has_route() -> bool {
    const SOMEWHERE: Ipv6Addr = Ipv6Addr::new(0x2001, 0x67c, 0x4e8, 0xf002, 0, 0, 0, 0xa);
    let any = (Ipv6Addr::UNSPECIFIED, 0);
    UdpSocket::bind(any)
        .and_then(|socket| socket.connect((SOMEWHERE, 443)))
        .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(table: &Table, dc: i16) -> (String, bool) {
        let (addresses, known) = table.addresses(DcId(dc), || true);
        (addresses[0].to_string(), known)
    }

    #[test]
    fn the_rows_by_id_media_and_test() {
        let table = Table {
            overrides: Vec::new(),
            prefer_ipv6: false,
        };
        assert_eq!(first(&table, 1), ("149.154.175.50:443".into(), true));
        assert_eq!(first(&table, -4), ("149.154.167.91:443".into(), true));
        assert_eq!(first(&table, 203), ("91.105.192.100:443".into(), true));
        assert_eq!(first(&table, -10_002), ("149.154.167.40:443".into(), true));
        for unknown in [0, 6, 10_004, i16::MIN, i16::MAX] {
            assert_eq!(
                first(&table, unknown),
                ("149.154.167.51:443".into(), false),
                "{unknown}"
            );
        }
        let all = |has_ipv6| {
            let (addresses, _) = table.addresses(DcId(2), has_ipv6);
            let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            texts
        };
        let ipv4 = ["149.154.167.51:443", "95.161.76.100:443"];
        assert_eq!(all(|| false), ipv4);
        let with_ipv6 = [&ipv4[..], &["[2001:67c:4e8:f002::a]:443"]].concat();
        assert_eq!(all(|| true), with_ipv6, "a route has come since");
    }

    #[test]
    fn overrides_and_the_preferred_family() {
        let row = |id, at: &str| (DcId(id), at.parse().unwrap());
        let overrides = vec![
            row(2, "127.0.0.1:1"),
            row(-2, "127.0.0.1:2"),
            row(2, "127.0.0.1:3"),
            row(7, "127.0.0.1:7"),
        ];
        let table = Table {
            overrides,
            prefer_ipv6: true,
        };
        let ports = |dc| {
            table
                .addresses(DcId(dc), || true)
                .0
                .iter()
                .map(SocketAddr::port)
                .collect::<Vec<u16>>()
        };
        assert_eq!(ports(2), [1, 3]);
        assert_eq!(ports(-2), [2]);
        assert_eq!(ports(-7), [7]);
        assert_eq!(ports(99), [1, 3], "unknown ids go to DC 2 as it is now");
        assert_eq!(first(&table, 3).0, "[2001:b28:f23d:f003::a]:443");
    }
}
