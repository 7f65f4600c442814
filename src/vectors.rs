//! Test vectors from independent implementations: `testdata/vectors/*.txt`, lines of `key = value`.

use alloc::string::String;
use alloc::vec::Vec;
use std::collections::HashMap;

/// One file of vectors.
pub struct Vectors(HashMap<String, String>);

impl Vectors {
    /// Loads `testdata/vectors/NAME.txt`.
    pub fn load(name: &str) -> Vectors {
        let path = std::format!("{}/testdata/vectors/{name}.txt", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(&path).expect(&path);
        let rows = text.lines().filter(|l| !l.starts_with('#'));
        let pairs = rows.map(|l| {
            l.split_once(" = ")
                .unwrap_or((l.trim_end_matches(" ="), ""))
        });
        Vectors(pairs.map(|(k, v)| (k.into(), v.into())).collect())
    }

    pub fn text(&self, key: &str) -> &str {
        self.0.get(key).unwrap_or_else(|| panic!("no vector {key}"))
    }

    pub fn has(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    pub fn number(&self, key: &str) -> i64 {
        self.text(key).parse().expect(key)
    }

    pub fn bytes(&self, key: &str) -> Vec<u8> {
        let t = self.text(key);
        (0..t.len() / 2)
            .map(|i| u8::from_str_radix(&t[2 * i..2 * i + 2], 16).expect(key))
            .collect()
    }

    pub fn array<const N: usize>(&self, key: &str) -> [u8; N] {
        self.bytes(key).try_into().expect(key)
    }
}
