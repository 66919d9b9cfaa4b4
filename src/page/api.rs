//! Calling the API, in this process and as the reader.

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderValue, Method, Request, StatusCode, Uri, header};
use axum::response::Response;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tower::ServiceExt;

use super::text::Text;
use super::{address, cookies};
use crate::http;

/// Largest answer of the API that a view is made of, in bytes.
const ANSWER_BYTES_MAX: usize = 32 * 1024 * 1024;
/// What the paths of the API begin with.
const VERSION: &str = "/v1";

/// What the views are made from.
#[derive(Clone)]
pub(super) struct Backend {
    api: Router,
}

impl Backend {
    pub(super) fn new(api: Router) -> Self {
        Self { api }
    }
}

/// Who reads, and what is read from.
pub(super) struct Reader {
    api: Router,
    /// What says who it is, as the API wants it.
    authorization: Option<HeaderValue>,
    /// A client's certificate, if the connection has one.
    extensions: Extensions,
    /// The name under which the reader acts where nobody must sign in.
    pub(super) name: Text,
    /// Whether the browser holds a token.
    pub(super) is_signed_in: bool,
    /// The address that is asked for; where to go after signing in.
    pub(super) address: Uri,
}

impl FromRequestParts<Backend> for Reader {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(
        parts: &mut Parts,
        backend: &Backend,
    ) -> Result<Self, Self::Rejection> {
        let token = cookies::token(&parts.headers);
        let authorization = token.as_ref().and_then(|token| {
            let mut value = HeaderValue::from_str(&format!("Bearer {token}")).ok()?;
            value.set_sensitive(true);
            Some(value)
        });
        Ok(Self {
            api: backend.api.clone(),
            is_signed_in: authorization.is_some(),
            authorization,
            extensions: http::carried(&parts.extensions),
            name: cookies::name(&parts.headers),
            // What a form is sent to is no place to come back to.
            address: match parts.method {
                Method::GET => parts.uri.clone(),
                _ => Uri::from_static(address::ROOT),
            },
        })
    }
}

/// Why the API did not do what it was asked for.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Failure {
    #[serde(default)]
    pub(super) status: u16,
    #[serde(default)]
    pub(super) code: Text,
    #[serde(default)]
    pub(super) reason: Text,
    /// Each thing that is wrong with an input.
    #[serde(default)]
    pub(super) problems: Vec<Text>,
}

impl Failure {
    /// One of the page's own.
    pub(super) fn new(status: StatusCode, reason: impl Into<String>) -> Self {
        Self {
            status: status.as_u16(),
            reason: Text::from(reason.into()),
            ..Self::default()
        }
    }

    /// What a part of a view says that is not shown.
    pub(super) fn words(&self) -> String {
        format!("{} {}", self.reason, self.code)
    }

    fn of(status: StatusCode, body: &[u8]) -> Self {
        let said = serde_json::from_slice::<Self>(body).ok();
        let said = said.filter(|said| !said.reason.is_empty());
        let mut failure = said.unwrap_or_else(|| {
            let reason = format!("the API answered {status}");
            Self::new(status, reason)
        });
        failure.status = status.as_u16();
        failure
    }
}

/// An answer to a question that not everybody may ask, or that can't be answered now.
pub(super) type Answer<T> = Result<T, Failure>;

impl Reader {
    /// Reads what is at `path`, such as `/sagas?status=live`.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Answer<T> {
        read(self.ask(path).await).await
    }

    /// Reads, whatever the status is.
    pub(super) async fn get_any<T: DeserializeOwned>(&self, path: &str) -> Answer<T> {
        let response = self.ask(path).await;
        let status = response.status();
        let body = body_of(response).await?;
        serde_json::from_slice(&body).map_err(|_| Failure::of(status, &body))
    }

    /// Changes something.
    pub(super) async fn post<T: DeserializeOwned>(&self, path: &str, body: &Value) -> Answer<T> {
        self.post_once(path, body, "").await
    }

    /// Changes something once, however often the form with the key `once` is sent.
    pub(super) async fn post_once<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &Value,
        once: &str,
    ) -> Answer<T> {
        let mut request = self.with_json(path, body);
        if let Ok(key) = HeaderValue::from_str(once)
            && !once.is_empty()
        {
            request.headers_mut().insert("idempotency-key", key);
        }
        read(answered(self.api.clone().oneshot(request).await)).await
    }

    /// An answer that comes bit by bit.
    pub(super) async fn stream(&self, path: &str, last_seen: Option<HeaderValue>) -> Response {
        let mut request = self.request(Method::GET, path, Body::empty());
        if let Some(id) = last_seen {
            request.headers_mut().insert("last-event-id", id);
        }
        answered(self.api.clone().oneshot(request).await)
    }

    async fn ask(&self, path: &str) -> Response {
        let request = self.request(Method::GET, path, Body::empty());
        answered(self.api.clone().oneshot(request).await)
    }

    fn with_json(&self, path: &str, body: &Value) -> Request<Body> {
        let mut request = self.request(Method::POST, path, Body::from(body.to_string()));
        let json = HeaderValue::from_static("application/json");
        request.headers_mut().insert(header::CONTENT_TYPE, json);
        request
    }

    fn request(&self, method: Method, path: &str, body: Body) -> Request<Body> {
        let mut request = Request::new(body);
        *request.method_mut() = method;
        // A path that is none is a path that there is not.
        let uri = format!("{VERSION}{path}").parse();
        *request.uri_mut() = uri.unwrap_or_else(|_| Uri::from_static("/v1/-"));
        request.extensions_mut().extend(self.extensions.clone());
        if let Some(value) = &self.authorization {
            let headers = request.headers_mut();
            headers.insert(header::AUTHORIZATION, value.clone());
        }
        request
    }
}

fn answered(result: Result<Response, std::convert::Infallible>) -> Response {
    match result {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

async fn read<T: DeserializeOwned>(response: Response) -> Answer<T> {
    let status = response.status();
    let body = body_of(response).await?;
    if !status.is_success() {
        return Err(Failure::of(status, &body));
    }
    serde_json::from_slice(&body).map_err(|error| {
        let reason = format!("the API's answer is not what the page expects: {error}");
        Failure::new(StatusCode::INTERNAL_SERVER_ERROR, reason)
    })
}

async fn body_of(response: Response) -> Answer<axum::body::Bytes> {
    to_bytes(response.into_body(), ANSWER_BYTES_MAX)
        .await
        .map_err(|error| {
            let reason = format!("the API's answer could not be read: {error}");
            Failure::new(StatusCode::BAD_GATEWAY, reason)
        })
}
