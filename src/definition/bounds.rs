//! How much of anything a definition may have, and what holds where it says nothing.

use std::time::Duration;

/// Largest definition file, in bytes.
pub const SOURCE_BYTES_MAX: usize = 1024 * 1024;
/// Most blocks in a definition.
pub const BLOCKS_MAX: usize = 1_000;
/// Deepest nesting of blocks.
pub const DEPTH_MAX: usize = 16;
/// Most items of one `for_each`, unless the definition says less.
pub const FOR_EACH_ITEMS_MAX: usize = 10_000;
/// Most labels of a definition.
pub const LABELS_MAX: usize = 16;
/// Longest business key of a saga, in bytes.
pub const BUSINESS_KEY_BYTES_MAX: usize = 255;
/// How long a participant has to answer when the step does not say.
pub const STEP_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
/// Shortest and longest `timeout` of a step.
pub const STEP_TIMEOUT_RANGE: (Duration, Duration) =
    (Duration::from_millis(10), Duration::from_hours(30 * 24));
/// Longest `wait`, `sleep`, or `timeout` of a saga: ten years.
pub const WAIT_MAX: Duration = Duration::from_hours(3_660 * 24);
/// How long a sub-saga has to reach its pivot when the block does not say.
pub const SUB_SAGA_TIMEOUT_DEFAULT: Duration = Duration::from_hours(1);
/// How often a sub-saga is asked within its time: a command that got lost is made up for, and one
/// that did not is answered again.
pub const SUB_SAGA_ASKS: u32 = 4;
/// Most steps, waits, sleeps and sub-sagas that one saga may come to have, all items counted.
pub const INSTANCES_MAX: usize = 100_000;
/// Deepest nesting of sagas that run one another.
pub const SUB_SAGAS_DEEP_MAX: usize = 8;
/// Attempts of a confirm or compensate after which a person is asked.
pub const SUSPEND_AFTER_DEFAULT: u32 = 20;
