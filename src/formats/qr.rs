//! QR codes of links (ISO 18004), drawn for a terminal: byte mode, versions 1 to 15, level L, mask 1.
//!
//! Called for `--print-links`, `--qr` and a first start. The text comes from the operator. Coordinates
//! are `(x, y)` from the upper left corner, in modules (the squares of a code).
//!
//! 1. The text becomes data codewords, padded to the capacity of the smallest version that holds it.
//! 2. They are split into blocks, each gets Reed-Solomon codewords, and all are interleaved.
//! 3. The bits, masked, fill what the fixed patterns leave free, in a zigzag of columns two wide.
//!
//! The standard lets an encoder try eight masks and keep the one with the fewest misleading shapes.
//! Here it is always the same: links of every length that occurs were read back with it
//! (`tests/qr.rs`).

mod codewords;

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use crate::formats::qr::codewords::{BITS, Symbol};

/// Draws the code of `text` with its quiet zone, two modules to a character; None above 520
/// bytes. Foreground and background are set to the fixed black and white of the 256 colours, which no
/// theme changes, so that it can be read in a dark terminal as in a light one; each line ends with a
/// reset and a line feed.
pub fn draw(text: &[u8]) -> Option<String> {
    let qr = Qr::encode(text)?;
    let end = qr.size.saturating_add(2 * QUIET);
    // A place in the quiet zone above or to the left becomes a huge number: outside as well.
    let dark = |x: usize, y: usize| qr.is_dark(x.wrapping_sub(QUIET), y.wrapping_sub(QUIET));
    let mut drawing = String::new();
    for y in (0..end).step_by(2) {
        drawing.push_str("\x1b[38;5;16;48;5;231m");
        for x in 0..end {
            drawing.push(match (dark(x, y), dark(x, y.wrapping_add(1))) {
                (false, false) => ' ',
                (true, false) => '▀',
                (false, true) => '▄',
                (true, true) => '█',
            });
        }
        drawing.push_str("\x1b[0m\n");
    }
    Some(drawing)
}

/// A finished code: 21 to 77 modules along each side.
struct Qr {
    size: usize,
    dark: Vec<bool>,
}

impl Qr {
    /// The smallest code that holds `text`.
    fn encode(text: &[u8]) -> Option<Qr> {
        let symbol = Symbol::choose(text.len())?;
        let size = symbol.size();
        let mut dark = vec![false; size.saturating_mul(size)];
        let codewords = codewords::codewords(text, &symbol);
        let mut bits = codewords
            .iter()
            .flat_map(|byte| BITS.map(|bit| byte & bit != 0));
        for (x, y) in zigzag(size) {
            let module = fixed(&symbol, x, y);
            // What the codewords leave over, up to seven modules, is filled with zeros.
            let module = module.unwrap_or_else(|| bits.next().unwrap_or(false) ^ inverts(x, y));
            if let Some(place) = dark.get_mut(at(size, x, y)) {
                *place = module;
            }
        }
        Some(Qr { size, dark })
    }

    /// Whether a module is dark. False outside, as the quiet zone is.
    fn is_dark(&self, x: usize, y: usize) -> bool {
        let inside = x < self.size && y < self.size;
        inside && self.dark.get(at(self.size, x, y)).copied().unwrap_or(false)
    }
}

fn at(size: usize, x: usize, y: usize) -> usize {
    y.wrapping_mul(size).wrapping_add(x)
}

/// All modules in the order of the bits: columns two wide from the right, up and down in turn. The
/// column of the timing pattern holds no bits; it comes last.
fn zigzag(size: usize) -> Vec<(usize, usize)> {
    let columns: Vec<usize> = (0..size).rev().filter(|x| *x != TIMING).collect();
    let mut places = Vec::new();
    for (number, pair) in columns.chunks(2).chain([&[TIMING][..]]).enumerate() {
        let mut rows: Vec<usize> = (0..size).collect();
        if number % 2 == 0 {
            rows.reverse();
        }
        places.extend(rows.iter().flat_map(|y| pair.iter().map(|x| (*x, *y))));
    }
    places
}

/// The fixed patterns: finders with their light border, alignment, timing, format, version, and the
/// module that is always dark. None: a place for a bit.
fn fixed(symbol: &Symbol, x: usize, y: usize) -> Option<bool> {
    let size = symbol.size();
    let distance = |cx: usize, cy: usize| x.abs_diff(cx).max(y.abs_diff(cy));
    let far = size.saturating_sub(4);
    for (cx, cy) in [(3, 3), (far, 3), (3, far)] {
        let distance = distance(cx, cy);
        if distance <= 4 {
            return Some(distance != 2 && distance != 4);
        }
    }
    let (first, last) = (6, size.saturating_sub(7));
    for cx in symbol.alignment {
        for cy in symbol.alignment {
            let at_finder = [(first, first), (first, last), (last, first)].contains(&(*cx, *cy));
            if !at_finder && distance(*cx, *cy) <= 2 {
                return Some(distance(*cx, *cy) != 1);
            }
        }
    }
    if x == TIMING || y == TIMING {
        return Some((x ^ y) & 1 == 0);
    }
    if (x, y) == (8, size.saturating_sub(8)) {
        return Some(true);
    }
    let format = format_place(size, x, y).map(|place| bit(FORMAT, place));
    format.or_else(|| version_module(symbol, x, y))
}

/// Which bit of [`FORMAT`] this module holds. There are two copies: one around the upper left finder,
/// one half each at the other two.
fn format_place(size: usize, x: usize, y: usize) -> Option<usize> {
    let past_timing = |along: usize| along.saturating_sub(usize::from(along > TIMING));
    let from_end = |along: usize| size.saturating_sub(along);
    match (x, y) {
        (8, 0..=8) => Some(past_timing(y)),
        (0..=7, 8) => Some(14_usize.saturating_sub(past_timing(x))),
        (_, 8) if from_end(x) <= 8 => Some(from_end(x).saturating_sub(1)),
        (8, _) if from_end(y) <= 7 => Some(15_usize.saturating_sub(from_end(y))),
        _ => None,
    }
}

/// The module of the version's number, of which there are two copies from version 7 on.
fn version_module(symbol: &Symbol, x: usize, y: usize) -> Option<bool> {
    let corner = symbol.size().saturating_sub(11);
    let (short, long) = (x.min(y), x.max(y).checked_sub(corner)?);
    let is_inside = symbol.version >= 7 && short < 6 && long < 3;
    let place = short.saturating_mul(3).saturating_add(long);
    is_inside.then(|| bit(version_bits(symbol.version), place))
}

/// The version's number with 12 check bits: the remainder of a division by a polynomial.
fn version_bits(number: usize) -> u32 {
    let number = u32::try_from(number).unwrap_or(0);
    let mut rest = number;
    for _ in 0..12 {
        rest <<= 1;
        if rest & 0x1000 != 0 {
            rest ^= 0x1f25;
        }
    }
    (number << 12) | rest
}

/// Bit `place` of a number, counted from the lowest.
fn bit(number: u32, place: usize) -> bool {
    let place = u32::try_from(place).unwrap_or(u32::MAX);
    number.checked_shr(place).is_some_and(|rest| rest & 1 != 0)
}

/// Whether the mask inverts this module.
fn inverts(_x: usize, y: usize) -> bool {
    y.is_multiple_of(2)
}

/// Light modules around a code. The standard has four; with two, a link and its code fit a terminal of 24
/// lines, and readers find it all the same (`tests/qr.rs`).
const QUIET: usize = 2;
/// The row and the column of the timing patterns.
const TIMING: usize = 6;
/// Level L and mask 1 with their check bits (ISO 18004, table C.1).
const FORMAT: u32 = 0b111_0010_1111_0011;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_bits_of_the_standard() {
        assert_eq!(version_bits(7), 0b00_0111_1100_1001_0100);
    }

    #[test]
    fn sizes() {
        for (length, size) in [(0, 21), (17, 21), (18, 25), (107, 41), (520, 77)] {
            assert_eq!(Qr::encode(&vec![b'a'; length]).unwrap().size, size);
        }
        assert!(Qr::encode(&[b'a'; 521]).is_none());
    }

    /// Each version has as many modules for bits as its codewords need, and up to seven more.
    #[test]
    fn every_version_holds_its_codewords() {
        let mut versions = 0;
        for length in 0..=520 {
            let symbol = Symbol::choose(length).unwrap();
            if symbol.version == versions {
                continue;
            }
            versions = symbol.version;
            let bits = codewords::codewords(&[], &symbol).len() * 8;
            let places = zigzag(symbol.size());
            let free = places
                .iter()
                .filter(|(x, y)| fixed(&symbol, *x, *y).is_none());
            let free = free.count();
            assert!(
                (bits..bits + 8).contains(&free),
                "{versions}: {free} {bits}"
            );
        }
        assert_eq!(versions, 15);
    }

    #[test]
    fn fixed_patterns_stand_in_the_code() {
        let text = [b'a'; 160];
        let qr = Qr::encode(&text).unwrap();
        let last = qr.size - 1;
        assert_eq!(qr.size, 49);
        for (x, y) in [
            (0, 0),
            (last, 0),
            (0, last),
            (3, 3),
            (8, last - 7),
            (24, 24),
        ] {
            assert!(qr.is_dark(x, y), "{x} {y}");
        }
        for (x, y) in [
            (1, 1),
            (7, 7),
            (last - 7, 7),
            (23, 24),
            (7, 6),
            (49, 0),
            (0, 49),
        ] {
            assert!(!qr.is_dark(x, y), "{x} {y}");
        }
        // The number of the version stands twice.
        for i in 0..18 {
            let (short, long) = (i / 3, qr.size - 11 + i % 3);
            let wanted = version_bits(8) >> i & 1 == 1;
            assert_eq!(qr.is_dark(short, long), wanted);
            assert_eq!(qr.is_dark(long, short), wanted);
        }
    }

    #[test]
    fn the_drawing_is_the_code() {
        let text = b"tg://proxy?server=192.0.2.1";
        let (qr, drawing) = (Qr::encode(text).unwrap(), draw(text).unwrap());
        let mut rows = Vec::new();
        for line in drawing.lines() {
            let line = line.strip_prefix("\x1b[38;5;16;48;5;231m").unwrap();
            let line = line.strip_suffix("\x1b[0m").unwrap();
            rows.push(line.chars().map(|c| "█▀".contains(c)).collect::<Vec<_>>());
            rows.push(line.chars().map(|c| "█▄".contains(c)).collect::<Vec<_>>());
        }
        // An odd number of modules: the last half line is light.
        assert_eq!(rows.len(), qr.size + 2 * QUIET + 1);
        for (y, row) in rows.iter().enumerate() {
            assert_eq!(row.len(), qr.size + 2 * QUIET);
            for (x, dark) in row.iter().enumerate() {
                let inside = x >= QUIET && y >= QUIET;
                assert_eq!(*dark, inside && qr.is_dark(x - QUIET, y - QUIET));
            }
        }
    }
}
