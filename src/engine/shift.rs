//! A worker's shift: takes what waits, has it brought to its end, and goes on after a panic.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::mpsc;

use super::receipt::{Receipt, panicked};
use super::settle::{Lanes, Part};
use super::work::Work;
use super::worker::{BATCH_MAX, Shared};
use crate::metric;

/// Pause of a worker that panicked.
const RESTART_PAUSE: Duration = Duration::from_millis(100);
/// Works taken one by one after a panic: more than a queue gives at once, and the workers share.
const CAREFUL_WORKS: usize = 500;

impl Shared {
    /// Works until the last sender is gone. A panic costs the batch at hand: its messages are given
    /// back, and taken one by one for a while, so that the one that it was about is found.
    pub(super) async fn work(self: Arc<Self>, number: usize, mut waiting: mpsc::Receiver<Work>) {
        let mut lanes = Lanes::default();
        let mut careful = 0;
        loop {
            let most = if careful > 0 { 1 } else { BATCH_MAX };
            let Some(parts) = self.next(number, &mut waiting, &mut lanes, most).await else {
                return;
            };
            careful = usize::saturating_sub(careful, 1);
            let in_work = Receipt::all(parts.iter().flat_map(Part::works));
            let settling = AssertUnwindSafe(self.settle_parts(parts, &mut lanes));
            let Err(panic) = settling.catch_unwind().await else {
                continue;
            };
            metric::worker_panicked();
            let what = panicked(&*panic);
            tracing::error!(what, works = in_work.len(), "a worker panicked; it goes on");
            if let [Some(culprit)] = &in_work[..] {
                let work = culprit.bury(&what);
                let part = Part::new(vec![work], self.environment.now());
                let burying = AssertUnwindSafe(self.settle_parts(vec![part], &mut lanes));
                drop(burying.catch_unwind().await);
                careful = 0;
            } else {
                in_work.into_iter().flatten().for_each(Receipt::give_back);
                careful = CAREFUL_WORKS;
            }
            self.environment.sleep(RESTART_PAUSE).await;
        }
    }

    /// What to do next: what has waited long enough, or what comes. `None` when nothing comes any
    /// more.
    async fn next(
        &self,
        number: usize,
        waiting: &mut mpsc::Receiver<Work>,
        lanes: &mut Lanes,
        most: usize,
    ) -> Option<Vec<Part>> {
        loop {
            let now = self.environment.now();
            let due = lanes.take_due(now);
            if !due.is_empty() {
                return Some(due);
            }
            let mut works = Vec::with_capacity(most);
            // Once the node stops, others go on with what was left off.
            if !self.stop.is_requested()
                && let Some(rest) = lanes.take_unfinished()
            {
                while works.len() + 1 < most
                    && let Ok(work) = waiting.try_recv()
                {
                    works.push(work);
                }
                works.push(rest);
                return Some(vec![self.begin(number, works, lanes)]);
            }
            self.presence.works_since(number, lanes.oldest());
            let next_due = lanes.next_due();
            let lane = async {
                match next_due {
                    Some(due) => self.environment.sleep(due.since(now)).await,
                    None => std::future::pending().await,
                }
            };
            let received = tokio::select! {
                biased;
                received = waiting.recv_many(&mut works, most) => received,
                () = lane => continue,
            };
            if received == 0 {
                return None;
            }
            return Some(vec![self.begin(number, works, lanes)]);
        }
    }

    fn begin(&self, number: usize, works: Vec<Work>, lanes: &Lanes) -> Part {
        let now = self.environment.now();
        let since = lanes.oldest().unwrap_or(now);
        self.presence.works_since(number, Some(since));
        Part::new(works, now)
    }
}
