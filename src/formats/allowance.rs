//! What a secret allows those who use it, as operators write it behind the secret: words of the form
//! `name=value`. Called by [`super::secret`]; no stranger's byte gets here.
//!
//! | word | meaning |
//! |---|---|
//! | `max-connections=N` | clients at a time: the secret's limit under another name |
//! | `max-ips=N` | addresses at a time that clients come from; of IPv6 the first 64 bits count |
//! | `rate=N` | bytes a second of all clients together, both ways |
//! | `quota=N` | bytes of all clients together, both ways |
//! | `quota-reset=monthly:DAY` | the quota begins anew on this day of each month, 1 to 28, at 0:00 UTC |
//! | `expires=DATE` | `2027-01-31`, which means 0:00 UTC, `2027-01-31T12:00Z` or `2027-01-31T12:00:30Z` |
//!
//! Bytes may have k, m, g or t behind the number.

use crate::formats::date::{Moment, unix};
use crate::proto::wire::decimal;

/// What a secret allows. 0 anywhere: no limit.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Allowance {
    /// Addresses at a time.
    pub addresses: u32,
    /// Bytes a second.
    pub rate: u64,
    /// Bytes.
    pub quota: u64,
    /// The day of the month on which the quota begins anew, 1 to 28.
    pub reset_day: u32,
    /// Unix seconds.
    pub expires: u64,
}

impl Allowance {
    /// Takes one word, but for `max-connections`. The error is what was expected.
    pub fn take(&mut self, word: &str) -> Result<(), &'static str> {
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        match name {
            "max-ips" => set(
                &mut self.addresses,
                number(value),
                "max-ips=N with N above 0",
            ),
            "rate" => set(&mut self.rate, bytes(value), RATE),
            "quota" => set(&mut self.quota, bytes(value), QUOTA),
            "quota-reset" => set(&mut self.reset_day, reset_day(value), RESET),
            "expires" => set(&mut self.expires, date(value), EXPIRES),
            _ => Err(WORDS),
        }
    }

    /// When the quota begins anew that is used at `now`; 0: never.
    pub fn period_end(&self, now: u64) -> u64 {
        if self.reset_day == 0 {
            return 0;
        }
        let moment = Moment::new(now);
        let (year, month) = match (moment.day < self.reset_day, moment.month) {
            (true, month) => (moment.year, month),
            (false, 12) => (moment.year.saturating_add(1), 1),
            (false, month) => (moment.year, month.saturating_add(1)),
        };
        unix(year, month, self.reset_day).unwrap_or(0)
    }
}

fn set<T>(field: &mut T, value: Option<T>, expected: &'static str) -> Result<(), &'static str> {
    *field = value.ok_or(expected)?;
    Ok(())
}

/// A number above 0.
pub fn number(text: &str) -> Option<u32> {
    decimal(text.as_bytes()).filter(|number| *number > 0)
}

/// Bytes as a number above 0, or one with k, m, g or t behind it.
pub fn bytes(text: &str) -> Option<u64> {
    let units = [('k', 10), ('m', 20), ('g', 30), ('t', 40)];
    let with_unit = units.iter().find_map(|(unit, shift)| {
        let digits = text.strip_suffix([*unit, unit.to_ascii_uppercase()])?;
        Some((digits, *shift))
    });
    let (digits, shift) = with_unit.unwrap_or((text, 0));
    let value = decimal::<u64>(digits.as_bytes()).filter(|value| *value > 0);
    value.and_then(|value| value.checked_mul(1 << shift))
}

fn reset_day(text: &str) -> Option<u32> {
    number(text.strip_prefix("monthly:")?).filter(|day| *day <= 28)
}

/// Unix seconds of a date, or of a date and a time.
fn date(text: &str) -> Option<u64> {
    let (date, time) = match text.strip_suffix(['Z', 'z']) {
        Some(text) => text.split_once(['T', 't'])?,
        None => (text, "00:00"),
    };
    let mut fields = date.splitn(3, '-').map(|field| decimal(field.as_bytes()));
    let mut next = || fields.next().flatten();
    let day = unix(next()?, next()?, next()?)?;
    let mut fields = time.splitn(3, ':');
    let mut next = |most: u64| {
        let field = fields.next().unwrap_or("0");
        decimal::<u64>(field.as_bytes()).filter(|value| *value <= most)
    };
    let (hours, minutes, seconds) = (next(23)?, next(59)?, next(59)?);
    let minutes = hours.checked_mul(60)?.checked_add(minutes)?;
    day.checked_add(minutes.checked_mul(60)?.checked_add(seconds)?)
}

const WORDS: &str =
    "max-connections=N, max-ips=N, rate=N, quota=N, quota-reset=monthly:DAY or expires=DATE";
const RATE: &str = "rate=N with N bytes a second above 0; k, m, g or t may stand behind it";
const QUOTA: &str = "quota=N with N bytes above 0; k, m, g or t may stand behind it";
const RESET: &str = "quota-reset=monthly:DAY with a day from 1 to 28";
const EXPIRES: &str = "expires=2027-01-31, or with a time in UTC expires=2027-01-31T12:00Z";

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(word: &str) -> Result<Allowance, &'static str> {
        let mut allowance = Allowance::default();
        allowance.take(word).map(|()| allowance)
    }

    #[test]
    fn words_and_their_values() {
        let none = Allowance::default();
        let expires = |expires| Allowance { expires, ..none };
        for (word, wanted) in [
            (
                "max-ips=3",
                Allowance {
                    addresses: 3,
                    ..none
                },
            ),
            (
                "rate=5K",
                Allowance {
                    rate: 5 << 10,
                    ..none
                },
            ),
            ("quota=7", Allowance { quota: 7, ..none }),
            (
                "quota=2t",
                Allowance {
                    quota: 2 << 40,
                    ..none
                },
            ),
            (
                "quota-reset=monthly:28",
                Allowance {
                    reset_day: 28,
                    ..none
                },
            ),
            // By `date -u -d … +%s`.
            ("expires=1970-01-02", expires(86_400)),
            ("expires=2027-01-31", expires(1_801_353_600)),
            ("expires=2028-02-29T23:59Z", expires(1_835_481_540)),
            ("expires=2027-12-31T12:00:30Z", expires(1_830_254_430)),
        ] {
            assert_eq!(taken(word), Ok(wanted), "{word}");
        }
    }

    #[test]
    fn wrong_words_say_what_was_expected() {
        for (expected, words) in [
            (WORDS, &["", "x", "max-ip=3", "max-ips3", "Rate=1"][..]),
            (
                "max-ips=N with N above 0",
                &["max-ips", "max-ips=0", "max-ips=1k"],
            ),
            (
                RATE,
                &[
                    "rate=0",
                    "rate=",
                    "rate=1x",
                    "rate=k",
                    "rate=-1",
                    "rate=1.5m",
                ],
            ),
            (QUOTA, &["quota=0g", "quota=16777216t"]),
            (
                RESET,
                &[
                    "quota-reset=1",
                    "quota-reset=monthly:0",
                    "quota-reset=monthly:29",
                ],
            ),
            (
                EXPIRES,
                &[
                    "expires=",
                    "expires=2027-1",
                    "expires=2027-02-29",
                    "expires=2027-13-01",
                    "expires=2027-00-01",
                    "expires=2027-01-00",
                    "expires=1969-12-31",
                    "expires=10000-01-01",
                    "expires=2027-01-31T12:00",
                    "expires=2027-01-31T24:00Z",
                    "expires=2027-01-31T12:60Z",
                    "expires=2027-01-31T12:00:60Z",
                    "expires=2027-01-31T12:00:00:1Z",
                    "expires=2027-01-31 12:00Z",
                ],
            ),
        ] {
            for word in words {
                assert_eq!(taken(word), Err(expected), "{word}");
            }
        }
    }

    #[test]
    fn a_period_ends_on_its_day() {
        let end = |reset_day, now| {
            let allowance = Allowance {
                reset_day,
                ..Allowance::default()
            };
            allowance.period_end(date(now).unwrap())
        };
        assert_eq!(end(0, "2027-01-31"), 0);
        for (day, now, wanted) in [
            (1, "2027-01-31T23:59:59Z", "2027-02-01"),
            (1, "2027-02-01", "2027-03-01"),
            (15, "2027-02-14T23:59:59Z", "2027-02-15"),
            (15, "2027-12-15", "2028-01-15"),
            (28, "2027-02-28T00:00:01Z", "2027-03-28"),
        ] {
            assert_eq!(end(day, now), date(wanted).unwrap(), "{day} {now}");
        }
    }
}
