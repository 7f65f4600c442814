//! The replay store: the last ClientHellos that were accepted, none of which is accepted again
//! (protocol.md 5.3). Older ones are told by their time stamp only, which the digest doesn't cover.
//!
//! A bounded store, oldest out first, every step O(1): a ring of entries with hash chains through it.
//! Only ClientHellos with a right digest get here, so strangers can't fill it; and the hash is seeded, so
//! nobody can aim many entries at one chain. The C proxy keeps those of two days, without bound.

use crate::base::sys;

/// What the store says of a ClientHello.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// New, and noted.
    Fresh,
    /// Seen before.
    Seen,
    /// Not newer than what the store has dropped: it may have been seen before.
    TooOld,
}

/// The store. 24 bytes an entry and 4 to 8 for the chains: 1.75 MiB for 65536 entries, of which the
/// system maps only what is in use.
pub struct Seen {
    entries: Vec<Entry>,
    capacity: usize,
    /// Place of the oldest entry once the ring is full.
    oldest: usize,
    /// The newest entry of each chain, by place + 1; 0 is none.
    heads: Vec<u32>,
    seeds: [u64; 4],
    /// The largest time stamp that was dropped.
    floor: Option<u32>,
}

struct Entry {
    key: [u8; 16],
    stamp: u32,
    /// The next older entry of the chain, by place + 1; 0 is none.
    next: u32,
}

impl Seen {
    /// An empty store for `capacity` entries, at least 1.
    pub fn new(capacity: usize) -> Seen {
        let capacity = capacity.max(1);
        let seed = || sys::random_array().map_or(0, u64::from_ne_bytes);
        Seen {
            entries: Vec::with_capacity(capacity),
            capacity,
            oldest: 0,
            heads: vec![0; capacity.next_power_of_two()],
            seeds: [seed(), seed(), seed(), seed()],
            floor: None,
        }
    }

    /// Notes the first 16 bytes of a hello's random; `stamp` is its time stamp.
    pub fn admit(&mut self, key: &[u8; 16], stamp: u32) -> Verdict {
        let chain = self.chain(key);
        let mut at = self.heads[chain];
        while let Some(entry) = self.entry(at) {
            if entry.key == *key {
                return Verdict::Seen;
            }
            at = entry.next;
        }
        if self.floor.is_some_and(|floor| stamp <= floor) {
            return Verdict::TooOld;
        }
        let entry = Entry {
            key: *key,
            stamp,
            next: 0,
        };
        let place = self.place(entry);
        let head = std::mem::replace(&mut self.heads[chain], place as u32 + 1);
        self.entries[place].next = head;
        Verdict::Fresh
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Stores an entry that is in no chain yet; the oldest goes if there is no room.
    fn place(&mut self, entry: Entry) -> usize {
        if self.entries.len() < self.capacity {
            self.entries.push(entry);
            return self.entries.len() - 1;
        }
        let place = self.oldest;
        self.oldest = (place + 1) % self.capacity;
        let old = std::mem::replace(&mut self.entries[place], entry);
        self.unlink(place as u32 + 1, &old);
        self.floor = self.floor.max(Some(old.stamp));
        place
    }

    /// Takes the oldest entry out of its chain, whose last it is.
    fn unlink(&mut self, at: u32, old: &Entry) {
        let chain = self.chain(&old.key);
        if self.heads[chain] == at {
            self.heads[chain] = old.next;
            return;
        }
        let mut before = self.heads[chain];
        while let Some(place) = (before as usize).checked_sub(1) {
            let entry = &mut self.entries[place];
            if entry.next == at {
                entry.next = old.next;
                return;
            }
            before = entry.next;
        }
    }

    fn entry(&self, at: u32) -> Option<&Entry> {
        self.entries.get((at as usize).checked_sub(1)?)
    }

    /// Multiply-shift with secret factors: any two keys meet with the chance that luck gives them.
    fn chain(&self, key: &[u8; 16]) -> usize {
        let word = |i: usize| {
            let bytes = [key[i], key[i + 1], key[i + 2], key[i + 3]];
            u64::from(u32::from_ne_bytes(bytes)).wrapping_add(self.seeds[i / 4])
        };
        let (left, right) = (
            word(0).wrapping_mul(word(4)),
            word(8).wrapping_mul(word(12)),
        );
        let hash = (left.wrapping_add(right) >> 32) as usize;
        hash & (self.heads.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mtproxy::crypto::random::Random;
    use std::collections::VecDeque;

    fn key(number: u32) -> [u8; 16] {
        u128::from(number).to_le_bytes()
    }

    #[test]
    fn a_hello_enters_once() {
        let mut seen = Seen::new(4);
        assert_eq!(seen.admit(&key(1), 100), Verdict::Fresh);
        assert_eq!(seen.admit(&key(2), 100), Verdict::Fresh);
        assert_eq!(seen.admit(&key(1), 100), Verdict::Seen);
        assert_eq!(seen.admit(&key(1), 999), Verdict::Seen);
        assert_eq!(seen.len(), 2);
    }

    #[test]
    fn what_is_as_old_as_something_forgotten_is_refused() {
        let mut seen = Seen::new(3);
        for (number, stamp) in [(1, 50), (2, 40), (3, 60)] {
            assert_eq!(seen.admit(&key(number), stamp), Verdict::Fresh);
        }
        // Full, but nothing is forgotten yet: a stamp of any age may be new.
        assert_eq!(seen.admit(&key(4), 0), Verdict::Fresh);
        assert_eq!(seen.admit(&key(1), 50), Verdict::TooOld);
        assert_eq!(seen.admit(&key(5), 50), Verdict::TooOld);
        assert_eq!(seen.admit(&key(2), 40), Verdict::Seen, "still there");
        assert_eq!(seen.len(), 3);
        assert_eq!(seen.admit(&key(6), 51), Verdict::Fresh);
        assert_eq!(seen.admit(&key(2), 40), Verdict::TooOld, "it went by now");
        // 40 was forgotten last, but 50 was too.
        assert_eq!(seen.admit(&key(7), 45), Verdict::TooOld);
        assert_eq!(seen.admit(&key(7), 51), Verdict::Fresh);
    }

    /// The same rules, spelled out.
    struct Model {
        entries: VecDeque<([u8; 16], u32)>,
        capacity: usize,
        forgotten: Option<u32>,
    }

    impl Model {
        fn admit(&mut self, key: [u8; 16], stamp: u32) -> Verdict {
            if self.entries.iter().any(|(k, _)| *k == key) {
                return Verdict::Seen;
            }
            if self.forgotten.is_some_and(|f| stamp <= f) {
                return Verdict::TooOld;
            }
            if self.entries.len() == self.capacity {
                let (_, old) = self.entries.pop_front().unwrap();
                self.forgotten = self.forgotten.max(Some(old));
            }
            self.entries.push_back((key, stamp));
            Verdict::Fresh
        }
    }

    #[test]
    fn a_queue_without_chains_says_the_same() {
        let mut random = Random::new(&[1; 48]);
        for capacity in [1, 2, 3, 5, 16, 17, 100] {
            let mut seen = Seen::new(capacity);
            // All in one chain, every other time.
            if capacity % 2 == 1 {
                seen.seeds = [0; 4];
                seen.heads.truncate(1);
            }
            let mut model = Model {
                entries: VecDeque::new(),
                capacity,
                forgotten: None,
            };
            let mut counts = [0; 3];
            for now in 0..20_000_u32 {
                let number = random.next_u32() % (4 * capacity as u32 + 2);
                let stamp = now + 1000 - random.next_u32() % (3 * capacity as u32 + 2);
                let verdict = seen.admit(&key(number), stamp);
                assert_eq!(verdict, model.admit(key(number), stamp), "{now}");
                assert_eq!(seen.len(), model.entries.len());
                counts[verdict as usize] += 1;
            }
            assert!(counts.iter().all(|c| *c > 200), "{capacity}: {counts:?}");
        }
    }

    #[test]
    fn chains_stay_short() {
        let capacity = 1 << 12;
        let mut seen = Seen::new(capacity);
        for number in 0..3 * capacity as u32 {
            assert_eq!(seen.admit(&key(number), number + 1), Verdict::Fresh);
        }
        let lengths = seen.heads.iter().map(|head| {
            let chain = std::iter::successors(seen.entry(*head), |e| seen.entry(e.next));
            chain.count()
        });
        let (longest, all) = lengths.fold((0, 0), |(max, sum), n| (n.max(max), sum + n));
        assert_eq!(all, capacity, "each entry is in one chain");
        assert!(longest < 64, "{longest}");
    }

    #[test]
    fn no_room_is_still_room_for_one() {
        let mut seen = Seen::new(0);
        assert_eq!(seen.admit(&key(1), 5), Verdict::Fresh);
        assert_eq!(seen.admit(&key(1), 5), Verdict::Seen);
        assert_eq!(seen.admit(&key(2), 6), Verdict::Fresh);
        assert_eq!(seen.admit(&key(1), 5), Verdict::TooOld);
    }
}
