//! The forms of names: sagas, steps, commands, queues.
//!
//! They travel as routing keys, queue names and AMQP types, and into URLs and file names, so they
//! are kept to what is harmless in all of these.

use crate::id::NAME_BYTES_MAX;

/// Longest command, queue, exchange or routing key, in bytes: AMQP's short string.
const SHORT_STRING_BYTES_MAX: usize = 255;

/// The name of a saga or a step: lower-case letters, digits, `-` and `_`, a letter first.
pub fn check_name(text: &str) -> Result<(), String> {
    let starts_well = text.starts_with(|c: char| c.is_ascii_lowercase());
    let well_made = text
        .bytes()
        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_'));
    if starts_well && well_made && text.len() <= NAME_BYTES_MAX {
        return Ok(());
    }
    Err(format!(
        "`{}` is not a name; use at most {NAME_BYTES_MAX} lower-case letters, digits, `-` and `_`, a letter first",
        shown(text)
    ))
}

/// A command, such as `inventory.reserve`; returns the part before the first dot, which is the
/// participant's queue unless the step says `to`.
pub(super) fn participant(command: &str) -> Result<&str, String> {
    let (queue, rest) = command.split_once('.').unwrap_or((command, ""));
    let well_made = command
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
    let complete = !queue.is_empty() && !rest.is_empty() && !rest.ends_with('.');
    if well_made && complete && command.len() <= SHORT_STRING_BYTES_MAX {
        return Ok(queue);
    }
    Err(format!(
        "`{}` is not a command; write the participant, a dot, and what it shall do, as in `inventory.reserve`",
        shown(command)
    ))
}

/// A queue that commands may be sent to.
pub(super) fn check_queue(text: &str) -> Result<(), String> {
    check_route("a queue", text)?;
    refuse_ours("queue", text)
}

/// An exchange that commands may be sent to; the empty one is AMQP's default exchange.
pub(super) fn check_exchange(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Ok(());
    }
    check_route("an exchange", text)?;
    refuse_ours("exchange", text)
}

/// A queue, exchange or routing key as AMQP takes it.
pub(super) fn check_route(what: &str, text: &str) -> Result<(), String> {
    let printable = text.chars().all(|c| !c.is_control());
    if !text.is_empty() && text.len() <= SHORT_STRING_BYTES_MAX && printable {
        return Ok(());
    }
    Err(format!(
        "`{}` is not the name of {what}; use 1 to {SHORT_STRING_BYTES_MAX} bytes of printable text",
        shown(text)
    ))
}

/// A command in one of our own queues would be taken for a start or a reply.
fn refuse_ours(what: &str, text: &str) -> Result<(), String> {
    let ours = text == "backstitch" || text.starts_with("backstitch.");
    if !ours {
        return Ok(());
    }
    Err(format!(
        "the {what} `{}` belongs to Backstitch; commands go to participants",
        shown(text)
    ))
}

fn shown(text: &str) -> String {
    super::problem::shortened(text, 60)
}
