//! Every metric's name, in one place, behind a function that says when it is counted.

use std::time::Duration;

use metrics::{
    Histogram, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

/// A name and what it counts, for `/metrics`.
pub const DESCRIPTIONS: &[(&str, &str)] = &[
    (DECISIONS, "Inputs decided and committed"),
    (STARTED, "Sagas started"),
    (ENDED, "Sagas ended, by saga and status"),
    (DURATION, "Seconds from a saga's start to its end"),
    (
        SUSPENDED,
        "Times a saga was suspended and waits for a person",
    ),
    (BATCH, "Inputs in a committed batch"),
    (COMMIT, "Seconds that a commit took"),
    (
        STEP,
        "Seconds from a command to its answer, by definition, step, phase and outcome",
    ),
    (
        CONFLICTS,
        "Sagas decided again because another node was faster",
    ),
    (
        PANICS,
        "Times that a worker panicked and was started again: always a bug",
    ),
    (
        LEFT_TO_NEWER,
        "Inputs left to nodes of a newer release, which wrote their sagas",
    ),
    (IGNORED, "Duplicate or late messages that changed nothing"),
    (
        EVENTS_IGNORED,
        "Domain events that were about no saga here, by why",
    ),
    (SIGNALS, "Signals that sagas took in"),
    (
        DEAD_LETTERS_AGAIN,
        "Dead letters that the broker delivered again, by error code",
    ),
    (DEAD_LETTERS, "Messages nobody could handle, by error code"),
    (PUBLISHED, "Messages confirmed by the broker"),
    (
        PUBLISH_FAILED,
        "Messages whose publish failed and will be tried again",
    ),
    (
        PUBLISH_WAITS,
        "Messages kept in the outbox because their exchange is missing, or was made anew a moment ago",
    ),
    (SWEPT, "Outbox rows published by the sweep"),
    (
        CLOCK_AHEAD,
        "Seconds that this machine's clock is ahead of the database's; below 0, behind",
    ),
    (
        OLDEST_SNAPSHOT,
        "Age in seconds of the oldest snapshot that somebody holds in the database",
    ),
    (
        CACHE,
        "Bytes of memory that open sagas take in the cache, roughly",
    ),
    (
        LIVE,
        "Sagas that have not ended, by saga and status; the same on every node",
    ),
    (
        LIVE_IDLE,
        "Seconds since that one of them moved which has not moved for the longest",
    ),
    (
        OUTBOX,
        "Messages that wait in the outbox; the same on every node",
    ),
    (
        OUTBOX_OVERDUE,
        "Seconds that the first message of the outbox is overdue",
    ),
    (QUEUE, "Messages that wait in a participant's queue"),
    (QUEUE_CONSUMERS, "Consumers of a participant's queue"),
    (BROKER_UP, "1 while messages can flow, else 0"),
    (
        TOPOLOGY_TROUBLE,
        "1 while an exchange or queue that is needed can't be had or bound, else 0",
    ),
    (
        EVENTS_STRAY,
        "Domain events that no definition names and no binding of ours explains, by exchange",
    ),
    (
        PROJECTION_EVENTS,
        "Aggregate events that a projection has folded into its documents",
    ),
    (
        PROJECTION_LAG,
        "Positions of aggregate events that a projection has still to read, roughly its events",
    ),
    (
        PROJECTION_BEHIND,
        "Age in seconds of the oldest aggregate event that a projection has not yet folded, as of its last step",
    ),
];

const PROJECTION_EVENTS: &str = "backstitch_projection_events_total";
const PROJECTION_LAG: &str = "backstitch_projection_lag_events";
const PROJECTION_BEHIND: &str = "backstitch_projection_lag_seconds";
const DECISIONS: &str = "backstitch_decisions_total";
const STARTED: &str = "backstitch_sagas_started_total";
const ENDED: &str = "backstitch_sagas_ended_total";
const DURATION: &str = "backstitch_saga_duration_seconds";
const SUSPENDED: &str = "backstitch_sagas_suspended_total";
const BATCH: &str = "backstitch_batch_inputs";
const COMMIT: &str = "backstitch_commit_seconds";
const STEP: &str = "backstitch_step_seconds";
const CONFLICTS: &str = "backstitch_commit_conflicts_total";
const PANICS: &str = "backstitch_worker_panics_total";
const LEFT_TO_NEWER: &str = "backstitch_left_to_newer_nodes_total";
const IGNORED: &str = "backstitch_ignored_messages_total";
const EVENTS_IGNORED: &str = "backstitch_domain_events_ignored_total";
const SIGNALS: &str = "backstitch_signals_total";
const DEAD_LETTERS: &str = "backstitch_dead_letters_total";
const DEAD_LETTERS_AGAIN: &str = "backstitch_dead_letters_seen_again_total";
const PUBLISHED: &str = "backstitch_published_total";
const PUBLISH_FAILED: &str = "backstitch_publish_failed_total";
const PUBLISH_WAITS: &str = "backstitch_publish_waits_total";
const TOPOLOGY_TROUBLE: &str = "backstitch_topology_trouble";
const EVENTS_STRAY: &str = "backstitch_domain_events_stray_total";
const SWEPT: &str = "backstitch_outbox_swept_total";
const CLOCK_AHEAD: &str = "backstitch_clock_ahead_seconds";
const OLDEST_SNAPSHOT: &str = "backstitch_oldest_snapshot_seconds";
const CACHE: &str = "backstitch_cache_bytes";
const LIVE: &str = "backstitch_sagas_live";
const LIVE_IDLE: &str = "backstitch_sagas_live_idle_seconds";
const OUTBOX: &str = "backstitch_outbox_messages";
const OUTBOX_OVERDUE: &str = "backstitch_outbox_overdue_seconds";
const QUEUE: &str = "backstitch_queue_messages";
const QUEUE_CONSUMERS: &str = "backstitch_queue_consumers";
const BROKER_UP: &str = "backstitch_broker_up";

/// Tells the installed recorder what each metric means.
pub fn describe() {
    for (name, text) in DESCRIPTIONS.iter().copied() {
        if name.ends_with("_total") {
            describe_counter!(name, text);
        } else if [
            BROKER_UP,
            CACHE,
            CLOCK_AHEAD,
            TOPOLOGY_TROUBLE,
            OLDEST_SNAPSHOT,
            LIVE,
            LIVE_IDLE,
            OUTBOX,
            OUTBOX_OVERDUE,
            QUEUE,
            QUEUE_CONSUMERS,
            PROJECTION_LAG,
            PROJECTION_BEHIND,
        ]
        .contains(&name)
        {
            describe_gauge!(name, text);
        } else {
            describe_histogram!(name, text);
        }
    }
}

/// A batch was committed.
pub fn committed(inputs: usize, seconds: f64) {
    counter!(DECISIONS).increment(inputs as u64);
    #[allow(clippy::cast_precision_loss)] // a batch is far below 2^52
    histogram!(BATCH).record(inputs as f64);
    histogram!(COMMIT).record(seconds);
}

/// A saga started.
pub fn started(saga: &str) {
    counter!(STARTED, "saga" => saga.to_owned()).increment(1);
}

/// A saga ended.
pub fn ended(saga: &str, status: &'static str, seconds: f64) {
    counter!(ENDED, "saga" => saga.to_owned(), "status" => status).increment(1);
    histogram!(DURATION).record(seconds);
}

/// A saga waits for a person.
pub fn suspended(saga: &str) {
    counter!(SUSPENDED, "saga" => saga.to_owned()).increment(1);
}

/// Where answers to one command are counted; the caller keeps it, and bounds how many there are.
pub fn step(definition: &str, step: &str, phase: &'static str, outcome: &'static str) -> Histogram {
    histogram!(
        STEP,
        "definition" => definition.to_owned(),
        "step" => step.to_owned(),
        "phase" => phase,
        "outcome" => outcome
    )
}

/// Sagas were decided again.
pub fn conflicts(count: usize) {
    counter!(CONFLICTS).increment(count as u64);
}

/// A worker panicked.
pub fn worker_panicked() {
    counter!(PANICS).increment(1);
}

/// Something was left to nodes of a newer release.
pub fn left_to_newer() {
    counter!(LEFT_TO_NEWER).increment(1);
}

/// A message changed nothing.
pub fn ignored() {
    counter!(IGNORED).increment(1);
}

/// A domain event was about no saga here: `unmatched` by any rule, without a usable `key`, or with
/// the key of no live saga (`no_saga`).
pub fn event_ignored(why: &'static str) {
    counter!(EVENTS_IGNORED, "why" => why).increment(1);
}

/// A saga took in a signal.
pub fn signalled() {
    counter!(SIGNALS).increment(1);
}

/// A message became a dead letter.
pub fn dead_letter(code: crate::error::Code) {
    counter!(DEAD_LETTERS, "code" => code.to_string()).increment(1);
}

/// A message that is a dead letter already was delivered again.
pub fn dead_letter_again(code: crate::error::Code) {
    counter!(DEAD_LETTERS_AGAIN, "code" => code.to_string()).increment(1);
}

/// Messages were confirmed.
pub fn published(count: usize) {
    counter!(PUBLISHED).increment(count as u64);
}

/// A publish failed.
pub fn publish_failed() {
    counter!(PUBLISH_FAILED).increment(1);
}

/// A message waits for its exchange.
pub fn publish_waits() {
    counter!(PUBLISH_WAITS).increment(1);
}

/// Whether something that was declared, named by its exchange or queue, can't be had.
pub fn topology_trouble(name: &str, exists: bool) {
    gauge!(TOPOLOGY_TROUBLE, "name" => name.to_owned()).set(if exists { 1.0 } else { 0.0 });
}

/// A domain event came that nothing here explains. `exchange` is one of a bounded number.
pub fn event_stray(exchange: &str) {
    counter!(EVENTS_STRAY, "exchange" => exchange.to_owned()).increment(1);
}

/// Outbox rows were swept.
pub fn swept(count: usize) {
    counter!(SWEPT).increment(count as u64);
}

/// How far this machine's clock is ahead of the database's.
pub fn clock_ahead(seconds: f64) {
    gauge!(CLOCK_AHEAD).set(seconds);
}

/// How old the oldest snapshot in the database is.
pub fn oldest_snapshot(age: Duration) {
    gauge!(OLDEST_SNAPSHOT).set(age.as_secs_f64());
}

/// The memory that the cache takes has changed.
pub fn cached(bytes: usize) {
    #[allow(clippy::cast_precision_loss)] // far below 2^52
    gauge!(CACHE).set(bytes as f64);
}

/// Live sagas of a name in a status, and for how long the idlest has not moved.
pub fn live(saga: &str, status: &'static str, count: u64, idle: Duration) {
    gauge!(LIVE, "saga" => saga.to_owned(), "status" => status).set(number(count));
    gauge!(LIVE_IDLE, "saga" => saga.to_owned(), "status" => status).set(idle.as_secs_f64());
}

/// What waits in the outbox, and for how long it should have been sent.
pub fn outbox(count: u64, overdue: Duration) {
    gauge!(OUTBOX).set(number(count));
    gauge!(OUTBOX_OVERDUE).set(overdue.as_secs_f64());
}

/// What waits in a queue that commands go to, and who takes from it.
pub fn queue(name: &str, waiting: u64, consumers: Option<u64>) {
    gauge!(QUEUE, "queue" => name.to_owned()).set(number(waiting));
    if let Some(consumers) = consumers {
        gauge!(QUEUE_CONSUMERS, "queue" => name.to_owned()).set(number(consumers));
    }
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn number(count: u64) -> f64 {
    count as f64
}

/// A projection has folded events.
pub fn projection_folded(projection: &'static str, events: usize) {
    counter!(PROJECTION_EVENTS, "projection" => projection).increment(events as u64);
}

/// How far behind a projection is.
pub fn projection_lag(projection: &'static str, positions: u64, behind: Duration) {
    gauge!(PROJECTION_LAG, "projection" => projection).set(number(positions));
    gauge!(PROJECTION_BEHIND, "projection" => projection).set(behind.as_secs_f64());
}

/// Whether messages can flow.
pub fn broker_up(up: bool) {
    gauge!(BROKER_UP).set(if up { 1.0 } else { 0.0 });
}
