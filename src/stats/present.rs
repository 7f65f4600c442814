//! Where clients come from at this moment: eight bytes for each that has proven a secret. One lock, held to
//! write one entry, or by a page's thread to copy all.

use std::collections::BinaryHeap;
use std::net::IpAddr;

use crate::base::lock::Mutex;

/// Sources by place, and the places that are free; what is in those doesn't matter.
static PRESENT: Mutex<(Vec<u64>, Vec<usize>)> = Mutex::new((Vec::new(), Vec::new()));

/// No address.
const NONE: u64 = 0;

/// A client that is counted until this is dropped.
pub struct Present(usize);

impl Present {
    /// Of a client that comes from there.
    pub fn new(from: IpAddr) -> Present {
        let source = number_of(from);
        let (sources, free) = &mut *PRESENT.lock();
        let place = free.pop().unwrap_or_else(|| {
            sources.push(NONE);
            sources.len() - 1
        });
        sources[place] = source;
        Present(place)
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        let (sources, free) = &mut *PRESENT.lock();
        sources[self.0] = NONE;
        free.push(self.0);
    }
}

/// From how many different addresses clients are connected; an IPv6 /64 is one.
pub fn addresses() -> u32 {
    let sources = PRESENT.lock().0.clone();
    count(BinaryHeap::from(sources))
}

fn count(mut sources: BinaryHeap<u64>) -> u32 {
    let (mut last, mut count) = (NONE, 0);
    while let Some(source) = sources.pop() {
        count += u32::from(source != last && source != NONE);
        last = source;
    }
    count
}

/// IPv4 addresses behind a prefix that no IPv6 address has.
fn number_of(from: IpAddr) -> u64 {
    match from.to_canonical() {
        IpAddr::V4(address) => 0xffff << 32 | u64::from(address.to_bits()),
        IpAddr::V6(address) => (address.to_bits() >> 64) as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_counts_once() {
        for (wanted, addresses) in [
            (0, vec![]),
            (1, vec!["192.0.2.1", "::ffff:192.0.2.1", "192.0.2.1"]),
            (2, vec!["0.0.0.0", "255.255.255.255"]),
            (2, vec!["2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"]),
        ] {
            let numbers = addresses
                .iter()
                .map(|text| number_of(text.parse().unwrap()));
            let free = [NONE, NONE];
            assert_eq!(
                count(numbers.chain(free).collect()),
                wanted,
                "{addresses:?}"
            );
        }
    }
}
