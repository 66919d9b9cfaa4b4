//! What a search found: sagas with their labels, and groups by cause.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::head::{HeadView, SpotView};
use crate::definition::{Label, LabelValue};
use crate::id::SagaId;
use crate::message::mask;
use crate::store::SagaHead;
use crate::store::search::{BoundedCount, CauseGroup, SearchPage};

/// A saga that was found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FoundView {
    /// Its row.
    #[serde(flatten)]
    pub head: HeadView,
    /// What it is labelled with.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, Value>,
}

impl FoundView {
    /// As people see it.
    pub fn new(head: &SagaHead, labels: &[Label]) -> Self {
        let shown = |label: &Label| (label.name.clone(), label_value(&label.value));
        Self {
            head: HeadView::new(head),
            labels: labels.iter().map(shown).collect(),
        }
    }
}

fn label_value(value: &LabelValue) -> Value {
    match value {
        LabelValue::Text(text) => Value::from(text.as_str()),
        // As it was written, if that was a whole number.
        #[allow(clippy::cast_possible_truncation)] // below 2^53
        LabelValue::Number(number) if number.fract() == 0.0 && number.abs() < 9e15 => {
            Value::from(*number as i64)
        }
        LabelValue::Number(number) => Value::from(*number),
        LabelValue::Time(at) => Value::from(at.to_string()),
    }
}

/// A number of sagas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct CountView {
    /// So many.
    pub sagas: u64,
    /// Or more: it was not counted further.
    pub or_more: bool,
}

impl From<BoundedCount> for CountView {
    fn from(count: BoundedCount) -> Self {
        Self {
            sagas: count.sagas,
            or_more: count.or_more,
        }
    }
}

impl std::fmt::Display for CountView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", self.sagas, if self.or_more { "+" } else { "" })
    }
}

/// A page of sagas.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ListView {
    /// In the order asked for.
    pub sagas: Vec<FoundView>,
    /// What to pass as `after` for the next page, if there may be one; in the usual order, the id of the
    /// last saga.
    pub next: Option<String>,
    /// How many fit, if that was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<CountView>,
}

impl ListView {
    /// A page; `labels` in the order of `heads`.
    pub fn new(heads: &[SagaHead], labels: &[Vec<Label>], page: &SearchPage) -> Self {
        let next = heads.last().filter(|_| heads.len() >= page.limit);
        let mut labels = labels.iter();
        Self {
            sagas: heads
                .iter()
                .map(|head| FoundView::new(head, labels.next().map_or(&[], Vec::as_slice)))
                .collect(),
            next: next.map(|head| page.place(head).to_string()),
            count: None,
        }
    }
}

/// Sagas with one cause.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CauseGroupView {
    /// What they have in common; to find them: `?cause=`.
    pub cause: String,
    /// Their definition.
    pub saga: String,
    /// Where they stand, the item of one of them left out.
    #[serde(flatten)]
    pub spot: Option<SpotView>,
    /// The words of the newest.
    pub reason: String,
    /// How many there are.
    pub count: CountView,
    /// Since when the first of them has had it, RFC 3339.
    pub oldest: String,
    /// Since when the last of them has had it.
    pub newest: String,
    /// How many have had it since an hour ago.
    pub last_hour: CountView,
    /// How many came in the hour before that.
    pub hour_before: CountView,
    /// The newest.
    pub sample: SagaId,
}

impl CauseGroupView {
    /// As people see it.
    pub fn new(group: &CauseGroup) -> Self {
        let head = &group.sample;
        let cause = head.cause.as_ref();
        let spot = cause.and_then(|cause| cause.spot.as_ref());
        Self {
            cause: cause.map(|cause| cause.id.clone()).unwrap_or_default(),
            saga: head.name.clone(),
            spot: spot.map(|spot| SpotView {
                step: spot.step.name.clone(),
                phase: spot.phase,
            }),
            reason: cause
                .map(|cause| mask::text(&cause.reason).into_owned())
                .unwrap_or_default(),
            count: group.count.into(),
            oldest: group.oldest.to_string(),
            newest: group.newest.to_string(),
            last_hour: group.last_hour.into(),
            hour_before: group.hour_before.into(),
            sample: head.id,
        }
    }
}
