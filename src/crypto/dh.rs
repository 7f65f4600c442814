//! Diffie-Hellman with a middle proxy, in Telegram's group for these connections (protocol.md 6.7):
//! generator 3, a prime of 2048 bits. Called by `dial` with --force-dh.
//!
//! The peer's public value may be anybody's bytes; its range is checked, all else that follows from a wrong
//! one is a key that nobody else has. Time and memory accesses don't depend on the exponent: every window of
//! four bits costs four squarings and one product with a power that is picked by reading all sixteen, and
//! reductions subtract the prime or zero. What holds secrets is overwritten.

use alloc::vec::Vec;
use core::hint::black_box;

use crate::crypto::wipe::wipe;

/// Bytes of the prime, of public values and of exponents.
pub const LEN: usize = 256;
/// Names the group in the nonce packet: the first four bytes of a SHA-1 over generator and prime, as a number.
pub const GROUP: u32 = 0x0062_0b93;

/// What both sides compute. Overwritten when dropped.
pub struct Shared(pub [u8; LEN]);

impl Drop for Shared {
    fn drop(&mut self) {
        wipe(&mut self.0);
    }
}

/// Our random exponent. Overwritten when dropped.
pub struct Exponent([u8; LEN]);

impl Drop for Exponent {
    fn drop(&mut self) {
        wipe(&mut self.0);
    }
}

impl Exponent {
    /// Of random bytes.
    pub fn new(random: [u8; LEN]) -> Exponent {
        Exponent(random)
    }

    /// The value for the peer.
    pub fn public(&self) -> [u8; LEN] {
        let mut base = ZERO;
        base[0] = GENERATOR;
        power(&base, &self.0)
    }

    /// What both sides know then; None if the peer's value is not acceptable.
    pub fn shared(&self, theirs: &[u8; LEN]) -> Option<Shared> {
        let head = |bytes: &[u8; LEN]| bytes.first_chunk().map(|head| u64::from_be_bytes(*head));
        let is_good = (1..head(&PRIME)?).contains(&head(theirs)?);
        is_good.then(|| Shared(power(&number(theirs), &self.0)))
    }
}

// A 32-bit machine's compiler makes long detours for products of 64-bit numbers.
#[cfg(not(target_pointer_width = "64"))]
type Limb = u32;
#[cfg(not(target_pointer_width = "64"))]
type Wide = u64;
#[cfg(target_pointer_width = "64")]
type Limb = u64;
#[cfg(target_pointer_width = "64")]
type Wide = u128;

const WORD: usize = size_of::<Limb>();
/// The lowest limb first.
type Number = [Limb; LEN / WORD];

const ZERO: Number = [0; LEN / WORD];
const GENERATOR: Limb = 3;
const WINDOW_BITS: usize = 4;

#[inline(never)] // small, not fast, as those below
fn number(bytes: &[u8; LEN]) -> Number {
    let mut number = ZERO;
    let (words, _) = bytes.as_chunks::<WORD>();
    for (limb, word) in number.iter_mut().zip(words.iter().rev()) {
        *limb = Limb::from_be_bytes(*word);
    }
    number
}

/// `base` to the power of an exponent, modulo the prime.
fn power(base: &Number, exponent: &[u8; LEN]) -> [u8; LEN] {
    // In Montgomery's form every number is multiplied by 2^2048, of which a product takes one away.
    let one = less_prime(&ZERO, 1);
    let mut base = *base;
    for _ in 0..LEN * 8 {
        base = doubled(&base);
    }
    let mut powers = Vec::with_capacity(1 << WINDOW_BITS);
    let mut next = one;
    for _ in 0..1 << WINDOW_BITS {
        powers.push(next);
        next = product(&next, &base);
    }
    let mut result = one;
    for window in exponent.iter().flat_map(|byte| [byte >> 4, byte & 0xf]) {
        for _ in 0..WINDOW_BITS {
            result = product(&result, &result);
        }
        result = product(&result, &picked(&powers, window));
    }
    let mut plain = ZERO;
    plain[0] = 1;
    result = product(&result, &plain);
    let mut bytes = [0; LEN];
    let (words, _) = bytes.as_chunks_mut::<WORD>();
    for (word, limb) in words.iter_mut().rev().zip(&result) {
        *word = limb.to_be_bytes();
    }
    for number in powers.iter_mut().chain([&mut result]) {
        number.fill(0);
        black_box(number);
    }
    bytes
}

/// The power with this number; all are read.
#[inline(never)]
fn picked(powers: &[Number], wanted: u8) -> Number {
    let mut out = ZERO;
    for (power, index) in powers.iter().zip(0_u8..) {
        let is_it = ones_if_zero(Limb::from(index ^ wanted));
        for (out, limb) in out.iter_mut().zip(power) {
            *out |= limb & is_it;
        }
    }
    out
}

/// a·b / 2^2048, modulo the prime.
#[inline(never)]
fn product(a: &Number, b: &Number) -> Number {
    let prime = number(&PRIME);
    let (mut sum, mut top) = (ZERO, 0);
    for a in a {
        // Added are a limb's product, and that multiple of the prime which makes the lowest limb zero. Then
        // the sum moves down by a limb.
        let (lowest, _) = multiplied(sum[0], *a, b[0], 0);
        let factor = lowest.wrapping_mul(negative_inverse(prime[0]));
        let (mut carry, mut prime_carry) = (0, 0);
        let mut zero = 0;
        let mut below = &mut zero;
        for ((limb, b), prime) in sum.iter_mut().zip(b).zip(&prime) {
            let step;
            (step, carry) = multiplied(*limb, *a, *b, carry);
            (*below, prime_carry) = multiplied(step, factor, *prime, prime_carry);
            below = limb;
        }
        let (step, over) = carry.overflowing_add(prime_carry);
        let (step, over_again) = step.overflowing_add(top);
        *below = step;
        // The sum stays below twice the prime.
        top = Limb::from(over | over_again);
    }
    less_prime(&sum, top)
}

/// Twice a number, modulo the prime.
#[inline(never)]
fn doubled(number: &Number) -> Number {
    let (mut out, mut carry) = (ZERO, 0);
    for (out, limb) in out.iter_mut().zip(number) {
        (*out, carry) = multiplied(0, *limb, 2, carry);
    }
    less_prime(&out, carry)
}

/// A number with a bit more on top, less the prime unless it is smaller.
#[inline(never)]
fn less_prime(number: &Number, top: Limb) -> Number {
    let (mut out, mut borrow) = (*number, false);
    for (limb, prime) in out.iter_mut().zip(&self::number(&PRIME)) {
        let (step, under) = limb.overflowing_sub(*prime);
        let (step, under_again) = step.overflowing_sub(Limb::from(borrow));
        *limb = step;
        borrow = under | under_again;
    }
    let is_smaller = ones_if_zero(top | Limb::from(!borrow));
    for (out, limb) in out.iter_mut().zip(number) {
        *out ^= (*out ^ limb) & is_smaller;
    }
    out
}

/// a·b and two more, as lower and upper half.
fn multiplied(more: Limb, a: Limb, b: Limb, carry: Limb) -> (Limb, Limb) {
    let product = Wide::from(a).wrapping_mul(Wide::from(b));
    let sum = product
        .wrapping_add(Wide::from(more))
        .wrapping_add(Wide::from(carry));
    (sum as Limb, (sum >> Limb::BITS) as Limb)
}

/// All ones for zero, zero for another small number.
fn ones_if_zero(value: Limb) -> Limb {
    // The box keeps the compiler from making a branch of it.
    black_box(value.wrapping_sub(1) >> (Limb::BITS - 1)).wrapping_neg()
}

/// -1 / `odd`, modulo 2 to the power of a limb's bits: each step makes twice as many of them right.
const fn negative_inverse(odd: Limb) -> Limb {
    let mut inverse: Limb = 1;
    let mut right = 1;
    while right < Limb::BITS {
        inverse = inverse.wrapping_mul((2 as Limb).wrapping_sub(odd.wrapping_mul(inverse)));
        right <<= 1;
    }
    inverse.wrapping_neg()
}

/// The highest byte first.
const PRIME: [u8; LEN] = [
    0x89, 0x52, 0x13, 0x1b, 0x1e, 0x3a, 0x69, 0xba, 0x5f, 0x85, 0xcf, 0x8b, 0xd2, 0x66, 0xc1, 0x2b,
    0x13, 0x83, 0x16, 0x13, 0xbd, 0x2a, 0x4e, 0xf8, 0x35, 0xa4, 0xd5, 0x3f, 0x9d, 0xbb, 0x42, 0x48,
    0x2d, 0xbd, 0x46, 0x2b, 0x31, 0xd8, 0x6c, 0x81, 0x6c, 0x59, 0x77, 0x52, 0x0f, 0x11, 0x70, 0x73,
    0x9e, 0xd2, 0xdd, 0xd6, 0xd8, 0x1b, 0x9e, 0xb6, 0x5f, 0xaa, 0xac, 0x14, 0x87, 0x53, 0xc9, 0xe4,
    0xf0, 0x72, 0xdc, 0x11, 0xa4, 0x92, 0x73, 0x06, 0x83, 0xfa, 0x00, 0x67, 0x82, 0x6b, 0x18, 0xc5,
    0x1d, 0x7e, 0xcb, 0xa5, 0x2b, 0x82, 0x60, 0x75, 0xc0, 0xb9, 0x55, 0xe5, 0xac, 0xaf, 0xdd, 0x74,
    0xc3, 0x79, 0x5f, 0xd9, 0x52, 0x0b, 0x48, 0x0f, 0x3b, 0xe3, 0xba, 0x06, 0x65, 0x33, 0x8a, 0x49,
    0x8c, 0xa5, 0xda, 0xf1, 0x01, 0x76, 0x05, 0x09, 0xa3, 0x8c, 0x49, 0xe3, 0x00, 0x74, 0x64, 0x08,
    0x77, 0x4b, 0xb3, 0xed, 0x26, 0x18, 0x1a, 0x64, 0x55, 0x76, 0x6a, 0xe9, 0x49, 0x7b, 0xb9, 0xc3,
    0xa3, 0xad, 0x5c, 0xba, 0xf7, 0x6b, 0x73, 0x84, 0x5f, 0xbb, 0x96, 0xbb, 0x6d, 0x0f, 0x68, 0x4f,
    0x95, 0xd2, 0xd3, 0x9c, 0xcb, 0xb4, 0xa9, 0x04, 0xfa, 0xb1, 0xde, 0x43, 0x49, 0xce, 0x1c, 0x20,
    0x87, 0xb6, 0xc9, 0x51, 0xed, 0x99, 0xf9, 0x52, 0xe3, 0x4f, 0xd1, 0xa3, 0xfd, 0x14, 0x83, 0x35,
    0x75, 0x41, 0x47, 0x29, 0xa3, 0x8b, 0xe8, 0x68, 0xa4, 0xf9, 0xec, 0x62, 0x3a, 0x5d, 0x24, 0x62,
    0x1a, 0xba, 0x01, 0xb2, 0x55, 0xc7, 0xe8, 0x38, 0x5d, 0x16, 0xac, 0x93, 0xb0, 0x2d, 0x2a, 0x54,
    0x0a, 0x76, 0x42, 0x98, 0x2d, 0x22, 0xad, 0xa3, 0xcc, 0xde, 0x5c, 0x8d, 0x26, 0x6f, 0xaa, 0x25,
    0xdd, 0x2d, 0xe9, 0xf6, 0xd4, 0x91, 0x04, 0x16, 0x2f, 0x68, 0x5c, 0x45, 0xfe, 0x34, 0xdd, 0xab,
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vectors::Vectors;
    use sha1::{Digest, Sha1};

    #[test]
    fn vectors() {
        let v = Vectors::load("dh");
        assert_eq!(PRIME, v.array("prime"));
        let (a, b) = (Exponent::new(v.array("a")), Exponent::new(v.array("b")));
        assert_eq!(a.public(), v.array("g_a"));
        assert_eq!(b.public(), v.array("g_b"));
        let shared = v.array("shared");
        assert_eq!(a.shared(&b.public()).unwrap().0, shared);
        assert_eq!(b.shared(&a.public()).unwrap().0, shared);
    }

    #[test]
    fn the_group_has_its_name() {
        let text = [&[3, 0, 0, 0, 0xfe, 0, 1, 0][..], &PRIME].concat();
        let hash: [u8; 20] = Sha1::digest(&text).into();
        assert_eq!(hash[..4], GROUP.to_le_bytes());
        assert_eq!(
            GROUP.to_be_bytes().to_vec(),
            Vectors::load("dh").bytes("params_select")
        );
    }

    /// With small exponents a power is what small numbers say, and p-1 and p are the ends of the range.
    #[test]
    fn edges_of_exponents_and_bases() {
        let small = |value: u64| {
            let mut bytes = [0; LEN];
            bytes[LEN - 8..].copy_from_slice(&value.to_be_bytes());
            bytes
        };
        for (exponent, wanted) in [
            (0, 1),
            (1, 3),
            (2, 9),
            (15, 14_348_907),
            (40, 3_u64.pow(40)),
        ] {
            assert_eq!(
                Exponent::new(small(exponent)).public(),
                small(wanted),
                "{exponent}"
            );
        }
        let mut less_one = PRIME;
        less_one[LEN - 1] -= 1;
        // Fermat: 3^(p-1) = 1, and (-1)^2 = 1, (-1)^3 = -1.
        assert_eq!(Exponent::new(less_one).public(), small(1));
        assert_eq!(power(&number(&less_one), &small(2)), small(1));
        assert_eq!(power(&number(&less_one), &small(3)), less_one);
        // All exponent bits set: 3^(2^2048 - 1), times 3, is 3^(2^2048) squared up from 3.
        let all = Exponent::new([0xff; LEN]).public();
        let mut half = [0; LEN];
        half[0] = 0x80;
        let half = number(&Exponent::new(half).public());
        let three_more = power(&number(&all), &small(1));
        let product_of = |a: &Number, b: &Number| {
            // product() takes 2^2048 away: give it back by doubling.
            let mut out = product(a, b);
            (0..LEN * 8).for_each(|_| out = doubled(&out));
            out
        };
        let mut three = ZERO;
        three[0] = 3;
        assert_eq!(
            product_of(&number(&three_more), &three),
            product_of(&half, &half)
        );
    }

    #[test]
    fn only_values_in_the_range_are_acceptable() {
        let exponent = Exponent::new([5; LEN]);
        let with_head = |head: u64, rest: u8| {
            let mut bytes = [rest; LEN];
            bytes[..8].copy_from_slice(&head.to_be_bytes());
            bytes
        };
        let head = u64::from_be_bytes(PRIME[..8].try_into().unwrap());
        for (value, is_good) in [
            (with_head(0, 0), false),
            (with_head(0, 0xff), false),
            (with_head(1, 0), true),
            (with_head(head - 1, 0xff), true),
            (with_head(head, 0), false),
            (PRIME, false),
            ([0xff; LEN], false),
        ] {
            assert_eq!(
                exponent.shared(&value).is_some(),
                is_good,
                "{:?}",
                &value[..9]
            );
        }
    }

    #[test]
    fn wiping_overwrites() {
        let mut shared = Shared([7; LEN]);
        wipe(&mut shared.0);
        assert_eq!(shared.0, [0; LEN]);
    }
}
