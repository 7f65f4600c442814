//! QR codes of links (ISO 18004): byte mode, versions 1 to 15, levels L and M, drawn for a terminal.
//!
//! Called by the daemon's start block and by `mtproxy link --qr`. The text comes from the operator.
//! Coordinates are `(x, y)` from the upper left corner, in modules (the squares of a code). C has
//! nothing like it.
//!
//! 1. The text becomes data codewords, padded to the capacity of the smallest version that holds it.
//! 2. They are split into blocks, each gets Reed-Solomon codewords, and all are interleaved.
//! 3. The bits fill what the fixed patterns leave free, in a zigzag of columns two wide.
//! 4. Eight masks are tried; the one with the fewest misleading shapes is kept and named in the code.

mod codewords;

pub use crate::formats::qr::codewords::MAX_TEXT;

use crate::formats::qr::codewords::{BITS, Level, Symbol};
use alloc::string::String;
use alloc::vec::Vec;

/// A finished code.
pub struct Qr {
    size: usize,
    dark: Vec<bool>,
}

impl Qr {
    /// Makes the smallest code that holds `text`, of level M if that doesn't make it larger. None
    /// above [`MAX_TEXT`] bytes.
    pub fn encode(text: &[u8]) -> Option<Qr> {
        let symbol = Symbol::choose(text.len())?;
        let codewords = codewords::codewords(text, &symbol);
        let plan = Plan::new(&symbol);
        let masked = (0..8).map(|mask| plan.fill(&codewords, symbol.level, mask));
        masked.min_by_key(penalty)
    }

    /// Modules along each side, 21 to 77. The quiet zone around it, which readers need, is not
    /// counted.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Whether a module is dark. False outside, as the quiet zone is.
    pub fn is_dark(&self, x: usize, y: usize) -> bool {
        let inside = x < self.size && y < self.size;
        inside && self.dark.get(at(self.size, x, y)).copied().unwrap_or(false)
    }

    /// Draws the code with its quiet zone, two modules to a character. Foreground and background are
    /// set to the fixed black and white of the 256 colours, which no theme changes, so that it can be
    /// read in a dark terminal as in a light one; each line ends with a reset and a line feed.
    pub fn draw(&self) -> String {
        let mut text = String::new();
        let end = self.size.saturating_add(2 * QUIET);
        // A place in the quiet zone above or to the left becomes a huge number: outside as well.
        let dark = |x: usize, y: usize| self.is_dark(x.wrapping_sub(QUIET), y.wrapping_sub(QUIET));
        for y in (0..end).step_by(2) {
            text.push_str("\x1b[38;5;16;48;5;231m");
            for x in 0..end {
                text.push(match (dark(x, y), dark(x, y.wrapping_add(1))) {
                    (false, false) => ' ',
                    (true, false) => '▀',
                    (false, true) => '▄',
                    (true, true) => '█',
                });
            }
            text.push_str("\x1b[0m\n");
        }
        text
    }
}

/// What is the same for all masks: which modules are fixed, and the order of the others.
struct Plan {
    size: usize,
    /// Some: a fixed pattern. Format bits are among them, light as yet.
    fixed: Vec<Option<bool>>,
}

impl Plan {
    fn new(symbol: &Symbol) -> Plan {
        let size = symbol.size();
        let place = |x: usize, y: usize| fixed(symbol, x, y);
        let fixed = (0..size).flat_map(|y| (0..size).map(move |x| place(x, y)));
        Plan {
            size,
            fixed: fixed.collect(),
        }
    }

    /// The whole code with this mask.
    fn fill(&self, codewords: &[u8], level: Level, mask: u32) -> Qr {
        let dark = self.fixed.iter().map(|f| f.unwrap_or(false)).collect();
        let mut qr = Qr {
            size: self.size,
            dark,
        };
        let mut bits = codewords
            .iter()
            .flat_map(|byte| BITS.map(|bit| byte & bit != 0));
        for (x, y) in self.free() {
            let bit = bits.next().unwrap_or(false);
            qr.set(x, y, bit ^ inverts(mask, x, y));
        }
        let format = format_bits(level, mask);
        let from_right = (0..self.size).rev().map(|x| (x, 8)).take(8);
        let to_bottom = (self.size.saturating_sub(7)..self.size).map(|y| (8, y));
        for places in [
            FORMAT_PLACES.to_vec(),
            from_right.chain(to_bottom).collect(),
        ] {
            for (i, (x, y)) in places.into_iter().enumerate() {
                qr.set(x, y, bit(format, i));
            }
        }
        qr
    }

    /// The modules that hold codewords, in order: columns two wide from the right, up and down in
    /// turn; the column of the timing pattern is left out.
    fn free(&self) -> Vec<(usize, usize)> {
        let columns: Vec<usize> = (0..self.size).rev().filter(|x| *x != 6).collect();
        let mut free = Vec::new();
        for (number, pair) in columns.chunks(2).enumerate() {
            let mut rows: Vec<usize> = (0..self.size).collect();
            if number % 2 == 0 {
                rows.reverse();
            }
            let places = rows.iter().flat_map(|y| pair.iter().map(|x| (*x, *y)));
            free.extend(places.filter(|(x, y)| {
                let fixed = self.fixed.get(at(self.size, *x, *y));
                fixed.is_some_and(Option::is_none)
            }));
        }
        free
    }
}

impl Qr {
    fn set(&mut self, x: usize, y: usize, dark: bool) {
        if let Some(module) = self.dark.get_mut(at(self.size, x, y)) {
            *module = dark;
        }
    }
}

fn at(size: usize, x: usize, y: usize) -> usize {
    y.wrapping_mul(size).wrapping_add(x)
}

/// The fixed patterns: finders with their light border, timing, alignment, version, format, and the
/// module that is always dark.
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
    if x == 6 || y == 6 {
        return Some((x ^ y) & 1 == 0);
    }
    let edge = size.saturating_sub(8);
    let format = |along: usize| along <= 8 || along >= edge;
    if (x == 8 && format(y)) || (y == 8 && format(x)) {
        return Some((x, y) == (8, edge));
    }
    let corner = size.saturating_sub(11);
    let in_version = |along: usize, across: usize| along >= corner && across < 6;
    if symbol.version >= 7 && (in_version(x, y) || in_version(y, x)) {
        let (short, long) = (x.min(y), x.max(y).saturating_sub(corner));
        let place = short.saturating_mul(3).saturating_add(long);
        return Some(bit(version_bits(symbol.version), place));
    }
    None
}

/// Whether a mask turns this module round.
fn inverts(mask: u32, x: usize, y: usize) -> bool {
    let (sum, product) = (x.wrapping_add(y), x.wrapping_mul(y));
    let rest = match mask {
        0 => sum % 2,
        1 => y % 2,
        2 => x % 3,
        3 => sum % 3,
        4 => ((x / 3) ^ (y / 2)) % 2,
        5 => product % 6,
        6 => (product ^ (product % 3)) % 2,
        _ => (sum ^ (product % 3)) % 2,
    };
    rest == 0
}

/// Level and mask with their 10 check bits, masked so that they are never all light.
fn format_bits(level: Level, mask: u32) -> u32 {
    let indicator = match level {
        Level::L => 0b01000,
        Level::M => 0b00000,
    };
    checked(indicator | mask, 0x537, 10) ^ 0x5412
}

/// The version's number with its 12 check bits.
fn version_bits(number: usize) -> u32 {
    checked(u32::try_from(number).unwrap_or(0), 0x1f25, 12)
}

/// Appends `count` check bits, the remainder of the division by the polynomial.
fn checked(value: u32, polynomial: u32, count: u32) -> u32 {
    let mut rest = value;
    for _ in 0..count {
        rest <<= 1;
        if rest.wrapping_shr(count) & 1 != 0 {
            rest ^= polynomial;
        }
    }
    value.wrapping_shl(count) | rest
}

/// Bit `place` of a number, counted from the lowest.
fn bit(number: u32, place: usize) -> bool {
    let place = u32::try_from(place).unwrap_or(u32::MAX);
    number.checked_shr(place).is_some_and(|rest| rest & 1 != 0)
}

/// How much of a code could mislead a reader: long runs, squares, finder look-alikes, and too much
/// of one colour.
fn penalty(qr: &Qr) -> usize {
    let mut sum: usize = 0;
    let mut dark: usize = 0;
    for line in 0..qr.size {
        let row = with_border((0..qr.size).map(|x| qr.is_dark(x, line)));
        let column = with_border((0..qr.size).map(|y| qr.is_dark(line, y)));
        let squares = (1..qr.size).filter(|x| is_square(qr, *x, line)).count();
        let part = line_penalty(&row).saturating_add(line_penalty(&column));
        sum = sum
            .saturating_add(part)
            .saturating_add(squares.saturating_mul(3));
        dark = dark.saturating_add(row.iter().filter(|dark| **dark).count());
    }
    let share = dark.saturating_mul(100).checked_div(qr.dark.len());
    let steps = share.unwrap_or(0).abs_diff(50) / 5;
    sum.saturating_add(steps.saturating_mul(10))
}

/// The four light modules of the quiet zone on both sides count for finder look-alikes.
fn with_border(line: impl Iterator<Item = bool>) -> Vec<bool> {
    let border = [false; QUIET];
    border.into_iter().chain(line).chain(border).collect()
}

/// Whether the module and its neighbours to the left and below have one colour.
fn is_square(qr: &Qr, x: usize, y: usize) -> bool {
    let (left, below) = (x.saturating_sub(1), y.saturating_add(1));
    let dark = qr.is_dark(x, y);
    below < qr.size
        && [(left, y), (x, below), (left, below)]
            .iter()
            .all(|(x, y)| qr.is_dark(*x, *y) == dark)
}

/// Runs of five and more, and finder look-alikes, in a row or column with its border.
fn line_penalty(line: &[bool]) -> usize {
    let inside = line.get(QUIET..line.len().saturating_sub(QUIET));
    let runs = inside
        .unwrap_or(&[])
        .chunk_by(|a, b| a == b)
        .map(<[bool]>::len);
    let long = runs
        .filter(|run| *run >= 5)
        .map(|run| run.saturating_sub(2));
    let like_finder = |window: &&[bool]| {
        let backwards = window.iter().rev();
        window.iter().eq(&LIKE_FINDER) || backwards.eq(&LIKE_FINDER)
    };
    let finders = line.windows(LIKE_FINDER.len()).filter(like_finder).count();
    long.fold(finders.saturating_mul(40), usize::saturating_add)
}

/// Light modules around a code.
pub const QUIET: usize = 4;
/// The line through a finder's middle and the light border on one side.
const LIKE_FINDER: [bool; 11] = [
    true, false, true, true, true, false, true, false, false, false, false,
];
/// The format bits at the upper left finder, lowest first.
const FORMAT_PLACES: [(usize, usize); 15] = [
    (8, 0),
    (8, 1),
    (8, 2),
    (8, 3),
    (8, 4),
    (8, 5),
    (8, 7),
    (8, 8),
    (7, 8),
    (5, 8),
    (4, 8),
    (3, 8),
    (2, 8),
    (1, 8),
    (0, 8),
];

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn format_and_version_bits_of_the_standard() {
        assert_eq!(format_bits(Level::M, 5), 0b100_0000_1100_1110);
        assert_eq!(format_bits(Level::L, 0), 0b111_0111_1100_0100);
        assert_eq!(version_bits(7), 0b00_0111_1100_1001_0100);
    }

    #[test]
    fn sizes() {
        for (length, size) in [(0, 21), (17, 21), (18, 25), (107, 41), (520, 77)] {
            assert_eq!(Qr::encode(&vec![b'a'; length]).unwrap().size(), size);
        }
        assert!(Qr::encode(&[b'a'; MAX_TEXT + 1]).is_none());
    }

    /// Each version has as many modules for bits as its codewords need, and up to seven more.
    #[test]
    fn every_version_holds_its_codewords() {
        let mut versions = 0;
        for length in 0..=MAX_TEXT {
            let symbol = Symbol::choose(length).unwrap();
            if symbol.version == versions {
                continue;
            }
            versions = symbol.version;
            let bits = codewords::codewords(&[], &symbol).len() * 8;
            let free = Plan::new(&symbol).free().len();
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
        let last = qr.size() - 1;
        assert_eq!(qr.size(), 49);
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
            let (short, long) = (i / 3, qr.size() - 11 + i % 3);
            let wanted = version_bits(8) >> i & 1 == 1;
            assert_eq!(qr.is_dark(short, long), wanted);
            assert_eq!(qr.is_dark(long, short), wanted);
        }
    }

    #[test]
    fn penalties() {
        let qr = |size: usize, dark: &[usize]| Qr {
            size,
            dark: (0..size * size).map(|i| dark.contains(&i)).collect(),
        };
        // One colour, five by five: ten runs of five, sixteen squares, all light.
        assert_eq!(penalty(&qr(5, &[])), 10 * 3 + 16 * 3 + 100);
        // Six of a run cost one more.
        assert_eq!(line_penalty(&with_border([false; 6].into_iter())), 4);
        let finder = [true, false, true, true, true, false, true];
        assert_eq!(line_penalty(&with_border(finder.into_iter())), 80);
        let shared = [true, true, false, true, true, true, false, true];
        assert_eq!(line_penalty(&with_border(shared.into_iter())), 40);
    }

    #[test]
    fn masks_of_the_standard() {
        let grid = |mask| -> Vec<u8> {
            let places = (0..6).flat_map(|y| (0..6).map(move |x| (x, y)));
            places.map(|(x, y)| u8::from(inverts(mask, x, y))).collect()
        };
        // By the formulas as they are written there, i being the row.
        for mask in 0..8 {
            let formula = |i: usize, j: usize| match mask {
                0 => (i + j) % 2,
                1 => i % 2,
                2 => j % 3,
                3 => (i + j) % 3,
                4 => (i / 2 + j / 3) % 2,
                5 => (i * j) % 2 + (i * j) % 3,
                6 => ((i * j) % 2 + (i * j) % 3) % 2,
                _ => ((i + j) % 2 + (i * j) % 3) % 2,
            };
            let places = (0..6).flat_map(|i| (0..6).map(move |j| (i, j)));
            let wanted: Vec<u8> = places.map(|(i, j)| u8::from(formula(i, j) == 0)).collect();
            assert_eq!(grid(mask), wanted, "{mask}");
        }
    }

    #[test]
    fn the_drawing_is_the_code() {
        let qr = Qr::encode(b"tg://proxy?server=192.0.2.1").unwrap();
        let drawing = qr.draw();
        let mut rows = Vec::new();
        for line in drawing.lines() {
            let line = line.strip_prefix("\x1b[38;5;16;48;5;231m").unwrap();
            let line = line.strip_suffix("\x1b[0m").unwrap();
            rows.push(line.chars().map(|c| "█▀".contains(c)).collect::<Vec<_>>());
            rows.push(line.chars().map(|c| "█▄".contains(c)).collect::<Vec<_>>());
        }
        // An odd number of modules: the last half line is light.
        assert_eq!(rows.len(), qr.size() + 2 * QUIET + 1);
        for (y, row) in rows.iter().enumerate() {
            assert_eq!(row.len(), qr.size() + 2 * QUIET);
            for (x, dark) in row.iter().enumerate() {
                let inside = x >= QUIET && y >= QUIET;
                assert_eq!(*dark, inside && qr.is_dark(x - QUIET, y - QUIET));
            }
        }
    }
}
