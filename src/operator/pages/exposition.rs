//! Prometheus's text format 0.0.4: families with their help and type, samples with labels. Nothing here
//! is inlined: it is called a hundred times and needs to be small, not fast.

use std::fmt::Write;

use Value::{Micros, Whole};

/// Names and values.
type Labels<'a> = [(&'a str, &'a str)];

/// What a value is counted in.
#[derive(Clone, Copy)]
pub enum Value {
    /// Whatever the family counts.
    Whole(u64),
    /// Shown in seconds.
    Micros(u64),
}

/// A page.
pub struct Text {
    /// What there is of it.
    pub out: String,
    /// Whose samples come now.
    family: String,
}

impl Text {
    /// An empty page.
    pub fn new() -> Text {
        Text {
            out: String::with_capacity(32 << 10),
            family: String::new(),
        }
    }

    /// Begins a family.
    #[inline(never)]
    pub fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.family.clear();
        let _ = write!(self.family, "mtproxy_{name}");
        let name = &self.family;
        let _ = write!(self.out, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    /// The same of what may fall.
    #[inline(never)]
    pub fn gauge(&mut self, name: &str, help: &str) {
        self.family(name, "gauge", help);
    }

    /// The same of what only grows; `name` without what counters' names end in.
    #[inline(never)]
    pub fn counter(&mut self, name: &str, help: &str) {
        let name = [name, "_total"].concat();
        self.family(&name, "counter", help);
    }

    /// A value of the family.
    #[inline(never)]
    pub fn sample(&mut self, labels: &Labels, value: Value) {
        self.suffixed("", labels, value);
    }

    /// The same, the family's name with something behind it.
    #[inline(never)]
    pub fn suffixed(&mut self, suffix: &str, labels: &Labels, value: Value) {
        self.out.push_str(&self.family);
        self.out.push_str(suffix);
        for (number, (name, value)) in labels.iter().enumerate() {
            self.out.push(if number == 0 { '{' } else { ',' });
            self.out.push_str(name);
            self.out.push_str("=\"");
            self.escaped(value);
            self.out.push('"');
        }
        let _ = match value {
            Whole(n) => write!(self.out, "{} {n}", closing(labels)),
            Micros(n) => write!(
                self.out,
                "{} {}.{:06}",
                closing(labels),
                n / 1_000_000,
                n % 1_000_000
            ),
        };
        self.out.push('\n');
    }

    #[inline(never)]
    fn escaped(&mut self, value: &str) {
        for c in value.chars() {
            match c {
                '\\' => self.out.push_str("\\\\"),
                '"' => self.out.push_str("\\\""),
                '\n' => self.out.push_str("\\n"),
                c => self.out.push(c),
            }
        }
    }
}

fn closing(labels: &Labels) -> &'static str {
    if labels.is_empty() { "" } else { "}" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_and_escapes() {
        let mut text = Text::new();
        text.counter("a", "help");
        text.sample(&[], Whole(3));
        text.sample(&[("x", "\\ \"\n"), ("y", "é")], Micros(1_000_020));
        let wanted = "# HELP mtproxy_a_total help\n# TYPE mtproxy_a_total counter\n\
                      mtproxy_a_total 3\nmtproxy_a_total{x=\"\\\\ \\\"\\n\",y=\"é\"} 1.000020\n";
        assert_eq!(text.out, wanted);
    }
}
