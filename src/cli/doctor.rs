//! `backstitch doctor`: look at everything that a node depends on, and say what to do about what is
//! wrong.
//!
//! Reads only: it can be run beside a node, and against a standby.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::backends::{BrokerArguments, DatabaseArguments, OpenBroker, OpenStore};
use super::exit::{Exit, Failure};
use super::output;
use crate::broker::{Broker, QueueFacts};
use crate::definition::{Definition, parse_stored};
use crate::environment::{Environment, TokioEnvironment};
use crate::message::{
    DEAD_LETTER_QUEUE, DOMAIN_EVENT_QUEUE, REPLY_QUEUE, SIGNAL_QUEUE, START_QUEUE,
};
use crate::saga::Status;
use crate::store::dead_letters::LetterStatus;
use crate::view::spoken;

/// By how much this machine's clock may differ from the database's.
const CLOCK_OFF_MAX: Duration = Duration::from_secs(2);
/// How long a message may be overdue in the outbox.
const OVERDUE_MAX: Duration = Duration::from_secs(30);
/// How old a snapshot may be that somebody holds.
const SNAPSHOT_AGE_MAX: Duration = Duration::from_mins(10);
/// Messages that may wait in a queue that has consumers.
const BACKLOG_MAX: u64 = 10_000;
/// Connections that should be free.
const CONNECTIONS_MIN: i64 = 10;
/// Longest time for each look.
const LOOK_TIME_MAX: Duration = Duration::from_secs(10);

/// What to look at.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    database: DatabaseArguments,
    #[command(flatten)]
    broker: BrokerArguments,
}

/// How bad something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Level {
    Ok,
    Warning,
    Problem,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Finding {
    level: Level,
    about: &'static str,
    what: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<String>,
}

/// What was found so far.
#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn ok(&mut self, about: &'static str, what: impl Into<String>) {
        self.add(Level::Ok, about, what, None);
    }

    fn warning(&mut self, about: &'static str, what: impl Into<String>, fix: &str) {
        self.add(Level::Warning, about, what, Some(fix));
    }

    fn problem(&mut self, about: &'static str, what: impl Into<String>, fix: &str) {
        self.add(Level::Problem, about, what, Some(fix));
    }

    fn add(
        &mut self,
        level: Level,
        about: &'static str,
        what: impl Into<String>,
        fix: Option<&str>,
    ) {
        self.0.push(Finding {
            level,
            about,
            what: what.into(),
            fix: fix.map(str::to_owned),
        });
    }
}

pub(super) async fn run(arguments: Arguments) -> Result<Exit, Failure> {
    let mut findings = Findings::default();
    let definitions =
        match tokio::time::timeout(LOOK_TIME_MAX, database(&arguments.database, &mut findings))
            .await
        {
            Ok(definitions) => definitions,
            Err(_) => {
                findings.problem(
                    "database",
                    format!("no answer within {}", spoken(LOOK_TIME_MAX)),
                    "see whether the server is overloaded or the network is silent",
                );
                Vec::new()
            }
        };
    let looked = broker(&arguments.broker, &definitions, &mut findings);
    if tokio::time::timeout(LOOK_TIME_MAX, looked).await.is_err() {
        findings.problem(
            "broker",
            format!("no answer within {}", spoken(LOOK_TIME_MAX)),
            "see whether the server is overloaded, blocked by an alarm, or the network is silent",
        );
    }
    tell(&findings.0, arguments.json)
}

fn tell(findings: &[Finding], json: bool) -> Result<Exit, Failure> {
    let count = |level| findings.iter().filter(|it| it.level == level).count();
    let (problems, warnings) = (count(Level::Problem), count(Level::Warning));
    if json {
        output::print_json(&serde_json::json!({ "findings": findings }))?;
    } else {
        let mut lines = Vec::new();
        for Finding {
            level,
            about,
            what,
            fix,
        } in findings
        {
            let mark = match level {
                Level::Ok => "ok     ",
                Level::Warning => "WARNING",
                Level::Problem => "PROBLEM",
            };
            lines.push(format!("{mark}  {about}: {}\n", output::printable(what)));
            if let Some(fix) = fix {
                lines.push(format!("         → {}\n", output::printable(fix)));
            }
        }
        output::print(&lines.concat())?;
        output::remark(format_args!("{problems} problems, {warnings} warnings"));
    }
    Ok(if problems == 0 {
        Exit::Done
    } else {
        Exit::Failed
    })
}

/// Returns the definitions that are stored and can be read.
async fn database(arguments: &DatabaseArguments, findings: &mut Findings) -> Vec<Definition> {
    let opened = match arguments.database() {
        Ok(database) => database.open_to_read().await,
        Err(failure) => Err(failure),
    };
    let store = match opened {
        Ok(store) => store,
        Err(failure) => {
            findings.problem(
                "database",
                failure.message,
                "nothing about sagas could be looked at",
            );
            return Vec::new();
        }
    };
    let looked = look(&store, findings).await;
    store.close().await;
    looked.unwrap_or_else(|failure| {
        let fix = "look at the server's log";
        findings.problem("database", failure.message, fix);
        Vec::new()
    })
}

async fn look(store: &OpenStore, findings: &mut Findings) -> Result<Vec<Definition>, Failure> {
    server(store, findings).await?;
    let sagas = store.sagas();
    let now = TokioEnvironment.now();
    if let Some(clock) = sagas.clock().await.map_err(Failure::new)? {
        let off = now.since(clock).max(clock.since(now));
        if off > CLOCK_OFF_MAX {
            findings.problem(
                "clock",
                format!("this machine and the database differ by {}", spoken(off)),
                "synchronize both (NTP); nodes that are off leave wake-ups and schedules to others",
            );
        } else {
            findings.ok("clock", "agrees with the database's");
        }
    }
    match sagas.oldest_snapshot().await.map_err(Failure::new)? {
        Some(age) if age > SNAPSHOT_AGE_MAX => findings.warning(
            "database",
            format!("a session holds a snapshot that is {} old", spoken(age)),
            "find it in pg_stat_activity (backend_xmin, xact_start) and end it: deleted rows can't be cleared away",
        ),
        _ => {}
    }
    backlog(store, findings).await?;
    let stored = sagas.definitions().await.map_err(Failure::new)?;
    let live = sagas.live().await.map_err(Failure::new)?;
    let mut definitions = Vec::new();
    for row in stored {
        let in_use = live
            .iter()
            .any(|it| it.name == row.name && it.version == row.version);
        let (name, version) = (&row.name, row.version);
        match parse_stored(&row.source, &format!("{name} version {version}")) {
            Ok(definition) => definitions.push(definition),
            Err(_) if !in_use => {}
            Err(_) => findings.problem(
                "definitions",
                format!(
                    "{name} version {version} can't be read by this release, and live sagas keep it"
                ),
                "run this command, and nodes, of the release that stored it",
            ),
        }
    }
    let used: BTreeMap<&str, u64> = live.iter().fold(BTreeMap::new(), |mut used, it| {
        *used.entry(it.name.as_str()).or_default() += it.count;
        used
    });
    findings.ok(
        "definitions",
        format!(
            "{} stored, {} with live sagas",
            definitions.len(),
            used.len()
        ),
    );
    Ok(definitions)
}

async fn server(store: &OpenStore, findings: &mut Findings) -> Result<(), Failure> {
    let facts = store.inspect().server_facts().await.map_err(Failure::new)?;
    findings.ok("database", format!("{}, tables up to date", facts.version));
    if facts.is_standby {
        findings.warning(
            "database",
            "this is a standby: nodes can't work on it",
            "have DATABASE_URL name the primary",
        );
    } else if !facts.may_write {
        findings.warning(
            "database",
            "this role may only read",
            "enough to look; nodes need INSERT, UPDATE and DELETE (docs/operating.md)",
        );
    }
    for setting in facts.undurable {
        findings.problem(
            "database",
            format!("{setting}: a power cut loses what was committed"),
            "set it on, or expect sagas that disagree with the messages that were sent",
        );
    }
    match facts.connections_free {
        Some(free) if free < CONNECTIONS_MIN => findings.warning(
            "database",
            format!("{free} connections are free"),
            "raise max_connections, or run fewer nodes and participants",
        ),
        _ => {}
    }
    Ok(())
}

async fn backlog(store: &OpenStore, findings: &mut Findings) -> Result<(), Failure> {
    let census = store.census().census().await.map_err(Failure::new)?;
    let now = TokioEnvironment.now();
    let suspended: u64 = census
        .live
        .iter()
        .filter(|group| group.status == Status::Suspended)
        .map(|group| group.count)
        .sum();
    let live: u64 = census.live.iter().map(|group| group.count).sum();
    if suspended > 0 {
        findings.warning(
            "sagas",
            format!("{suspended} of {live} live sagas are suspended and wait for a person"),
            "backstitch list --status suspended; then `show ID` says why",
        );
    } else {
        findings.ok("sagas", format!("{live} live, none suspended"));
    }
    let overdue = census.outbox_due.map(|due| now.since(due));
    match overdue {
        Some(overdue) if overdue > OVERDUE_MAX => findings.problem(
            "outbox",
            format!(
                "{} messages wait, the first for {}",
                census.outbox,
                spoken(overdue)
            ),
            "no node is publishing: see /readyz of your nodes, and that one runs",
        ),
        _ => findings.ok("outbox", format!("{} messages", census.outbox)),
    }
    let counts = store
        .letters()
        .letter_counts()
        .await
        .map_err(Failure::new)?;
    let open = counts.iter().filter(|it| it.status == LetterStatus::Open);
    let open: u64 = open.map(|it| it.count).sum();
    if open > 0 {
        findings.warning(
            "dead letters",
            format!("{open} are open"),
            "backstitch dead-letters groups",
        );
    } else {
        findings.ok("dead letters", "none is open");
    }
    Ok(())
}

async fn broker(arguments: &BrokerArguments, definitions: &[Definition], findings: &mut Findings) {
    let opened = match arguments.url() {
        Ok(None) => {
            findings.warning(
                "broker",
                "AMQP_URL is not set: a node without it keeps messages inside its process",
                "set AMQP_URL to the broker that your nodes use",
            );
            return;
        }
        Ok(Some(url)) => OpenBroker::open(Some(&url), "backstitch doctor").await,
        Err(failure) => Err(failure),
    };
    let broker = match opened {
        Ok(broker) => broker,
        Err(failure) => {
            let fix = "nothing about queues could be looked at";
            return findings.problem("broker", failure.message, fix);
        }
    };
    findings.ok("broker", "connected");
    let handle = broker.handle();
    for queue in [
        START_QUEUE,
        REPLY_QUEUE,
        SIGNAL_QUEUE,
        DOMAIN_EVENT_QUEUE,
        DEAD_LETTER_QUEUE,
    ] {
        let fix = "start a node: it declares its queues and takes from them";
        queue_of(&*handle, queue, fix, findings).await;
    }
    let calls = definitions.iter().flat_map(Definition::calls);
    let direct = calls.filter(|call| call.to.exchange.is_empty());
    let queues: std::collections::BTreeSet<&str> =
        direct.map(|call| call.to.routing_key.as_str()).collect();
    for queue in queues {
        let fix =
            "start the participant that answers these commands; until then steps wait and time out";
        queue_of(&*handle, queue, fix, findings).await;
    }
    broker.close().await;
}

async fn queue_of(broker: &dyn Broker, queue: &str, fix: &str, findings: &mut Findings) {
    let facts = match broker.queue_counts(queue).await {
        Ok(Some(facts)) => facts,
        Ok(None) => return findings.problem("queue", format!("{queue} does not exist"), fix),
        Err(error) => {
            let fix = "see that this user may look at it (configure, or passive declare)";
            return findings.problem("queue", format!("{queue}: {error}"), fix);
        }
    };
    let QueueFacts {
        waiting, consumers, ..
    } = facts;
    match consumers {
        Some(0) => findings.problem(
            "queue",
            format!("{queue} has no consumer, and {waiting} messages wait"),
            fix,
        ),
        _ if waiting > BACKLOG_MAX => findings.warning(
            "queue",
            format!("{queue}: {waiting} messages wait"),
            "its consumers are slower than its senders: add some, or look at their logs",
        ),
        Some(consumers) => findings.ok(
            "queue",
            format!("{queue}: {waiting} messages, {consumers} consumers"),
        ),
        None => findings.ok("queue", format!("{queue}: {waiting} messages")),
    }
}
