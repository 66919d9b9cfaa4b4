//! `backstitch dead-letters`: messages nobody could handle.
//!
//! Every verb works on the database itself, so no node need run; `replay`, `drain` and `move` talk
//! to the broker too.

mod drain;
mod edit;
mod look;
mod replay;
mod select;
mod shift;
mod transfer;
mod upkeep;

use std::sync::Arc;

use clap::{Args, Subcommand};

use super::backends::{BrokerArguments, DatabaseArguments, OpenBroker, OpenStore};
use super::exit::{Exit, Failure};
use super::output;
use crate::dead_letters::{DeadLetterError, Desk};
use crate::environment::{Shutdown, TokioEnvironment};
use crate::store::AccessMode;

/// What to do with them.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    list: look::ListArguments,
    /// Print JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(flatten)]
    database: DatabaseArguments,
    #[command(flatten)]
    broker: BrokerArguments,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List letters, the newest first (the default).
    List(look::ListArguments),
    /// Show one letter: message, origin, what was done to it.
    Show(look::ShowArguments),
    /// Count letters by cause, the most frequent first.
    Groups(look::GroupArguments),
    /// Count letters by queue and status.
    Stats,
    /// Take messages from queues into the database.
    Drain(drain::Arguments),
    /// Send letters again, to where they died.
    Replay(Box<replay::Arguments>),
    /// Change what a letter's replay sends; the original is kept.
    Edit(edit::Arguments),
    /// Mark open letters as not to be sent.
    Discard(upkeep::DiscardArguments),
    /// Write letters as JSON lines.
    Export(transfer::ExportArguments),
    /// Read letters from JSON lines.
    Import(transfer::ImportArguments),
    /// Delete old letters that were replayed or discarded; open ones are kept.
    Purge(upkeep::PurgeArguments),
    /// Check the audit log, and show it.
    Audit(upkeep::AuditArguments),
    /// Move messages from queue to queue on the broker alone, without a database.
    Move(shift::Arguments),
}

impl Action {
    /// What it does to the database. What takes letters in makes one if there is none.
    fn access(&self) -> AccessMode {
        match self {
            Self::List(_)
            | Self::Show(_)
            | Self::Groups(_)
            | Self::Stats
            | Self::Export(_)
            | Self::Audit(_)
            | Self::Move(_) => AccessMode::Read,
            Self::Replay(replay) if replay.is_dry() => AccessMode::Read,
            Self::Replay(_) | Self::Edit(_) | Self::Discard(_) | Self::Purge(_) => {
                AccessMode::Write
            }
            Self::Drain(_) | Self::Import(_) => AccessMode::Migrate,
        }
    }
}

/// Who does it, and why; both go into the audit log.
#[derive(Debug, Args)]
struct By {
    /// Who does this; goes into the audit log.
    #[arg(long, env = "USER", default_value = "unknown")]
    by: String,
    /// Why; goes into the audit log.
    #[arg(long, default_value = "")]
    why: String,
}

/// Who and why must be said where something comes into the database, or leaves it for ever.
fn check_words(by: &str, why: &str) -> Result<(), Failure> {
    if by.trim().is_empty() || why.trim().is_empty() {
        return Err(Failure::problems(
            "say who and why with `--by` and `--why`: both go into the audit log",
        ));
    }
    Ok(())
}

/// An open database, as a command uses it.
struct Office {
    store: OpenStore,
    desk: Desk,
}

impl Office {
    async fn open(database: &DatabaseArguments, access: AccessMode) -> Result<Self, Failure> {
        let database = database.database()?;
        let store = match access {
            AccessMode::Read => database.open_to_read().await?,
            AccessMode::Write => database.open_to_write().await?,
            AccessMode::Migrate => database.open().await?,
        };
        let desk = Desk {
            environment: Arc::new(TokioEnvironment),
            letters: store.letters(),
            sagas: store.sagas(),
        };
        Ok(Self { store, desk })
    }
}

async fn open_broker(arguments: &BrokerArguments) -> Result<OpenBroker, Failure> {
    let Some(url) = arguments.url()? else {
        return Err(Failure::problems(
            "set AMQP_URL (amqp://user:password@host/vhost) to the broker that has the queues",
        ));
    };
    OpenBroker::open(Some(&url), "backstitch dead-letters").await
}

pub(super) async fn run(arguments: Arguments) -> Result<Exit, Failure> {
    let Arguments {
        action,
        list,
        json,
        database,
        broker,
    } = arguments;
    let action = action.unwrap_or(Action::List(list));
    if let Action::Move(arguments) = action {
        let broker = open_broker(&broker).await?;
        let done = shift::run(arguments, &broker, json).await;
        broker.close().await;
        return done;
    }
    let office = Office::open(&database, action.access()).await?;
    let desk = &office.desk;
    let done = match action {
        Action::List(arguments) => look::list(desk, &arguments, json).await,
        Action::Show(arguments) => look::show(desk, &arguments, json).await,
        Action::Groups(arguments) => look::groups(desk, &arguments, json).await,
        Action::Stats => look::stats(desk, json).await,
        Action::Drain(arguments) => drain::run(desk, arguments, &broker, json).await,
        Action::Replay(arguments) => replay::run(desk, *arguments, &broker, json).await,
        Action::Edit(arguments) => edit::run(desk, arguments, json).await,
        Action::Discard(arguments) => upkeep::discard(desk, arguments, json).await,
        Action::Export(arguments) => transfer::export(desk, arguments).await,
        Action::Import(arguments) => transfer::import(desk, &arguments, json).await,
        Action::Purge(arguments) => upkeep::purge(desk, arguments, json).await,
        Action::Audit(arguments) => upkeep::audit(desk, &arguments, json).await,
        Action::Move(_) => Ok(Exit::Done),
    };
    office.store.close().await;
    done
}

fn failed(error: DeadLetterError) -> Failure {
    match error {
        DeadLetterError::Malformed(_) => Failure::problems(error),
        _ => Failure::new(error),
    }
}

/// Is requested by SIGINT or SIGTERM; a second one ends the program.
fn stop_on_signal() -> Shutdown {
    let stop = Shutdown::default();
    let asked = stop.clone();
    tokio::spawn(async move {
        use tokio::signal::unix::{SignalKind, signal};
        let (Ok(mut interrupt), Ok(mut terminate)) = (
            signal(SignalKind::interrupt()),
            signal(SignalKind::terminate()),
        ) else {
            return;
        };
        for _ in 0..2 {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if asked.is_requested() {
                std::process::exit(130);
            }
            output::remark(format_args!("stopping; what is committed is kept"));
            asked.request();
        }
    });
    stop
}
