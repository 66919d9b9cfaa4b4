//! Numbers, for all who look at them.

use std::sync::{Arc, Mutex, PoisonError};

use axum::response::sse::Event;
use tokio::sync::watch;

use super::{Feed, Gone, LOOK_TIME_MAX, rest, send};
use crate::http::{Context, overview};

/// The newest numbers, as JSON.
#[derive(Default)]
pub(super) struct Counters {
    newest: watch::Sender<Option<Arc<str>>>,
    /// Whether somebody looks.
    looking: Mutex<bool>,
}

impl Counters {
    /// The numbers from now on; somebody looks for as long as this is kept.
    pub(super) fn listen(&self, context: &Arc<Context>) -> watch::Receiver<Option<Arc<str>>> {
        let numbers = self.newest.subscribe();
        let mut looking = self.looking.lock().unwrap_or_else(PoisonError::into_inner);
        if !*looking {
            *looking = true;
            tokio::spawn(look(Arc::clone(context)));
        }
        numbers
    }

    /// Whether nobody listens; then nobody looks any more.
    fn is_idle(&self) -> bool {
        let mut looking = self.looking.lock().unwrap_or_else(PoisonError::into_inner);
        if self.newest.receiver_count() == 0 {
            *looking = false;
        }
        !*looking
    }
}

async fn look(context: Arc<Context>) {
    let counters = &context.live.counters;
    while !counters.is_idle() && !context.api.stopping.is_requested() {
        let began = context.api.environment.elapsed();
        let looked = tokio::time::timeout(LOOK_TIME_MAX, overview::numbers(&context)).await;
        // While the database is away, nothing changes that could be seen.
        if let Ok(Ok(numbers)) = looked {
            let text: Arc<str> = numbers.counters().to_string().into();
            counters.newest.send_if_modified(|newest| {
                let is_new = newest.as_ref() != Some(&text);
                *newest = Some(text);
                is_new
            });
        }
        rest(&context, began).await;
    }
}

/// Sends the numbers that there are, and those that come.
pub(super) async fn feed(
    mut numbers: watch::Receiver<Option<Arc<str>>>,
    feed: Feed,
) -> Result<(), Gone> {
    numbers.mark_changed();
    while numbers.changed().await.is_ok() {
        let newest = numbers.borrow_and_update().clone();
        if let Some(text) = newest {
            send(&feed, Event::default().event("counters").data(&*text)).await?;
        }
    }
    Ok(())
}
