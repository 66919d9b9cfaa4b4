//! What a browser keeps for the page: a token, a name, views. No script can read it, and no other site can send it.

use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;

use super::address::{ROOT, segment};
use super::text::Text;

/// The cookie with the token. Over TLS it has the prefix that makes browsers insist on that.
pub(super) const TOKEN: &str = "backstitch_token";
pub(super) const TOKEN_OVER_TLS: &str = "__Host-backstitch_token";
/// The cookie with the name of a reader who need not sign in.
const NAME: &str = "backstitch_name";
/// Longest cookie that is looked at, in bytes.
pub(super) const COOKIE_BYTES_MAX: usize = 16 * 1024;
/// How long a browser keeps it, in seconds: a working day.
pub(super) const COOKIE_SECONDS: u32 = 12 * 60 * 60;
/// How long a browser keeps a name, in seconds: a year.
const NAME_SECONDS: u32 = 365 * 24 * 60 * 60;

/// The token that a browser sent.
pub(super) fn token(headers: &HeaderMap) -> Option<String> {
    cookie(headers, TOKEN_OVER_TLS).or_else(|| cookie(headers, TOKEN))
}

/// The name that a browser sent.
pub(super) fn name(headers: &HeaderMap) -> Text {
    Text::from(cookie(headers, NAME).unwrap_or_default())
}

/// A cookie's value, decoded.
pub(super) fn cookie(headers: &HeaderMap, name: &str) -> Option<String> {
    let sent = headers.get_all(header::COOKIE).iter();
    let sent = sent.filter_map(|value| value.to_str().ok());
    sent.filter(|text| text.len() <= COOKIE_BYTES_MAX)
        .flat_map(|text| text.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(known, _)| *known == name)
        .map(|(_, value)| {
            let decoded = percent_encoding::percent_decode_str(value);
            decoded.decode_utf8_lossy().into_owned()
        })
        .filter(|value| !value.is_empty())
}

/// A cookie to be kept by a browser; for no time at all to take it away.
pub(super) fn kept(name: &str, value: &str, path: &str, seconds: u32) -> Option<HeaderValue> {
    let value = segment(value);
    let secure = if name.starts_with("__Host-") {
        "; Secure"
    } else {
        ""
    };
    let text = format!(
        "{name}={value}; Path={path}; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}"
    );
    HeaderValue::from_str(&text).ok()
}

/// An answer that also keeps the name that somebody acts under, if they gave one.
pub(super) fn keeping_name(mut response: Response, name: &str) -> Response {
    let cookie = kept(NAME, name, ROOT, NAME_SECONDS);
    if let Some(cookie) = cookie.filter(|_| !name.is_empty()) {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    response
}
