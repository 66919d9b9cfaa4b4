//! Projections at work: each with a task that follows the events until the shutdown.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;

use super::document::AnyProjection;
use super::live::Projector;
use super::model::ProjectionError;
use super::rebuild;
use super::registry::Projections;
use crate::engine::limit::within;
use crate::environment::{Environment, Shutdown};
use crate::error::code;
use crate::metric;
use crate::store::StoreError;
use crate::store::projections::{Generation, ReadModels};

/// Shortest and longest wait for new events.
const IDLE_PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(250));
/// Shortest and longest wait after an error.
const TROUBLE_PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
/// How often documents made on demand that nobody asks for are cleared away, and how many at once.
const SWEEP_EVERY: Duration = Duration::from_secs(10);
const SWEEP_ROWS_MAX: usize = 500;

/// What a follower needs from outside.
#[derive(Clone)]
pub struct Following {
    /// Clock and sleep.
    pub environment: Arc<dyn Environment>,
    /// Where events are read and documents kept.
    pub store: Arc<dyn ReadModels>,
}

/// Keeps the live ones up to date, and clears away what was made on demand, until the shutdown. An
/// error of one stops none of the others, and is tried again: see the metric of their lag.
pub async fn run_all(projections: &Projections, following: Following, shutdown: Shutdown) {
    let live = projections.registered.iter().filter(|it| it.live);
    let followers = live.map(|it| {
        let (projection, following) = (Arc::clone(&it.projection), following.clone());
        async move { follow(&projection, &following).await }
    });
    let on_demand = projections
        .registered
        .iter()
        .any(|it| it.on_demand.is_some());
    let sweeping = async {
        if on_demand {
            sweep(&following).await;
        } else {
            std::future::pending::<()>().await;
        }
    };
    let all = async { tokio::join!(join_all(followers), sweeping) };
    tokio::select! {
        biased;
        () = shutdown.requested() => {}
        _ = all => {}
    }
}

async fn sweep(following: &Following) {
    let Following { environment, store } = following;
    loop {
        let now = environment.now();
        let swept = within(&**environment, store.sweep_cache(now, SWEEP_ROWS_MAX)).await;
        match swept {
            Ok(swept) if swept >= SWEEP_ROWS_MAX as u64 => continue,
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "can't clear away documents made on demand"),
        }
        environment.sleep(SWEEP_EVERY).await;
    }
}

async fn follow(projection: &Arc<dyn AnyProjection>, following: &Following) {
    let name = projection.name();
    let mut tries: u32 = 0;
    loop {
        let error = match serving(projection, following).await {
            Ok(Some(generation)) => {
                tracing::info!(
                    projection = name,
                    generation = generation.generation,
                    position = %generation.position,
                    "keeps documents up to date"
                );
                let (error, went_well) = fold_on(projection, following, generation).await;
                if went_well {
                    tries = 0;
                }
                error
            }
            Ok(None) => {
                tracing::debug!(projection = name, "a newer version keeps the documents");
                following.environment.sleep(TROUBLE_PAUSE.1).await;
                continue;
            }
            Err(error) => error,
        };
        match &error {
            ProjectionError::Store(StoreError::Conflict) => {
                tracing::debug!(projection = name, "somebody else has done the step");
            }
            ProjectionError::Store(error) => {
                tracing::warn!(projection = name, %error, "can't follow events; trying again");
            }
            ProjectionError::Unusable { .. } => {
                let code = code::PROJECTION_STOPPED;
                tracing::error!(projection = name, %code, %error, "can't follow events; trying again");
            }
        }
        let (shortest, longest) = TROUBLE_PAUSE;
        let pause = shortest.saturating_mul(1 << tries.min(10)).min(longest);
        tries += 1;
        following.environment.sleep(pause).await;
    }
}

/// Folds until there is an error; also whether anything was folded before it.
async fn fold_on(
    projection: &Arc<dyn AnyProjection>,
    following: &Following,
    generation: Generation,
) -> (ProjectionError, bool) {
    let Following { environment, store } = following.clone();
    let (environment, name) = (environment, projection.name());
    let mut projector = Projector::new(
        Arc::clone(&environment),
        store,
        Arc::clone(projection),
        generation,
    );
    let (mut idle, mut went_well) = (0_u32, false);
    loop {
        let stepped = match projector.step().await {
            Ok(stepped) => stepped,
            Err(error) => return (error, went_well),
        };
        went_well = true;
        metric::projection_folded(name, stepped.events);
        let (positions, behind) = if stepped.caught_up {
            (0, Duration::ZERO)
        } else {
            (stepped.positions, stepped.behind)
        };
        metric::projection_lag(name, positions, behind);
        if !stepped.caught_up {
            continue;
        }
        idle = if stepped.events > 0 { 0 } else { idle + 1 };
        let (shortest, longest) = IDLE_PAUSE;
        let pause = shortest.saturating_mul(1 << idle.min(8)).min(longest);
        environment.sleep(pause).await;
    }
}

/// The generation that serves readers, made or rebuilt if need be; `None` if it is a newer version's.
async fn serving(
    projection: &Arc<dyn AnyProjection>,
    following: &Following,
) -> Result<Option<Generation>, ProjectionError> {
    let Following { environment, store } = following;
    let (name, version) = (projection.name(), projection.version());
    let found = within(&**environment, store.generations(Some(name))).await?;
    let Some(serving) = found.into_iter().find(|it| it.serving) else {
        let added = store.add_generation(name, version);
        return Ok(Some(within(&**environment, added).await?));
    };
    if serving.version == version {
        return Ok(Some(serving));
    }
    if serving.version > version {
        return Ok(None);
    }
    tracing::info!(
        projection = name,
        from = serving.version,
        to = version,
        "its version was raised: documents are made anew, and readers keep the old ones meanwhile"
    );
    let rebuilt = rebuild::whole(environment, store, projection, &|_, _| {}).await?;
    Ok(Some(rebuilt))
}
