//! QR codes are read back by another program's decoder: zbarimg.

use crate::support::programs::output;
use crate::support::proxy::Files;
use mtproxy::formats::qr;
use std::process::Command;

#[test]
fn texts_of_40_to_300_bytes_are_read_back() {
    let lengths = (40..=300).chain([458, 459, 520]);
    let texts: Vec<String> = lengths.map(text).collect();
    let files = Files::new();
    let mut images = Vec::new();
    for (number, text) in texts.iter().enumerate() {
        let drawing = qr::draw(text.as_bytes()).expect("it fits");
        let rows = modules(&drawing.lines().collect::<Vec<_>>());
        images.push(files.write(&format!("{number}.pgm"), &image(&rows)));
    }
    if let Some(read) = decode(&images) {
        assert_eq!(read, texts);
    }
}

/// Reads images of one code each; None if there is no decoder.
pub fn decode(images: &[String]) -> Option<Vec<String>> {
    let mut decoder = Command::new("zbarimg");
    decoder.args(["--quiet", "--raw", "-Sdisable", "-Sqrcode.enable"]);
    let output = output(decoder.args(images), b"")?;
    let text = String::from_utf8(output.stdout).expect("text in codes");
    Some(text.lines().map(str::to_owned).collect())
}

/// A PGM image of dark and light modules, four pixels wide each.
pub fn image(rows: &[Vec<bool>]) -> Vec<u8> {
    const PIXELS: usize = 4;
    let mut bytes = format!(
        "P5\n{} {}\n255\n",
        rows[0].len() * PIXELS,
        rows.len() * PIXELS
    )
    .into_bytes();
    for row in rows {
        let pixels = row
            .iter()
            .flat_map(|dark| [if *dark { 0 } else { 255 }; PIXELS]);
        let line: Vec<u8> = pixels.collect();
        bytes.extend(line.repeat(PIXELS));
    }
    bytes
}

/// The dark modules of a drawing, two rows from each line; each line sets its colours and resets them.
pub fn modules(drawing: &[&str]) -> Vec<Vec<bool>> {
    let mut rows = Vec::new();
    for line in drawing {
        let start = "\x1b[38;5;16;48;5;231m";
        let line = line.strip_prefix(start).expect("colours are set");
        let line = line.strip_suffix("\x1b[0m").expect("colours are reset");
        rows.push(line.chars().map(|c| "█▀".contains(c)).collect());
        rows.push(line.chars().map(|c| "█▄".contains(c)).collect());
    }
    rows
}

/// Something like a link, different for each length, with all kinds of characters in it.
fn text(length: usize) -> String {
    let start = format!("tg://proxy?server=h{length}.example.com&port=443&secret=");
    let alphabet = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_.~%&=?/";
    let rest = (0..).map(|i| char::from(alphabet[(i * length + i / 7) % alphabet.len()]));
    start.chars().chain(rest).take(length).collect()
}
