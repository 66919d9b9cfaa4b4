//! Making documents anew while readers keep the old ones.

use std::sync::Arc;

use super::document::AnyProjection;
use super::live::Projector;
use super::model::ProjectionError;
use super::recorded::Recorded;
use super::registry::Projections;
use crate::engine::limit::within;
use crate::environment::Environment;
use crate::store::StoreError;
use crate::store::feed::{EventQuery, Position};
use crate::store::projections::{Advance, DocumentRow, Generation, ReadModels};

/// Rows of an old generation removed at once.
const SWEEP_ROWS_MAX: usize = 1_000;
/// Events read at once for one document.
const PAGE_EVENTS: usize = 2_000;
/// How often the projector may be faster before a single document's rebuild is given up.
const OVERTAKEN_MAX: u32 = 1_000;

/// What a rebuild has come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rebuilt {
    /// The generation that serves now.
    pub generation: u32,
    /// What it has folded.
    pub position: Position,
}

/// Makes all documents of a projection anew, tells `report` how far it is (of how far), and has
/// readers see them once they are up to date. Documents made on demand are made anew when their
/// version is raised, or one by one ([`rebuild_key`]). `None` if there is no such live projection.
pub async fn rebuild(
    projections: &Projections,
    name: &str,
    environment: &Arc<dyn Environment>,
    store: &Arc<dyn ReadModels>,
    report: &(dyn Fn(Position, Position) + Sync),
) -> Result<Option<Rebuilt>, ProjectionError> {
    let Some(registered) = projections.find(name).filter(|it| it.live) else {
        return Ok(None);
    };
    let served = whole(environment, store, &registered.projection, report).await?;
    Ok(Some(Rebuilt {
        generation: served.generation,
        position: served.position,
    }))
}

/// The same, for a projection whatever its type.
pub(super) async fn whole(
    environment: &Arc<dyn Environment>,
    store: &Arc<dyn ReadModels>,
    projection: &Arc<dyn AnyProjection>,
    report: &(dyn Fn(Position, Position) + Sync),
) -> Result<Generation, ProjectionError> {
    let name = projection.name();
    for old in within(&**environment, store.generations(Some(name))).await? {
        if !old.serving {
            // Of a rebuild that has died, or that this one replaces.
            let dropped = store.drop_generation(name, old.generation);
            within(&**environment, dropped).await?;
        }
    }
    let added = store.add_generation(name, projection.version());
    let building = within(&**environment, added).await?;
    let mut projector = Projector::new(
        Arc::clone(environment),
        Arc::clone(store),
        Arc::clone(projection),
        building,
    );
    loop {
        let stepped = projector.step().await?;
        let folded = projector.folded();
        report(folded, Position(folded.0 + stepped.positions));
        if !stepped.caught_up {
            continue;
        }
        // What readers have seen they are to see again.
        let found = within(&**environment, store.generations(Some(name))).await?;
        let serving = found.iter().find(|it| it.serving);
        if serving.is_none_or(|serving| serving.position <= folded) {
            break;
        }
    }
    let served = projector.generation().clone();
    within(&**environment, store.serve(name, served.generation)).await?;
    while within(&**environment, store.sweep_documents(name, SWEEP_ROWS_MAX)).await? > 0 {}
    Ok(served)
}

/// Makes one document anew from its events, both the live one and the one made on demand. `None` if
/// there is no such projection.
pub async fn rebuild_key(
    projections: &Projections,
    name: &str,
    key: &str,
    environment: &Arc<dyn Environment>,
    store: &Arc<dyn ReadModels>,
) -> Result<Option<Position>, ProjectionError> {
    let Some(registered) = projections.find(name) else {
        return Ok(None);
    };
    within(&**environment, store.forget_cached(name, key)).await?;
    if !registered.live {
        return Ok(Some(Position::START));
    }
    let projection = &registered.projection;
    let mut document = projection.open(None)?;
    let (mut newest, mut folded) = (None, Position::START);
    for _ in 0..OVERTAKEN_MAX {
        let found = within(&**environment, store.generations(Some(name))).await?;
        let Some(serving) = found.into_iter().find(|it| it.serving) else {
            return Ok(Some(Position::START));
        };
        while folded < serving.position {
            let query = EventQuery {
                kinds: projection.kinds(),
                correlation: projection.is_by_correlation().then(|| key.to_owned()),
                after: folded,
                upto: serving.position,
                limit: PAGE_EVENTS,
            };
            let page = within(&**environment, store.events(&query)).await?;
            for event in &page.events {
                let event = Recorded::new(event);
                if projection.key_of(&event)?.as_deref() == Some(key) {
                    document.apply(&event)?;
                    newest = Some(event.position());
                }
            }
            folded = page.read_upto(serving.position);
        }
        let Some(position) = newest else {
            return Ok(Some(serving.position));
        };
        let advance = Advance {
            name: name.to_owned(),
            generation: serving.generation,
            from: serving.position,
            to: serving.position,
            documents: vec![DocumentRow {
                key: key.to_owned(),
                position,
                body: document.encode()?,
            }],
            outbox: Vec::new(),
        };
        match within(&**environment, store.advance(advance)).await {
            Ok(()) => return Ok(Some(serving.position)),
            // The projector was faster: what it has folded is folded here too.
            Err(StoreError::Conflict) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(StoreError::Conflict.into())
}
