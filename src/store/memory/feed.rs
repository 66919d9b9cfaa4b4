//! The feed of aggregate events in memory: a commit is one moment, so what is visible is settled.

use std::ops::Bound;

use async_trait::async_trait;

use super::{MemoryStore, State};
use crate::id::Timestamp;
use crate::store::StoreError;
use crate::store::feed::{EventFeed, EventPage, EventQuery, PAGE_BYTES, PlacedEvent, Position};
use crate::store::participant::{AggregateEvent, AggregateKey, AggregateRow, AggregateSnapshot};

#[async_trait]
impl EventFeed for MemoryStore {
    async fn settled(&self) -> Result<Position, StoreError> {
        let state = self.state();
        let newest = state.feed.last_key_value();
        Ok(newest.map(|(position, _)| *position).unwrap_or_default())
    }

    async fn events(&self, query: &EventQuery) -> Result<EventPage, StoreError> {
        if query.upto <= query.after {
            return Ok(EventPage::default());
        }
        let state = self.state();
        let bounds = (Bound::Excluded(query.after), Bound::Included(query.upto));
        let kinds = &query.kinds;
        let events = state
            .feed
            .range(bounds)
            .filter(|(_, event)| kinds.is_empty() || kinds.contains(&event.key.kind))
            .filter(|(_, event)| {
                query.correlation.is_none() || event.origin.correlation == query.correlation
            })
            .map(placed);
        Ok(page(events, query.limit))
    }

    async fn aggregate(&self, key: &AggregateKey) -> Result<Option<AggregateRow>, StoreError> {
        Ok(self.state().aggregates.get(key).cloned())
    }

    async fn history(
        &self,
        key: &AggregateKey,
        after: u64,
        limit: usize,
    ) -> Result<EventPage, StoreError> {
        let bounds = (
            Bound::Excluded((key.clone(), after)),
            Bound::Included((key.clone(), u64::MAX)),
        );
        let state = self.state();
        let positions = state.events.range(bounds);
        let events = positions.filter_map(|(_, position)| state.feed.get_key_value(position));
        Ok(page(events.map(placed), limit))
    }

    async fn snapshot(
        &self,
        key: &AggregateKey,
        revision_max: u64,
        at_max: Timestamp,
    ) -> Result<Option<AggregateSnapshot>, StoreError> {
        let state = self.state();
        let bounds = (key.clone(), 0)..=(key.clone(), revision_max);
        let mut snapshots = state.snapshots.range(bounds).rev();
        let found = snapshots.find(|(_, snapshot)| snapshot.at <= at_max);
        Ok(found.map(|(_, snapshot)| snapshot.clone()))
    }
}

impl State {
    pub(super) fn append(&mut self, event: AggregateEvent) {
        let newest = self.feed.last_key_value();
        let position = Position(newest.map_or(0, |(newest, _)| newest.0) + 1);
        self.events.insert((event.key.clone(), event.seq), position);
        self.feed.insert(position, event);
    }
}

fn page(events: impl Iterator<Item = PlacedEvent>, limit: usize) -> EventPage {
    let mut bytes = 0;
    let within = |placed: &PlacedEvent| {
        let before = bytes;
        bytes += placed.event.body.len();
        before < PAGE_BYTES
    };
    let events = events.take(limit.saturating_add(1)).take_while(within);
    EventPage::of(events.collect(), limit)
}

fn placed((position, event): (&Position, &AggregateEvent)) -> PlacedEvent {
    PlacedEvent {
        position: *position,
        event: event.clone(),
    }
}
