//! CRC-32 of middle proxy frames, able to pass over bytes whose effect was computed before.
//!
//! The register after a run of bytes is the register before it, moved over that many zero bytes,
//! XOR what the bytes do to an empty register. Both parts depend on the run only.

/// A checksum under way.
#[derive(Clone, Copy)]
pub struct Crc(u32);

impl Crc {
    pub fn new() -> Crc {
        Crc(!0)
    }

    pub fn update(&mut self, bytes: &[u8]) {
        self.0 = register(self.0, bytes);
    }

    pub fn pass(&mut self, run: &Run) {
        self.0 = multiply(&run.matrix, self.0) ^ run.effect;
    }

    pub fn finish(self) -> u32 {
        !self.0
    }

    pub fn of(bytes: &[u8]) -> u32 {
        !register(!0, bytes)
    }
}

/// What a fixed run of bytes does to any checksum.
pub struct Run {
    matrix: [u32; 32],
    effect: u32,
}

impl Run {
    pub fn new(bytes: &[u8]) -> Run {
        Run {
            matrix: power(bytes.len()),
            effect: register(0, bytes),
        }
    }
}

fn register(start: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(start, |register, byte| {
        (register >> 8) ^ TABLE[((register ^ u32::from(*byte)) & 0xff) as usize]
    })
}

/// Column i of a matrix is what becomes of bit i of the register.
fn multiply(matrix: &[u32; 32], vector: u32) -> u32 {
    let columns = matrix.iter().enumerate();
    columns.fold(0, |sum, (bit, column)| {
        if vector >> bit & 1 == 1 {
            sum ^ column
        } else {
            sum
        }
    })
}

/// The matrix that moves a register over `count` zero bytes.
fn power(mut count: usize) -> [u32; 32] {
    let mut result: [u32; 32] = std::array::from_fn(|bit| 1 << bit);
    let mut step: [u32; 32] = std::array::from_fn(|bit| register(1 << bit, &[0]));
    while count > 0 {
        if count & 1 == 1 {
            result = result.map(|column| multiply(&step, column));
        }
        step = step.map(|column| multiply(&step, column));
        count >>= 1;
    }
    result
}

const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut value = index as u32;
        let mut bit = 0;
        while bit < 8 {
            value = (value >> 1) ^ (0xedb8_8320 * (value & 1));
            bit += 1;
        }
        table[index] = value;
        index += 1;
    }
    table
};
