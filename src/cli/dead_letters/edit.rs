//! `dead-letters edit`: by JSON Patch, from files, or in an editor.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::Value;

use super::By;
use super::select::SelectionArguments;
use crate::cli::exit::{Exit, Failure};
use crate::cli::output;
use crate::dead_letters::Desk;
use crate::dead_letters::edit::{diff, document, from_document, patch};
use crate::file;
use crate::message::{Message, mask};
use crate::store::dead_letters::LetterStatus;

/// Largest file with a part of a letter, in bytes: more than a message may have, written out as JSON.
const EDIT_BYTES_MAX: usize = 128 * 1024 * 1024;

/// Which letter, and what to change.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The letter; with `--drop-header` there may be many.
    #[command(flatten)]
    selection: SelectionArguments,
    /// Drop this header, of all these letters; may be given several times.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["patch", "headers_file", "body_file", "dry_run"])]
    drop_header: Vec<String>,
    /// A JSON Patch (RFC 6902) over `properties` and `body`, as text.
    #[arg(long, value_name = "JSON", conflicts_with_all = ["headers_file", "body_file"])]
    patch: Option<String>,
    /// All headers, as a JSON object in a file.
    #[arg(long, value_name = "FILE")]
    headers_file: Option<PathBuf>,
    /// The whole body, from a file, byte for byte.
    #[arg(long, value_name = "FILE")]
    body_file: Option<PathBuf>,
    /// Show the difference, and change nothing.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    by: By,
}

pub(super) async fn run(desk: &Desk, arguments: Arguments, json: bool) -> Result<Exit, Failure> {
    if !arguments.drop_header.is_empty() {
        return drop_headers(desk, arguments, json).await;
    }
    let id = arguments.selection.one()?;
    let letter = desk.letter(id).await.map_err(super::failed)?;
    let before = letter.message().clone();
    let after = edited(&arguments, &before)?;
    let difference = diff(&document(&before), &document(&after));
    if !arguments.dry_run {
        desk.edit(&letter, after, &arguments.by.by, &arguments.by.why)
            .await
            .map_err(super::failed)?;
    }
    if json {
        output::print_json(&serde_json::json!({ "id": id, "diff": difference }))?;
    } else {
        let lines: Vec<String> = difference.lines().map(output::printable).collect();
        output::print(&(lines.join("\n") + "\n"))?;
    }
    Ok(Exit::Done)
}

async fn drop_headers(desk: &Desk, arguments: Arguments, json: bool) -> Result<Exit, Failure> {
    let selection = arguments
        .selection
        .selection(desk, Some(LetterStatus::Open))?;
    let By { by, why } = arguments.by;
    let done = desk
        .drop_headers(selection, &arguments.drop_header, &by, &why)
        .await;
    let done = done.map_err(super::failed)?;
    if json {
        output::print_json(&done)?;
    } else {
        output::print(&format!(
            "{} edited, {} without such a header, {} skipped\n",
            done.edited, done.without, done.skipped
        ))?;
    }
    Ok(if done.skipped == 0 {
        Exit::Done
    } else {
        Exit::Failed
    })
}

fn edited(arguments: &Arguments, before: &Message) -> Result<Message, Failure> {
    let shown = document(before);
    if let Some(text) = &arguments.patch {
        let operations: Value = parse(text, "the patch")?;
        let after = patch(&shown, &operations).map_err(Failure::problems)?;
        return from_document(&after, before).map_err(Failure::problems);
    }
    if arguments.headers_file.is_none() && arguments.body_file.is_none() {
        let after = in_editor(&shown)?;
        return from_document(&after, before).map_err(Failure::problems);
    }
    let mut after = before.clone();
    if let Some(path) = &arguments.headers_file {
        let text = String::from_utf8(read(path)?).map_err(Failure::problems)?;
        after.properties.headers = parse(&text, "the headers")?;
    }
    if let Some(path) = &arguments.body_file {
        after.body = read(path)?.into();
    }
    // Somebody may have written the files from what is shown.
    mask::restore(&mut after, before);
    Ok(after)
}

fn in_editor(shown: &Value) -> Result<Value, Failure> {
    let editor = ["VISUAL", "EDITOR"]
        .iter()
        .find_map(|name| std::env::var(name).ok());
    let Some(editor) = editor.filter(|editor| !editor.trim().is_empty()) else {
        return Err(Failure::problems(
            "say what to change: --patch, --headers-file, --body-file, or set EDITOR",
        ));
    };
    let name = format!("backstitch-letter-{}.json", std::process::id());
    let path = std::env::temp_dir().join(name);
    let text = serde_json::to_string_pretty(shown).map_err(Failure::new)?;
    let failed = |error: std::io::Error| Failure::new(format!("{}: {error}", path.display()));
    write_private(&path, &text).map_err(failed)?;
    let mut words = editor.split_whitespace();
    let status = std::process::Command::new(words.next().unwrap_or_default())
        .args(words)
        .arg(&path)
        .status();
    let after = file::read_text(&path, EDIT_BYTES_MAX);
    // Left-overs in the temporary directory are for its owner's eyes only.
    let _ = std::fs::remove_file(&path);
    match status {
        Ok(status) if status.success() => parse(&after.map_err(Failure::new)?, "what was written"),
        Ok(status) => Err(Failure::new(format!(
            "`{editor}` ended with {status}; nothing is changed"
        ))),
        Err(error) => Err(Failure::new(format!("`{editor}` does not start: {error}"))),
    }
}

fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = std::fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.as_bytes())
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    file::read(path, EDIT_BYTES_MAX)
        .map_err(|why| Failure::problems(format!("{}: {why}", path.display())))
}

fn parse<T: serde::de::DeserializeOwned>(text: &str, what: &str) -> Result<T, Failure> {
    serde_json::from_str(text)
        .map_err(|error| Failure::problems(format!("{what} can't be read: {error}")))
}
