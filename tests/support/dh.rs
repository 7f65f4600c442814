//! Diffie-Hellman of middle proxy links (protocol.md 6.7), by schoolbook arithmetic: a product of 128 words is
//! folded into 64 by what 2^2048 and its multiples leave of the prime. Neither fast nor safe from observers.

/// What names the group in a nonce packet.
pub const GROUP: [u8; 4] = [0x93, 0x0b, 0x62, 0x00];

const PRIME: &str = "
    8952131b1e3a69ba5f85cf8bd266c12b13831613bd2a4ef835a4d53f9dbb4248
    2dbd462b31d86c816c5977520f1170739ed2ddd6d81b9eb65faaac148753c9e4
    f072dc11a492730683fa0067826b18c51d7ecba52b826075c0b955e5acafdd74
    c3795fd9520b480f3be3ba0665338a498ca5daf101760509a38c49e300746408
    774bb3ed26181a6455766ae9497bb9c3a3ad5cbaf76b73845fbb96bb6d0f684f
    95d2d39ccbb4a904fab1de4349ce1c2087b6c951ed99f952e34fd1a3fd148335
    75414729a38be868a4f9ec623a5d24621aba01b255c7e8385d16ac93b02d2a54
    0a7642982d22ada3ccde5c8d266faa25dd2de9f6d49104162f685c45fe34ddab";

/// The prime, its highest byte first.
pub fn prime() -> [u8; 256] {
    let digits: String = PRIME.split_whitespace().collect();
    let bytes = super::vectors::from_hex(&digits);
    bytes.try_into().expect("2048 bits")
}

/// 3 to the power of an exponent of any length.
pub fn public(exponent: &[u8]) -> [u8; 256] {
    let mut three = [0; 256];
    three[255] = 3;
    power(&three, exponent)
}

/// A value to the power of an exponent.
pub fn power(base: &[u8; 256], exponent: &[u8]) -> [u8; 256] {
    let field = Field::new();
    let base = words(base);
    let mut result = words(&{
        let mut one = [0; 256];
        one[255] = 1;
        one
    });
    for bit in (0..exponent.len() * 8).map(|bit| exponent[bit / 8] >> (7 - bit % 8) & 1) {
        result = field.times(&result, &result);
        if bit == 1 {
            result = field.times(&result, &base);
        }
    }
    let mut bytes = [0; 256];
    for (place, word) in bytes.chunks_exact_mut(4).rev().zip(result) {
        place.copy_from_slice(&word.to_be_bytes());
    }
    bytes
}

/// The lowest word first.
type Words = Vec<u32>;

fn words(bytes: &[u8; 256]) -> Words {
    let words = bytes.chunks_exact(4).rev();
    words
        .map(|word| u32::from_be_bytes(word.try_into().expect("four")))
        .collect()
}

struct Field {
    prime: Words,
    /// What 2^(2048 + 32 i) leaves of the prime.
    rests: Vec<Words>,
}

impl Field {
    fn new() -> Field {
        let prime = words(&prime());
        let mut field = Field {
            rests: Vec::new(),
            prime,
        };
        // 2^2048 less the prime is smaller than the prime.
        let mut rest = field.less_prime(vec![0; 64], 1);
        for _ in 0..65 {
            field.rests.push(rest.clone());
            rest.insert(0, 0);
            rest = field.folded(rest);
        }
        field
    }

    fn times(&self, a: &Words, b: &Words) -> Words {
        let mut product = vec![0; 128];
        for (at, a) in a.iter().enumerate() {
            add_multiple(&mut product[at..], b, *a);
        }
        self.folded(product)
    }

    /// The same number modulo the prime.
    fn folded(&self, mut number: Words) -> Words {
        while number.len() > 64 {
            let high = number.split_off(64);
            number.push(0);
            number.push(0);
            for (word, rest) in high.iter().zip(&self.rests) {
                add_multiple(&mut number, rest, *word);
            }
            while number.len() > 64 && number.last() == Some(&0) {
                number.pop();
            }
        }
        while number.iter().rev().ge(self.prime.iter().rev()) {
            number = self.less_prime(number, 0);
        }
        number
    }

    fn less_prime(&self, number: Words, top: i64) -> Words {
        let mut borrow = 0;
        let pairs = number.iter().zip(&self.prime);
        let less = pairs.map(|(word, prime)| {
            let step = i64::from(*word) - i64::from(*prime) + borrow;
            borrow = step >> 32;
            u32::try_from(step & 0xffff_ffff).expect("32 bits")
        });
        let less = less.collect();
        assert_eq!(borrow + top, 0, "less than the prime");
        less
    }
}

/// Adds so many times `number` to the front of `sum`, which has room for it.
fn add_multiple(sum: &mut [u32], number: &[u32], times: u32) {
    let mut carry = 0;
    for (at, place) in sum.iter_mut().enumerate() {
        let Some(word) = number.get(at).or((carry > 0).then_some(&0)) else {
            return;
        };
        let step = u64::from(*place) + u64::from(*word) * u64::from(times) + carry;
        *place = (step & 0xffff_ffff) as u32;
        carry = step >> 32;
    }
    assert_eq!(carry, 0, "no room");
}
