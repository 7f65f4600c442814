//! The two checksums of middle-proxy frames (protocol.md 6.1): CRC-32 (zlib's) and CRC-32C, both
//! reflected, initial value and final xor all ones.
//!
//! The table form works everywhere, and the tests compare the others with it. On x86-64 and aarch64
//! the processor's own instructions are used: by `#[target_feature]` functions, which only the daemon's
//! `base::sys` calls, after it has asked the processor. By table the checksum would cost more than
//! anything else on the way from a middle proxy to a client (0.5 s per GB instead of 0.02 to 0.07).

/// Both functions in the form that fits the machine. Each takes all bytes of a frame but the checksum.
#[derive(Clone, Copy)]
pub struct Checksums {
    /// CRC-32, polynomial edb88320.
    pub crc32: fn(&[u8]) -> u32,
    /// CRC-32C, polynomial 82f63b78.
    pub crc32c: fn(&[u8]) -> u32,
}

/// The form that works on every machine.
pub const PORTABLE: Checksums = Checksums {
    crc32: crc32_table,
    crc32c: crc32c_table,
};

const CRC32: u32 = 0xedb8_8320;
const CRC32C: u32 = 0x82f6_3b78;

fn crc32_table(data: &[u8]) -> u32 {
    !update(&CRC32_TABLES, !0, data)
}

fn crc32c_table(data: &[u8]) -> u32 {
    !update(&CRC32C_TABLES, !0, data)
}

/// `TABLES[k][b]` is the effect of byte b when k more bytes follow it in the same step.
type Tables = [[u32; 256]; STEP];

/// Bytes that are taken at once. Tables for 16 would make the binary 16 KB larger and fill a router's
/// first-level cache.
const STEP: usize = 8;

static CRC32_TABLES: Tables = tables(CRC32);
static CRC32C_TABLES: Tables = tables(CRC32C);

#[allow(clippy::indexing_slicing, clippy::arithmetic_side_effects)] // evaluated by the compiler
const fn tables(polynomial: u32) -> Tables {
    let mut t = [[0; 256]; STEP];
    let mut b = 0;
    while b < 256 {
        let mut crc = b as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = times_x(crc, polynomial);
            bit += 1;
        }
        t[0][b] = crc;
        b += 1;
    }
    let mut k = 1;
    while k < STEP {
        let mut b = 0;
        while b < 256 {
            let previous = t[k - 1][b];
            t[k][b] = (previous >> 8) ^ t[0][(previous & 0xff) as usize];
            b += 1;
        }
        k += 1;
    }
    t
}

/// Multiplies by x modulo the polynomial; in reflected form the highest power is the lowest bit.
const fn times_x(value: u32, polynomial: u32) -> u32 {
    (value >> 1) ^ if value & 1 == 1 { polynomial } else { 0 }
}

/// The register after `data`.
fn update(tables: &Tables, mut crc: u32, data: &[u8]) -> u32 {
    let (steps, tail) = data.as_chunks::<STEP>();
    for step in steps {
        let mixed = (u64::from_le_bytes(*step) ^ u64::from(crc)).to_le_bytes();
        crc = tables
            .iter()
            .rev()
            .zip(mixed)
            .fold(0, |acc, (table, byte)| acc ^ at(table, byte));
    }
    tail.iter().fold(crc, |crc, byte| {
        (crc >> 8) ^ tables.first().map_or(0, |t| at(t, crc as u8 ^ byte))
    })
}

#[allow(clippy::indexing_slicing)] // 256 entries and a byte
fn at(table: &[u32; 256], byte: u8) -> u32 {
    table[usize::from(byte)]
}

/// By carry-less multiplication (x86-64): four lanes of 16 or of 64 bytes are folded over so many times
/// four bytes at a time; what is left goes through the table.
#[cfg(target_arch = "x86_64")]
#[allow(clippy::missing_safety_doc)] // clippy takes safe functions with a target feature for unsafe ones
pub mod clmul {
    use crate::crypto::crc32::{
        CRC32, CRC32_TABLES, CRC32C, CRC32C_TABLES, Tables, times_x, update,
    };
    use core::arch::x86_64::{
        __m128i, __m512i, _mm_clmulepi64_si128, _mm_cvtsi128_si64, _mm_set_epi64x,
        _mm_unpackhi_epi64, _mm_xor_si128, _mm512_broadcast_i32x4, _mm512_castsi128_si512,
        _mm512_clmulepi64_epi128, _mm512_extracti32x4_epi32, _mm512_set_epi64,
        _mm512_setzero_si512, _mm512_ternarylogic_epi64, _mm512_xor_si512,
    };

    /// CRC-32; needs a processor with carry-less multiplication.
    #[target_feature(enable = "sse2,pclmulqdq")]
    pub fn crc32(data: &[u8]) -> u32 {
        run(&CRC32_FOLDS, &CRC32_TABLES, data)
    }

    /// CRC-32C; as [`crc32`].
    #[target_feature(enable = "sse2,pclmulqdq")]
    pub fn crc32c(data: &[u8]) -> u32 {
        run(&CRC32C_FOLDS, &CRC32C_TABLES, data)
    }

    /// As [`crc32`], four times as wide; needs AVX-512 and its form of the multiplication, too.
    #[target_feature(enable = "sse2,pclmulqdq,avx512f,vpclmulqdq")]
    pub fn crc32_wide(data: &[u8]) -> u32 {
        run_wide(&CRC32_FOLDS, &CRC32_TABLES, data)
    }

    /// CRC-32C; as [`crc32_wide`].
    #[target_feature(enable = "sse2,pclmulqdq,avx512f,vpclmulqdq")]
    pub fn crc32c_wide(data: &[u8]) -> u32 {
        run_wide(&CRC32C_FOLDS, &CRC32C_TABLES, data)
    }

    /// Factors that move a lane's halves on: by 256 bytes, by 64, by 16.
    pub(super) struct Folds {
        by_256: [u64; 2],
        pub(super) by_64: [u64; 2],
        pub(super) by_16: [u64; 2],
    }

    pub(super) const CRC32_FOLDS: Folds = folds(CRC32);
    const CRC32C_FOLDS: Folds = folds(CRC32C);

    const fn folds(polynomial: u32) -> Folds {
        Folds {
            by_256: [power(polynomial, 2048 + 32), power(polynomial, 2048 - 32)],
            by_64: [power(polynomial, 512 + 32), power(polynomial, 512 - 32)],
            by_16: [power(polynomial, 128 + 32), power(polynomial, 128 - 32)],
        }
    }

    /// x to the n modulo the polynomial, reflected, one bit up for the product of reflected halves.
    #[allow(clippy::arithmetic_side_effects)] // evaluated by the compiler
    const fn power(polynomial: u32, n: u32) -> u64 {
        let mut value = 1 << 31;
        let mut i = 0;
        while i < n {
            value = times_x(value, polynomial);
            i += 1;
        }
        (value as u64) << 1
    }

    #[inline]
    #[target_feature(enable = "sse2,pclmulqdq")]
    fn run(folds: &Folds, tables: &Tables, data: &[u8]) -> u32 {
        let (blocks, tail) = data.as_chunks::<64>();
        let Some((first, blocks)) = blocks.split_first() else {
            return !update(tables, !0, data);
        };
        let mut lanes = load(first);
        lanes[0] = _mm_xor_si128(lanes[0], _mm_set_epi64x(0, 0xffff_ffff));
        finish(folds, tables, lanes, (blocks, tail))
    }

    #[inline]
    #[target_feature(enable = "sse2,pclmulqdq,avx512f,vpclmulqdq")]
    fn run_wide(folds: &Folds, tables: &Tables, data: &[u8]) -> u32 {
        let (blocks, tail) = data.as_chunks::<256>();
        let Some((first, blocks)) = blocks.split_first() else {
            return run(folds, tables, data);
        };
        let mut lanes = load_wide(first);
        let start = _mm512_castsi128_si512(_mm_set_epi64x(0, 0xffff_ffff));
        lanes[0] = _mm512_xor_si512(lanes[0], start);
        let by_256 = _mm512_broadcast_i32x4(pair(folds.by_256));
        for block in blocks {
            let next = load_wide(block);
            for (lane, data) in lanes.iter_mut().zip(next) {
                *lane = fold_wide(*lane, by_256, data);
            }
        }
        let by_64 = _mm512_broadcast_i32x4(pair(folds.by_64));
        let [a, b, c, d] = lanes;
        let last = fold_wide(fold_wide(fold_wide(a, by_64, b), by_64, c), by_64, d);
        let lanes = [
            _mm512_extracti32x4_epi32::<0>(last),
            _mm512_extracti32x4_epi32::<1>(last),
            _mm512_extracti32x4_epi32::<2>(last),
            _mm512_extracti32x4_epi32::<3>(last),
        ];
        finish(folds, tables, lanes, tail.as_chunks())
    }

    /// From four lanes on: over further blocks of 64 bytes and a tail to the end.
    #[inline]
    #[target_feature(enable = "sse2,pclmulqdq")]
    fn finish(
        folds: &Folds,
        tables: &Tables,
        mut lanes: [__m128i; 4],
        (blocks, tail): (&[[u8; 64]], &[u8]),
    ) -> u32 {
        let by_64 = pair(folds.by_64);
        for block in blocks {
            let next = load(block);
            for (lane, data) in lanes.iter_mut().zip(next) {
                *lane = fold(*lane, by_64, data);
            }
        }
        let by_16 = pair(folds.by_16);
        let [a, b, c, d] = lanes;
        let mut last = fold(fold(fold(a, by_16, b), by_16, c), by_16, d);
        let (chunks, tail) = tail.as_chunks::<16>();
        for chunk in chunks {
            last = fold(last, by_16, lane(chunk));
        }
        let low = _mm_cvtsi128_si64(last) as u64;
        let high = _mm_cvtsi128_si64(_mm_unpackhi_epi64(last, last)) as u64;
        let crc = update(
            tables,
            0,
            &(u128::from(high) << 64 | u128::from(low)).to_le_bytes(),
        );
        !update(tables, crc, tail)
    }

    #[inline]
    #[target_feature(enable = "sse2,pclmulqdq")]
    fn fold(lane: __m128i, by: __m128i, next: __m128i) -> __m128i {
        let low = _mm_clmulepi64_si128(lane, by, 0x00);
        let high = _mm_clmulepi64_si128(lane, by, 0x11);
        _mm_xor_si128(_mm_xor_si128(low, high), next)
    }

    #[inline]
    #[target_feature(enable = "avx512f,vpclmulqdq")]
    fn fold_wide(lane: __m512i, by: __m512i, next: __m512i) -> __m512i {
        let low = _mm512_clmulepi64_epi128::<0x00>(lane, by);
        let high = _mm512_clmulepi64_epi128::<0x11>(lane, by);
        _mm512_ternarylogic_epi64::<0x96>(low, high, next) // the xor of all three
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn load_wide(block: &[u8; 256]) -> [__m512i; 4] {
        let mut lanes = [_mm512_setzero_si512(); 4];
        for (out, chunk) in lanes.iter_mut().zip(block.as_chunks::<64>().0) {
            let mut words = [0; 8];
            for (word, bytes) in words.iter_mut().zip(chunk.as_chunks().0) {
                *word = i64::from_le_bytes(*bytes);
            }
            let [a, b, c, d, e, f, g, h] = words;
            *out = _mm512_set_epi64(h, g, f, e, d, c, b, a);
        }
        lanes
    }

    #[inline]
    #[target_feature(enable = "sse2")]
    fn load(block: &[u8; 64]) -> [__m128i; 4] {
        let mut lanes = [_mm_set_epi64x(0, 0); 4];
        for (out, chunk) in lanes.iter_mut().zip(block.as_chunks::<16>().0) {
            *out = lane(chunk);
        }
        lanes
    }

    #[inline]
    #[target_feature(enable = "sse2")]
    fn lane(chunk: &[u8; 16]) -> __m128i {
        let value = u128::from_le_bytes(*chunk);
        _mm_set_epi64x((value >> 64) as i64, value as i64)
    }

    #[inline]
    #[target_feature(enable = "sse2")]
    fn pair([low, high]: [u64; 2]) -> __m128i {
        _mm_set_epi64x(high as i64, low as i64)
    }
}

/// The checksum instructions of aarch64: 8 bytes each.
#[cfg(target_arch = "aarch64")]
#[allow(clippy::missing_safety_doc)] // as above
pub mod instructions {
    use core::arch::aarch64::{__crc32b, __crc32cb, __crc32cd, __crc32d};

    /// CRC-32; needs a processor with the checksum instructions.
    #[target_feature(enable = "crc")]
    pub fn crc32(data: &[u8]) -> u32 {
        let (steps, tail) = data.as_chunks::<8>();
        let mut crc = !0;
        for step in steps {
            crc = __crc32d(crc, u64::from_le_bytes(*step));
        }
        for byte in tail {
            crc = __crc32b(crc, *byte);
        }
        !crc
    }

    /// CRC-32C; as [`crc32`].
    #[target_feature(enable = "crc")]
    pub fn crc32c(data: &[u8]) -> u32 {
        let (steps, tail) = data.as_chunks::<8>();
        let mut crc = !0;
        for step in steps {
            crc = __crc32cd(crc, u64::from_le_bytes(*step));
        }
        for byte in tail {
            crc = __crc32cb(crc, *byte);
        }
        !crc
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vectors::Vectors;
    use alloc::vec::Vec;

    #[test]
    fn vectors() {
        let v = Vectors::load("primitives");
        for i in 0..v.number("crc.count") {
            let data = v.bytes(&std::format!("crc.{i}.data"));
            let wanted =
                |name| u32::from_str_radix(v.text(&std::format!("crc.{i}.{name}")), 16).unwrap();
            assert_eq!((PORTABLE.crc32)(&data), wanted("crc32"));
            assert_eq!((PORTABLE.crc32c)(&data), wanted("crc32c"));
        }
        assert_eq!((PORTABLE.crc32)(b"123456789"), 0xcbf4_3926);
        assert_eq!((PORTABLE.crc32c)(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn steps_equal_byte_by_byte() {
        let data: Vec<u8> = (0..300u32).map(|i| (i * 37) as u8).collect();
        let (mut crc32, mut crc32c) = (!0, !0);
        for (len, byte) in data.iter().enumerate() {
            let part = &data[..len];
            assert_eq!((PORTABLE.crc32)(part), !crc32, "{len} bytes");
            assert_eq!((PORTABLE.crc32c)(part), !crc32c, "{len} bytes");
            crc32 = update(&CRC32_TABLES, crc32, &[*byte]);
            crc32c = update(&CRC32C_TABLES, crc32c, &[*byte]);
        }
    }

    /// The factors that the method's paper gives for CRC-32. That the forms with instructions agree with
    /// the tables is tested where the processor is asked, in `base::sys`.
    #[cfg(target_arch = "x86_64")]
    #[test]
    fn fold_factors_are_the_published_ones() {
        let folds = clmul::CRC32_FOLDS;
        assert_eq!(folds.by_64, [0x1_5444_2bd4, 0x1_c6e4_1596]);
        assert_eq!(folds.by_16, [0x1_7519_97d0, 0x0_ccaa_009e]);
    }
}
