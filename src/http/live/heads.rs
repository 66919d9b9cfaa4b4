//! Sagas as they change: one look at the database for all who listen, and each is told of those that fit its
//! filter.
//!
//! What has changed is found by when it did. A commit may be seen a moment later than another one that happened after it,
//! so each look goes back a little, and a saga is told again only if it has moved on. What is too much
//! for one look is said to be so (`more`), and is read as a list.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::response::sse::Event;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use super::{Feed, Gone, LOOK_TIME_MAX, rest, send};
use crate::definition::Label;
use crate::http::Context;
use crate::id::{SagaId, Timestamp};
use crate::saga::Status;
use crate::store::search::SearchPage;
use crate::store::{Filter, SagaHead, Span, StoreError};
use crate::view::{FoundView, json_of};

/// Most sagas that are told of at once.
const HEADS_MAX: usize = 1_000;
/// How far each look goes back behind the one before.
const OVERLAP: Duration = Duration::from_secs(5);
/// Looks that a slow reader may be behind.
const BEHIND_MAX: usize = 16;
/// Most sagas of which a stream knows that it has told of them.
const KNOWN_MAX: usize = 10_000;

/// Where changes are told, while somebody listens.
#[derive(Default)]
pub(super) struct Heads(Mutex<Option<broadcast::Sender<Arc<Changes>>>>);

/// What a look has found.
struct Changes {
    /// In the order in which they changed.
    sagas: Vec<(SagaHead, Vec<Label>)>,
    /// Whether there were more.
    more: bool,
}

/// Where a stream broke off: when a saga changed, and which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place(Timestamp, SagaId);

impl Place {
    /// Reads an event's id.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let wrong = || "`Last-Event-ID` is the id of an event of this stream".to_owned();
        let (at, id) = text.split_once('.').ok_or_else(wrong)?;
        let at = at.parse().map_err(|_| wrong())?;
        let id = id.parse().map_err(|_| wrong())?;
        Ok(Self(Timestamp::from_micros(at), id))
    }

    fn of(head: &SagaHead) -> Self {
        Self(head.updated_at, head.id)
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.0.as_micros(), self.1)
    }
}

/// Hears of changes.
pub(super) struct Listener(broadcast::Receiver<Arc<Changes>>);

impl Heads {
    /// What changes from now on.
    pub(super) fn listen(&self, context: &Arc<Context>) -> Listener {
        let mut news = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let listener = if let Some(sender) = &*news {
            sender.subscribe()
        } else {
            let (sender, listener) = broadcast::channel(BEHIND_MAX);
            *news = Some(sender);
            tokio::spawn(look(Arc::clone(context)));
            listener
        };
        Listener(listener)
    }

    /// Where changes are told; nowhere if nobody listens, and then nobody looks any more.
    fn sender(&self) -> Option<broadcast::Sender<Arc<Changes>>> {
        let mut news = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *news = news.take().filter(|sender| sender.receiver_count() > 0);
        news.clone()
    }
}

async fn look(context: Arc<Context>) {
    let mut since = context.api.engine.now();
    let mut told = BTreeMap::<SagaId, (u64, Timestamp)>::new();
    while let Some(sender) = context.live.heads.sender() {
        let began = context.api.environment.elapsed();
        let now = context.api.engine.now();
        let from = since.before(OVERLAP);
        let looking = tokio::time::timeout(LOOK_TIME_MAX, changes(&context, from));
        if let Ok(Ok(mut changes)) = looking.await {
            told.retain(|_, (_, at)| *at >= from);
            changes.sagas.retain(|(head, _)| {
                let revision = told.insert(head.id, (head.revision, head.updated_at));
                revision.is_none_or(|(revision, _)| revision < head.revision)
            });
            since = now;
            if !changes.sagas.is_empty() {
                // Whoever has just gone hears nothing.
                let _ = sender.send(Arc::new(changes));
            }
        }
        rest(&context, began).await;
        if context.api.stopping.is_requested() {
            return;
        }
    }
}

/// Sagas that have changed since: live ones, and those that have ended.
async fn changes(context: &Context, since: Timestamp) -> Result<Changes, StoreError> {
    let search = &context.api.search;
    let since = Span {
        since: Some(since),
        until: None,
    };
    let live = Status::ALL.into_iter().filter(|status| !status.is_ended());
    let live = Filter {
        statuses: live.collect(),
        updated: since,
        ..Filter::default()
    };
    let ended = Filter {
        ended: since,
        ..Filter::default()
    };
    let by_end = SearchPage::newest(HEADS_MAX).sorted("-ended");
    let by_end = by_end.map_err(|why| StoreError::Refused(why.into()))?;
    let mut heads = search.search(&live, &SearchPage::newest(HEADS_MAX)).await?;
    heads.extend(search.search(&ended, &by_end).await?);
    with_labels(context, heads).await
}

async fn with_labels(context: &Context, mut heads: Vec<SagaHead>) -> Result<Changes, StoreError> {
    heads.sort_by_key(Place::of);
    let more = heads.len() >= HEADS_MAX;
    if more {
        heads.drain(..heads.len() - HEADS_MAX);
    }
    let ids: Vec<SagaId> = heads.iter().map(|head| head.id).collect();
    let labels = context.api.search.labels(&ids).await?;
    Ok(Changes {
        sagas: heads.into_iter().zip(labels).collect(),
        more,
    })
}

/// Sends sagas that have changed and fit, and those that fitted and do no longer.
pub(super) async fn feed(
    context: &Context,
    filter: Filter,
    mut listener: Listener,
    from: Option<Place>,
    feed: Feed,
) -> Result<(), Gone> {
    let search = &context.api.search;
    let page = SearchPage::newest(HEADS_MAX);
    let listed = search.search(&filter, &page).await.map_err(|_| Gone)?;
    let mut teller = Teller {
        fitting: listed.iter().map(|head| head.id).collect(),
        filter,
        feed,
    };
    if let Some(from) = from {
        let mut missed = teller.filter.clone();
        let since = missed
            .updated
            .since
            .map_or(from.0, |since| since.max(from.0));
        missed.updated.since = Some(since);
        let found = search.search(&missed, &page).await.map_err(|_| Gone)?;
        let found = with_labels(context, found).await.map_err(|_| Gone)?;
        let place = |head: &SagaHead| Place::of(head) > from;
        let later = found.sagas.iter().filter(|(head, _)| place(head));
        for (head, labels) in later {
            teller.tell(head, labels).await?;
        }
        teller.tell_of_more(found.more).await?;
    }
    loop {
        match listener.0.recv().await {
            Ok(changes) => {
                for (head, labels) in &changes.sagas {
                    teller.tell(head, labels).await?;
                }
                teller.tell_of_more(changes.more).await?;
            }
            Err(RecvError::Lagged(_)) => teller.tell_of_more(true).await?,
            Err(RecvError::Closed) => return Ok(()),
        }
    }
}

/// Tells one reader.
struct Teller {
    filter: Filter,
    /// Sagas that fitted when they were last seen.
    fitting: BTreeSet<SagaId>,
    feed: Feed,
}

impl Teller {
    async fn tell(&mut self, head: &SagaHead, labels: &[Label]) -> Result<(), Gone> {
        let fits = self.filter.holds(head, labels);
        let event = if fits {
            if self.fitting.len() >= KNOWN_MAX {
                self.fitting.pop_first();
            }
            self.fitting.insert(head.id);
            Event::default().event("saga")
        } else if self.fitting.remove(&head.id) {
            Event::default().event("left")
        } else {
            return Ok(());
        };
        let Ok(text) = json_of(&FoundView::new(head, labels)) else {
            return Ok(());
        };
        let event = event.id(Place::of(head).to_string()).data(text);
        send(&self.feed, event).await
    }

    async fn tell_of_more(&self, more: bool) -> Result<(), Gone> {
        if !more {
            return Ok(());
        }
        let event = Event::default().event("more");
        send(
            &self.feed,
            event.data("{\"reason\":\"more has changed than is told of; read the list again\"}"),
        )
        .await
    }
}
