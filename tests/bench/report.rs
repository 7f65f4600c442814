//! The figures of a run: a table for people, JSON for scripts, and a line that says what goes on.

use std::io::{IsTerminal, Write};

/// What is measured, in the order of all figures: the proxy in its two modes, and the yardstick.
pub const SERVERS: usize = 3;
const NAMES: [&str; SERVERS] = ["middle", "direct", "relay"];
const RELAY: usize = 2;

/// A figure of each; one that there is none of is NaN.
pub type Figures = [f64; SERVERS];

/// One line of the table.
struct Row {
    section: &'static str,
    name: String,
    unit: &'static str,
    figures: Figures,
    /// Share of its core that the load generator used.
    generator: Figures,
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

    pub fn row(&mut self, name: &str, unit: &'static str, figures: Figures, generator: Figures) {
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
                let heads = ["to relay", "", "generator %"].map(String::from);
                println!("\n{}", line(section, "", NAMES.map(String::from), heads));
            }
            let ratios = [ratio(row, 0), ratio(row, 1), shares(row)];
            let name = format!("  {}", row.name);
            println!("{}", line(&name, row.unit, row.figures.map(number), ratios));
        }
        println!("\nto relay: middle mode and direct mode, divided by the relay's figure.");
        println!(
            "generator: its load while the three were measured; near 100 % speed and delay are"
        );
        println!("the generator's, CPU is still the server's.");
        println!("Fake TLS: the relay's clients speak without it.");
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

fn line(name: &str, unit: &str, figures: [String; SERVERS], rest: [String; 3]) -> String {
    let [middle, direct, relay] = figures;
    let [first, second, generator] = rest;
    format!(
        "{name:<37} {unit:>13} {middle:>8} {direct:>8} {relay:>8} {first:>8} {second:>6} {generator:>12}"
    )
}

fn json_row(row: &Row) -> String {
    let member = |name: String, value: f64| match value.is_finite() {
        true => format!("\"{name}\": {value:.4}"),
        false => format!("\"{name}\": null"),
    };
    let mut figures = Vec::new();
    for (index, name) in NAMES.iter().enumerate() {
        let figure = row.figures[index];
        figures.push(member(name.to_string(), figure));
        if index != RELAY {
            figures.push(member(format!("{name}_ratio"), figure / row.figures[RELAY]));
        }
        figures.push(member(
            format!("generator_with_{name}"),
            row.generator[index],
        ));
    }
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

fn ratio(row: &Row, index: usize) -> String {
    let ratio = row.figures[index] / row.figures[RELAY];
    // Beside next to nothing anything is a lot.
    let tells = ratio.is_finite() && row.figures[RELAY] > 0.5 * SMALLEST_SHOWN;
    if tells {
        format!("{ratio:.2}")
    } else {
        String::from("-")
    }
}

fn shares(row: &Row) -> String {
    let [middle, direct, relay] = row.generator.map(|share| share * 100.0);
    let known = middle.is_finite() && direct.is_finite() && relay.is_finite();
    if known {
        format!("{middle:.0} {direct:.0} {relay:.0}")
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
