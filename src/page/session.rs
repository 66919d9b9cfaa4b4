//! Who reads: a token in a cookie, which no script can read and no other site can send.
//!
//! Deliberately absent: sessions. The cookie is the token that `backstitch token create` printed (or a
//! provider's JWT); whether it is good is the API's word, with every call.

use axum::Form;
use axum::extract::{Query, Request};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;

use super::ROOT;
use super::api::{Failure, Reader};
use super::shell::{Refusal, Shell, page};
use super::text::Text;

/// The cookie with the token. Over TLS it has the prefix that makes browsers insist on that.
const TOKEN: &str = "backstitch_token";
const TOKEN_OVER_TLS: &str = "__Host-backstitch_token";
/// The cookie with the name of a reader who need not sign in.
const NAME: &str = "backstitch_name";
/// Longest cookie that is looked at, in bytes.
const COOKIE_BYTES_MAX: usize = 16 * 1024;
/// How long a browser keeps it, in seconds: a working day.
const COOKIE_SECONDS: u32 = 12 * 60 * 60;
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
    let value = super::api::segment(value);
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

/// Whether the browser came over TLS: to this node, or to what stands before it.
fn is_over_tls(headers: &HeaderMap) -> bool {
    let origin = headers.get(header::ORIGIN);
    origin.is_some_and(|origin| origin.as_bytes().starts_with(b"https://"))
}

/// Takes forms from pages of this host alone: a cookie that is `SameSite=Strict` is not sent along by
/// others, but where nobody must sign in there is none.
pub(super) async fn from_here(request: Request, next: Next) -> Response {
    if *request.method() == Method::GET || is_from_here(request.headers()) {
        return next.run(request).await;
    }
    let reason = "this form was not sent by a page of this server; open the page and try again";
    let failure = Failure::new(StatusCode::FORBIDDEN, reason);
    Refusal::alone(failure).into_response()
}

fn is_from_here(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    // Where it comes from, in the browser's word; older ones don't say.
    if text("sec-fetch-site").is_some_and(|site| site != "same-origin") {
        return false;
    }
    let origin = text("origin").and_then(|origin| origin.parse::<Uri>().ok());
    let origin = origin.and_then(|origin| origin.authority().map(ToString::to_string));
    origin.is_some() && origin.as_deref() == text("host")
}

#[derive(askama::Template)]
#[template(path = "sign_in.html")]
struct SignInPage {
    shell: Shell,
    next: String,
    failure: Option<Failure>,
}

/// Where to go afterwards.
#[derive(Deserialize)]
pub(super) struct Onward {
    next: Option<String>,
}

/// `GET /ui/sign-in`.
pub(super) async fn form(reader: Reader, Query(query): Query<Onward>) -> Response {
    let shell = Shell::new("Sign in", "", &reader);
    page(&SignInPage {
        shell,
        next: inside(query.next),
        failure: None,
    })
}

/// What the form says.
#[derive(Deserialize)]
pub(super) struct SignIn {
    token: String,
    next: Option<String>,
}

/// `POST /ui/sign-in`: keeps the token; the API says on the next page whether it is good.
pub(super) async fn sign_in(
    reader: Reader,
    headers: HeaderMap,
    Form(said): Form<SignIn>,
) -> Response {
    let name = if is_over_tls(&headers) {
        TOKEN_OVER_TLS
    } else {
        TOKEN
    };
    // A cookie of this kind is for all paths, or it is none.
    let path = if is_over_tls(&headers) { "/" } else { ROOT };
    let token = said.token.trim();
    let next = inside(said.next);
    let cookie = kept(name, token, path, COOKIE_SECONDS);
    let Some(cookie) = cookie.filter(|_| !token.is_empty() && token.len() < COOKIE_BYTES_MAX / 4)
    else {
        let shell = Shell::new("Sign in", "", &reader);
        let reason = "that is no token; `backstitch token create --scope …` makes one";
        return page(&SignInPage {
            shell,
            next,
            failure: Some(Failure::new(StatusCode::BAD_REQUEST, reason)),
        });
    };
    let mut response = Redirect::to(&next).into_response();
    response.headers_mut().append(header::SET_COOKIE, cookie);
    response
}

/// `POST /ui/sign-out`.
pub(super) async fn sign_out() -> Response {
    let mut response = Redirect::to("/ui/sign-in").into_response();
    for (name, path) in [(TOKEN, ROOT), (TOKEN_OVER_TLS, "/")] {
        if let Some(cookie) = kept(name, "", path, 0) {
            response.headers_mut().append(header::SET_COOKIE, cookie);
        }
    }
    response
}

/// An address of ours, or the first page: nobody is sent elsewhere after signing in.
fn inside(next: Option<String>) -> String {
    next.filter(|next| {
        let rest = next.strip_prefix(ROOT);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']))
            && next.chars().all(|character| character.is_ascii_graphic())
            && !next.contains('\\')
    })
    .unwrap_or_else(|| ROOT.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_sent_elsewhere() {
        for (next, goes_to) in [
            ("/ui/sagas?status=live", "/ui/sagas?status=live"),
            ("/ui", "/ui"),
            ("https://evil.example", "/ui"),
            ("//evil.example", "/ui"),
            ("/uievil", "/ui"),
            ("/ui/\r\nset-cookie: a=b", "/ui"),
        ] {
            assert_eq!(inside(Some(next.to_owned())), goes_to);
        }
    }

    #[test]
    fn a_form_of_another_site_is_not_from_here() {
        let from = |origin: Option<&str>, site: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, HeaderValue::from_static("saga.local:8080"));
            let mut set = |name: &'static str, value: Option<&str>| {
                if let Some(value) = value.and_then(|value| HeaderValue::from_str(value).ok()) {
                    headers.insert(name, value);
                }
            };
            set("origin", origin);
            set("sec-fetch-site", site);
            is_from_here(&headers)
        };
        assert!(from(Some("http://saga.local:8080"), Some("same-origin")));
        assert!(from(Some("https://saga.local:8080"), None));
        assert!(!from(Some("http://saga.local:8080"), Some("cross-site")));
        assert!(!from(Some("http://evil.example"), None));
        assert!(!from(Some("null"), None));
        assert!(!from(None, None));
    }
}
