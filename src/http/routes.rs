//! Every endpoint, and what a caller needs for it: one table, from which the router and the test of
//! rights are made.

use std::sync::Arc;

use axum::http::Method;
use axum::routing::{MethodRouter, get, post};

use super::guard::About::{Everything, Id, Name, Named, QueriedName};
use super::guard::Need;
use super::{
    Context, actions, audit, dead_letters, definitions, health, jobs, live, openapi, overview,
    parts, reading, sagas, schedules, search, signals,
};
use crate::access::rights::Scope::{
    AggregatesRead, LettersRead, LettersWrite, MetricsRead, SagasForce, SagasOperate, SagasRead,
    SagasStart, SignalsSend,
};

/// One way to call the API.
pub(super) struct Endpoint {
    pub(super) method: Method,
    pub(super) path: &'static str,
    pub(super) need: Need,
    /// Whether it counts towards the limits on requests.
    pub(super) is_bounded: bool,
    pub(super) handler: MethodRouter<Arc<Context>>,
}

fn read(path: &'static str, need: Need, handler: MethodRouter<Arc<Context>>) -> Endpoint {
    Endpoint {
        method: Method::GET,
        path,
        need,
        is_bounded: true,
        handler,
    }
}

fn write(path: &'static str, need: Need, handler: MethodRouter<Arc<Context>>) -> Endpoint {
    Endpoint {
        method: Method::POST,
        ..read(path, need, handler)
    }
}

fn probe(path: &'static str, need: Need, handler: MethodRouter<Arc<Context>>) -> Endpoint {
    Endpoint {
        is_bounded: false,
        ..read(path, need, handler)
    }
}

/// All of them.
pub(super) fn endpoints() -> Vec<Endpoint> {
    let mut all = of_sagas();
    all.extend(of_jobs());
    all.extend(of_letters());
    all.extend(of_aggregates());
    all.extend([
        probe("/livez", Need::Nothing, get(health::live)),
        probe("/readyz", Need::Nothing, get(health::ready)),
        probe(
            "/metrics",
            Need::Scope(MetricsRead, Everything),
            get(health::metrics),
        ),
        probe("/openapi.json", Need::Nothing, get(openapi::document)),
        probe("/docs", Need::Nothing, get(openapi::page)),
    ]);
    all
}

fn of_sagas() -> Vec<Endpoint> {
    use Need::Scope;
    vec![
        read("/sagas", Scope(SagasRead, QueriedName), get(search::list)),
        read(
            "/sagas/groups",
            Scope(SagasRead, QueriedName),
            get(search::groups),
        ),
        // A saga may have the name of what is beside it.
        write(
            "/sagas/groups",
            Scope(SagasStart, Named("groups")),
            post(sagas::start_groups),
        ),
        read(
            "/sagas/live",
            Scope(SagasRead, QueriedName),
            get(live::heads),
        ),
        write(
            "/sagas/live",
            Scope(SagasStart, Named("live")),
            post(sagas::start_live),
        ),
        write("/sagas/{saga}", Scope(SagasStart, Name), post(sagas::start)),
        read("/sagas/{saga}", Scope(SagasRead, Id), get(sagas::show)),
        read("/sagas/{saga}/live", Scope(SagasRead, Id), get(live::saga)),
        read("/live", Scope(SagasRead, Everything), get(live::counters)),
        read(
            "/sagas/{saga}/steps",
            Scope(SagasRead, Id),
            get(parts::steps),
        ),
        read(
            "/sagas/{saga}/timeline",
            Scope(SagasRead, Id),
            get(parts::timeline),
        ),
        write(
            "/sagas/{saga}/force-complete",
            Scope(SagasForce, Id),
            post(actions::force_complete),
        ),
        write(
            "/sagas/{saga}/force-compensated",
            Scope(SagasForce, Id),
            post(actions::force_compensated),
        ),
        write(
            "/sagas/{saga}/{action}",
            Scope(SagasOperate, Id),
            post(actions::operate),
        ),
        write(
            "/sagas/{saga}/signals/{signal}",
            Scope(SignalsSend, Id),
            post(signals::to_saga),
        ),
        write(
            "/sagas/{saga}/keys/{key}/signals/{signal}",
            Scope(SignalsSend, Name),
            post(signals::to_key),
        ),
        read(
            "/definitions",
            Scope(SagasRead, QueriedName),
            get(definitions::list),
        ),
        read(
            "/definitions/{saga}",
            Scope(SagasRead, Name),
            get(definitions::show),
        ),
        read(
            "/overview",
            Scope(SagasRead, Everything),
            get(overview::overview),
        ),
        read("/tasks", Scope(SagasRead, QueriedName), get(search::tasks)),
        read(
            "/schedules",
            Scope(SagasRead, Everything),
            get(schedules::list),
        ),
        write(
            "/schedules/{saga}",
            Scope(SagasOperate, Name),
            post(schedules::set),
        ),
    ]
}

fn of_jobs() -> Vec<Endpoint> {
    let seen = Need::Scope(SagasRead, Everything);
    // What an action needs besides, its handler asks.
    let changed = Need::Scope(SagasOperate, Everything);
    vec![
        read("/jobs", seen, get(jobs::list)),
        write("/jobs", changed, post(jobs::make)),
        read("/jobs/{job}", seen, get(jobs::show)),
        read("/jobs/{job}/results", seen, get(jobs::results)),
        write("/jobs/{job}/{command}", changed, post(jobs::command)),
    ]
}

fn of_aggregates() -> Vec<Endpoint> {
    let seen = Need::Scope(AggregatesRead, Everything);
    vec![
        read("/aggregates/{kind}", seen, get(reading::list)),
        read("/aggregates/{kind}/{id}", seen, get(reading::show)),
        read(
            "/aggregates/{kind}/{id}/events",
            seen,
            get(reading::history),
        ),
        read("/events", seen, get(reading::events)),
        read("/projections", seen, get(reading::projections)),
        read("/projections/{name}/{key}", seen, get(reading::document)),
    ]
}

fn of_letters() -> Vec<Endpoint> {
    let seen = Need::Scope(LettersRead, Everything);
    let changed = Need::Scope(LettersWrite, Everything);
    vec![
        read("/audit", seen, get(audit::list)),
        read("/dead-letters", seen, get(dead_letters::list)),
        read("/dead-letters/groups", seen, get(dead_letters::groups)),
        read("/dead-letters/stats", seen, get(dead_letters::stats)),
        read("/dead-letters/audit", seen, get(dead_letters::audit)),
        read("/dead-letters/export", seen, get(dead_letters::export)),
        write("/dead-letters/import", changed, post(dead_letters::import)),
        write("/dead-letters/replay", changed, post(dead_letters::replay)),
        write(
            "/dead-letters/discard",
            changed,
            post(dead_letters::discard),
        ),
        write("/dead-letters/purge", changed, post(dead_letters::purge)),
        read("/dead-letters/{letter}", seen, get(dead_letters::show)),
        read(
            "/dead-letters/{letter}/document",
            seen,
            get(dead_letters::shown),
        ),
        write(
            "/dead-letters/{letter}/edit",
            changed,
            post(dead_letters::edit),
        ),
    ]
}
