//! Suspects: messages that came back more than once are handled one at a time.
//!
//! A message can end the program: by what it needs of memory, by a bug that aborts. Then it comes
//! again, to this node or the next, and every message that was on its way to the same node comes
//! with it, and each such return counts towards the limit of all of them. So a node begins to take
//! messages one at a time, until it sees one that has hardly ever come back; and whichever has come
//! back more than once is handled while nothing else of this kind is, with a note in the database
//! ([`Trials`](crate::store::Trials)). The message whose note was made [`TRIALS_MAX`] times and never
//! removed is the one: it is set aside. Its neighbours are out of danger long before that.

use std::sync::Arc;

use tokio::sync::watch;
use uuid::Uuid;

use super::worker::Shared;
use crate::broker::{Acks, Delivery, DeliveryTag};
use crate::message::Message;

/// Returns from which on a message is a suspect: once is what every outage does.
const SUSPICIOUS_RETURNS: u32 = 2;
/// Times that a suspect may be begun and not ended before it is set aside. One that is innocent
/// and happens to be on trial when another ends the program has as many chances.
pub const TRIALS_MAX: u32 = 3;

/// Whether a message is to be handled alone.
pub(super) fn is_suspect(delivery: &Delivery) -> bool {
    delivery.returns >= SUSPICIOUS_RETURNS
}

/// What a message is known by: its queue and content.
fn fingerprint(queue: &str, message: &Message) -> Uuid {
    let id = message.properties.message_id.as_deref().unwrap_or_default();
    let kind = message.properties.kind.as_deref().unwrap_or_default();
    let correlation = message.properties.correlation_id.as_deref();
    let mut name = Vec::with_capacity(message.body.len() + 256);
    for part in [queue, id, kind, correlation.unwrap_or_default()] {
        name.extend_from_slice(part.as_bytes());
        name.push(0);
    }
    name.extend_from_slice(&message.body);
    Uuid::new_v5(&Uuid::NAMESPACE_OID, &name)
}

/// How a trial begins.
pub(super) enum Verdict {
    /// Handle it, and end the trial then.
    Try(Uuid),
    /// It has ended the program too often.
    Guilty,
}

impl Shared {
    /// Notes that a suspect is handled. Without a database nobody is found guilty.
    pub(super) async fn begin_trial(&self, queue: &str, message: &Message) -> Verdict {
        let fingerprint = fingerprint(queue, message);
        let now = self.environment.now();
        match self.within(self.store.begin_trial(fingerprint, now)).await {
            Ok(begun) if begun > TRIALS_MAX => {
                tracing::error!(
                    queue,
                    begun,
                    "a message was never handled to its end; it is set aside"
                );
                Verdict::Guilty
            }
            Ok(begun) => {
                // After an outage that is said of thousands; that one was not ended is news.
                if begun > 1 {
                    tracing::warn!(
                        queue,
                        begun,
                        "a message that was once begun and never ended is handled alone again"
                    );
                } else {
                    tracing::debug!(queue, "a message that came back is handled alone");
                }
                Verdict::Try(fingerprint)
            }
            Err(error) => {
                tracing::debug!(%error, "a trial can't be noted");
                Verdict::Try(fingerprint)
            }
        }
    }

    /// Notes that it was handled.
    pub(super) async fn end_trial(&self, fingerprint: Uuid) {
        if let Err(error) = self.within(self.store.end_trial(fingerprint)).await {
            tracing::debug!(%error, "the end of a trial can't be noted");
        }
    }
}

/// Passes words on to the broker, and lets somebody wait until the last was said.
pub(super) struct Watched {
    acks: Arc<dyn Acks>,
    said: watch::Sender<bool>,
}

impl Watched {
    pub(super) fn new(acks: &Arc<dyn Acks>) -> Arc<Self> {
        Arc::new(Self {
            acks: Arc::clone(acks),
            said: watch::channel(false).0,
        })
    }

    /// Completes once the message is acknowledged or given back, or nobody can do that any more.
    pub(super) fn settled(&self) -> impl Future<Output = ()> + use<> {
        let mut said = self.said.subscribe();
        async move {
            let _ = said.wait_for(|said| *said).await;
        }
    }
}

impl Acks for Watched {
    fn ack(&self, tags: &[DeliveryTag]) {
        self.acks.ack(tags);
        self.said.send_replace(true);
    }

    fn requeue(&self, tags: &[DeliveryTag]) {
        self.acks.requeue(tags);
        self.said.send_replace(true);
    }
}
