//! The figures of a run: a table for people, JSON for scripts, and a line that says what goes on.

use std::io::{IsTerminal, Write};

/// One line of the table. A figure that there is none of is NaN. The first of a pair is the proxy's, the
/// second the relay's.
struct Row {
    section: &'static str,
    name: String,
    unit: &'static str,
    figures: [f64; 2],
    /// Share of its core that the load generator used.
    generator: [f64; 2],
}

#[derive(Default)]
pub struct Report {
    section: &'static str,
    rows: Vec<Row>,
}

impl Report {
    /// Rows from now on belong to this section.
    pub fn begin(&mut self, section: &'static str) {
        self.section = section;
    }

    pub fn row(&mut self, name: &str, unit: &'static str, figures: [f64; 2], generator: [f64; 2]) {
        self.rows.push(Row {
            section: self.section,
            name: name.to_string(),
            unit,
            figures,
            generator,
        });
    }

    pub fn print(&self) {
        let mut section = "";
        for row in &self.rows {
            if row.section != section {
                section = row.section;
                let heads = ["", "proxy", "relay", "ratio", "generator"].map(String::from);
                println!("\n{}", line(section, heads));
            }
            let cells = [
                row.unit.to_string(),
                number(row.figures[0]),
                number(row.figures[1]),
                ratio(row),
                shares(row),
            ];
            println!("{}", line(&format!("  {}", row.name), cells));
        }
        println!(
            "\nratio: proxy to relay. generator: its load while the proxy and the relay were measured;"
        );
        println!("near 100 % speed and delay are the generator's, CPU is still the server's.");
    }

    /// A list of objects with the names of the table's columns; null where there is no figure.
    /// `others` is the share of a core that other processes used.
    pub fn json(&self, program: &str, others: f64) -> String {
        let rows: Vec<String> = self.rows.iter().map(json_row).collect();
        let rows = rows.join(",\n");
        let program = json_text(program);
        format!("{{\"program\": {program}, \"others_cpu\": {others:.4}, \"rows\": [\n{rows}\n]}}\n")
    }
}

fn line(name: &str, cells: [String; 5]) -> String {
    let [unit, proxy, relay, ratio, generator] = cells;
    format!("{name:<40} {unit:>13} {proxy:>9} {relay:>9} {ratio:>7} {generator:>11}")
}

fn json_row(row: &Row) -> String {
    let figures = [
        ("proxy", row.figures[0]),
        ("relay", row.figures[1]),
        ("ratio", row.figures[0] / row.figures[1]),
        ("generator_with_proxy", row.generator[0]),
        ("generator_with_relay", row.generator[1]),
    ];
    let figures = figures.map(|(name, value)| match value.is_finite() {
        true => format!("\"{name}\": {value:.4}"),
        false => format!("\"{name}\": null"),
    });
    format!(
        "  {{\"section\": {}, \"name\": {}, \"unit\": {}, {}}}",
        json_text(row.section),
        json_text(&row.name),
        json_text(row.unit),
        figures.join(", ")
    )
}

fn json_text(text: &str) -> String {
    let plain = text.chars().filter(|letter| !letter.is_control());
    let escaped: String = plain
        .flat_map(|letter| {
            let escape = matches!(letter, '"' | '\\').then_some('\\');
            escape.into_iter().chain([letter])
        })
        .collect();
    format!("\"{escaped}\"")
}

fn ratio(row: &Row) -> String {
    let ratio = row.figures[0] / row.figures[1];
    // Beside next to nothing anything is a lot.
    let tells = ratio.is_finite() && row.figures[1] > 0.5 * SMALLEST_SHOWN;
    if tells {
        format!("{ratio:.2}")
    } else {
        String::from("-")
    }
}

fn shares(row: &Row) -> String {
    let [proxy, relay] = row.generator.map(|share| share * 100.0);
    let known = proxy.is_finite() && relay.is_finite();
    if known {
        format!("{proxy:.0}, {relay:.0} %")
    } else {
        String::new()
    }
}

/// Three digits or so.
fn number(value: f64) -> String {
    match value.abs() {
        size if !size.is_finite() => String::from("-"),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// Shows on standard error what goes on: one line that changes on a terminal, else a line each.
pub fn progress(text: &str) {
    let mut error = std::io::stderr();
    let seconds = crate::sys::now() / 1_000_000_000;
    let shown = if error.is_terminal() {
        write!(error, "\r\x1b[K{seconds:>4} s  {text}")
    } else {
        writeln!(error, "{seconds:>4} s  {text}")
    };
    // Nobody reads it: nothing is lost.
    let _ = shown;
}

/// Ends the line that `progress` keeps open on a terminal.
pub fn end_progress() {
    if std::io::stderr().is_terminal() {
        eprintln!();
    }
}

const SMALLEST_SHOWN: f64 = 0.01;
