//! Which host a request is for, where the API is served to this machine alone.
//!
//! A browser on this machine runs pages of strangers, and such a page may have a name that its
//! owner lets point at 127.0.0.1 (DNS rebinding): to the browser the node is then the page's own
//! server. The request still says in `Host` whom it is for, and one that is for another host is
//! answered with 421 (RFC 9110, section 15.5.20).

use std::net::{IpAddr, SocketAddr};

use axum::extract::Request;
use axum::http::uri::Authority;
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::problem::Problem;
use crate::error::code;

/// Whether only this machine reaches an address.
pub fn is_loopback(address: &SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

/// Turns requests away that are for another host than this machine.
pub(super) async fn local_only(request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST);
    let named = match (request.uri().authority(), host) {
        (Some(authority), _) => is_local(authority),
        // A client too old to name a host is no browser.
        (None, None) => true,
        (None, Some(host)) => {
            let authority = host.to_str().ok().and_then(|host| host.parse().ok());
            authority.as_ref().is_some_and(is_local)
        }
    };
    if named && let Some(origin) = strange_origin(&request) {
        tracing::warn!(origin, "refused: a page of another site sent it");
        let reason =
            "a page of another site (`Origin`) sent this request; programs send no `Origin`";
        return Problem::new(StatusCode::FORBIDDEN, code::ORIGIN_REFUSED, reason).into_response();
    }
    if named {
        return next.run(request).await;
    }
    let reason = "this node answers requests for localhost only, and `Host` names another host; a proxy in front of it must send `Host: localhost`";
    Problem::new(StatusCode::MISDIRECTED_REQUEST, code::HOST_REFUSED, reason).into_response()
}

/// The origin of a browser's request that no page of this machine's sent (RFC 6454, section 7).
fn strange_origin(request: &Request) -> Option<String> {
    let origin = request.headers().get(header::ORIGIN)?;
    let local = origin.to_str().ok().and_then(|origin| {
        let (_, authority) = origin.split_once("://")?;
        Some(is_local(&authority.parse().ok()?))
    });
    (local != Some(true)).then(|| String::from_utf8_lossy(origin.as_bytes()).into_owned())
}

fn is_local(authority: &Authority) -> bool {
    let host = authority.host();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    match address.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback(),
        Err(_) => host.trim_end_matches('.').eq_ignore_ascii_case("localhost"),
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::routing::get;
    use tokio::net::TcpListener;

    use super::super::serve;
    use super::*;
    use crate::environment::Shutdown;

    #[test]
    fn this_machine_has_few_names() {
        for (host, local) in [
            ("localhost", true),
            ("LOCALHOST.:7474", true),
            ("127.0.0.1:7474", true),
            ("127.9.9.9", true),
            ("[::1]:80", true),
            ("[::ffff:127.0.0.1]", true),
            ("evil.example:7474", false),
            ("localhost.evil.example", false),
            ("127.0.0.1.evil.example", false),
            ("10.0.0.1", false),
            ("0.0.0.0", false),
        ] {
            assert_eq!(is_local(&host.parse().unwrap()), local, "{host}");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_request_for_another_host_is_turned_away_on_loopback() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let router = Router::new().route("/", get(|| async { "done" }));
        let stop = Shutdown::default();
        let serving = tokio::spawn(serve(listener, None, router, stop.clone()));
        for (host, origin, expected) in [
            ("localhost:1", None, (200, "done")),
            ("localhost", Some("http://localhost:3000"), (200, "done")),
            ("localhost", Some("https://evil.example"), (403, "BST-0049")),
            ("localhost", Some("null"), (403, "BST-0049")),
            ("evil.example", None, (421, "BST-0046")),
        ] {
            let url = url.clone();
            let agent: ureq::Agent = ureq::Agent::config_builder()
                .http_status_as_error(false)
                .build()
                .into();
            let request = move || {
                let mut request = agent.get(url).header("host", host);
                if let Some(origin) = origin {
                    request = request.header("origin", origin);
                }
                request.call()
            };
            let mut answer = tokio::task::spawn_blocking(request).await.unwrap().unwrap();
            assert_eq!(answer.status().as_u16(), expected.0, "{host}");
            let body = answer.body_mut().read_to_string().unwrap();
            assert!(body.contains(expected.1), "{host}: {body}");
        }
        stop.request();
        serving.await.unwrap().unwrap();
    }
}
