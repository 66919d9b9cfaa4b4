//! What came from outside, made fit to be looked at.
//!
//! Templates escape what is markup. Here is what escaping leaves: characters that are not seen, or that
//! turn the text around them, would let one thing look like another; they are shown by their names.

use std::fmt::{self, Write};

use askama::filters::HtmlSafe;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// Longest text that is shown in a line of a table, in characters.
const SHORT_CHARS: usize = 120;

/// Longest value that is shown, in characters.
const JSON_CHARS_MAX: usize = 20_000;

/// Text with nothing invisible in it.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Text(String);

impl Text {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Its beginning, for where there is little room.
    pub(super) fn short(&self) -> Self {
        self.cut(SHORT_CHARS)
    }

    /// Whether [`short`](Self::short) leaves something out.
    pub(super) fn is_long(&self) -> bool {
        self.0.chars().nth(SHORT_CHARS).is_some()
    }

    /// At most so many characters of it.
    pub(super) fn cut(&self, chars: usize) -> Self {
        match self.0.char_indices().nth(chars) {
            Some((end, _)) => Self(format!("{}…", &self.0[..end])),
            None => self.clone(),
        }
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        if !text.chars().any(is_hidden) {
            return Self(text);
        }
        let mut shown = String::with_capacity(text.len() + 16);
        for character in text.chars() {
            if is_hidden(character) {
                // Writing to a string does not fail.
                let _ = write!(shown, "⟨U+{:04X}⟩", u32::from(character));
            } else {
                shown.push(character);
            }
        }
        Self(shown)
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self::from(text.to_owned())
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Null is nothing.
        Option::<String>::deserialize(deserializer).map(|text| Self::from(text.unwrap_or_default()))
    }
}

/// Whether a character is not seen, or turns what is around it: controls but for tab and new line, and
/// Unicode's format characters for direction, joining and breaking (UAX #9, TR #36).
pub(super) fn is_hidden(character: char) -> bool {
    (character.is_control() && character != '\n' && character != '\t')
        || matches!(character,
            '\u{00AD}' | '\u{061C}' | '\u{180E}' | '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}'
            | '\u{2060}'..='\u{206F}' | '\u{FEFF}' | '\u{FFF9}'..='\u{FFFB}' | '\u{E0000}'..='\u{E007F}')
}

/// A value as people read it: indented JSON, as far as somebody reads in a browser.
pub(super) fn json(value: &Value) -> Text {
    let whole = Text::from(serde_json::to_string_pretty(value).unwrap_or_default());
    let cut = whole.cut(JSON_CHARS_MAX);
    if cut == whole {
        return whole;
    }
    Text(format!("{cut}\n(cut here; the API has the whole of it)"))
}

/// A point in time: in UTC, which the script turns into the reader's zone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct When(Option<Timestamp>);

impl When {
    pub(super) fn is_none(&self) -> bool {
        self.0.is_none()
    }
}

impl<'de> Deserialize<'de> for When {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        Ok(Self(text.and_then(|text| text.parse().ok())))
    }
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(at) = self.0 else {
            return f.write_str("–");
        };
        let utc = at.to_zoned(TimeZone::UTC);
        let (whole, short) = (utc.strftime("%F %T%.3f UTC"), utc.strftime("%F %T"));
        write!(
            f,
            "<time datetime=\"{at}\" title=\"{whole}\">{short} UTC</time>"
        )
    }
}

// It writes its own markup, from a time alone.
impl HtmlSafe for When {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_seen_is_shown_by_its_name() {
        for (text, shown) in [
            ("plain äöü 漢字 🎉", "plain äöü 漢字 🎉"),
            ("two\nlines\tand a tab", "two\nlines\tand a tab"),
            ("\u{1b}[31mred", "⟨U+001B⟩[31mred"),
            ("abc\u{202e}gpj.exe", "abc⟨U+202E⟩gpj.exe"),
            ("zero\u{200b}width\u{0}", "zero⟨U+200B⟩width⟨U+0000⟩"),
        ] {
            assert_eq!(Text::from(text).as_str(), shown);
        }
    }

    #[test]
    fn long_text_is_cut_between_characters() {
        let text = Text::from("ä".repeat(SHORT_CHARS + 1));
        assert!(text.is_long());
        let short = text.short();
        assert_eq!(short.as_str().chars().count(), SHORT_CHARS + 1);
        assert!(short.as_str().ends_with('…'));
        assert!(!Text::from("short").is_long());
    }

    #[test]
    fn a_large_value_is_cut_and_says_so() {
        let small = serde_json::json!({ "a": [1] });
        assert_eq!(json(&small).as_str(), "{\n  \"a\": [\n    1\n  ]\n}");
        let large = serde_json::json!(vec![7; JSON_CHARS_MAX]);
        let shown = json(&large);
        assert!(
            shown
                .as_str()
                .ends_with("(cut here; the API has the whole of it)")
        );
        assert!(shown.as_str().len() < JSON_CHARS_MAX + 100);
    }

    #[test]
    fn a_time_says_its_zone() {
        let at: When = serde_json::from_str("\"2026-11-01T10:00:00.5Z\"").unwrap();
        let html = at.to_string();
        assert!(
            html.contains("datetime=\"2026-11-01T10:00:00.5Z\""),
            "{html}"
        );
        assert!(html.contains("2026-11-01 10:00:00 UTC"), "{html}");
        let none: When = serde_json::from_str("null").unwrap();
        assert_eq!(none.to_string(), "–");
    }
}
