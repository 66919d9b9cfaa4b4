//! A small seeded executor: one thread, virtual time, tasks that belong to nodes that can crash.
//!
//! Which of the ready tasks runs next is drawn from the seed, so every interleaving at an await
//! can happen, and the same seed gives the same run. Time stands still while anything is ready
//! and jumps to the next timer when nothing is. [`Scheduler::crash`] drops all tasks of a node
//! where they stand: at an await, as `kill -9` would, with whatever they had not yet written.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures_util::future::BoxFuture;
use uuid::{Builder, Uuid};

use crate::environment::Environment;
use crate::id::Timestamp;

/// Owns tasks; crashing it drops them.
pub type NodeName = &'static str;

/// 2026-01-01, so that simulated ids look like real ones.
pub const EPOCH: Timestamp = Timestamp::from_micros(1_767_225_600_000_000);

/// A day's length, so that scenarios read well.
pub const DAY: Duration = Duration::from_hours(24);

/// The executor. Clones share it.
#[derive(Clone)]
pub struct Scheduler {
    world: Arc<Mutex<SchedulerState>>,
}

struct SchedulerState {
    now: Timestamp,
    random: fastrand::Rng,
    next_task: u64,
    next_timer: u64,
    tasks: BTreeMap<u64, Task>,
    ready: Arc<Mutex<Vec<u64>>>,
    /// Who sleeps until when; of those who wake at once, the first who lay down is the first.
    timers: BTreeMap<(Timestamp, u64), Waker>,
    /// How far nodes' clocks are ahead, in microseconds, beyond what they always are.
    ahead: BTreeMap<NodeName, i64>,
    /// Tasks between two looks at their store, in the order in which they began to wait.
    pauses: BTreeMap<u64, Paused>,
    polls: u64,
}

/// Says when the store that a node looks at has something due.
pub type Horizon = Arc<dyn Fn() -> Option<Timestamp> + Send + Sync>;

struct Paused {
    /// Not before, whatever is due.
    earliest: Timestamp,
    horizon: Horizon,
    waker: Waker,
}

struct Task {
    node: NodeName,
    /// `None` while it is being polled.
    future: Option<BoxFuture<'static, ()>>,
}

struct ReadyWaker {
    task: u64,
    ready: Arc<Mutex<Vec<u64>>>,
}

impl Wake for ReadyWaker {
    fn wake(self: Arc<Self>) {
        let mut ready = lock(&self.ready);
        if !ready.contains(&self.task) {
            ready.push(self.task);
        }
    }
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The condition was met.
    Met,
    /// Time ran out first.
    TimedOut,
    /// Nothing is ready and no timer is set: everything waits for everything.
    Stuck,
}

impl Scheduler {
    /// A world of its own for this seed.
    pub fn new(seed: u64) -> Self {
        let world = SchedulerState {
            now: EPOCH,
            random: fastrand::Rng::with_seed(seed),
            next_task: 0,
            next_timer: 0,
            tasks: BTreeMap::new(),
            ready: Arc::default(),
            timers: BTreeMap::new(),
            ahead: BTreeMap::new(),
            pauses: BTreeMap::new(),
            polls: 0,
        };
        Self {
            world: Arc::new(Mutex::new(world)),
        }
    }

    /// The environment of a node, whose clock is off by `skew`.
    pub fn environment(&self, node: NodeName, skew: Duration) -> Arc<dyn Environment> {
        Arc::new(SimEnvironment {
            scheduler: self.clone(),
            node,
            skew,
            horizon: None,
        })
    }

    /// The environment of a node that need not look at its store before something is due there:
    /// time jumps over what it would only have slept through.
    pub fn patient_environment(&self, node: NodeName, horizon: Horizon) -> Arc<dyn Environment> {
        Arc::new(SimEnvironment {
            scheduler: self.clone(),
            node,
            skew: Duration::ZERO,
            horizon: Some(horizon),
        })
    }

    /// Sets a node's clock: this many microseconds ahead of virtual time, or behind.
    pub fn set_clock(&self, node: NodeName, ahead: i64) {
        self.world().ahead.insert(node, ahead);
    }

    /// Virtual time.
    pub fn now(&self) -> Timestamp {
        self.world().now
    }

    /// Polls so far: how much happened.
    pub fn polls(&self) -> u64 {
        self.world().polls
    }

    /// Draws from the seed.
    pub fn random<T>(&self, draw: impl FnOnce(&mut fastrand::Rng) -> T) -> T {
        draw(&mut self.world().random)
    }

    /// True with this probability.
    pub fn chance(&self, probability: f64) -> bool {
        self.random(|random| random.f64() < probability)
    }

    /// A task of a node.
    pub fn spawn(&self, node: NodeName, future: BoxFuture<'static, ()>) {
        let mut world = self.world();
        let id = world.next_task;
        world.next_task += 1;
        world.tasks.insert(
            id,
            Task {
                node,
                future: Some(future),
            },
        );
        lock(&world.ready).push(id);
    }

    /// Drops all tasks of a node where they stand.
    pub fn crash(&self, node: NodeName) {
        let mut dropped = Vec::new();
        {
            let mut world = self.world();
            let ids: Vec<u64> = world
                .tasks
                .iter()
                .filter(|(_, task)| task.node == node)
                .map(|(id, _)| *id)
                .collect();
            for id in ids {
                dropped.push(world.tasks.remove(&id));
            }
        }
        // Outside the lock: dropping a future may wake or spawn others.
        drop(dropped);
    }

    /// Runs until the condition holds (asked after every jump of time), or for at most `limit`
    /// of virtual time.
    pub fn run_until(&self, limit: Duration, mut condition: impl FnMut() -> bool) -> Ended {
        let end = self.now().after(limit);
        loop {
            while self.poll_one() {}
            if condition() {
                return Ended::Met;
            }
            let Some(at) = self.next_time() else {
                return Ended::Stuck;
            };
            if at > end {
                self.world().now = end;
                return Ended::TimedOut;
            }
            self.jump(at);
        }
    }

    /// Makes it at least this late. For whoever drives the world: no task may be ready.
    pub fn skip_to(&self, at: Timestamp) {
        let mut world = self.world();
        world.now = world.now.max(at);
    }

    /// When the next timer goes off or the next look at a store is worth it.
    fn next_time(&self) -> Option<Timestamp> {
        let (timer, pauses) = {
            let world = self.world();
            let timer = world.timers.keys().next().map(|(at, _)| *at);
            let pauses = world.pauses.values();
            let pauses: Vec<_> = pauses
                .map(|paused| (paused.earliest, Arc::clone(&paused.horizon)))
                .collect();
            (timer, pauses)
        };
        // Outside the lock: a horizon is somebody else's code.
        let looks = pauses
            .into_iter()
            .filter_map(|(earliest, horizon)| Some(horizon()?.max(earliest)));
        looks.chain(timer).min()
    }

    /// Makes it `at`, and wakes whoever waited for that: one timer, or all whose look is due.
    fn jump(&self, at: Timestamp) {
        let mut wakers = Vec::new();
        let pauses: Vec<_> = {
            let mut world = self.world();
            world.now = world.now.max(at);
            let first = world.timers.first_entry();
            if let Some(timer) = first.filter(|timer| timer.key().0 <= at) {
                wakers.push(timer.remove());
            }
            let pauses = world.pauses.iter();
            pauses
                .filter(|(_, paused)| paused.earliest <= at)
                .map(|(id, paused)| (*id, Arc::clone(&paused.horizon)))
                .collect()
        };
        let due = pauses
            .into_iter()
            .filter(|(_, horizon)| horizon().is_some_and(|due| due <= at));
        for (id, _) in due {
            wakers.extend(self.world().pauses.remove(&id).map(|paused| paused.waker));
        }
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Polls one of the ready tasks, whichever the seed says. False if none is ready.
    fn poll_one(&self) -> bool {
        let (id, mut future, ready) = {
            let mut world = self.world();
            let ready = Arc::clone(&world.ready);
            let id = {
                let mut waiting = lock(&ready);
                if waiting.is_empty() {
                    return false;
                }
                let pick = world.random.usize(..waiting.len());
                waiting.swap_remove(pick)
            };
            world.polls += 1;
            // A task may have ended or crashed since it was woken.
            let Some(future) = world.tasks.get_mut(&id).and_then(|task| task.future.take()) else {
                return true;
            };
            (id, future, ready)
        };
        let waker = Waker::from(Arc::new(ReadyWaker { task: id, ready }));
        let poll = future.as_mut().poll(&mut Context::from_waker(&waker));
        let mut world = self.world();
        if poll.is_ready() {
            world.tasks.remove(&id);
        } else if let Some(task) = world.tasks.get_mut(&id) {
            task.future = Some(future);
        }
        true
    }

    fn world(&self) -> MutexGuard<'_, SchedulerState> {
        lock(&self.world)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct SimEnvironment {
    scheduler: Scheduler,
    node: NodeName,
    skew: Duration,
    horizon: Option<Horizon>,
}

impl Environment for SimEnvironment {
    fn now(&self) -> Timestamp {
        let world = self.scheduler.world();
        let ahead = world.ahead.get(self.node).copied().unwrap_or(0);
        Timestamp::from_micros(world.now.as_micros() + ahead).after(self.skew)
    }

    fn elapsed(&self) -> Duration {
        self.scheduler.now().since(EPOCH)
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        let at = self.scheduler.now().after(duration);
        Box::pin(Sleep {
            scheduler: self.scheduler.clone(),
            at,
            timer: None,
        })
    }

    fn pause(&self, duration: Duration) -> BoxFuture<'static, ()> {
        match &self.horizon {
            None => self.sleep(duration),
            Some(horizon) => Box::pin(Pause {
                scheduler: self.scheduler.clone(),
                earliest: self.scheduler.now().after(duration),
                horizon: Arc::clone(horizon),
                place: None,
            }),
        }
    }

    fn spawn(&self, _name: &'static str, task: BoxFuture<'static, ()>) {
        self.scheduler.spawn(self.node, task);
    }

    fn new_id(&self) -> Uuid {
        let millis = u64::try_from(self.now().as_micros() / 1_000).unwrap_or(0);
        let random = self.scheduler.random(|random| {
            let mut bytes = [0; 10];
            random.fill(&mut bytes);
            bytes
        });
        Builder::from_unix_timestamp_millis(millis, &random).into_uuid()
    }
}

struct Sleep {
    scheduler: Scheduler,
    at: Timestamp,
    timer: Option<u64>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let scheduler = self.scheduler.clone();
        let mut world = scheduler.world();
        if world.now >= self.at {
            return Poll::Ready(());
        }
        let timer = *self.timer.get_or_insert_with(|| {
            world.next_timer += 1;
            world.next_timer
        });
        world
            .timers
            .insert((self.at, timer), context.waker().clone());
        Poll::Pending
    }
}

/// A sleep that is given up wakes nobody.
impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(timer) = self.timer {
            let gone = self.scheduler.world().timers.remove(&(self.at, timer));
            drop(gone);
        }
    }
}

/// A wait between two looks at a store. Over when the scheduler has taken it off its list.
struct Pause {
    scheduler: Scheduler,
    earliest: Timestamp,
    horizon: Horizon,
    place: Option<u64>,
}

impl Future for Pause {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let scheduler = self.scheduler.clone();
        let mut world = scheduler.world();
        if let Some(place) = self.place {
            return match world.pauses.get_mut(&place) {
                None => Poll::Ready(()),
                Some(paused) => {
                    paused.waker.clone_from(context.waker());
                    Poll::Pending
                }
            };
        }
        let place = world.next_timer;
        world.next_timer += 1;
        let paused = Paused {
            earliest: self.earliest,
            horizon: Arc::clone(&self.horizon),
            waker: context.waker().clone(),
        };
        world.pauses.insert(place, paused);
        drop(world);
        self.place = Some(place);
        Poll::Pending
    }
}

impl Drop for Pause {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            let gone = self.scheduler.world().pauses.remove(&place);
            drop(gone);
        }
    }
}

#[cfg(test)]
mod tests;
