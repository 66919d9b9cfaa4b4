//! What a client is told when its request can't be done: a status, a code, a reason, in the form of
//! RFC 9457 (`application/problem+json`).

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::engine::decode::Undecodable;
use crate::engine::{OperateError, SignalError, StartError};
use crate::error::{Class, Code, code};
use crate::id::SagaId;
use crate::store::StoreError;

/// An answer that is no.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    body: Box<Body>,
}

#[derive(Debug, Serialize)]
struct Body {
    /// The kind of problem, as RFC 9457 wants it: a URN of our code.
    #[serde(rename = "type")]
    kind: String,
    /// The kind in words, the same for each of it.
    title: &'static str,
    status: u16,
    /// The same as `reason`, under the standard's name.
    detail: String,
    code: String,
    reason: String,
    /// Each thing that is wrong with the input.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    problems: Vec<String>,
    /// The saga that is in the way.
    #[serde(skip_serializing_if = "Option::is_none")]
    saga_id: Option<SagaId>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, code: Code, reason: impl Into<String>) -> Self {
        let reason = reason.into();
        let body = Body {
            kind: format!("urn:backstitch:{code}"),
            title: code.title(),
            status: status.as_u16(),
            detail: reason.clone(),
            code: code.to_string(),
            reason,
            problems: Vec::new(),
            saga_id: None,
        };
        Self {
            status,
            body: Box::new(body),
        }
    }

    pub(super) fn malformed(reason: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code::REQUEST_MALFORMED, reason)
    }

    pub(super) fn not_found(code: Code, reason: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, reason)
    }

    pub(super) fn no_saga(id: SagaId) -> Self {
        Self::not_found(code::SAGA_NOT_FOUND, format!("there is no saga {id}"))
    }

    pub(super) fn unavailable(code: Code, reason: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, reason)
    }

    pub(super) fn with_problems(mut self, problems: Vec<String>) -> Self {
        self.body.problems = problems;
        self
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Self { status, body } = self;
        let mut response = (status, Json(body)).into_response();
        let kind = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        if status == StatusCode::SERVICE_UNAVAILABLE {
            let soon = HeaderValue::from_static("1");
            response.headers_mut().insert(header::RETRY_AFTER, soon);
        }
        response
    }
}

impl From<Undecodable> for Problem {
    fn from(wrong: Undecodable) -> Self {
        let status = match wrong.code {
            code::SAGA_UNKNOWN => StatusCode::NOT_FOUND,
            code::INPUT_INVALID | code::KEY_INVALID | code::SAGA_TOO_LARGE => {
                StatusCode::UNPROCESSABLE_ENTITY
            }
            code::BODY_TOO_LARGE | code::BODY_TOO_DEEP | code::BODY_TOO_MANY_VALUES => {
                StatusCode::PAYLOAD_TOO_LARGE
            }
            _ => StatusCode::BAD_REQUEST,
        };
        Self::new(status, wrong.code, wrong.reason)
    }
}

impl From<StartError> for Problem {
    fn from(error: StartError) -> Self {
        let reason = error.to_string();
        match error {
            StartError::Refused(wrong) => wrong.into(),
            StartError::KeyConflict { saga } | StartError::KeyHeld { saga } => {
                let mut problem = Self::new(StatusCode::CONFLICT, code::KEY_CONFLICT, reason);
                problem.body.saga_id = Some(saga);
                problem
            }
            StartError::Unavailable(_) => Self::unavailable(code::NODE_UNAVAILABLE, reason),
        }
    }
}

impl From<OperateError> for Problem {
    fn from(error: OperateError) -> Self {
        let reason = error.to_string();
        match error {
            OperateError::Refused(wrong) if wrong.code == code::NOT_POSSIBLE => {
                Self::new(StatusCode::CONFLICT, wrong.code, wrong.reason)
            }
            OperateError::Refused(wrong) if wrong.code == code::REPLY_FOR_NO_SAGA => {
                Self::not_found(code::SAGA_NOT_FOUND, wrong.reason)
            }
            OperateError::Refused(wrong) => {
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, wrong.code, wrong.reason)
            }
            OperateError::Unavailable(_) => Self::unavailable(code::NODE_UNAVAILABLE, reason),
        }
    }
}

impl From<SignalError> for Problem {
    fn from(error: SignalError) -> Self {
        let reason = error.to_string();
        match error {
            SignalError::Refused(wrong) => {
                let status = match wrong.code {
                    code::SIGNAL_MALFORMED => StatusCode::BAD_REQUEST,
                    code::SIGNAL_FOR_NO_SAGA => StatusCode::NOT_FOUND,
                    code::SIGNAL_UNKNOWN => StatusCode::UNPROCESSABLE_ENTITY,
                    code::SIGNAL_TOO_LATE
                    | code::SIGNAL_ROLLING_BACK
                    | code::SIGNALS_FULL
                    | code::SIGNAL_CONFLICT => StatusCode::CONFLICT,
                    _ => StatusCode::INTERNAL_SERVER_ERROR,
                };
                Self::new(status, wrong.code, wrong.reason)
            }
            SignalError::Unavailable(_) => Self::unavailable(code::NODE_UNAVAILABLE, reason),
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        if error.class() == Class::Retry {
            return Self::unavailable(code::NODE_UNAVAILABLE, error.to_string());
        }
        tracing::error!(%error, "a query failed");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            code::STORE_REFUSED,
            "the database refuses; the node's log says more",
        )
    }
}
