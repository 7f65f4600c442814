//! Unix seconds as a calendar date in UTC, for the log, and as the text of HTTP's Date field.

use core::fmt;

/// A moment in UTC, years 1970 to 9999.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Moment {
    /// 1970 or later.
    pub year: u32,
    /// From 1 on.
    pub month: u32,
    /// Of the month, from 1 on.
    pub day: u32,
    /// Seconds of the day.
    pub seconds: u32,
    /// Days since a Thursday: 1 January 1970 was one.
    weekday: usize,
}

impl Moment {
    /// The moment of these unix seconds; after the year 9999 it stays at its last day.
    pub fn new(unix: u64) -> Moment {
        let all = u32::try_from(unix / 86_400).map_or(LAST_DAY, |days| days.min(LAST_DAY));
        let (mut year, mut left) = (1970_u32, all);
        while left >= days_of_year(year) {
            left = left.saturating_sub(days_of_year(year));
            year = year.saturating_add(1);
        }
        let mut month = 1_u32;
        for days in days_of_months(year) {
            if left < days {
                break;
            }
            left = left.saturating_sub(days);
            month = month.saturating_add(1);
        }
        Moment {
            year,
            month,
            day: left.saturating_add(1),
            seconds: u32::try_from(unix % 86_400).unwrap_or(0),
            weekday: usize::try_from(all % 7).unwrap_or(0),
        }
    }
}

/// Unix seconds at the beginning of a day of the years 1970 to 9999; None if there is no such day.
pub fn unix(year: u32, month: u32, day: u32) -> Option<u64> {
    let months = days_of_months(year);
    let before = usize::try_from(month.checked_sub(1)?).ok()?;
    let is_day = (1..=*months.get(before)?).contains(&day) && (1970..=9999).contains(&year);
    let of_years = (1970..year.min(9999)).map(days_of_year);
    let of_months = months.into_iter().take(before);
    let days: u32 = of_years.chain(of_months).chain([day.checked_sub(1)?]).sum();
    is_day.then_some(u64::from(days).saturating_mul(86_400))
}

/// Unix seconds of a text such as [`HttpDate`] writes; None for any other.
pub fn parse(text: &str) -> Option<u64> {
    let mut words = text.trim().split([' ', ':']).skip(1);
    let day = words.next()?.parse().ok()?;
    let month = words.next()?;
    let month = MONTHS.iter().position(|name| *name == month)?;
    let mut number = |most: u32| words.next()?.parse::<u32>().ok().filter(|n| *n <= most);
    let (year, h, m, s) = (number(9999)?, number(23)?, number(59)?, number(60)?);
    let minutes = h.saturating_mul(60).saturating_add(m);
    let seconds = u64::from(minutes.saturating_mul(60).saturating_add(s));
    let month = u32::try_from(month).ok()?.saturating_add(1);
    unix(year, month, day).map(|midnight| midnight.saturating_add(seconds))
}

fn is_leap(year: u32) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn days_of_year(year: u32) -> u32 {
    if is_leap(year) { 366 } else { 365 }
}

fn days_of_months(year: u32) -> [u32; 12] {
    let february = if is_leap(year) { 29 } else { 28 };
    [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
}

/// Unix seconds, shown as `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110, IMF-fixdate).
pub struct HttpDate(pub u64);

impl fmt::Display for HttpDate {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let moment = Moment::new(self.0);
        let month = usize::try_from(moment.month).map_or(0, |month| month.wrapping_sub(1));
        let (h, m, s) = (
            moment.seconds / 3_600,
            moment.seconds / 60 % 60,
            moment.seconds % 60,
        );
        write!(
            f,
            "{}, {:02} {} {} {h:02}:{m:02}:{s:02} GMT",
            WEEKDAYS.get(moment.weekday).unwrap_or(&""),
            moment.day,
            MONTHS.get(month).unwrap_or(&""),
            moment.year
        )
    }
}

/// 31 December 9999, in days.
const LAST_DAY: u32 = 2_932_896;
const WEEKDAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn dates_as_the_standard_writes_them() {
        // The second is RFC 9110's own; the others are of GNU date.
        for (unix, wanted) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_782_399, "Mon, 28 Feb 2000 23:59:59 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (1_735_689_599, "Tue, 31 Dec 2024 23:59:59 GMT"),
            (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
            (253_402_300_799, "Fri, 31 Dec 9999 23:59:59 GMT"),
        ] {
            assert_eq!(HttpDate(unix).to_string(), wanted);
        }
        assert_eq!(Moment::new(u64::MAX).year, 9999);
    }

    #[test]
    fn dates_of_http_are_read_back() {
        for seconds in [
            0,
            784_111_777,
            951_782_399,
            951_782_400,
            1_795_401_000,
            253_402_300_799,
        ] {
            assert_eq!(parse(&HttpDate(seconds).to_string()), Some(seconds));
        }
        for wrong in [
            "",
            "Sun",
            "Sun, 00 Nov 1994 08:49:37 GMT",
            "Sun, 06 nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1969 08:49:37 GMT",
            "Sun, 06 Nov 10000 08:49:37 GMT",
            "Sun, 06 Nov 1994 24:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
