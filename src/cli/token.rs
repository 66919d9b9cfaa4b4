//! `backstitch token`: who may use the HTTP API of nodes on a database.
//!
//! Works on the database itself, so that the first token can be made before anybody can sign in:
//! whoever may write the database may do everything anyway.

use std::collections::BTreeSet;

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use uuid::Uuid;

use super::backends::DatabaseArguments;
use super::exit::{Exit, Failure};
use super::list::whole_seconds;
use super::output;
use crate::access::rights::{Rights, Scope};
use crate::access::token;
use crate::definition::parse_duration;
use crate::environment::{Environment, TokioEnvironment};
use crate::id::Timestamp;
use crate::store::TokenRow;
use crate::store::dead_letters::Actor;

/// Longest name of a token, in bytes.
const NAME_BYTES_MAX: usize = 255;
/// Who made or revoked a token when nobody is named.
const BY_DEFAULT: &str = "whoever may write the database";

/// What to do with tokens.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a token; it is shown this once.
    Create(CreateArguments),
    /// List tokens: what they may do, when they were last used.
    List(ListArguments),
    /// Revoke a token; nodes refuse it within five seconds.
    Revoke(RevokeArguments),
}

#[derive(Debug, Args)]
struct CreateArguments {
    /// Whose it is; stands as `by` in journals and in the audit log.
    #[arg(long)]
    name: String,
    /// What it may do: sagas:read, sagas:start, signals:send, sagas:operate, sagas:force, letters:read,
    /// letters:write, metrics:read or admin; may be given several times. `sagas:start@place-order` limits
    /// one to sagas of a name.
    #[arg(long, required = true, value_name = "SCOPE", value_delimiter = ',')]
    scope: Vec<String>,
    /// Limit the scopes about sagas to those of this name; may be given several times.
    #[arg(long, value_name = "NAME")]
    saga: Vec<String>,
    /// For how long it is good, as in `90d` or `12h`; for ever, if absent.
    #[arg(long, value_name = "DURATION")]
    expires: Option<String>,
    #[command(flatten)]
    deed: Deed,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    database: DatabaseArguments,
}

/// Who does it, and why.
#[derive(Debug, Args)]
struct Deed {
    /// Who does it; goes into the audit log.
    #[arg(long, default_value = BY_DEFAULT)]
    by: String,
    /// Why; goes into the audit log.
    #[arg(long, default_value = "")]
    why: String,
}

#[derive(Debug, Args)]
struct ListArguments {
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    database: DatabaseArguments,
}

#[derive(Debug, Args)]
struct RevokeArguments {
    /// Its id, as `token list` shows it.
    id: Uuid,
    #[command(flatten)]
    deed: Deed,
    #[command(flatten)]
    database: DatabaseArguments,
}

pub(super) async fn run(arguments: Arguments) -> Result<Exit, Failure> {
    match arguments.command {
        Command::Create(arguments) => create(arguments).await,
        Command::List(arguments) => list(arguments).await,
        Command::Revoke(arguments) => revoke(arguments).await,
    }
}

async fn create(arguments: CreateArguments) -> Result<Exit, Failure> {
    let name = arguments.name.trim();
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
        return Err(Failure::problems(format!(
            "--name must have between 1 and {NAME_BYTES_MAX} bytes and no control characters"
        )));
    }
    let rights = rights(&arguments.scope, &arguments.saga).map_err(Failure::problems)?;
    let life = arguments.expires.as_deref().map(parse_duration);
    let life = life
        .transpose()
        .map_err(|why| Failure::problems(format!("--expires: {why}")))?;
    let secret = token::fresh().map_err(Failure::new)?;
    let now = TokioEnvironment.now();
    let row = TokenRow {
        id: TokioEnvironment.new_id(),
        name: name.to_owned(),
        hash: token::hashed(&secret),
        rights: rights.to_string(),
        made_at: now,
        expires_at: life.map(|life| now.after(life)),
        revoked_at: None,
        used_at: None,
    };
    // The first thing that is done to a database may be to lock it.
    let store = arguments.database.database()?.open().await?;
    let kept = store
        .tokens()
        .put_token(&row, &arguments.deed.actor(now))
        .await;
    store.close().await;
    kept.map_err(Failure::new)?;
    if arguments.json {
        let mut view = view(&row, now);
        view["token"] = json!(secret);
        output::print_json(&view)?;
    } else {
        output::remark(format_args!(
            "token {} of {name}: {rights}. It is shown this once; only its hash is kept",
            row.id
        ));
        output::print(&format!("{secret}\n"))?;
    }
    Ok(Exit::Done)
}

/// `names` limit all scopes that can be limited.
fn rights(scopes: &[String], names: &[String]) -> Result<Rights, String> {
    let rights: Rights = scopes.join(" ").parse()?;
    if names.is_empty() {
        return Ok(rights);
    }
    let names: BTreeSet<String> = names.iter().cloned().collect();
    let mut limited = Rights::default();
    for text in scopes {
        if text.contains('@') {
            return Err(format!("`{text}` names sagas already; leave --saga out"));
        }
        let scope: Scope = text.parse()?;
        limited.add(scope, names.clone())?;
    }
    Ok(limited)
}

async fn list(arguments: ListArguments) -> Result<Exit, Failure> {
    let store = arguments.database.database()?.open_to_read().await?;
    let rows = store.tokens().tokens().await;
    store.close().await;
    let (rows, now) = (rows.map_err(Failure::new)?, TokioEnvironment.now());
    if arguments.json {
        let views: Vec<Value> = rows.iter().map(|row| view(row, now)).collect();
        output::print_json(&json!({ "tokens": views }))?;
    } else if rows.is_empty() {
        output::remark(format_args!(
            "no tokens: nodes on this database answer this machine alone, and everybody on it"
        ));
    } else {
        let header = ["ID", "NAME", "STATE", "LAST USED", "MAY"];
        let mut lines = vec![header.map(str::to_owned).to_vec()];
        lines.extend(rows.iter().map(|row| {
            let used = row.used_at.map(|at| whole_seconds(&at.to_string()));
            vec![
                row.id.to_string(),
                output::printable(&row.name),
                state(row, now),
                used.unwrap_or_else(|| "never".to_owned()),
                output::printable(&row.rights),
            ]
        }));
        output::print(&output::table(&lines))?;
    }
    Ok(Exit::Done)
}

fn state(row: &TokenRow, now: Timestamp) -> String {
    match (row.revoked_at, row.expires_at) {
        (Some(_), _) => "revoked".to_owned(),
        (None, Some(at)) if at <= now => "expired".to_owned(),
        (None, Some(at)) => format!("until {}", whole_seconds(&at.to_string())),
        (None, None) => "good".to_owned(),
    }
}

fn view(row: &TokenRow, now: Timestamp) -> Value {
    let time = |at: Option<Timestamp>| at.map(|at| at.to_string());
    json!({
        "id": row.id,
        "name": row.name,
        "rights": row.rights,
        "state": state(row, now).split(' ').next(),
        "made_at": row.made_at.to_string(),
        "expires_at": time(row.expires_at),
        "revoked_at": time(row.revoked_at),
        "used_at": time(row.used_at),
    })
}

async fn revoke(arguments: RevokeArguments) -> Result<Exit, Failure> {
    let id = arguments.id;
    let store = arguments.database.database()?.open_to_write().await?;
    let actor = arguments.deed.actor(TokioEnvironment.now());
    let done = store.tokens().revoke_token(id, &actor).await;
    store.close().await;
    if !done.map_err(Failure::new)? {
        return Err(Failure::new(format!(
            "there is no token {id} that is not revoked; `backstitch token list` shows them"
        )));
    }
    output::remark(format_args!("revoked; nodes refuse it within five seconds"));
    Ok(Exit::Done)
}

impl Deed {
    fn actor(self, at: Timestamp) -> Actor {
        let Self { by, why } = self;
        Actor { by, why, at }
    }
}
