//! The page for operators: what runs, what is stuck and why, and what to do about it, in a browser.
//!
//! It uses the HTTP API and nothing else: each view is a function from the API's answers to a template,
//! so whatever is shown can be had by a script, with the same rights. The API is called in this process
//! (`api`), with the reader's own credentials (`session`); the page decides nothing.
//!
//! HTML from the server, plain links and forms: everything works without a script. The one script there
//! is turns times into the reader's zone and replaces parts that have changed. Nothing is asked of another
//! host, and the policy that is sent along (`served`) forbids it.
//!
//! Invariants: what came from outside is text (`text`), never markup; a form is only taken from a page of ours.
//! Deliberately absent: any rule about sagas, any access to a store.

mod act;
mod address;
mod api;
mod audit;
mod cookies;
mod definitions;
#[cfg(test)]
mod desk_tests;
mod diagram;
mod home;
mod jobs;
mod letter;
mod letters;
mod now;
mod replay;
mod saga;
mod sagas;
mod schedules;
mod served;
mod session;
mod shell;
mod tasks;
#[cfg(test)]
mod tests;
mod text;
mod views;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware;
use axum::routing::{get, post};

use address::ROOT;
use api::Backend;

/// The API's routes, and the page's beside them.
pub fn router(api: Router) -> Router {
    let pages = Router::new()
        .route("/", get(home::front))
        .route(ROOT, get(now::view))
        .route("/ui/sign-in", get(session::form).post(session::sign_in))
        .route("/ui/sign-out", post(session::sign_out))
        .route("/ui/live", get(home::live))
        .route("/ui/sagas", get(sagas::view))
        .route("/ui/sagas/live", get(home::live_list))
        .route("/ui/views", post(views::change))
        .route("/ui/act", get(act::preview).post(act::make))
        .route("/ui/sagas/{saga}", get(saga::view))
        .route("/ui/sagas/{saga}/live", get(home::live_saga))
        .route(
            "/ui/sagas/{saga}/{action}",
            get(home::nothing).post(saga::act),
        )
        .route("/ui/definitions", get(definitions::list))
        .route("/ui/definitions/{name}", get(definitions::view))
        .route("/ui/definitions/{name}/start", post(definitions::start))
        .route("/ui/letters", get(letters::view))
        .route("/ui/letters/act", get(replay::preview).post(replay::make))
        .route("/ui/letters/{letter}", get(letter::view))
        .route("/ui/letters/{letter}/edit", post(letter::edit))
        .route("/ui/tasks", get(tasks::view).post(tasks::signal))
        .route("/ui/schedules", get(schedules::view))
        .route("/ui/schedules/{saga}", post(schedules::set))
        .route("/ui/jobs", get(jobs::list))
        .route("/ui/jobs/{job}", get(jobs::view))
        .route("/ui/jobs/{job}/{command}", post(jobs::command))
        .route("/ui/audit", get(audit::view))
        .route("/ui/assets/page.css", get(served::stylesheet))
        .route("/ui/assets/page.js", get(served::script))
        .route("/ui/assets/icon.svg", get(served::icon))
        .route("/ui/{*rest}", get(home::nothing))
        // What a form may have is bounded as it is taken in.
        .layer(DefaultBodyLimit::disable())
        .layer(middleware::from_fn(session::from_here))
        .layer(middleware::from_fn(served::headers))
        .with_state(Backend::new(api.clone()));
    api.merge(pages)
}
