//! Prometheus's text format 0.0.4: families with help and type, samples with labels. Written by
//! `metrics`; all text but the values of labels is the program's own. Nothing here is inlined: it is
//! called a hundred times and needs to be small, not fast.

use std::fmt::{Display, Formatter, Result, Write as _};

use mtproxy::limits::TIME_BUCKETS;
use mtproxy::proto::wire::DcId;

use crate::stats::Histogram;

/// A number of small units, and how many decimals they are when it is shown in whole ones.
pub struct Decimal(u64, u32);

/// Milliseconds shown as seconds, and other thousandths.
pub fn thousandths(n: u64) -> Decimal {
    Decimal(n, 3)
}

/// Microseconds shown as seconds, and other millionths.
pub fn millionths(n: u64) -> Decimal {
    Decimal(n, 6)
}

impl Display for Decimal {
    #[inline(never)]
    fn fmt(&self, f: &mut Formatter) -> Result {
        let Decimal(n, digits) = *self;
        let (one, width) = (10_u64.pow(digits), digits as usize);
        write!(f, "{}.{:0width$}", n / one, n % one)
    }
}

/// A page.
#[derive(Default)]
pub struct Text {
    /// What is written of it.
    pub out: String,
    /// The name of the family whose samples follow.
    family: String,
    /// The names of its labels, with spaces between them.
    labels: &'static str,
}

impl Text {
    /// Begins the family whose kind, name, labels and help are the lines of `row`.
    #[inline(never)]
    pub fn row(&mut self, row: &'static str) {
        let mut lines = row.split('\n');
        let mut next = || lines.next().unwrap_or_default();
        self.family(next(), next(), next(), next());
    }

    /// Begins a family. A counter's name gets the ending that counters have, and every name the
    /// program's prefix, except those that Prometheus prescribes for any process.
    #[inline(never)]
    pub fn family(&mut self, kind: &str, name: &str, labels: &'static str, help: &str) {
        let prefix = if name.starts_with("process_") {
            ""
        } else {
            "mtproxy_"
        };
        let ending = if kind == "counter" { "_total" } else { "" };
        self.family = [prefix, name, ending].concat();
        self.labels = labels;
        let name = &self.family;
        let _ = write!(self.out, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    /// The only value of a family without labels.
    #[inline(never)]
    pub fn value(&mut self, value: &dyn Display) {
        self.suffixed("", &[], value);
    }

    /// A value of the family, with a value of each label.
    #[inline(never)]
    pub fn sample(&mut self, labels: &[&str], value: &dyn Display) {
        self.suffixed("", labels, value);
    }

    /// A value for each value of the family's one label.
    pub fn samples(&mut self, values: &[(&str, impl Display)]) {
        for (label, value) in values {
            self.sample(&[label], value);
        }
    }

    /// A histogram of the family, whose labels are a data centre and `le`.
    #[inline(never)]
    pub fn histogram(&mut self, dc: DcId, histogram: &Histogram) {
        let dc = &dc.0.to_string();
        let mut all = 0;
        for (place, count) in histogram.cumulative().into_iter().enumerate() {
            let bound = TIME_BUCKETS
                .get(place)
                .map(|most| thousandths((*most).into()).to_string());
            self.suffixed("_bucket", &[dc, bound.as_deref().unwrap_or("+Inf")], &count);
            all = count;
        }
        self.suffixed("_sum", &[dc], &millionths(histogram.micros()));
        self.suffixed("_count", &[dc], &all);
    }

    #[inline(never)]
    fn suffixed(&mut self, suffix: &str, labels: &[&str], value: &dyn Display) {
        let _ = write!(self.out, "{}{suffix}", self.family);
        for (number, (name, value)) in self.labels.split(' ').zip(labels).enumerate() {
            let begin = if number == 0 { '{' } else { ',' };
            let _ = write!(self.out, "{begin}{name}=\"{}\"", escaped(value));
        }
        let end = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.out, "{end} {value}");
    }
}

fn escaped(label: &str) -> String {
    let text = label.replace('\\', "\\\\").replace('"', "\\\"");
    text.replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_and_escapes() {
        let mut text = Text::default();
        text.family("counter", "a", "x y", "help");
        text.value(&3);
        text.sample(&["\\ \"\n", "é"], &millionths(1_000_020));
        text.family("gauge", "process_b", "", "help");
        let wanted = "# HELP mtproxy_a_total help\n# TYPE mtproxy_a_total counter\n\
                      mtproxy_a_total 3\nmtproxy_a_total{x=\"\\\\ \\\"\\n\",y=\"é\"} 1.000020\n\
                      # HELP process_b help\n# TYPE process_b gauge\n";
        assert_eq!(text.out, wanted);
    }

    #[test]
    fn a_histogram_is_cumulative_and_ends_with_everything() {
        let (mut text, times) = (Text::default(), Histogram::default());
        for millis in [1, 7, 60_000] {
            times.add(std::time::Duration::from_millis(millis));
        }
        text.family("histogram", "t_seconds", "dc le", "help");
        text.histogram(DcId(2), &times);
        for line in [
            "mtproxy_t_seconds_bucket{dc=\"2\",le=\"0.005\"} 1\n",
            "mtproxy_t_seconds_bucket{dc=\"2\",le=\"0.010\"} 2\n",
            "mtproxy_t_seconds_bucket{dc=\"2\",le=\"5.000\"} 2\n",
            "mtproxy_t_seconds_bucket{dc=\"2\",le=\"+Inf\"} 3\n",
            "mtproxy_t_seconds_sum{dc=\"2\"} 60.008000\n",
            "mtproxy_t_seconds_count{dc=\"2\"} 3\n",
        ] {
            assert!(text.out.contains(line), "{line} in {}", text.out);
        }
    }
}
