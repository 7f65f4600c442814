//! Bounded reading and writing of wire forms, and newtypes for numbers that must not be mixed up.
//!
//! All integers of Telegram's protocols are little-endian. The bytes may be a stranger's: a read consumes
//! exactly what it names or nothing.

/// A data-centre id as clients and configuration write it: negative for media, 203 for CDN, 10000
/// added for the test environment (protocol.md 3.5).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash, PartialOrd, Ord)]
pub struct DcId(pub i16);

/// Names a client towards middle proxies (protocol.md 7.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct ConnId(pub u64);

/// The sponsored channel's tag (-P). "Proxy tag" in the C proxy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AdTag(pub [u8; 16]);

/// A number in decimal digits, without sign or space: the one way in which the program reads one from a
/// text. None for anything else, and for a number that `T` doesn't hold.
pub fn decimal<T: TryFrom<u64>>(digits: &[u8]) -> Option<T> {
    let append = |value: u64, byte: &u8| {
        let digit = char::from(*byte).to_digit(10)?;
        value.checked_mul(10)?.checked_add(digit.into())
    };
    let value = digits.iter().try_fold(0, append)?;
    T::try_from(value).ok().filter(|_| !digits.is_empty())
}

/// Reads fields from the front of a slice.
#[derive(Clone, Copy)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Starts at the front of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader(bytes)
    }

    /// The next `N` bytes, or None (and nothing is consumed) if fewer are left.
    pub fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    /// The next 4 bytes as a number.
    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    /// The next 8 bytes as a number.
    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// What has not been read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.0
    }
}

/// Writes fields to the front of a slice. A field that doesn't fit is not written, and `finish` tells.
pub struct Writer<'a> {
    out: &'a mut [u8],
    at: usize,
    full: bool,
}

impl<'a> Writer<'a> {
    /// Starts at the front of `out`.
    pub fn new(out: &'a mut [u8]) -> Writer<'a> {
        Writer {
            out,
            at: 0,
            full: false,
        }
    }

    /// Appends bytes unchanged.
    pub fn put(&mut self, bytes: &[u8]) -> &mut Self {
        let end = self.at.saturating_add(bytes.len());
        match self.out.get_mut(self.at..end) {
            Some(place) => {
                place.copy_from_slice(bytes);
                self.at = end;
            }
            None => self.full = true,
        }
        self
    }

    /// Appends a number as 4 bytes.
    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.put(&value.to_le_bytes())
    }

    /// Appends a number as 8 bytes.
    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.put(&value.to_le_bytes())
    }

    /// How many bytes were written; None if anything did not fit.
    pub fn finish(&self) -> Option<usize> {
        (!self.full).then_some(self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_take_all_or_nothing() {
        let mut r = Reader::new(&[1, 0, 0, 0, 2, 0, 0]);
        assert_eq!(r.u32(), Some(1));
        assert_eq!(r.u32(), None);
        assert_eq!(r.rest(), [2, 0, 0]);
        assert_eq!(r.array::<3>(), Some([2, 0, 0]));
        assert_eq!(r.array::<1>(), None);
    }

    #[test]
    fn decimal_numbers() {
        for (text, wanted) in [("0", 0), ("007", 7), ("18446744073709551615", u64::MAX)] {
            assert_eq!(decimal(text.as_bytes()), Some(wanted));
        }
        for text in [
            "",
            "+1",
            "-1",
            " 1",
            "1 ",
            "1x",
            "١",
            "18446744073709551616",
        ] {
            assert_eq!(decimal::<u64>(text.as_bytes()), None, "{text}");
        }
        assert_eq!(decimal::<u8>(b"255"), Some(255));
        assert_eq!(decimal::<u8>(b"256"), None);
    }

    #[test]
    fn writes_never_pass_the_end() {
        let mut out = [0; 9];
        assert_eq!(
            Writer::new(&mut out).u32(7).put(&[8]).u32(9).finish(),
            Some(9)
        );
        assert_eq!(out, [7, 0, 0, 0, 8, 9, 0, 0, 0]);
        assert_eq!(Writer::new(&mut out).u64(1).u32(2).finish(), None);
    }
}
