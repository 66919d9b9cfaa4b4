//! Taking messages from the queues, and giving them back when others had better do it: while the
//! database is lost, and one at a time as long as they may be what ends a node.

use std::sync::Arc;
use std::time::Duration;

use super::decode::starter_of;
use super::intake::Workers;
use super::room::Space;
use super::trial::{TRIALS_MAX, Verdict, Watched, is_suspect};
use super::work::{Job, Origin, Work};
use super::worker::{BATCH_MAX, Shared};
use crate::broker::{Acks, Broker, Consumer, Delivery, Session};
use crate::environment::Shutdown;
use crate::error::code;
use crate::message::child::ChildCommand;
use crate::message::{DOMAIN_EVENT_QUEUE, REPLY_QUEUE};
use crate::store::DeadLetter;

/// Pause before the broker is asked again to be given messages.
const CONSUME_PAUSE: Duration = Duration::from_secs(1);
/// Messages taken at a time until one is no suspect.
pub(super) const CAREFUL_PREFETCH: u16 = 1;

/// Whether messages of a queue are first taken one at a time. That takes a second consumer after the
/// first, and where one consumer is given all, another node would come in between.
pub(super) fn careful_at_first(queue: &str) -> bool {
    queue != DOMAIN_EVENT_QUEUE
}

/// Why no more messages are taken over a consumer.
enum Taken {
    /// The node stops.
    Over,
    /// The database was lost.
    Lost,
    /// A message came that is no suspect: more can be taken at a time.
    Harmless,
}

impl Shared {
    /// Takes messages from one queue until the stop; then waits for `drained` before it lets go
    /// of the consumer, so that what is in work can still be acknowledged. While the database is
    /// lost it lets go of the consumer, which gives its messages to other nodes.
    pub(super) async fn receive(
        self: Arc<Self>,
        queue: &'static str,
        broker: Arc<dyn Broker>,
        mut consumer: Consumer,
        workers: Workers,
        drained: Shutdown,
    ) {
        let mut careful = careful_at_first(queue);
        loop {
            let losses = self.presence.losses();
            if !self.presence.is_lost() {
                let receiving = self.take_from(queue, &mut consumer, careful, &workers);
                match tokio::select! {
                    biased;
                    () = self.presence.lost_again(losses) => Taken::Lost,
                    taken = receiving => taken,
                } {
                    Taken::Over => break,
                    Taken::Harmless => careful = false,
                    Taken::Lost => careful = careful_at_first(queue),
                }
            }
            drop(consumer);
            match self.consume_again(queue, &*broker, careful).await {
                Some(again) => consumer = again,
                None => return,
            }
        }
        drop(workers);
        drained.requested().await;
        drop(consumer);
    }

    /// Takes messages until the stop, or until this consumer is not the right one any more: the
    /// first one gives one message at a time, until one is no suspect.
    async fn take_from(
        &self,
        queue: &'static str,
        consumer: &mut Consumer,
        careful: bool,
        workers: &Workers,
    ) -> Taken {
        let Consumer { deliveries, acks } = consumer;
        let mut session = Session::default();
        loop {
            let batch = tokio::select! {
                biased;
                () = self.stop.requested() => return Taken::Over,
                batch = deliveries.next_batch(BATCH_MAX) => batch,
            };
            if batch.is_empty() {
                tracing::error!(queue, "the queue can't be consumed any more");
                return Taken::Over;
            }
            let harmless = careful && !batch.iter().any(is_suspect);
            if !careful && !batch.iter().any(is_suspect) {
                self.give_all(queue, batch, &mut session, acks, workers)
                    .await;
                continue;
            }
            for delivery in batch {
                self.try_alone(queue, delivery, &mut session, acks, workers)
                    .await;
            }
            if harmless {
                return Taken::Harmless;
            }
        }
    }

    async fn give_all(
        &self,
        queue: &'static str,
        batch: Vec<Delivery>,
        session: &mut Session,
        acks: &Arc<dyn Acks>,
        workers: &Workers,
    ) {
        if queue == DOMAIN_EVENT_QUEUE {
            return self.receive_events(batch, session, acks, workers).await;
        }
        for delivery in batch {
            let space = self.room.take_for(&delivery.message.body).await;
            // Unacknowledged, so the broker gives the rest to another node.
            let Some(work) = self.decode(queue, delivery, session, acks, space).await else {
                return;
            };
            workers.give(work).await;
        }
    }

    /// Has one message handled, and waits until that is done. A suspect is handled while no other
    /// suspect is, or found guilty.
    async fn try_alone(
        &self,
        queue: &'static str,
        delivery: Delivery,
        session: &mut Session,
        acks: &Arc<dyn Acks>,
        workers: &Workers,
    ) {
        let watched = Watched::new(acks);
        let settled = watched.settled();
        let acks: Arc<dyn Acks> = watched;
        if !is_suspect(&delivery) {
            self.give_all(queue, vec![delivery], session, &acks, workers)
                .await;
            drop(acks);
            return settled.await;
        }
        let _alone = self.trials.lock().await;
        match self.begin_trial(queue, &delivery.message).await {
            Verdict::Try(fingerprint) => {
                self.give_all(queue, vec![delivery], session, &acks, workers)
                    .await;
                drop(acks);
                settled.await;
                self.end_trial(fingerprint).await;
            }
            Verdict::Guilty => {
                let sighting = self.sighting(&delivery, session);
                let Delivery { tag, message, .. } = delivery;
                let letter = self.letter(queue, message, sighting);
                let guilty = DeadLetter {
                    code: code::NODE_ENDED,
                    reason: format!(
                        "each of {TRIALS_MAX} times that this message was handled alone, the node ended before it was done"
                    ),
                    ..letter()
                };
                let is_asked = queue != REPLY_QUEUE && !ChildCommand::is_meant(&guilty.message);
                let starter = is_asked.then(|| starter_of(&guilty.message)).flatten();
                let job = Job::Bury {
                    letter: Box::new(guilty),
                    starter,
                };
                let origin = Origin::Delivery {
                    acks,
                    tag,
                    letter,
                    space: Space::default(),
                };
                workers.give(Work { job, origin }).await;
                settled.await;
            }
        }
    }

    /// Takes messages again once the database can be used; `None` if the stop comes first.
    async fn consume_again(
        &self,
        queue: &'static str,
        broker: &dyn Broker,
        careful: bool,
    ) -> Option<Consumer> {
        let prefetch = if careful {
            CAREFUL_PREFETCH
        } else {
            self.options.prefetch
        };
        loop {
            let again = async {
                self.presence.usable().await;
                broker.consume(queue, prefetch).await
            };
            let consumer = tokio::select! {
                biased;
                () = self.stop.requested() => return None,
                consumer = again => consumer,
            };
            match consumer {
                Ok(consumer) => return Some(consumer),
                Err(error) => {
                    tracing::warn!(queue, %error, "can't take messages again yet; trying again");
                    self.environment.sleep(CONSUME_PAUSE).await;
                }
            }
        }
    }
}
