//! Those who send what nobody can handle, and the person who deals with what becomes of it.
//!
//! Strangers send nonsense of every kind, often the same thing twice, with and without ids. At the
//! desk somebody drains the dead-letter queue and looks at the letters now and then: sends some again
//! as they are (most come back), discards some, and corrects the starts of careless customers, whose
//! orders must be carried out in the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use super::scheduler::Scheduler;
use super::shop::{MISSPELT, SAGA};
use crate::broker::{Broker, Outgoing};
use crate::dead_letters::drain::{Drain, DrainUntil};
use crate::dead_letters::replay::{REPLAYS_MAX, ReplayOptions};
use crate::dead_letters::route::Wish;
use crate::dead_letters::{DeadLetterError, Desk, Selection};
use crate::environment::{Environment, Shutdown};
use crate::message::{
    DEAD_LETTER_QUEUE, Destination, Message, Properties, REPLY_QUEUE, SIGNAL_QUEUE, START_QUEUE,
};
use crate::store::dead_letters::{LetterFilter, LetterHead, LetterPage, LetterStatus};

/// Pieces of nonsense.
const PIECES: usize = 12;
/// Longest pause between two of them, in milliseconds.
const PAUSE_MILLIS: u64 = 2_500;
/// Letters looked at at once.
const HANDFUL: usize = 100;
/// How long somebody waits for a command, which a database that went silent may keep for ever.
const COMMAND_TIME_MAX: Duration = Duration::from_mins(2);
/// Who sits at the desk.
const CLERK: &str = "clerk";

/// Something nobody can handle, and how often it is sent.
struct Piece {
    outgoing: Outgoing,
    copies: usize,
    pause: Duration,
}

/// Sends nonsense, and says when all of it was sent.
pub(super) async fn pester(
    scheduler: Scheduler,
    environment: Arc<dyn Environment>,
    broker: Arc<dyn Broker>,
    done: Arc<AtomicBool>,
) {
    let pieces: Vec<Piece> = scheduler.random(|random| (0..PIECES).map(|_| draw(random)).collect());
    for piece in pieces {
        for _ in 0..piece.copies {
            environment.sleep(piece.pause).await;
            // If it is not taken, it was never sent.
            broker.publish(vec![piece.outgoing.clone()]).await;
        }
    }
    done.store(true, Ordering::Relaxed);
}

fn draw(random: &mut fastrand::Rng) -> Piece {
    let mut properties = Properties {
        // Few ids, so that different things have the same one.
        message_id: random
            .bool()
            .then(|| format!("nonsense-{}", random.u8(..3))),
        ..Properties::default()
    };
    let mut header = |name: &str, value: Value| {
        properties.headers.insert(name.to_owned(), value);
    };
    if random.bool() {
        header("tenant", json!(random.u8(..2)));
    }
    let (queue, kind, body) = match random.u8(..6) {
        0 => (START_QUEUE, Some("nosuch"), "{}"),
        1 => (START_QUEUE, Some(SAGA), "nope"),
        2 => {
            header("saga", json!(SAGA));
            header("saga-key", json!("nobody"));
            (SIGNAL_QUEUE, Some("go"), "{}")
        }
        3 => (REPLY_QUEUE, None, "nope"),
        4 => ("inventory", Some("inventory.reserve"), "{}"),
        _ => {
            header("x-first-death-queue", json!(START_QUEUE));
            header("x-first-death-reason", json!("rejected"));
            (DEAD_LETTER_QUEUE, Some("nosuch"), "{}")
        }
    };
    properties.kind = kind.map(str::to_owned);
    Piece {
        outgoing: Outgoing {
            destination: Destination::queue(queue),
            message: Message {
                properties,
                body: body.into(),
            },
            mandatory: true,
        },
        copies: random.usize(1..=3),
        pause: Duration::from_millis(random.u64(..PAUSE_MILLIS / 2)),
    }
}

/// What the desk works with.
#[derive(Clone)]
pub(super) struct Office {
    pub(super) scheduler: Scheduler,
    pub(super) desk: Desk,
    pub(super) broker: Arc<dyn Broker>,
}

impl Office {
    /// Takes dead letters out of their queue, for ever.
    pub(super) async fn drain(self) {
        let drain = Drain {
            environment: Arc::clone(&self.desk.environment),
            broker: self.broker,
            letters: Arc::clone(&self.desk.letters),
            prefetch: 10,
        };
        let stop = Shutdown::default();
        loop {
            let ended = drain.run(DEAD_LETTER_QUEUE, DrainUntil::Stopped, &stop, |_| {});
            drop(within(&*drain.environment, ended).await);
            // The queue is not there yet.
            drain.environment.sleep(Duration::from_secs(1)).await;
        }
    }

    /// Looks at open letters now and then, for ever.
    pub(super) async fn work(self) {
        let page = LetterPage {
            after: None,
            oldest_first: true,
            limit: HANDFUL,
        };
        let open = LetterFilter {
            status: Some(LetterStatus::Open),
            ..LetterFilter::default()
        };
        loop {
            let pause = self.scheduler.random(|random| random.u64(200..3_000));
            let pause = self.desk.environment.sleep(Duration::from_millis(pause));
            pause.await;
            let environment = &*self.desk.environment;
            let heads = within(environment, self.desk.letters.letters(&open, &page)).await;
            for head in heads.and_then(Result::ok).unwrap_or_default() {
                // What could not be done now is looked at again.
                drop(within(environment, self.deal_with(&head)).await);
            }
        }
    }

    async fn deal_with(&self, head: &LetterHead) -> Result<(), DeadLetterError> {
        let this = || Selection::Ids(vec![head.id]);
        if head.kind.as_deref() == Some(MISSPELT) {
            let letter = self.desk.letter(head.id).await?;
            if letter.edited.is_none() {
                let mut message = letter.message().clone();
                message.properties.kind = Some(SAGA.to_owned());
                self.desk.edit(&letter, message, CLERK, "a slip").await?;
            }
            return self.replay(this(), u32::MAX).await;
        }
        match self.scheduler.random(|random| random.u8(..4)) {
            0 | 1 => self.replay(this(), REPLAYS_MAX).await,
            2 => self.desk.discard(this(), CLERK, "nonsense").await.map(drop),
            _ => Ok(()),
        }
    }

    async fn replay(&self, letters: Selection, replays_max: u32) -> Result<(), DeadLetterError> {
        let canary = self.scheduler.chance(0.3);
        let options = ReplayOptions {
            wish: Wish::default(),
            again: false,
            force: false,
            replays_max,
            by: CLERK.to_owned(),
            why: "perhaps now".to_owned(),
            rate: None,
            canary: canary.then_some((1, Duration::from_secs(1))),
            limit: None,
        };
        let stop = Shutdown::default();
        let replayed = self
            .desk
            .replay(&self.broker, letters, &options, &stop, |_| {});
        replayed.await.map(drop)
    }
}

/// Waits for a command, then gives it up.
async fn within<T>(environment: &dyn Environment, command: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        done = command => Some(done),
        () = environment.sleep(COMMAND_TIME_MAX) => None,
    }
}
