//! Who may pass: whose request it is, and whether it may do what it asks for.

use std::sync::Arc;

use axum::extract::{FromRequestParts, RawPathParams, Request};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::accept::ClientCertificate;
use super::problem::Problem;
use super::{Context, Params};
use crate::access::rights::{Reach, Scope};
use crate::access::{Caller, Evidence, Stranger};
use crate::error::code;
use crate::view::read_head;

/// What a caller needs for an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// Nothing: for those who only ask whether the node lives.
    Nothing,
    /// A scope, as far as what is asked about.
    Scope(Scope, About),
}

/// What a request is about, for scopes that are limited to sagas of some names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum About {
    /// All sagas, or none: a limited scope is too small.
    Everything,
    /// Sagas of the name in the path's `{saga}`.
    Name,
    /// The saga whose id is the path's `{saga}`.
    Id,
    /// Sagas of this name, in the place of which the path has something else.
    Named(&'static str),
    /// Sagas of the name in the query's `name`.
    QueriedName,
}

/// Longest text of a header `Authorization` that is looked at, in bytes.
const AUTHORIZATION_BYTES_MAX: usize = 20_000;

/// Who sent a request, for handlers.
pub(super) struct Signed(pub(super) Caller);

impl<S: Sync> FromRequestParts<S> for Signed {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let caller = parts.extensions.get::<Caller>().cloned();
        // Endpoints that need nothing have no caller.
        Ok(Self(caller.unwrap_or_else(|| Caller {
            name: None,
            rights: crate::access::rights::Rights::default(),
        })))
    }
}

/// Lets a request pass, with its caller, or says why not.
pub(super) async fn pass(
    context: &Arc<Context>,
    need: Need,
    params: Params,
    request: &mut Parts,
) -> Result<(), Problem> {
    let Need::Scope(scope, about) = need else {
        return Ok(());
    };
    let params = params.map_err(|wrong| Problem::malformed(wrong.body_text()))?;
    let caller = match caller(context, request).await {
        Ok(caller) => caller,
        Err(stranger) => return Err(turned_away(&stranger, request)),
    };
    let reach = caller.rights.reach(scope);
    let may = match &reach {
        Reach::All => Ok(true),
        Reach::Nothing => Ok(false),
        named @ Reach::Named(_) => reaches(context, about, named, &params, request).await,
    };
    if !may? {
        let by = caller.name.as_deref().unwrap_or_default();
        let (method, path) = (&request.method, request.uri.path());
        tracing::warn!(by, %scope, %method, path, "refused: the caller may not do this");
        return Err(too_small(scope, &reach));
    }
    let is_read = request.method == Method::GET;
    if let Some(by) = caller.name.as_deref().filter(|_| !is_read) {
        let (method, path) = (&request.method, request.uri.path());
        match scope {
            // As many as there are sagas.
            Scope::SagasStart | Scope::SignalsSend => {
                tracing::debug!(by, %scope, %method, path, "let in");
            }
            _ => tracing::info!(by, %scope, %method, path, "let in"),
        }
    }
    request.extensions.insert(caller);
    Ok(())
}

/// Whether whoever was let in would be let in now, and could do the same.
pub(super) async fn may_still(context: &Context, request: &Parts) -> bool {
    let Some(before) = request.extensions.get::<Caller>() else {
        return true;
    };
    match caller(context, request).await {
        Ok(now) => now.rights == before.rights,
        Err(Stranger::Unavailable(_)) => true,
        Err(_) => false,
    }
}

async fn caller(context: &Context, request: &Parts) -> Result<Caller, Stranger> {
    // Before the header is looked at: it may be for somebody in front of us.
    if !context.api.access.is_asked_for().await? {
        return Ok(Caller::anyone());
    }
    let header = request.headers.get(header::AUTHORIZATION);
    let bearer = header.map(bearer).transpose()?;
    let certificate = request.extensions.get::<ClientCertificate>();
    let evidence = Evidence {
        bearer,
        certificate: certificate.map(|certificate| certificate.0.as_slice()),
    };
    context.api.access.caller(evidence).await
}

/// What follows `Bearer` (RFC 6750, section 2.1).
fn bearer(value: &HeaderValue) -> Result<&str, Stranger> {
    let wrong = || Stranger::Invalid("`Authorization` is not `Bearer TOKEN`".to_owned());
    if value.len() > AUTHORIZATION_BYTES_MAX {
        return Err(wrong());
    }
    let text = value.to_str().map_err(|_| wrong())?;
    let (scheme, token) = text.split_once(' ').ok_or_else(wrong)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(wrong());
    }
    Ok(token.trim())
}

/// Whether a scope for sagas of some names is enough.
async fn reaches(
    context: &Context,
    about: About,
    named: &Reach,
    params: &RawPathParams,
    request: &Parts,
) -> Result<bool, Problem> {
    let in_path = || {
        let mut params = params.iter();
        params.find_map(|(name, value)| (name == "saga").then_some(value))
    };
    Ok(match about {
        About::Everything => false,
        About::Named(name) => named.holds(name),
        About::Name => in_path().is_some_and(|name| named.holds(name)),
        About::QueriedName => {
            let query = request.uri.query().unwrap_or_default();
            // As the handler reads it: `n%61me` is `name` too.
            let asked = form_urlencoded::parse(query.as_bytes())
                .filter_map(|(parameter, value)| (parameter == "name").then_some(value));
            let asked: Vec<_> = asked.collect();
            // Twice the same parameter could be read in two ways.
            matches!(&asked[..], [name] if named.holds(name))
        }
        About::Id => {
            let Some(Ok(id)) = in_path().map(str::parse) else {
                return Ok(false);
            };
            let head = read_head(&**context.api.engine.store(), id).await?;
            head.is_some_and(|head| named.holds(&head.name))
        }
    })
}

fn turned_away(stranger: &Stranger, request: &Parts) -> Problem {
    let (method, path) = (&request.method, request.uri.path());
    let reason = stranger.to_string();
    match stranger {
        Stranger::Unavailable(_) => Problem::unavailable(code::NODE_UNAVAILABLE, reason),
        Stranger::Nothing => {
            tracing::warn!(%method, path, "refused: nobody is signed in");
            Problem::new(StatusCode::UNAUTHORIZED, code::UNAUTHENTICATED, reason)
        }
        Stranger::Invalid(why) => {
            tracing::warn!(%method, path, why, "refused: nobody is signed in");
            Problem::new(StatusCode::UNAUTHORIZED, code::UNAUTHENTICATED, reason)
        }
    }
}

fn too_small(scope: Scope, reach: &Reach) -> Problem {
    let reason = match reach {
        Reach::Named(names) => {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            format!(
                "this needs the scope `{scope}`, and yours is for sagas named {} alone (a list must ask for one of them by `name`)",
                names.join(", ")
            )
        }
        _ => format!("this needs the scope `{scope}`, which you have not"),
    };
    Problem::new(StatusCode::FORBIDDEN, code::SCOPE_MISSING, reason)
}

/// What every answer says to caches, browsers and those who must sign in.
pub(super) async fn mark(request: Request, next: axum::middleware::Next) -> Response {
    let mut response = next.run(request).await.into_response();
    let status = response.status();
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let nosniff = HeaderValue::from_static("nosniff");
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
    if status == StatusCode::UNAUTHORIZED {
        let bearer = HeaderValue::from_static("Bearer realm=\"backstitch\"");
        headers.insert(header::WWW_AUTHENTICATE, bearer);
    }
    response
}
