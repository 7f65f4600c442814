//! From a text to the codewords of a QR code: the choice of its size, the data, and Reed-Solomon's
//! correction codewords (ISO 18004). Called by `qr` alone.

use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;

/// What a version holds at level L, which lets 7 % of a code be hidden.
pub struct Symbol {
    /// 1 to 15.
    pub version: usize,
    /// Where alignment patterns have their middle, on both axes.
    pub alignment: &'static [usize],
    /// Codewords of both kinds.
    total: usize,
    /// Correction codewords of a block.
    each: usize,
    blocks: usize,
}

impl Symbol {
    /// The smallest version that holds so many bytes.
    pub fn choose(length: usize) -> Option<Symbol> {
        symbols().find(|symbol| length <= symbol.most_text())
    }

    /// Modules along each side.
    pub fn size(&self) -> usize {
        self.version.saturating_mul(4).saturating_add(17)
    }

    /// Data codewords.
    fn data(&self) -> usize {
        self.total
            .saturating_sub(self.each.saturating_mul(self.blocks))
    }

    /// Most bytes of text: half a byte names the mode, and half a one ends the text.
    fn most_text(&self) -> usize {
        let overhead = if self.has_long_length() { 3 } else { 2 };
        self.data().saturating_sub(overhead)
    }

    /// Whether the length of the text has two bytes.
    fn has_long_length(&self) -> bool {
        self.version >= 10
    }
}

/// Every symbol there is, from small to large.
fn symbols() -> impl Iterator<Item = Symbol> {
    (1..).zip(VERSIONS).map(|(version, row)| {
        let (total, each, blocks, alignment) = *row;
        Symbol {
            version,
            alignment,
            total,
            each,
            blocks,
        }
    })
}

/// All codewords of a text that fits, in the order in which the code holds them.
pub fn codewords(text: &[u8], symbol: &Symbol) -> Vec<u8> {
    interleave(&data_codewords(text, symbol), symbol)
}

/// Mode, length, text and end, then the two padding codewords in turn.
fn data_codewords(text: &[u8], symbol: &Symbol) -> Vec<u8> {
    let [.., high, low] = text.len().to_be_bytes();
    let length = if symbol.has_long_length() {
        vec![high, low]
    } else {
        vec![low]
    };
    let halves = |byte: &u8| [byte >> 4, byte & 0x0f];
    let mut nibbles = vec![BYTE_MODE];
    nibbles.extend(length.iter().flat_map(halves));
    nibbles.extend(text.iter().flat_map(halves));
    nibbles.push(0);
    let pairs = nibbles.chunks_exact(2);
    let codewords = pairs.map(|pair| pair.iter().fold(0, |byte, half| (byte << 4) | half));
    let padding = [0xec, 0x11].into_iter().cycle();
    codewords.chain(padding).take(symbol.data()).collect()
}

/// Splits into blocks, the shorter ones first, and takes from all of them in turn: first the data,
/// then the correction codewords.
fn interleave(data: &[u8], symbol: &Symbol) -> Vec<u8> {
    let Symbol { blocks, each, .. } = *symbol;
    let short = data.len().checked_div(blocks).unwrap_or(0);
    let longer = data.len().checked_rem(blocks).unwrap_or(0);
    let first_longer = blocks.saturating_sub(longer);
    let generator = generator(each);
    let mut rest = data;
    let mut parts = Vec::new();
    let mut corrections = Vec::new();
    for number in 0..blocks {
        let length = short.saturating_add(usize::from(number >= first_longer));
        let (block, after) = rest.split_at_checked(length).unwrap_or((rest, &[]));
        corrections.push(remainder(block, &generator));
        parts.push(block.to_vec());
        rest = after;
    }
    let mut codewords = in_turn(&parts);
    codewords.extend(in_turn(&corrections));
    codewords
}

fn in_turn(blocks: &[Vec<u8>]) -> Vec<u8> {
    let longest = blocks.iter().map(Vec::len).max().unwrap_or(0);
    let row = |i: usize| blocks.iter().filter_map(move |block| block.get(i));
    (0..longest).flat_map(row).copied().collect()
}

/// Product in the field of 256 elements with the polynomial 0x11d.
fn multiply(a: u8, b: u8) -> u8 {
    BITS.iter().fold(0, |product: u8, bit| {
        let carry = if product & 0x80 != 0 { 0x1d } else { 0 };
        let term = if b & bit != 0 { a } else { 0 };
        (product << 1) ^ carry ^ term
    })
}

/// Coefficients of (x - 1)(x - 2)(x - 4)..., highest power first, its leading 1 left out.
fn generator(degree: usize) -> Vec<u8> {
    let mut terms = vec![0; degree];
    if let Some(last) = terms.last_mut() {
        *last = 1;
    }
    let mut root = 1;
    for _ in 0..degree {
        let lower: Vec<u8> = terms.iter().skip(1).chain(&[0]).copied().collect();
        for (term, lower) in terms.iter_mut().zip(lower) {
            *term = multiply(*term, root) ^ lower;
        }
        root = multiply(root, 2);
    }
    terms
}

/// The correction codewords of a block: the remainder of its division by the generator.
fn remainder(block: &[u8], generator: &[u8]) -> Vec<u8> {
    let mut rest: VecDeque<u8> = generator.iter().map(|_| 0).collect();
    for byte in block {
        let factor = byte ^ rest.pop_front().unwrap_or(0);
        rest.push_back(0);
        for (term, g) in rest.iter_mut().zip(generator) {
            *term ^= multiply(*g, factor);
        }
    }
    rest.into()
}

/// Text follows as bytes.
const BYTE_MODE: u8 = 0b0100;
/// The bits of a byte, highest first.
pub const BITS: [u8; 8] = [0x80, 0x40, 0x20, 0x10, 0x08, 0x04, 0x02, 0x01];
/// A row of [`VERSIONS`]: codewords of both kinds, correction codewords of a block, blocks, and where
/// alignment patterns have their middle.
type Version = (usize, usize, usize, &'static [usize]);

/// Versions 1 to 15 (ISO 18004, tables 1, 9 and E.1).
const VERSIONS: &[Version] = &[
    (26, 7, 1, &[]),
    (44, 10, 1, &[6, 18]),
    (70, 15, 1, &[6, 22]),
    (100, 20, 1, &[6, 26]),
    (134, 26, 1, &[6, 30]),
    (172, 18, 2, &[6, 34]),
    (196, 20, 2, &[6, 22, 38]),
    (242, 24, 2, &[6, 24, 42]),
    (292, 30, 2, &[6, 26, 46]),
    (346, 18, 4, &[6, 28, 50]),
    (404, 20, 4, &[6, 30, 54]),
    (466, 24, 4, &[6, 32, 58]),
    (532, 26, 4, &[6, 34, 62]),
    (581, 30, 4, &[6, 26, 46, 66]),
    (655, 22, 6, &[6, 26, 48, 70]),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of ISO 18004: version 1, level M, "01234567".
    #[test]
    fn reed_solomon_example_of_the_standard() {
        let data = [
            0x10, 0x20, 0x0c, 0x56, 0x61, 0x80, 0xec, 0x11, 0xec, 0x11, 0xec, 0x11, 0xec, 0x11,
            0xec, 0x11,
        ];
        let wanted = [0xa5, 0x24, 0xd4, 0xc1, 0xed, 0x36, 0xc7, 0x87, 0x2c, 0x55];
        assert_eq!(remainder(&data, &generator(10)), wanted);
    }

    #[test]
    fn the_field() {
        assert_eq!(multiply(0x80, 2), 0x1d);
        let mut power = 1;
        for exponent in 1..=255 {
            power = multiply(power, 2);
            assert_eq!(power == 1, exponent == 255);
            assert_eq!((multiply(power, 1), multiply(power, 0)), (power, 0));
        }
        // Table A.1: powers of 2 in the generator of degree 7.
        assert_eq!(generator(7), [127, 122, 154, 164, 11, 68, 117]);
    }

    /// ISO 18004, table 7, level L, column "Byte".
    #[test]
    fn capacities() {
        let wanted = [
            17, 32, 53, 78, 106, 134, 154, 192, 230, 271, 321, 367, 425, 458, 520,
        ];
        assert!(symbols().map(|symbol| symbol.most_text()).eq(wanted));
        for (length, version) in [(0, 1), (17, 1), (18, 2), (106, 5), (107, 6), (520, 15)] {
            assert_eq!(Symbol::choose(length).unwrap().version, version);
        }
        assert!(Symbol::choose(521).is_none());
    }

    #[test]
    fn data_is_padded_to_the_capacity() {
        let symbol = Symbol::choose(3).unwrap();
        let wanted = [
            0x40, 0x36, 0x16, 0x26, 0x30, 0xec, 0x11, 0xec, 0x11, 0xec, 0x11, 0xec, 0x11, 0xec,
            0x11, 0xec, 0x11, 0xec, 0x11,
        ];
        assert_eq!(data_codewords(b"abc", &symbol), wanted);
        let full = data_codewords(&[b'x'; 17], &symbol);
        assert_eq!((full.len(), full[18]), (19, 0x80));
        let long = data_codewords(&[0xff; 300], &Symbol::choose(300).unwrap());
        assert_eq!(long[..3], [0x40, 0x12, 0xcf]);
    }

    #[test]
    fn blocks_are_interleaved() {
        // Version 15, level L: five blocks of 87 and one of 88.
        let symbol = Symbol::choose(520).unwrap();
        let data: Vec<u8> = (0..523).map(|i| (i / 87) as u8).collect();
        let all = interleave(&data, &symbol);
        assert_eq!(all.len(), 655);
        assert_eq!(all[..12], [0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5]);
        assert_eq!(all[522], 6);
        let first: Vec<u8> = all[523..].iter().step_by(6).copied().collect();
        assert_eq!(first, remainder(&[0; 87], &generator(22)));
    }
}
