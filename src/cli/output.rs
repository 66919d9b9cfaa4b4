//! What commands print: data to stdout, all else to stderr.
//!
//! A reader that goes away (`| head`) ends the program quietly, and text that came from outside
//! can't steer the terminal ([`visible`]), nor does it show what signs a correlation id ([`mask`]).

use std::io::{self, Write};

use serde::Serialize;

use super::exit::Failure;
use super::visible;
use crate::message::mask;

/// Prints text for people.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    write(&visible::text(&mask::text(text)))
}

/// Prints text for people that is not the answer: a remark, a warning, an error.
pub(super) fn remark(text: impl std::fmt::Display) {
    eprintln!("{}", visible::text(&mask::text(&text.to_string())));
}

/// Prints JSON: one value, or one a line.
pub(super) fn print_text_of_json(text: &str) -> Result<(), Failure> {
    write(&visible::json(&mask::text(text)))
}

fn write(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => Err(Failure::new(format!("can't write to stdout: {error}"))),
    }
}

/// Prints a value as indented JSON.
pub(super) fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| Failure::new(format!("can't write JSON: {error}")))?;
    print_text_of_json(&(text + "\n"))
}

/// `text` on one line, without characters that steer a terminal.
pub(super) fn printable(text: &str) -> String {
    visible::line(text)
}

/// `text`, printable and at most `most` characters long.
pub(super) fn shortened(text: &str, most: usize) -> String {
    let text = printable(text);
    match text.char_indices().nth(most) {
        None => text,
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

/// Rows as columns; the last one is as wide as it likes.
pub(super) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(cell);
            let padding = width + 2 - cell.chars().count();
            line.extend(std::iter::repeat_n(' ', padding));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}
