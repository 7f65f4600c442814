//! A secret and who uses it: its label, what it allows, and what is counted by secret. The rules of the door
//! have an account for each of their secrets. An account is never given back, so that clients and counters
//! refer to it as long as they like; a reload finds it again by its label, or without one by its secret.
//!
//! Whoever moves bytes of a client asks [`Account::spend`] before and calls [`Account::pace`] after. For a
//! secret that allows everything both are a look at a flag.
//!
//! Locks: one around the list of all accounts, and one in each around what is used; each is held for a few
//! additions, or a look at the addresses.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use mtproxy::formats::allowance::Allowance;
use mtproxy::formats::date::Moment;
use mtproxy::formats::secret::SecretEntry;
use mtproxy::limits::{RATE_BURST, RATE_LEAST_STEP, RATE_STEPS, RATE_WAIT};
use mtproxy::proto::secret::Secret;

use super::close::Close;
use crate::base::clock;
use crate::base::gauge::{Counter, Gauge, Place};
use crate::base::lock::Mutex;

/// A secret, and who uses it.
pub struct Account {
    /// Its label; may be empty.
    pub label: String,
    secret: Secret,
    /// See [`Account::limit`].
    limit: AtomicU32,
    /// Whether it allows less than everything, the limit of clients aside.
    is_metered: AtomicBool,
    usage: Mutex<Usage>,
    /// How many are connected now.
    pub open: Gauge,
    /// Clients refused, by the place of the reason in [`REFUSALS`].
    pub refused: [Counter; REFUSALS.len()],
}

/// Whose a client is: the account, and the secret that it came by, which the account's label may have lost since.
pub type Owner = (&'static Account, Option<Secret>);

/// Why clients of a secret are refused, and the word for it.
pub const REFUSALS: [(Close, &str); 4] = [
    (Close::SecretFull, "connections"),
    (Close::SecretAddresses, "addresses"),
    (Close::SecretQuota, "quota"),
    (Close::SecretExpired, "expired"),
];

/// Of all clients where no secret is set.
pub static OPEN: Account = Account::new(String::new(), Secret::new([0; 16]));

static ALL: Mutex<Vec<&Account>> = Mutex::new(Vec::new());

/// Every account that there has been.
pub fn accounts() -> Vec<&'static Account> {
    ALL.lock().clone()
}

/// How long until the next secret expires.
pub fn until_expiry() -> Duration {
    let now = clock::unix();
    let all = accounts().into_iter();
    let times = all.map(|account| account.usage.lock().allowance.expires);
    let next = times.filter(|time| *time > now).min();
    next.map_or(Duration::MAX, |time| Duration::from_secs(time - now))
}

impl Account {
    const fn new(label: String, secret: Secret) -> Account {
        Account {
            label,
            secret,
            limit: AtomicU32::new(u32::MAX),
            is_metered: AtomicBool::new(false),
            usage: Mutex::new(Usage::NONE),
            open: Gauge::new(),
            refused: [const { Counter::new() }; REFUSALS.len()],
        }
    }

    /// The account of a secret, with what that allows now.
    pub fn of(entry: &SecretEntry) -> &'static Account {
        let label = entry.label.as_deref().unwrap_or_default();
        let mut all = ALL.lock();
        let same = |account: &&&Account| {
            account.label == label && (!label.is_empty() || account.secret == entry.secret)
        };
        let account = all.iter().find(same).copied().unwrap_or_else(|| {
            let new: &Account = Box::leak(Box::new(Account::new(label.into(), entry.secret)));
            all.push(new);
            new
        });
        let limit = entry.limit.unwrap_or(u32::MAX);
        account.limit.store(limit, Ordering::Relaxed);
        account.usage.lock().allow(entry.allowance, clock::unix());
        let is_metered = entry.allowance != Allowance::default();
        account.is_metered.store(is_metered, Ordering::Relaxed);
        account
    }

    /// How many clients it admits at a time.
    pub fn limit(&self) -> Option<u32> {
        let limit = self.limit.load(Ordering::Relaxed);
        (limit < u32::MAX).then_some(limit)
    }

    /// Whether a client from there would be let in, the limit of clients aside; counts it if not.
    #[inline(never)] // an idle client's thread keeps the stack of what is inlined
    pub fn admits(&self, from: IpAddr) -> bool {
        let refusal = self.if_metered(|usage| {
            let over = usage.over(clock::unix());
            over.or_else(|| usage.place_of(network_of(from)).err())
        });
        refusal.map(|reason| self.refuse(reason)).is_none()
    }

    /// Lets a client in. The error is why not, and is counted for this secret.
    pub fn enter(&'static self, from: IpAddr) -> Result<Seat, Close> {
        let place = Gauge::try_enter(&self.open, self.limit().unwrap_or(u32::MAX));
        let place = place.ok_or_else(|| self.refuse(Close::SecretFull))?;
        let network = network_of(from);
        let listed = self.if_metered(|usage| Some(usage.enter(network)));
        let is_listed = listed.unwrap_or(Ok(false));
        let is_listed = is_listed.map_err(|reason| self.refuse(reason))?;
        Ok(Seat {
            account: self,
            network: is_listed.then_some(network),
            _place: place,
        })
    }

    /// Counts a client that is refused.
    pub fn refuse(&self, reason: Close) -> Close {
        let place = REFUSALS.iter().position(|(refusal, _)| *refusal == reason);
        if let Some(counter) = place.and_then(|place| self.refused.get(place)) {
            counter.add(1);
        }
        reason
    }

    /// Counts bytes that are about to be moved. The error: they must not be, and whoever has a client of
    /// this secret is to end it for this reason.
    pub fn spend(&self, bytes: usize) -> Result<(), Close> {
        match self.is_metered.load(Ordering::Relaxed) {
            true => self.spend_metered(bytes as u64),
            false => Ok(()),
        }
    }

    // What few secrets need stands in the program once, not wherever bytes are moved.
    #[inline(never)]
    fn spend_metered(&self, bytes: u64) -> Result<(), Close> {
        self.usage.lock().spend(bytes, clock::unix())
    }

    /// Why clients are to be ended, if they are.
    pub fn over(&self) -> Option<Close> {
        self.if_metered(|usage| usage.over(clock::unix()))
    }

    /// Whether it has a rate.
    #[inline(never)]
    pub fn has_rate(&self) -> bool {
        let rate = self.if_metered(|usage| Some(usage.allowance.rate > 0));
        rate.unwrap_or(false)
    }

    /// How many of these bytes to move at once, so that all that comes flows.
    pub fn step(&self, most: usize) -> usize {
        match self.is_metered.load(Ordering::Relaxed) {
            true => self.step_metered(most),
            false => most,
        }
    }

    #[inline(never)] // as above
    fn step_metered(&self, most: usize) -> usize {
        let open = u64::from(self.open.value().max(1));
        match self.usage.lock().allowance.rate {
            0 => most,
            rate => ((rate / RATE_STEPS / open).min(most as u64) as usize)
                .max(RATE_LEAST_STEP)
                .min(most),
        }
    }

    /// Waits until bytes that were moved are within the rate.
    pub fn pace(&self, bytes: usize) {
        if self.is_metered.load(Ordering::Relaxed) {
            self.pace_metered(bytes as u64);
        }
    }

    #[inline(never)] // as above
    fn pace_metered(&self, bytes: u64) {
        let wait = self.usage.lock().pace(bytes, clock::running());
        if let Some(wait) = wait {
            thread::sleep(wait.min(RATE_WAIT));
        }
    }

    /// Addresses that clients come from, if there is a limit to these.
    pub fn addresses(&self) -> usize {
        self.usage.lock().networks.len()
    }

    /// Bytes that are left of the quota, if there is one.
    pub fn quota_left(&self) -> Option<u64> {
        let mut usage = self.usage.lock();
        usage.over(clock::unix());
        let quota = usage.allowance.quota;
        (quota > 0).then(|| quota.saturating_sub(usage.used))
    }

    /// What is used of the quota, and when it begins anew; None if there is no quota.
    pub fn used(&self) -> Option<(u64, u64)> {
        let usage = self.usage.lock();
        (usage.allowance.quota > 0).then_some((usage.used, usage.period_end))
    }

    /// Takes over what was used in a period that ends, or has ended, then.
    pub fn set_used(&self, used: u64, period_end: u64) {
        self.usage.lock().set_used(used, period_end);
    }

    fn if_metered<T>(&self, look: impl FnOnce(&mut Usage) -> Option<T>) -> Option<T> {
        let is_metered = self.is_metered.load(Ordering::Relaxed);
        is_metered.then(|| look(&mut self.usage.lock())).flatten()
    }
}

/// A client that was let in. It leaves when this is dropped.
pub struct Seat {
    account: &'static Account,
    /// Where it comes from, if that is listed.
    network: Option<u128>,
    _place: Place<&'static Gauge>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(network) = self.network {
            self.account.usage.lock().leave(network);
        }
    }
}

/// An address as a number; of IPv6 the first 64 bits, which one household or phone has.
fn network_of(address: IpAddr) -> u128 {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits() >> 64 << 64,
    }
}

/// What clients of a secret use of what it allows.
struct Usage {
    allowance: Allowance,
    /// Bytes of the quota.
    used: u64,
    /// Unix seconds when the quota begins anew; 0: never.
    period_end: u64,
    /// Something didn't fit the quota any more.
    used_up: bool,
    /// When all that was moved is within the rate, by the running clock.
    paid_at: Duration,
    /// Where clients are, and how many.
    networks: Vec<(u128, u32)>,
}

impl Usage {
    const NONE: Usage = Usage {
        allowance: Allowance {
            addresses: 0,
            rate: 0,
            quota: 0,
            reset_day: 0,
            expires: 0,
        },
        used: 0,
        period_end: 0,
        used_up: false,
        paid_at: Duration::ZERO,
        networks: Vec::new(),
    };

    fn allow(&mut self, allowance: Allowance, now: u64) {
        // What a change leaves of a period is not lost.
        if self.period_end == 0 || self.allowance.reset_day != allowance.reset_day {
            self.period_end = allowance.period_end(now);
        }
        self.used_up &= self.allowance.quota == allowance.quota;
        if self.allowance.rate != allowance.rate {
            self.paid_at = Duration::ZERO;
        }
        self.allowance = allowance;
    }

    /// Takes over what was used in a period that ends, or has ended, then. Its end is believed rather than our
    /// own, which a machine without a clock of its own computes in 1970; unless it's not that of this allowance.
    fn set_used(&mut self, used: u64, period_end: u64) {
        self.used = used;
        let is_own = Moment::new(period_end).day == self.allowance.reset_day;
        if period_end > 0 && self.period_end > 0 {
            let earlier = self.period_end.min(period_end);
            self.period_end = if is_own { period_end } else { earlier };
        }
    }

    /// Why nobody may use it at `now`.
    fn over(&mut self, now: u64) -> Option<Close> {
        let Allowance { expires, quota, .. } = self.allowance;
        if expires > 0 && now >= expires {
            return Some(Close::SecretExpired);
        }
        if self.period_end > 0 && now >= self.period_end {
            (self.used, self.used_up) = (0, false);
            self.period_end = self.allowance.period_end(now);
        }
        let is_used_up = quota > 0 && (self.used_up || self.used >= quota);
        is_used_up.then_some(Close::SecretQuota)
    }

    /// Bytes that the quota doesn't have any more end it: smaller ones that come later don't fit either.
    fn spend(&mut self, bytes: u64, now: u64) -> Result<(), Close> {
        let quota = self.allowance.quota;
        match self.over(now) {
            // What needs no bytes goes on.
            Some(reason) if bytes > 0 || reason != Close::SecretQuota => return Err(reason),
            _ if quota == 0 => return Ok(()),
            _ => {}
        }
        let used = self.used.saturating_add(bytes);
        if used > quota {
            self.used_up = true;
            return Err(Close::SecretQuota);
        }
        self.used = used;
        Ok(())
    }

    /// How long to wait after these bytes.
    fn pace(&mut self, bytes: u64, now: Duration) -> Option<Duration> {
        let rate = self.allowance.rate;
        let takes = bytes.saturating_mul(1_000_000_000).checked_div(rate)?;
        let free_from = self.paid_at.max(now.saturating_sub(RATE_BURST));
        self.paid_at = free_from + Duration::from_nanos(takes);
        self.paid_at.checked_sub(now).filter(|wait| !wait.is_zero())
    }

    /// The place of a network in the list, if it is there and need be; an error if it isn't and would be one
    /// too many.
    fn place_of(&self, network: u128) -> Result<Option<usize>, Close> {
        let place = self
            .networks
            .iter()
            .position(|(known, _)| *known == network);
        let most = self.allowance.addresses;
        match place.is_none() && most > 0 && self.networks.len() >= most as usize {
            true => Err(Close::SecretAddresses),
            false => Ok(place),
        }
    }

    /// Lists a network, or counts one more client there; false if nobody is to be listed.
    fn enter(&mut self, network: u128) -> Result<bool, Close> {
        if self.allowance.addresses == 0 {
            return Ok(false);
        }
        match self.place_of(network)? {
            Some(place) => self.networks[place].1 += 1,
            None => self.networks.push((network, 1)),
        }
        Ok(true)
    }

    fn leave(&mut self, network: u128) {
        if let Ok(Some(place)) = self.place_of(network) {
            self.networks[place].1 -= 1;
            if self.networks[place].1 == 0 {
                self.networks.swap_remove(place);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(words: &str, now: u64) -> Usage {
        let mut allowance = Allowance::default();
        words
            .split(' ')
            .for_each(|word| allowance.take(word).unwrap());
        let mut usage = Usage::NONE;
        usage.allow(allowance, now);
        usage
    }

    const JANUARY_31: u64 = 1_801_353_600;

    #[test]
    fn a_quota_is_exact_and_begins_anew() {
        let now = JANUARY_31;
        let mut bob = usage("quota=100 quota-reset=monthly:1", now);
        assert_eq!(bob.spend(60, now), Ok(()));
        assert_eq!((bob.spend(40, now), bob.used), (Ok(()), 100));
        assert_eq!(bob.over(now), Some(Close::SecretQuota));
        assert_eq!(bob.spend(1, now), Err(Close::SecretQuota));
        let (last, first) = (now + 86_399, now + 86_400);
        assert_eq!(bob.over(last), Some(Close::SecretQuota));
        assert_eq!((bob.over(first), bob.used), (None, 0));
        // What doesn't fit doesn't count, and ends it.
        assert_eq!(bob.spend(101, first), Err(Close::SecretQuota));
        assert_eq!(
            (bob.spend(1, first), bob.used),
            (Err(Close::SecretQuota), 0)
        );
        let mut more = bob.allowance;
        more.quota = 200;
        bob.allow(more, first);
        assert_eq!((bob.spend(101, first), bob.used), (Ok(()), 101));
    }

    #[test]
    fn what_was_used_outlasts_a_start_whose_clock_is_not_set() {
        let end = JANUARY_31 + 86_400;
        for (now, period_end, left) in [
            (0, end, end),                // February's is not ours
            (end - 1, end, end),          // the usual case
            (end - 1, end + 86_400, end), // it was on the second then
            (0, 0, 31 * 86_400),          // there was none
        ] {
            let mut bob = usage("quota=100 quota-reset=monthly:1", now);
            bob.set_used(60, period_end);
            assert_eq!((bob.used, bob.period_end), (60, left), "{now} {period_end}");
        }
        let mut bob = usage("quota=100 quota-reset=monthly:1", 0);
        bob.set_used(60, end);
        assert_eq!(
            (bob.spend(41, end - 1), bob.used),
            (Err(Close::SecretQuota), 60)
        );
        assert_eq!((bob.spend(41, end), bob.used), (Ok(()), 41));
        let mut bob = usage("quota=100", end);
        bob.set_used(60, end);
        assert_eq!((bob.used, bob.period_end), (60, 0));
    }

    #[test]
    fn nothing_is_left_once_a_secret_has_expired() {
        let mut bob = usage("expires=2027-01-31", 0);
        assert_eq!(bob.spend(1, JANUARY_31 - 1), Ok(()));
        assert_eq!(bob.over(JANUARY_31 - 1), None);
        for now in [JANUARY_31, JANUARY_31 + 1, u64::MAX] {
            assert_eq!(bob.spend(0, now), Err(Close::SecretExpired));
            assert_eq!(bob.over(now), Some(Close::SecretExpired));
        }
    }

    #[test]
    fn a_rate_holds_over_any_time_and_bursts_are_short() {
        let mut bob = usage("rate=1000", 0);
        let mut now = Duration::from_secs(77);
        let begun = now;
        // What was left unused for long is a burst and no more.
        let burst = RATE_BURST.as_millis() as u64;
        assert_eq!(bob.pace(burst, now), None);
        assert_eq!(bob.pace(50, now), Some(Duration::from_millis(50)));
        let mut moved = burst + 50;
        // Two clients that wait as long as each is told, and a clock that wakes them late.
        for step in [1, 100, 250, 7, 3_000, 42, 500] {
            let waits = [bob.pace(step, now), bob.pace(step, now)];
            now += waits[1].unwrap() + Duration::from_millis(3);
            moved += 2 * step;
        }
        let most = (now - begun).as_millis() as u64 + burst;
        assert!(moved <= most && moved > most - 100, "{moved} {most}");
        assert_eq!(usage("quota=1", 0).pace(1 << 40, now), None);
        // A new rate has no debts of the old one.
        assert!(bob.pace(1 << 20, now) > Some(Duration::from_secs(1_000)));
        let rate = 1 << 20;
        bob.allow(
            Allowance {
                rate,
                ..bob.allowance
            },
            0,
        );
        assert_eq!(bob.pace(1_000, now), None);
    }

    #[test]
    fn addresses_are_counted_once_and_leave() {
        let mut bob = usage("max-ips=2", 0);
        let network = |text: &str| network_of(text.parse().unwrap());
        let (home, phone, other) = (
            network("192.0.2.1"),
            network("2001:db8::1"),
            network("192.0.2.2"),
        );
        assert_eq!(home, network("::ffff:192.0.2.1"));
        assert_eq!(phone, network("2001:db8::7:1:2:3"));
        assert_ne!(phone, network("2001:db8:0:1::1"));
        for (network, wanted) in [
            (home, Ok(true)),
            (phone, Ok(true)),
            (home, Ok(true)),
            (other, Err(Close::SecretAddresses)),
        ] {
            assert_eq!(bob.enter(network), wanted);
        }
        bob.leave(home);
        assert!(bob.enter(other).is_err());
        bob.leave(home);
        assert_eq!((bob.enter(other), bob.networks.len()), (Ok(true), 2));
        // A limit that comes later doesn't know who is in already.
        let mut unlimited = usage("quota=1", 0);
        assert_eq!(unlimited.enter(home), Ok(false));
        unlimited.leave(home);
    }
}
