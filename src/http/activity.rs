//! What began and ended in each minute of the last hour.
//!
//! A minute that is over stays as it was counted, so each look reads the last one or two, from an index
//! alone. How far is bounded, and said where a bound was reached.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::id::Timestamp;
use crate::store::{Activity, CensusStore, Minute, StoreError};

/// Minutes that are looked back at, the present one included.
pub(super) const MINUTES: usize = 60;
/// How long after a minute's end something may still be committed that happened in it.
const SETTLED_AFTER: Duration = Duration::from_secs(10);
/// Most sagas of a minute that is seen while it lasts.
const FRESH_MAX: usize = 100_000;
/// Most sagas of a minute that was over before anybody asked: there may be sixty of them.
const PAST_MAX: usize = 10_000;

/// Minutes that are asked for at once: a look may be broken off, and the next one goes on.
const AT_ONCE: usize = 10;

/// What was counted.
#[derive(Default)]
pub(super) struct Hour(BTreeMap<Timestamp, Counted>);

struct Counted {
    activity: Activity,
    is_settled: bool,
}

/// A minute as it is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct MinuteView {
    /// When it began, RFC 3339.
    at: String,
    #[serde(flatten)]
    totals: Totals,
}

/// Sagas that began and ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(super) struct Totals {
    started: u64,
    completed: u64,
    compensated: u64,
    /// Whether there may be more.
    or_more: bool,
}

impl Totals {
    /// Of all these minutes.
    pub(super) fn of(minutes: &[MinuteView]) -> Self {
        minutes.iter().fold(Self::default(), |sum, minute| Self {
            started: sum.started + minute.totals.started,
            completed: sum.completed + minute.totals.completed,
            compensated: sum.compensated + minute.totals.compensated,
            or_more: sum.or_more || minute.totals.or_more,
        })
    }
}

impl From<Activity> for Totals {
    fn from(activity: Activity) -> Self {
        Self {
            started: activity.started,
            completed: activity.completed,
            compensated: activity.compensated,
            or_more: activity.or_more,
        }
    }
}

impl Hour {
    /// Counts what is not known yet; oldest first.
    pub(super) async fn look(
        &mut self,
        census: &dyn CensusStore,
        now: Timestamp,
    ) -> Result<Vec<MinuteView>, StoreError> {
        let present = minute_of(now);
        let first = minute_back(present, MINUTES - 1);
        self.0 = self.0.split_off(&first);
        let all = (0..MINUTES).rev().map(|back| minute_back(present, back));
        let unknown = all.filter(|at| !self.0.get(at).is_some_and(|it| it.is_settled));
        let unknown: Vec<Minute> = unknown
            .map(|at| {
                let was_seen = self.0.contains_key(&at) || at == present;
                let bound = if was_seen { FRESH_MAX } else { PAST_MAX };
                Minute { at, bound }
            })
            .collect();
        // The newest first; who is broken off in the middle keeps what was counted.
        for minutes in unknown.rchunks(AT_ONCE) {
            let found = census.activity(minutes).await?;
            for (minute, activity) in minutes.iter().zip(found) {
                let is_settled = minute.end().after(SETTLED_AFTER) <= now;
                let counted = Counted {
                    activity,
                    is_settled,
                };
                self.0.insert(minute.at, counted);
            }
        }
        let view = |(at, counted): (&Timestamp, &Counted)| MinuteView {
            at: at.to_string(),
            totals: counted.activity.into(),
        };
        Ok(self.0.iter().map(view).collect())
    }
}

fn minute_of(at: Timestamp) -> Timestamp {
    const MICROS: i64 = 60_000_000;
    Timestamp::from_micros(at.as_micros().div_euclid(MICROS) * MICROS)
}

fn minute_back(at: Timestamp, minutes: usize) -> Timestamp {
    let micros = i64::try_from(minutes).unwrap_or_default() * 60_000_000;
    Timestamp::from_micros(at.as_micros() - micros)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use async_trait::async_trait;

    use super::*;
    use crate::store::{Census, LiveCount};

    /// Counts how often it was asked for each minute.
    #[derive(Default)]
    struct Asked(Mutex<BTreeMap<i64, u64>>);

    #[async_trait]
    impl CensusStore for Asked {
        async fn census(&self) -> Result<Census, StoreError> {
            Ok(Census::default())
        }

        async fn live_versions(&self) -> Result<Vec<LiveCount>, StoreError> {
            Ok(Vec::new())
        }

        async fn activity(&self, minutes: &[Minute]) -> Result<Vec<Activity>, StoreError> {
            let mut asked = self.0.lock().unwrap();
            let of = |minute: &Minute| {
                let times = asked.entry(minute.at.as_micros() / 60_000_000).or_default();
                *times += 1;
                Activity {
                    started: *times,
                    ..Activity::default()
                }
            };
            Ok(minutes.iter().map(of).collect())
        }
    }

    #[tokio::test]
    async fn a_minute_that_is_over_is_counted_no_more() {
        let (asked, mut hour) = (Asked::default(), Hour::default());
        let at = |minute: i64, second: i64| {
            Timestamp::from_micros((1_000 + minute) * 60_000_000 + second * 1_000_000)
        };
        for (minute, second) in [(0, 30), (0, 31), (1, 5), (1, 15), (1, 16), (2, 0)] {
            let found = hour.look(&asked, at(minute, second)).await.unwrap();
            assert_eq!(found.len(), MINUTES);
            assert_eq!(found[MINUTES - 1].at, at(minute, 0).to_string());
        }
        let times = asked.0.lock().unwrap();
        let of = |minute: i64| times.get(&(1_000 + minute)).copied();
        assert_eq!(
            (of(-60), of(-59), of(-1), of(0), of(1), of(2)),
            (None, Some(1), Some(1), Some(4), Some(4), Some(1))
        );
    }
}
