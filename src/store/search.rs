//! Finding sagas among millions: lists, counts, groups by cause, labels.
//!
//! Separate from [`Store`](super::Store) because nothing here is on a saga's way: people ask, and
//! whatever acts on many sagas. All three stores implement it and pass the same cases.
//!
//! What is asked for most is an index scan, in the order of the index, that ends when the page is full:
//! by status, name, key or its beginning, label, cause, parent, and by start and end. The other
//! conditions are looked at on the way.

mod page;
pub(super) mod sql;

use async_trait::async_trait;
use uuid::Uuid;

use super::{Filter, SagaHead, Status, StoreError};
use crate::definition::Label;
use crate::id::{SagaId, Timestamp};

pub use page::{Cursor, SearchOrder, SearchPage};

/// Most rows of a page.
pub const PAGE_ROWS_MAX: usize = 1_000;
/// Up to how many sagas are counted, unless less is asked for.
pub const COUNT_MAX: u64 = 10_000;
/// Most groups that are listed.
pub const CAUSES_MAX: usize = 1_000;

/// Searches sagas.
#[async_trait]
pub trait SagaSearch: Send + Sync + 'static {
    /// A page of the sagas that fit.
    async fn search(&self, filter: &Filter, page: &SearchPage)
    -> Result<Vec<SagaHead>, StoreError>;

    /// How many fit; no further than `bound`.
    async fn count(&self, filter: &Filter, bound: u64) -> Result<BoundedCount, StoreError>;

    /// Those that fit and are in trouble, by cause: most sagas first.
    async fn groups(
        &self,
        filter: &Filter,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<CauseGroup>, StoreError>;

    /// Labels of sagas, in the order asked, each's by name.
    async fn labels(&self, sagas: &[SagaId]) -> Result<Vec<Vec<Label>>, StoreError>;
}

/// A number of sagas.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BoundedCount {
    /// So many.
    pub sagas: u64,
    /// Or more: it was not counted further.
    pub or_more: bool,
}

impl BoundedCount {
    /// Of what was counted up to one more than the bound.
    pub(super) fn within(found: u64, bound: u64) -> Self {
        Self {
            sagas: found.min(bound),
            or_more: found > bound,
        }
    }

    fn and(self, more: Self) -> Self {
        Self {
            sagas: self.sagas + more.sagas,
            or_more: self.or_more || more.or_more,
        }
    }
}

/// Sagas of one cause.
#[derive(Debug, Clone, PartialEq)]
pub struct CauseGroup {
    /// How many there are.
    pub count: BoundedCount,
    /// Since when the first of them has had it.
    pub oldest: Timestamp,
    /// Since when the last of them has had it.
    pub newest: Timestamp,
    /// How many have had it since an hour ago.
    pub last_hour: BoundedCount,
    /// How many came in the hour before that.
    pub hour_before: BoundedCount,
    /// The newest of them.
    pub sample: SagaHead,
}

/// A group as far as it was read: of one status, its newest saga by id.
#[derive(Debug, Clone)]
pub(super) struct GroupPart {
    pub(super) cause: String,
    pub(super) count: BoundedCount,
    pub(super) oldest: Timestamp,
    pub(super) newest: Timestamp,
    pub(super) last_hour: BoundedCount,
    pub(super) hour_before: BoundedCount,
    pub(super) sample: SagaId,
}

/// `cause`, count, oldest, newest, of the last hour, of the hour before, `id` of the newest.
pub(super) type PartRow = (String, i64, i64, i64, i64, i64, Uuid);

impl GroupPart {
    /// Reads a row; it was counted up to one more than [`COUNT_MAX`].
    pub(super) fn of(row: PartRow) -> Self {
        let (cause, sagas, oldest, newest, last_hour, hour_before, sample) = row;
        let count = |found: i64| BoundedCount::within(found.unsigned_abs(), COUNT_MAX);
        Self {
            cause,
            count: count(sagas),
            oldest: Timestamp::from_micros(oldest),
            newest: Timestamp::from_micros(newest),
            last_hour: count(last_hour),
            hour_before: count(hour_before),
            sample: SagaId(sample),
        }
    }
}

/// The statuses whose groups an index of (status, name, cause) alone can tell; `None` if the filter asks
/// for more than a name and statuses.
pub(super) fn by_hops(filter: &Filter) -> Option<Vec<Status>> {
    let plain = Filter {
        name: filter.name.clone(),
        statuses: filter.statuses.clone(),
        in_trouble: filter.in_trouble,
        ..Filter::default()
    };
    if *filter != plain {
        return None;
    }
    let statuses = &filter.statuses[..];
    let all = if statuses.is_empty() {
        &Status::ALL[..]
    } else {
        statuses
    };
    Some(all.to_vec())
}

/// Puts the parts of each cause together: the `limit` largest groups.
pub(super) fn merged(parts: Vec<GroupPart>, limit: usize) -> Vec<GroupPart> {
    let mut groups = std::collections::BTreeMap::<String, GroupPart>::new();
    for part in parts {
        let Some(known) = groups.get_mut(&part.cause) else {
            groups.insert(part.cause.clone(), part);
            continue;
        };
        known.count = known.count.and(part.count);
        known.last_hour = known.last_hour.and(part.last_hour);
        known.hour_before = known.hour_before.and(part.hour_before);
        known.oldest = known.oldest.min(part.oldest);
        if part.newest > known.newest {
            (known.newest, known.sample) = (part.newest, part.sample);
        }
    }
    let mut groups: Vec<GroupPart> = groups.into_values().collect();
    groups.sort_by(|a, b| (b.count.sagas, &a.cause).cmp(&(a.count.sagas, &b.cause)));
    groups.truncate(limit);
    groups
}

/// Groups with their samples; one whose sample has gone meanwhile is left out.
pub(super) fn with_samples(parts: Vec<GroupPart>, samples: Vec<SagaHead>) -> Vec<CauseGroup> {
    let mut samples: std::collections::BTreeMap<SagaId, SagaHead> =
        samples.into_iter().map(|head| (head.id, head)).collect();
    let group = |part: GroupPart| {
        Some(CauseGroup {
            sample: samples.remove(&part.sample)?,
            count: part.count,
            oldest: part.oldest,
            newest: part.newest,
            last_hour: part.last_hour,
            hour_before: part.hour_before,
        })
    };
    parts.into_iter().filter_map(group).collect()
}
