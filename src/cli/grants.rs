//! `backstitch grants`: the least rights with which everything runs, as commands for those who give
//! them.
//!
//! Prints, and does nothing: whoever may make roles and users should read first what they may.

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::Args;

use super::definitions;
use super::exit::{Exit, Failure};
use super::output;
use crate::definition::Definition;
use crate::message::{REPLY_QUEUE, SIGNAL_QUEUE, START_QUEUE};

/// What to print.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Directory with saga definitions (*.yaml): exchanges that they name, and their participants.
    #[arg(
        long,
        env = "BACKSTITCH_SAGAS",
        default_value = "sagas",
        value_name = "DIR"
    )]
    sagas: PathBuf,
    /// The database.
    #[arg(long, default_value = "backstitch", value_name = "NAME")]
    database: String,
    /// The virtual host of RabbitMQ.
    #[arg(long, default_value = "/", value_name = "NAME")]
    virtual_host: String,
    /// What roles and users begin with: `backstitch_node`, `backstitch_auditor`, …
    #[arg(long, default_value = "backstitch", value_name = "NAME")]
    prefix: String,
}

pub(super) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let Arguments {
        database,
        virtual_host,
        prefix,
        ..
    } = arguments;
    for (flag, name) in [("--database", database), ("--prefix", prefix)] {
        if !is_plain(name) {
            return Err(Failure::problems(format!(
                "{flag}: only letters, digits and `_` can stand in what is printed"
            )));
        }
    }
    let definitions = definitions::load(&arguments.sagas)?;
    output::print(&postgres(database, prefix))?;
    output::print(&rabbitmq(virtual_host, prefix, &definitions))?;
    Ok(Exit::Done)
}

fn is_plain(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn postgres(database: &str, prefix: &str) -> String {
    format!(
        "\
-- PostgreSQL, as a superuser. Give each role a password of its own: \\password {prefix}_owner
CREATE ROLE {prefix}_owner LOGIN;
CREATE ROLE {prefix}_node LOGIN;
CREATE ROLE {prefix}_auditor LOGIN;
GRANT CREATE ON DATABASE {database} TO {prefix}_owner;

-- `backstitch migrate` as {prefix}_owner, then as {prefix}_owner in {database}:
-- nodes, participants, and dead-letter commands that write
GRANT USAGE ON SCHEMA backstitch TO {prefix}_node, {prefix}_auditor;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA backstitch TO {prefix}_node;
-- list, show, verify, doctor, dead-letters list: all but the key that signs, and the hashes of tokens
GRANT SELECT ON ALL TABLES IN SCHEMA backstitch TO {prefix}_auditor;
REVOKE ALL ON backstitch.secrets, backstitch.tokens FROM {prefix}_auditor;
-- for tables to come
ALTER DEFAULT PRIVILEGES IN SCHEMA backstitch
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {prefix}_node;
ALTER DEFAULT PRIVILEGES IN SCHEMA backstitch GRANT SELECT ON TABLES TO {prefix}_auditor;

"
    )
}

fn rabbitmq(virtual_host: &str, prefix: &str, definitions: &[Definition]) -> String {
    let quoted = virtual_host.replace('\'', "'\\''");
    let exchanges = exchanges(definitions);
    let more = exchanges
        .iter()
        .fold(String::new(), |more, name| more + "|" + &escaped(name));
    let own = format!("^(backstitch\\..*{more})$");
    let write = format!("^(amq\\.default|backstitch\\..*{more})$");
    let grant = |user: &str, configure: &str, write: &str, read: &str| {
        format!(
            "rabbitmqctl set_permissions --vhost '{quoted}' {user} '{configure}' '{write}' '{read}'\n"
        )
    };
    let mut text = String::from(
        "# RabbitMQ: configure, write, read. Make each user first: rabbitmqctl add_user NAME\n# nodes: their own queues and exchanges, those that definitions name, and commands to any queue\n",
    );
    text += &grant(&format!("{prefix}_node"), &own, &write, &own);
    text += "# each participant: takes from its own queue, answers by an exchange that leads to nodes alone\n# (`--reply-exchange`). Its queue must be there: make it as an administrator, once.\n# One whose aggregates give themselves commands at a time (follow_up: `offers`) also writes to amq.default\n";
    for participant in participants(definitions) {
        let queue = format!("^{}$", escaped(&participant));
        let reply = format!("^{}$", escaped(REPLY_QUEUE));
        text += &grant(&format!("{prefix}_{participant}"), "^$", &reply, &queue);
    }
    let doors = format!("^({}|{})$", escaped(START_QUEUE), escaped(SIGNAL_QUEUE));
    text += "# who starts sagas and sends signals: by the exchanges of these names\n";
    text += &grant(&format!("{prefix}_starter"), "^$", &doors, "^$");
    text
}

/// Exchanges that events come from and commands go to.
fn exchanges(definitions: &[Definition]) -> BTreeSet<String> {
    let events = definitions.iter().flat_map(Definition::events);
    let calls = definitions.iter().flat_map(Definition::calls);
    let of_calls = calls.map(|call| call.to.exchange.clone());
    let names = events.map(|rule| rule.exchange.clone()).chain(of_calls);
    names
        .filter(|name| !name.is_empty() && !name.starts_with("backstitch."))
        .collect()
}

/// Queues that commands go to.
fn participants(definitions: &[Definition]) -> BTreeSet<String> {
    let calls = definitions.iter().flat_map(Definition::calls);
    let direct = calls.filter(|call| call.to.exchange.is_empty());
    direct.map(|call| call.to.routing_key.clone()).collect()
}

/// As a regular expression that means just this.
fn escaped(name: &str) -> String {
    let mut text = String::new();
    for c in name.chars() {
        if !c.is_alphanumeric() && c != '_' && c != '-' {
            text.push('\\');
        }
        text.push(c);
    }
    text
}
