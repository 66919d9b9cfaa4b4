//! `dead-letters list`, `show`, `groups`, `stats`.

use clap::Args;
use serde_json::json;
use uuid::Uuid;

use super::select::FilterArguments;
use crate::cli::exit::{Exit, Failure};
use crate::cli::list::whole_seconds;
use crate::cli::output;
use crate::dead_letters::Desk;
use crate::id::Timestamp;
use crate::store::dead_letters::{LETTER_ROWS_MAX, LetterPage};
use crate::view::{AuditView, GroupView, LetterHeadView, LetterListView, LetterView};

/// Widest cell of a table, in characters.
const CELL_CHARS_MAX: usize = 70;
/// Most entries of a letter's history.
const HISTORY_MAX: usize = 1_000;

#[derive(Debug, Args)]
pub(super) struct ListArguments {
    #[command(flatten)]
    filter: FilterArguments,
    /// At most this many.
    #[arg(long, default_value_t = 50)]
    limit: usize,
    /// The page after this place, which the page before named.
    #[arg(long, value_parser = place, value_name = "PLACE")]
    after: Option<(Timestamp, Uuid)>,
    /// The oldest first.
    #[arg(long)]
    oldest_first: bool,
}

#[derive(Debug, Args)]
pub(super) struct ShowArguments {
    /// The letter.
    id: Uuid,
}

#[derive(Debug, Args)]
pub(super) struct GroupArguments {
    #[command(flatten)]
    filter: FilterArguments,
    /// At most this many.
    #[arg(long, default_value_t = 50)]
    limit: usize,
}

/// A place in a list, as [`LetterListView::next`] names it.
pub(crate) fn place(text: &str) -> Result<(Timestamp, Uuid), String> {
    let wrong = || format!("`{text}` is not a place; copy it from the page before");
    let (at, id) = text.split_once(',').ok_or_else(wrong)?;
    let at = at.parse().map_err(|_| wrong())?;
    Ok((Timestamp::from_micros(at), id.parse().map_err(|_| wrong())?))
}

pub(super) async fn list(
    desk: &Desk,
    arguments: &ListArguments,
    json: bool,
) -> Result<Exit, Failure> {
    let limit = arguments.limit.clamp(1, LETTER_ROWS_MAX);
    let page = LetterPage {
        after: arguments.after,
        oldest_first: arguments.oldest_first,
        limit,
    };
    let filter = arguments.filter.filter(desk);
    let heads = desk.letters.letters(&filter, &page).await;
    let page = LetterListView::new(&heads.map_err(Failure::new)?, limit);
    if json {
        output::print_json(&page)?;
        return Ok(Exit::Done);
    }
    if page.dead_letters.is_empty() {
        output::remark(format_args!("no dead letters"));
        return Ok(Exit::Done);
    }
    output::print(&table(&page.dead_letters))?;
    if let Some(next) = page.next {
        output::remark(format_args!("there may be more: --after {next}"));
    }
    Ok(Exit::Done)
}

fn table(letters: &[LetterHeadView]) -> String {
    let header = [
        "ID", "AT", "STATUS", "QUEUE", "TYPE", "GROUP", "CODE", "REASON",
    ];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    let cell = |text: &str| output::shortened(text, CELL_CHARS_MAX);
    rows.extend(letters.iter().map(|letter| {
        let place = letter.origin.queue.as_deref().unwrap_or(&letter.queue);
        vec![
            letter.id.to_string(),
            whole_seconds(&letter.at),
            letter.status.to_string(),
            cell(place),
            cell(letter.kind.as_deref().unwrap_or_default()),
            letter.fingerprint.clone(),
            letter.code.clone(),
            cell(&letter.reason),
        ]
    }));
    output::table(&rows)
}

pub(super) async fn show(
    desk: &Desk,
    arguments: &ShowArguments,
    json: bool,
) -> Result<Exit, Failure> {
    let letter = desk.letter(arguments.id).await.map_err(super::failed)?;
    let edits = desk
        .letters
        .letter_edits(arguments.id)
        .await
        .map_err(Failure::new)?;
    let audit = desk
        .letters
        .letter_audit(Some(arguments.id), 0, HISTORY_MAX)
        .await;
    let audit = audit.map_err(Failure::new)?;
    let view = LetterView::new(&letter, &edits, &audit);
    if json {
        output::print_json(&view)?;
        return Ok(Exit::Done);
    }
    let head = &view.head;
    let mut rows = vec![
        vec!["letter".to_owned(), head.id.to_string()],
        vec!["status".to_owned(), head.status.to_string()],
        vec!["recorded".to_owned(), head.at.clone()],
        vec!["taken from".to_owned(), output::printable(&head.queue)],
        vec![
            "reason".to_owned(),
            format!("{} {}", head.code, output::printable(&head.reason)),
        ],
        vec!["group".to_owned(), head.fingerprint.clone()],
        vec!["replays".to_owned(), head.replays.to_string()],
    ];
    let origin = &head.origin;
    for (name, text) in [
        ("died in", &origin.queue),
        ("exchange", &origin.exchange.as_deref().map(named_exchange)),
        ("routing key", &origin.routing_key),
        ("type", &head.kind),
        ("message id", &head.message_id),
        ("step", &head.step),
    ] {
        if let Some(text) = text {
            rows.push(vec![name.to_owned(), output::printable(text)]);
        }
    }
    if let Some(saga) = head.saga_id {
        rows.push(vec!["saga".to_owned(), saga.to_string()]);
    }
    if let Some(parent) = head.came_back_from {
        rows.push(vec!["came back from".to_owned(), parent.to_string()]);
    }
    if head.seen_again > 0 {
        let times = format!("{} times, unacknowledged", head.seen_again);
        rows.push(vec!["delivered again".to_owned(), times]);
    }
    output::print(&output::table(&rows))?;
    let properties = serde_json::to_string_pretty(&view.message.properties);
    output::print(&format!("\n{}\n", properties.unwrap_or_default()))?;
    let body = view
        .message
        .body
        .or(view.message.body_hex)
        .unwrap_or_default();
    let visible = body
        .lines()
        .map(output::printable)
        .collect::<Vec<_>>()
        .join("\n");
    output::print(&format!("\n{visible}\n"))?;
    let done: Vec<_> = audit
        .iter()
        .map(AuditView::new)
        .map(|entry| row(&entry))
        .collect();
    if !done.is_empty() {
        output::print(&format!("\n{}", output::table(&done)))?;
    }
    Ok(Exit::Done)
}

/// A line of history.
pub(super) fn row(entry: &AuditView) -> Vec<String> {
    let text = |name: &str| {
        entry
            .body
            .get(name)
            .and_then(|text| text.as_str())
            .unwrap_or_default()
    };
    let letter = entry.letter.map(|id| id.to_string()).unwrap_or_default();
    vec![
        entry.seq.to_string(),
        whole_seconds(&entry.at),
        entry.action.clone(),
        letter,
        output::shortened(text("by"), CELL_CHARS_MAX),
        output::shortened(text("why"), CELL_CHARS_MAX),
    ]
}

pub(super) async fn groups(
    desk: &Desk,
    arguments: &GroupArguments,
    json: bool,
) -> Result<Exit, Failure> {
    let filter = arguments.filter.filter(desk);
    let groups = desk.letters.letter_groups(&filter, arguments.limit).await;
    let groups = groups.map_err(Failure::new)?;
    let groups: Vec<_> = groups.iter().map(GroupView::new).collect();
    if json {
        output::print_json(&json!({ "groups": groups }))?;
        return Ok(Exit::Done);
    }
    let header = [
        "GROUP", "COUNT", "OPEN", "FIRST", "LAST", "QUEUE", "TYPE", "REASON",
    ];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    let cell = |text: &str| output::shortened(text, CELL_CHARS_MAX);
    rows.extend(groups.iter().map(|group| {
        let newest = &group.newest;
        vec![
            group.fingerprint.clone(),
            group.count.to_string(),
            group.open.to_string(),
            whole_seconds(&group.first_at),
            whole_seconds(&group.last_at),
            cell(newest.origin.queue.as_deref().unwrap_or(&newest.queue)),
            cell(newest.kind.as_deref().unwrap_or_default()),
            cell(&newest.reason),
        ]
    }));
    output::print(&output::table(&rows))?;
    Ok(Exit::Done)
}

pub(super) async fn stats(desk: &Desk, json: bool) -> Result<Exit, Failure> {
    let counts = desk.letters.letter_counts().await.map_err(Failure::new)?;
    if json {
        output::print_json(&json!({ "counts": counts }))?;
        return Ok(Exit::Done);
    }
    let mut rows = vec![["QUEUE", "STATUS", "COUNT"].map(str::to_owned).to_vec()];
    rows.extend(counts.iter().map(|of| {
        let queue = output::printable(&of.queue);
        vec![queue, of.status.to_string(), of.count.to_string()]
    }));
    output::print(&output::table(&rows))?;
    Ok(Exit::Done)
}

/// The default exchange has no name.
fn named_exchange(name: &str) -> String {
    if name.is_empty() { "(default)" } else { name }.to_owned()
}
