//! Views that somebody keeps: names for filters, in a cookie of their browser.

use axum::Form;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;

use super::address::ROOT;
use super::cookies::{cookie, kept};
use super::text::Text;

const COOKIE: &str = "backstitch_views";
/// Most views that are kept.
const VIEWS_MAX: usize = 12;
/// Longest name, in characters.
const NAME_CHARS: usize = 40;
/// Longest cookie, in bytes: browsers take 4,096.
const COOKIE_BYTES_MAX: usize = 3_500;
/// How long they are kept, in seconds: a year.
const SECONDS: u32 = 365 * 24 * 60 * 60;

/// A filter with a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SavedView {
    pub(super) name: Text,
    pub(super) query: String,
}

/// The views of a browser.
pub(super) fn saved(headers: &HeaderMap) -> Vec<SavedView> {
    let text = cookie(headers, COOKIE).unwrap_or_default();
    form_urlencoded::parse(text.as_bytes())
        .take(VIEWS_MAX)
        .map(|(name, query)| SavedView {
            name: Text::from(name.into_owned()),
            query: query.into_owned(),
        })
        .collect()
}

/// What is to be kept, or not any longer.
#[derive(Deserialize)]
pub(super) struct Change {
    name: String,
    #[serde(default)]
    query: String,
    #[serde(default)]
    forget: bool,
}

/// `POST /ui/views`.
pub(super) async fn change(headers: HeaderMap, Form(change): Form<Change>) -> Response {
    let name = Text::from(change.name.trim()).cut(NAME_CHARS);
    let mut views = saved(&headers);
    views.retain(|view| view.name != name);
    if !change.forget && !name.is_empty() {
        views.insert(
            0,
            SavedView {
                name,
                query: change.query.clone(),
            },
        );
    }
    let to = format!("/ui/sagas?{}", query_of(&change.query));
    let mut response = Redirect::to(&to).into_response();
    if let Some(cookie) = packed(views).and_then(|text| kept(COOKIE, &text, ROOT, SECONDS)) {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    response
}

/// A query as it stands in an address, whatever was sent.
fn query_of(text: &str) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(form_urlencoded::parse(text.as_bytes()));
    query.finish()
}

/// As many of the views, the newest first, as a cookie has room for.
fn packed(mut views: Vec<SavedView>) -> Option<String> {
    views.truncate(VIEWS_MAX);
    loop {
        let mut text = form_urlencoded::Serializer::new(String::new());
        for view in &views {
            text.append_pair(view.name.as_str(), &view.query);
        }
        let text = text.finish();
        if super::address::segment(&text).len() <= COOKIE_BYTES_MAX {
            return Some(text);
        }
        views.pop()?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_come_back_as_they_were_kept_and_the_oldest_give_way() {
        let view = |number: usize, length: usize| SavedView {
            name: Text::from(format!("view {number}")),
            query: format!("key_prefix={}", "ü".repeat(length)),
        };
        let few: Vec<_> = (0..3).map(|number| view(number, 10)).collect();
        let text = packed(few.clone()).unwrap();
        let mut headers = HeaderMap::new();
        let sent = format!("{COOKIE}={}", crate::page::address::segment(&text));
        headers.insert(header::COOKIE, sent.parse().unwrap());
        assert_eq!(saved(&headers), few);

        let large: Vec<_> = (0..12).map(|number| view(number, 100)).collect();
        let text = packed(large).unwrap();
        assert!(crate::page::address::segment(&text).len() <= COOKIE_BYTES_MAX);
        assert!(text.starts_with("view+0="));
    }
}
