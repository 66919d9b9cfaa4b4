//! Keeps what was declared: looks at it again, at once when somebody misses a part, else now and then.
//!
//! Queues, exchanges and bindings can go while the program runs: somebody deletes an exchange and
//! makes it anew, the server loses its volume. Nobody tells us, and a binding that is gone can't
//! even be seen, so everything is declared again, which changes nothing where nothing is missing.
//!
//! What can't be had is a [`Trouble`]: logged when it comes and when it goes, and shown.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use super::exchanges::Exchanges;
use super::link::{Link, REQUEST_TIME_MAX, undeterred};
use super::topology;
use crate::broker::{BrokerError, Topology, Trouble, TroubleAbout};
use crate::error::code;

/// How often to look again although nobody misses anything.
pub const LOOK_EVERY: Duration = Duration::from_mins(1);

/// Shortest time between two looks, however many miss something: what can't be had may be missed by
/// each message, and each look costs the server two channels then.
const LOOK_PAUSE: Duration = Duration::from_secs(5);

/// What the program has declared.
pub(super) struct Keeper {
    link: Arc<Link>,
    exchanges: Arc<Exchanges>,
    look_every: Duration,
    declared: Mutex<Vec<Topology>>,
    /// Held by whoever declares. While a quorum queue is being declared, a second declaration of it
    /// is answered before the queue has a leader, and whoever consumes from it then loses the connection.
    declaring: tokio::sync::Mutex<()>,
    troubles: Mutex<BTreeMap<TroubleAbout, String>>,
    missed: Notify,
}

impl Keeper {
    pub(super) fn new(link: Arc<Link>, exchanges: Arc<Exchanges>, look_every: Duration) -> Self {
        Self {
            link,
            exchanges,
            look_every,
            declared: Mutex::default(),
            declaring: tokio::sync::Mutex::default(),
            troubles: Mutex::default(),
            missed: Notify::new(),
        }
    }

    /// Declares, and keeps it so from now on.
    pub(super) async fn declare(&self, topology: &Topology) -> Result<(), BrokerError> {
        let outcome = undeterred(|| self.declare_once(topology)).await?;
        {
            let mut declared = lock(&self.declared);
            if !declared.contains(topology) {
                declared.push(topology.clone());
            }
        }
        let mut troubles = lock(&self.troubles).clone();
        for trouble in outcome {
            troubles.insert(trouble.about, trouble.why);
        }
        self.tell(troubles);
        Ok(())
    }

    /// Somebody misses a part: look now.
    pub(super) fn miss(&self) {
        self.missed.notify_one();
    }

    /// Whether an exchange is there; when in doubt, it is.
    pub(super) async fn exchange_exists(&self, exchange: &str) -> bool {
        match self.link.up(Instant::now() + REQUEST_TIME_MAX).await {
            Ok(live) => topology::exchange_exists(&self.link, &live, exchange).await,
            Err(_) => true,
        }
    }

    /// What can't be had.
    pub(super) fn troubles(&self) -> Vec<Trouble> {
        let troubles = lock(&self.troubles).clone();
        let each = |(about, why)| Trouble { about, why };
        troubles.into_iter().map(each).collect()
    }

    /// Looks again, for ever.
    pub(super) async fn run(self: Arc<Self>) {
        loop {
            // Whether somebody misses something or the time has come, the same is done.
            let _ = timeout(self.look_every, self.missed.notified()).await;
            self.look_again().await;
            sleep(LOOK_PAUSE.min(self.look_every)).await;
        }
    }

    /// Declares again what was declared. Without a connection nothing is known, and nothing changes.
    pub(super) async fn look_again(&self) {
        let declared = lock(&self.declared).clone();
        let mut troubles = BTreeMap::new();
        for topology in declared {
            match self.declare_once(&topology).await {
                Ok(found) => {
                    troubles.extend(
                        found
                            .into_iter()
                            .map(|trouble| (trouble.about, trouble.why)),
                    );
                }
                Err(BrokerError::Unavailable(why)) => {
                    tracing::debug!(%why, "can't look at queues and exchanges");
                    return;
                }
                Err(error) => {
                    let about = TroubleAbout::Queue(queue_of(&topology, &error));
                    troubles.insert(about, error.to_string());
                }
            }
        }
        self.tell(troubles);
    }

    async fn declare_once(&self, topology: &Topology) -> Result<Vec<Trouble>, BrokerError> {
        let live = self.link.awaited().await?;
        let outcome = {
            let _alone = self.declaring.lock().await;
            topology::declare(&self.link, &live, topology).await?
        };
        let now = Instant::now();
        for exchange in &outcome.made {
            tracing::info!(exchange, "exchange made");
            self.exchanges.made(exchange, now);
        }
        for exchange in &outcome.exchanges {
            self.exchanges.found(exchange, now);
        }
        for trouble in &outcome.troubles {
            if let TroubleAbout::Exchange(exchange) = &trouble.about {
                self.exchanges.missing(exchange, now);
            }
        }
        Ok(outcome.troubles)
    }

    /// Takes note of what can't be had now, and logs what has changed.
    fn tell(&self, now: BTreeMap<TroubleAbout, String>) {
        let mut before = lock(&self.troubles);
        for (about, why) in &now {
            if before.get(about) != Some(why) {
                tracing::error!(
                    code = %code::TOPOLOGY_TROUBLE,
                    %about,
                    why,
                    "can't be had; trying again each minute"
                );
            }
        }
        for about in before.keys().filter(|about| !now.contains_key(about)) {
            tracing::info!(%about, "is as it should be again");
        }
        *before = now;
    }
}

/// The queue that an error is about, as far as that can be told.
fn queue_of(topology: &Topology, error: &BrokerError) -> String {
    let text = error.to_string();
    let queues = topology.queues.iter().chain(&topology.queues_in_order);
    let mut names = queues.map(|queue| &queue.name);
    let about = names.find(|name| text.contains(&format!("`{name}`")));
    about.cloned().unwrap_or_default()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
