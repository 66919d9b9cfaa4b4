//! The outside world as the engine sees it: a clock, sleep, tasks and fresh ids.
//!
//! The engine and the participants take these from a value instead of calling the runtime, so
//! that the very same code runs under tokio in production and under the simulator's seeded
//! scheduler, where time is virtual and a crash drops every task of a node.
//! Channels (`tokio::sync`) need no runtime and are used directly.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_util::future::BoxFuture;
use tokio::sync::{oneshot, watch};
use uuid::Uuid;

use crate::id::Timestamp;

/// What a node needs from the world besides its store and broker.
pub trait Environment: Send + Sync + 'static {
    /// The time now.
    fn now(&self) -> Timestamp;

    /// How long it is since some moment, by a clock that nobody sets. Without one of its own, an
    /// environment's time is taken for that.
    fn elapsed(&self) -> Duration {
        self.now().since(Timestamp::default())
    }

    /// Completes after `duration`.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()>;

    /// Waits between two looks at the database for what has become due: at least `duration`, and
    /// longer where the environment knows that nothing is due yet. That is how a simulated year
    /// costs no more than what happens in it; the real world can't know, and looks again.
    fn pause(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.sleep(duration)
    }

    /// Starts a task that runs beside the caller. `name` shows up in diagnostics.
    fn spawn(&self, name: &'static str, task: BoxFuture<'static, ()>);

    /// A fresh UUIDv7: unique, and ordered by time.
    fn new_id(&self) -> Uuid;
}

/// A started task; awaiting it waits for the task's end (also when it panicked or was dropped).
pub struct Task(oneshot::Receiver<()>);

impl Task {
    /// Starts `task` in `environment` and keeps a handle to its end.
    pub fn start(
        environment: &Arc<dyn Environment>,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        let (done, ended) = oneshot::channel();
        environment.spawn(
            name,
            Box::pin(async move {
                task.await;
                drop(done);
            }),
        );
        Self(ended)
    }

    /// Waits until the task has ended.
    pub async fn ended(self) {
        // The sender is only ever dropped, so the error is the expected signal.
        let _ = self.0.await;
    }
}

/// Asks everything that listens to finish what it holds and stop.
#[derive(Clone)]
pub struct Shutdown {
    flag: Arc<watch::Sender<bool>>,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self {
            flag: Arc::new(watch::channel(false).0),
        }
    }
}

impl Shutdown {
    /// Asks for the stop; asking again changes nothing.
    pub fn request(&self) {
        self.flag.send_replace(true);
    }

    /// Whether the stop was asked for.
    pub fn is_requested(&self) -> bool {
        *self.flag.borrow()
    }

    /// Completes once the stop is asked for.
    pub async fn requested(&self) {
        let mut seen = self.flag.subscribe();
        // Fails only when the sender is gone, and `self` holds it.
        let _ = seen.wait_for(|stop| *stop).await;
    }
}

/// The real world: the system's clock and the current tokio runtime.
#[derive(Debug, Default, Clone, Copy)]
pub struct TokioEnvironment;

impl Environment for TokioEnvironment {
    fn now(&self) -> Timestamp {
        let since_epoch = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Timestamp::default().after(since_epoch)
    }

    fn elapsed(&self) -> Duration {
        static BEGAN: OnceLock<Instant> = OnceLock::new();
        BEGAN.get_or_init(Instant::now).elapsed()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }

    fn spawn(&self, _name: &'static str, task: BoxFuture<'static, ()>) {
        drop(tokio::spawn(task));
    }

    fn new_id(&self) -> Uuid {
        Uuid::now_v7()
    }
}
