//! What counters, gauges and reasons have in common: a row with a name.

/// A counter, gauge or reason, and its value now.
pub struct Row {
    /// Its name; the C program's where it has one.
    pub name: &'static str,
    /// What it counts.
    pub help: &'static str,
    /// If it counts refused clients: the reason's name among the refusals, else empty.
    pub refusal: &'static str,
    /// The count.
    pub value: u64,
}

/// Adds the row whose name, help and refusal are the lines of `text`. A call with one string takes fewer
/// bytes of the program than an entry of a table.
#[inline(never)]
pub fn add(rows: &mut Vec<Row>, text: &'static str, value: u64) {
    let mut lines = text.split('\n');
    let mut next = || lines.next().unwrap_or_default();
    let (name, help, refusal) = (next(), next(), next());
    rows.push(Row {
        name,
        help,
        refusal,
        value,
    });
}
