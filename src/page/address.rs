//! Addresses of the page's own.

/// Where the page is.
pub(super) const ROOT: &str = "/ui";

/// A part of a path, as it stands in an address.
pub(super) fn segment(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}
