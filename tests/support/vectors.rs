//! Reads testdata/vectors/*.txt: lines of `key = value`, `#` comments, bytes as hex.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

pub struct Vectors {
    name: String,
    values: HashMap<String, String>,
}

impl Vectors {
    /// `name` is the file's name without its ending.
    pub fn load(name: &str) -> Vectors {
        let path =
            Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("testdata/vectors/{name}.txt"));
        let text =
            fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let values = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.split_once('='))
            .map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()))
            .collect();
        let name = name.to_owned();
        Vectors { name, values }
    }

    pub fn text(&self, key: &str) -> &str {
        self.optional(key)
            .unwrap_or_else(|| panic!("{}: no value for {key}", self.name))
    }

    pub fn optional(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(String::as_str)
    }

    pub fn bytes(&self, key: &str) -> Vec<u8> {
        from_hex(self.text(key))
    }

    pub fn array<const N: usize>(&self, key: &str) -> [u8; N] {
        self.bytes(key)
            .try_into()
            .unwrap_or_else(|_| panic!("{}: {key} is not {N} bytes", self.name))
    }

    pub fn number(&self, key: &str) -> i64 {
        self.text(key)
            .parse()
            .unwrap_or_else(|_| panic!("{}: {key} is no number", self.name))
    }

    pub fn count(&self, key: &str) -> usize {
        usize::try_from(self.number(key)).expect("a count")
    }
}

pub fn from_hex(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2), "odd number of hex digits");
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex digits"))
        .collect()
}

pub fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
