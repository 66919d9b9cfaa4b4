//! Text from outside, made harmless: nothing in a key, a reason or a body forges a line of a log,
//! drives a terminal or reads in another order than it is written.
//!
//! Separate because it must hold for every way out: what commands print ([`super::output`]) and
//! what is logged ([`super::logging`]). JSON stays the same value: there the characters are escaped
//! as JSON escapes them.

use std::fmt::Write as _;
use std::io;

/// Characters that do something instead of showing something: C0 and C1 controls, marks that
/// change the direction of text, separators of lines and paragraphs, and invisible tags. (Bidirectional
/// marks: Boucher and Anderson, "Trojan Source: Invisible Vulnerabilities", 2021.)
fn is_active(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
            | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}

/// `text` on one line: line breaks and tabs become spaces, other active characters are named.
pub(super) fn line(text: &str) -> String {
    escaped(text, |c| matches!(c, '\n' | '\t' | '\r').then_some(' '))
}

/// `text` with its line breaks; other active characters are named.
pub(super) fn text(text: &str) -> String {
    escaped(text, |c| matches!(c, '\n' | '\t').then_some(c))
}

fn escaped(text: &str, instead: impl Fn(char) -> Option<char>) -> String {
    let mut visible = String::with_capacity(text.len());
    for c in text.chars() {
        match instead(c) {
            Some(c) => visible.push(c),
            None if is_active(c) => visible.extend(c.escape_unicode()),
            None => visible.push(c),
        }
    }
    visible
}

/// JSON text of the same value; its own line breaks stay.
pub(super) fn json(text: &str) -> String {
    let mut visible = String::with_capacity(text.len());
    for c in text.chars() {
        if c == '\n' || !is_active(c) {
            visible.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            // Writing to a string can't fail.
            let _ = write!(visible, "\\u{unit:04x}");
        }
    }
    visible
}

/// A writer of JSON lines.
pub(super) struct JsonLines<W>(pub(super) W);

impl<W: io::Write> io::Write for JsonLines<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.0
            .write_all(json(&String::from_utf8_lossy(buffer)).as_bytes())?;
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    const HOSTILE: &str = "a\u{1b}[2Jb\n\u{9b}31m\u{202e}fdp\u{2066}\u{7f}\u{2028}c\r\td";

    #[test]
    fn a_line_stays_a_line_and_shows_what_would_act() {
        let shown = line(HOSTILE);
        assert_eq!(
            shown,
            "a\\u{1b}[2Jb \\u{9b}31m\\u{202e}fdp\\u{2066}\\u{7f}\\u{2028}c  d"
        );
        assert!(!shown.chars().any(is_active));
        assert_eq!(line("naïve 🛒 — 注文"), "naïve 🛒 — 注文");
    }

    #[test]
    fn text_keeps_its_line_breaks_only() {
        assert_eq!(text("a\n\tb\r\u{1b}"), "a\n\tb\\u{d}\\u{1b}");
    }

    #[test]
    fn json_stays_the_same_value() {
        let value = serde_json::json!({ "key": format!("{HOSTILE}\u{e0041}") });
        let shown = json(&value.to_string());
        assert!(!shown.chars().any(is_active));
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&shown).unwrap(),
            value
        );
        let mut lines = JsonLines(Vec::new());
        lines.write_all(value.to_string().as_bytes()).unwrap();
        assert_eq!(lines.0, shown.as_bytes());
    }
}
