//! What is around each view: its title, the way to the others, and what is said when something is refused.

use askama::Template;
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Redirect, Response};

use super::address::segment;
use super::api::{Failure, Reader};
use super::text::Text;

/// The frame of a view.
#[derive(Debug, Clone, Default)]
pub(super) struct Shell {
    /// What the view is about.
    pub(super) title: Text,
    /// Which of the links is the one that is open.
    pub(super) here: &'static str,
    /// Who acts, where nobody must sign in.
    pub(super) name: Text,
    /// Whether the browser holds a token.
    pub(super) is_signed_in: bool,
    /// What its forms are told apart by: one that is sent twice counts once.
    pub(super) once: String,
    /// What a form said that was taken.
    pub(super) done: Option<Text>,
    /// What was refused.
    pub(super) failure: Option<Failure>,
}

/// The links of each view: address and words.
pub(super) const LINKS: [(&str, &str); 8] = [
    ("/ui", "Now"),
    ("/ui/sagas", "Sagas"),
    ("/ui/letters", "Dead letters"),
    ("/ui/tasks", "Tasks"),
    ("/ui/definitions", "Definitions"),
    ("/ui/schedules", "Schedules"),
    ("/ui/jobs", "Jobs"),
    ("/ui/audit", "Audit"),
];

impl Shell {
    pub(super) fn new(title: impl Into<Text>, here: &'static str, reader: &Reader) -> Self {
        Self {
            title: title.into(),
            here,
            name: reader.name.clone(),
            is_signed_in: reader.is_signed_in,
            once: uuid::Uuid::now_v7().to_string(),
            done: None,
            failure: None,
        }
    }

    /// The links, and whether each is the one that is open.
    pub(super) fn links(&self) -> impl Iterator<Item = (&'static str, &'static str, bool)> {
        let here = self.here;
        LINKS
            .iter()
            .map(move |(address, words)| (*address, *words, *address == here))
    }
}

/// A view as it is sent; with the status of what was refused, if something was.
pub(super) fn page(view: &impl Template) -> Response {
    page_as(StatusCode::OK, view)
}

/// A view that is sent with a status.
pub(super) fn page_as(status: StatusCode, view: &impl Template) -> Response {
    match view.render() {
        Ok(html) => (status, Html(html)).into_response(),
        Err(error) => {
            let reason = format!("the page could not be made: {error}\n");
            (StatusCode::INTERNAL_SERVER_ERROR, reason).into_response()
        }
    }
}

#[derive(Template)]
#[template(path = "refused.html")]
struct RefusedPage {
    shell: Shell,
    failure: Failure,
}

/// A view that can't be shown.
pub(super) struct Refusal {
    shell: Shell,
    failure: Failure,
    /// Where to go after signing in.
    address: String,
}

impl Refusal {
    pub(super) fn new(reader: &Reader, failure: Failure) -> Self {
        Self {
            shell: Shell::new("Not shown", "", reader),
            failure,
            address: reader.address.to_string(),
        }
    }

    /// Of which nobody knows who reads it.
    pub(super) fn alone(failure: Failure) -> Self {
        let shell = Shell {
            title: Text::from("Not done"),
            ..Shell::default()
        };
        Self {
            shell,
            failure,
            address: String::new(),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        if self.failure.status == StatusCode::UNAUTHORIZED.as_u16() {
            let to = format!("/ui/sign-in?next={}", segment(&self.address));
            return Redirect::to(&to).into_response();
        }
        let status = StatusCode::from_u16(self.failure.status);
        let view = RefusedPage {
            shell: self.shell,
            failure: self.failure,
        };
        page_as(status.unwrap_or(StatusCode::BAD_GATEWAY), &view)
    }
}

impl Reader {
    /// What is shown where the API said no.
    pub(super) fn refused(&self) -> impl FnOnce(Failure) -> Refusal {
        |failure| Refusal::new(self, failure)
    }
}
