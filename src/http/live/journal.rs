//! What happens to single sagas, for those who look at them: one look for all sagas that are looked at.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::response::sse::Event;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use super::{Feed, Gone, LOOK_TIME_MAX, rest, send};
use crate::http::{Context, parts};
use crate::id::SagaId;
use crate::saga::journal::JournalEntry;
use crate::store::{LoadRequest, LoadedSaga, SagaHead};
use crate::view::{json_of, moments_of};

/// Entries that a slow reader may be behind before it reads them from the journal.
const BEHIND_MAX: usize = 64;
/// Entries that are read at once for who comes late.
const PAGE: usize = 50;

/// Sagas that somebody looks at.
#[derive(Default)]
pub(super) struct Journals(Mutex<State>);

#[derive(Default)]
struct State {
    watched: BTreeMap<SagaId, Watched>,
    /// Whether somebody looks.
    looking: bool,
}

struct Watched {
    /// The newest entry that was told.
    revision: u64,
    news: broadcast::Sender<Told>,
}

/// An entry in words, as JSON.
#[derive(Clone)]
struct Told {
    seq: u64,
    text: Arc<str>,
}

/// Hears of the entries after one.
pub(super) struct Listener {
    news: broadcast::Receiver<Told>,
    after: u64,
}

impl Journals {
    /// What happens to a saga from now on.
    pub(super) fn listen(&self, context: &Arc<Context>, head: &SagaHead) -> Listener {
        let mut state = self.state();
        let watched = state.watched.entry(head.id).or_insert_with(|| Watched {
            revision: head.revision,
            news: broadcast::channel(BEHIND_MAX).0,
        });
        let listener = Listener {
            news: watched.news.subscribe(),
            after: watched.revision,
        };
        if !state.looking {
            state.looking = true;
            tokio::spawn(look(Arc::clone(context)));
        }
        listener
    }

    /// What to ask for; nothing if nobody looks any more.
    fn wanted(&self) -> Vec<LoadRequest> {
        let mut state = self.state();
        state
            .watched
            .retain(|_, watched| watched.news.receiver_count() > 0);
        state.looking = !state.watched.is_empty();
        let wanted = state.watched.iter();
        wanted
            .map(|(id, watched)| LoadRequest {
                id: *id,
                after: watched.revision,
            })
            .collect()
    }

    /// Tells those who look at a saga what is new of it.
    fn tell(&self, saga: SagaId, told: Vec<Told>) {
        let mut state = self.state();
        let Some(watched) = state.watched.get_mut(&saga) else {
            return;
        };
        for told in told {
            if told.seq == watched.revision + 1 {
                watched.revision = told.seq;
                // Whoever has just gone hears nothing.
                let _ = watched.news.send(told);
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn look(context: Arc<Context>) {
    let journals = &context.live.journals;
    loop {
        let wanted = journals.wanted();
        if wanted.is_empty() {
            return;
        }
        let began = context.api.environment.elapsed();
        let store = context.api.engine.store();
        let looked = tokio::time::timeout(LOOK_TIME_MAX, store.load(&wanted)).await;
        for loaded in looked.into_iter().flatten().flatten().flatten() {
            let LoadedSaga { head, entries, .. } = loaded;
            if !entries.is_empty() {
                let told = told(&context, &head, &entries).await;
                journals.tell(head.id, told);
            }
        }
        rest(&context, began).await;
        if context.api.stopping.is_requested() {
            return;
        }
    }
}

async fn told(context: &Context, head: &SagaHead, entries: &[JournalEntry]) -> Vec<Told> {
    let definition = parts::definition_of(context, head).await.ok().flatten();
    let moments = moments_of(definition.as_deref(), head, entries);
    let told = moments.iter().filter_map(|moment| {
        Some(Told {
            seq: moment.seq,
            text: json_of(moment).ok()?.into(),
        })
    });
    told.collect()
}

/// Sends what happened after an entry, and what happens from now on.
pub(super) async fn feed(
    context: &Context,
    head: &SagaHead,
    mut listener: Listener,
    from: u64,
    feed: Feed,
) -> Result<(), Gone> {
    let mut last = from.min(head.revision);
    let mut upto = listener.after.max(head.revision);
    loop {
        last = catch_up(context, head, last, upto, &feed).await?;
        loop {
            match listener.news.recv().await {
                Ok(told) if told.seq <= last => {}
                Ok(told) if told.seq == last + 1 => {
                    tell(&feed, told).await?;
                    last += 1;
                }
                // Something is missing before it, which the journal has.
                Ok(told) => {
                    upto = told.seq;
                    break;
                }
                Err(RecvError::Lagged(missed)) => {
                    upto = last + missed;
                    break;
                }
                Err(RecvError::Closed) => return Ok(()),
            }
        }
    }
}

/// Sends entries from the journal; returns the last one that was sent. What can't be read is told later, or to
/// whoever comes again.
async fn catch_up(
    context: &Context,
    head: &SagaHead,
    mut last: u64,
    upto: u64,
    feed: &Feed,
) -> Result<u64, Gone> {
    let store = context.api.engine.store();
    while last < upto {
        let page = store.journal(head.id, last, PAGE).await.map_err(|_| Gone)?;
        if page.is_empty() {
            break;
        }
        for told in told(context, head, &page).await {
            last = told.seq;
            tell(feed, told).await?;
        }
    }
    Ok(last)
}

async fn tell(feed: &Feed, told: Told) -> Result<(), Gone> {
    let event = Event::default().event("entry").id(told.seq.to_string());
    send(feed, event.data(&*told.text)).await
}
