//! Who reads, and whose forms are taken: signing in and out, and forms of this page alone.
//!
//! Deliberately absent: sessions. The cookie is the token that `backstitch token create` printed (or a
//! provider's JWT); whether it is good is the API's word, with every call.

use std::time::Duration;

use axum::Form;
use axum::body::{Body, to_bytes};
use axum::extract::{Query, Request};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;
use tokio::sync::Semaphore;

use super::address::ROOT;
use super::api::{Answer, Failure, Reader};
use super::cookies::{COOKIE_BYTES_MAX, COOKIE_SECONDS, TOKEN, TOKEN_OVER_TLS, kept};
use super::shell::{Refusal, Shell, page};
use crate::limits;

/// Largest form, in bytes: a body of the API's largest, each character of which may be spelt as three, twice, and words.
const FORM_BYTES_MAX: usize = 7 * limits::BODY.bytes;
/// Longest time for a form to come in.
const FORM_TIME_MAX: Duration = Duration::from_secs(30);
/// Forms that are taken in at once.
static FORMS: Semaphore = Semaphore::const_new(32);

/// Whether the browser came over TLS: to this node, or to what stands before it.
fn is_over_tls(headers: &HeaderMap) -> bool {
    let origin = headers.get(header::ORIGIN);
    origin.is_some_and(|origin| origin.as_bytes().starts_with(b"https://"))
}

/// Takes forms from pages of this host alone: a cookie that is `SameSite=Strict` is not sent along by
/// others, but where nobody must sign in there is none.
pub(super) async fn from_here(request: Request, next: Next) -> Response {
    if *request.method() == Method::GET {
        return next.run(request).await;
    }
    if !is_from_here(request.headers()) {
        let reason = "this form was not sent by a page of this server; open the page and try again";
        let failure = Failure::new(StatusCode::FORBIDDEN, reason);
        return Refusal::alone(failure).into_response();
    }
    match taken_in(request).await {
        Ok(request) => next.run(request).await,
        Err(failure) => Refusal::alone(failure).into_response(),
    }
}

/// A request with its whole form, which is small enough and came in time.
async fn taken_in(request: Request) -> Answer<Request> {
    let (head, body) = request.into_parts();
    let room = async {
        // Nothing closes the semaphore.
        let _permit = FORMS.acquire().await;
        to_bytes(body, FORM_BYTES_MAX).await
    };
    match tokio::time::timeout(FORM_TIME_MAX, room).await {
        Ok(Ok(form)) => Ok(Request::from_parts(head, Body::from(form))),
        Ok(Err(_)) => {
            let reason = format!(
                "the form could not be read: it has more than {FORM_BYTES_MAX} bytes, or was broken off"
            );
            Err(Failure::new(StatusCode::PAYLOAD_TOO_LARGE, reason))
        }
        Err(_) => {
            let reason = "the form did not come in time; try again";
            Err(Failure::new(StatusCode::REQUEST_TIMEOUT, reason))
        }
    }
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
    use axum::http::HeaderValue;

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
