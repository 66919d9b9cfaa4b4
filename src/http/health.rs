//! How the node does: alive, ready, its numbers.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::{Context, Shared};
use crate::broker::Health;
use crate::metric;
use crate::store::ListFilter;

/// How long the database may take to answer a node that calls itself ready.
const DATABASE_TIME_MAX: Duration = Duration::from_secs(2);

/// `GET /livez`: the program runs.
pub(super) async fn live() -> &'static str {
    "alive\n"
}

/// What keeps a node from its work, and what is not as it should be.
#[derive(Serialize)]
pub(super) struct Readiness {
    ready: bool,
    reasons: Vec<Reason>,
    /// What some sagas are without, while all others run.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<Reason>,
}

impl Readiness {
    pub(super) fn is_ready(&self) -> bool {
        self.ready
    }

    /// All of it in words, what matters most first.
    pub(super) fn problems(&self) -> Vec<String> {
        let all = self.reasons.iter().chain(&self.warnings);
        all.map(|it| format!("{}: {}", it.part, it.reason))
            .collect()
    }
}

#[derive(Serialize)]
struct Reason {
    part: &'static str,
    reason: String,
}

/// `GET /readyz`: work sent here would be done now; if not, why not. Beside what answers at this
/// moment it looks at what the node has got done.
pub(super) async fn ready(State(context): Shared) -> Response {
    let readiness = readiness(&context).await;
    let status = if readiness.ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(readiness)).into_response()
}

/// What there is to say of it now.
pub(super) async fn readiness(context: &Context) -> Readiness {
    let parts = [
        ("node", node(context)),
        ("database", database(context).await),
        ("broker", broker(context)),
    ];
    let late = context.api.engine.hindrances().into_iter();
    let parts = parts
        .into_iter()
        .chain(late.map(|why| ("progress", Some(why))));
    let mut reasons: Vec<Reason> = parts
        .filter_map(|(part, reason)| {
            Some(Reason {
                part,
                reason: reason?,
            })
        })
        .collect();
    let mut warnings = Vec::new();
    for trouble in context.api.engine.troubles() {
        let reason = trouble.text;
        if trouble.is_ours {
            reasons.push(Reason {
                part: "broker",
                reason,
            });
        } else {
            warnings.push(Reason {
                part: "definitions",
                reason,
            });
        }
    }
    let off = context.api.engine.clock_off();
    warnings.extend(off.map(|reason| Reason {
        part: "clock",
        reason,
    }));
    let damage = context.api.engine.damage().into_iter();
    warnings.extend(damage.map(|(part, reason)| Reason { part, reason }));
    let newer = context.api.engine.newer();
    warnings.extend(newer.map(|reason| Reason {
        part: "sagas",
        reason,
    }));
    Readiness {
        ready: reasons.is_empty(),
        reasons,
        warnings,
    }
}

fn node(context: &Context) -> Option<String> {
    let stopping = context.api.stopping.is_requested();
    stopping.then(|| "it is stopping".to_owned())
}

async fn database(context: &Context) -> Option<String> {
    let one = ListFilter {
        limit: 1,
        ..ListFilter::default()
    };
    let query = context.api.engine.store().list(&one);
    match tokio::time::timeout(DATABASE_TIME_MAX, query).await {
        Ok(Ok(_)) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some(format!(
            "no answer within {}",
            crate::view::spoken(DATABASE_TIME_MAX)
        )),
    }
}

fn broker(context: &Context) -> Option<String> {
    match context.api.engine.broker_health() {
        Health::Up => None,
        Health::Blocked(why) => Some(format!("it takes no messages: {why}")),
        Health::Down(why) => Some(format!("not connected: {why}")),
    }
}

/// `GET /metrics`: for Prometheus.
pub(super) async fn metrics(State(context): Shared) -> Response {
    metric::broker_up(context.api.engine.broker_health() == Health::Up);
    let text = context.api.metrics.as_ref().map(|metrics| {
        metrics.run_upkeep();
        metrics.render()
    });
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
    (kind, text.unwrap_or_default()).into_response()
}
