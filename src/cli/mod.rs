//! The command line: one file a command.
//!
//! Data goes to stdout (`--json` everywhere data is printed), all else to stderr; the exit code
//! says how it ended (see [`exit`] and `docs/operating.md`). Flags win over environment variables.
//!
//! Deliberately absent: any rule about sagas. Commands open backends, call the library, print.

mod aggregate;
mod backends;
mod check;
mod client;
mod dead_letters;
mod definitions;
mod demo;
mod dev;
mod doctor;
mod door;
mod drains;
pub mod exit;
mod filter;
mod followers;
mod gauges;
mod grants;
mod groups;
mod job;
mod list;
mod logging;
mod migrate;
mod node;
mod operator;
mod output;
mod participants;
mod plan;
mod projection;
mod projector;
mod schedules;
mod schema;
mod secret;
mod seeds;
mod serve;
mod show;
mod signal;
mod simulate;
mod start;
mod tasks;
#[cfg(test)]
mod tests;
mod token;
mod verify;
mod visible;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use exit::{Exit, Failure};

/// Printed under the list of commands.
const AFTER_HELP: &str = "\
Exit codes:
  0  done; with `start --wait`: the saga completed
  1  refused or failed; the reason is on stderr
  2  wrong usage, or problems in definitions
  3  with `start --wait`: the saga was compensated
  4  with `start --wait`: the saga is suspended and waits for a person
  5  with `start --wait`: the saga had not ended when the time was up

Environment:
  DATABASE_URL        postgres://…, sqlite:FILE or FILE (default: backstitch.db)
  AMQP_URL            amqp://… or amqps://… (default: a broker inside the process)
  BACKSTITCH_TOKEN    the token that they sign in with (or BACKSTITCH_TOKEN_FILE: a file with it)
  BACKSTITCH_URL      the node that `start`, `signal`, `cancel`, `retry`, … talk to
  BACKSTITCH_LISTEN   where `serve` and `dev` answer HTTP requests
  RUST_LOG            what is logged, such as `info` or `backstitch=debug`";

/// A saga orchestrator: all or nothing across services that talk over RabbitMQ.
#[derive(Debug, Parser)]
#[command(name = "backstitch", version, after_help = AFTER_HELP, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    logging: logging::Arguments,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run everything in one process: a node, the shipped participants, a database file.
    Dev(dev::Arguments),
    /// Place thousands of orders, let things go wrong, and prove that it all adds up.
    Demo(demo::Arguments),
    /// Run a node: drive sagas, answer HTTP requests.
    Serve(serve::Arguments),
    /// Run the shipped participants: inventory, orders, payments and four others.
    Participants(participants::Arguments),
    /// Keep the shipped projections up to date.
    Projector(projector::Arguments),
    /// Show what an aggregate is, was, and how it came to be; reads the database.
    Aggregate(aggregate::Arguments),
    /// See how far projections have come, read documents, make them anew.
    Projection(projection::Arguments),
    /// Check saga definitions and report everything that is wrong with them.
    Check(check::Arguments),
    /// Say what nodes would make of definitions, given what the database holds.
    Plan(plan::Arguments),
    /// See definitions run, on a virtual clock, and search for runs that go wrong.
    Simulate(simulate::Arguments),
    /// Print the JSON Schema of saga definitions, for editors.
    Schema,
    /// Start a saga on a running node.
    Start(start::Arguments),
    /// List sagas, newest first; reads the database, so no node need run.
    List(Box<list::Arguments>),
    /// Say what stands in the way of sagas, by cause, and of how many; reads the database.
    Groups(Box<groups::Arguments>),
    /// List what waits for a signal or a person; reads the database.
    Tasks(Box<tasks::Arguments>),
    /// Show a saga: where it stands, what is still to come, what happened.
    Show(show::Arguments),
    /// Tell a saga that waits for something from outside.
    Signal(signal::Arguments),
    /// Roll a saga back, while that is still possible.
    Cancel(operator::Arguments),
    /// Try again at once what waits for a person or for its next attempt.
    Retry(operator::RetryArguments),
    /// Take a suspended step's command for done; `--why` is the evidence.
    Skip(operator::SkipArguments),
    /// Decide nothing about a saga until it is resumed; what comes in meanwhile is kept.
    Pause(operator::Arguments),
    /// Go on after a pause, and try again what waits for a person.
    Resume(operator::Arguments),
    /// Call a saga completed, whatever is still open.
    ForceComplete(operator::Arguments),
    /// Call a saga compensated, whatever is still open.
    ForceCompensated(operator::Arguments),
    /// See how far schedules have come, and set one back.
    Schedules(schedules::Arguments),
    /// Do something to many sagas at once, and watch and stop that.
    Job(job::Arguments),
    /// Make, list and revoke the tokens that the HTTP API of nodes asks for.
    Token(token::Arguments),
    /// Check that every saga's history is what was written, and make a checkpoint of it.
    Verify(verify::Arguments),
    /// Look at messages nobody could handle.
    DeadLetters(Box<dead_letters::Arguments>),
    /// Look at everything that nodes depend on, and say what to do about what is wrong.
    Doctor(doctor::Arguments),
    /// Print the least rights that nodes, participants and auditors need, as commands to give them.
    Grants(grants::Arguments),
    /// Bring the database's tables up to date; nodes do so themselves when they start.
    Migrate(migrate::Arguments),
}

/// Runs the program with the process's arguments.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = run(cli);
    let exit = result.unwrap_or_else(|failure| {
        if !failure.message.is_empty() {
            output::remark(format_args!("error: {}", failure.message));
        }
        failure.exit
    });
    ExitCode::from(exit.code())
}

fn run(cli: Cli) -> Result<Exit, Failure> {
    logging::start(&cli.logging, volume(&cli.command));
    match cli.command {
        Command::Check(arguments) => check::run(&arguments),
        Command::Simulate(arguments) => simulate::run(&arguments),
        Command::Schema => schema::run(),
        Command::Grants(arguments) => grants::run(&arguments),
        Command::Start(arguments) => start::run(&arguments),
        Command::Cancel(arguments) => operator::run("cancel", &arguments),
        Command::Retry(arguments) => operator::retry(&arguments),
        Command::Signal(arguments) => signal::run(&arguments),
        Command::Skip(arguments) => operator::skip(&arguments),
        Command::Pause(arguments) => operator::run("pause", &arguments),
        Command::Resume(arguments) => operator::run("resume", &arguments),
        Command::ForceComplete(arguments) => operator::run("force-complete", &arguments),
        Command::ForceCompensated(arguments) => operator::run("force-compensated", &arguments),
        Command::Dev(arguments) => block_on(dev::run(arguments)),
        Command::Demo(arguments) => block_on(demo::run(arguments)),
        Command::Serve(arguments) => block_on(serve::run(arguments)),
        Command::Participants(arguments) => block_on(participants::run(arguments)),
        Command::Projector(arguments) => block_on(projector::run(arguments)),
        Command::Aggregate(arguments) => block_on(aggregate::run(arguments)),
        Command::Projection(arguments) => block_on(projection::run(arguments)),
        Command::Plan(arguments) => block_on(plan::run(arguments)),
        Command::List(arguments) => block_on(list::run(*arguments)),
        Command::Groups(arguments) => block_on(groups::run(*arguments)),
        Command::Tasks(arguments) => block_on(tasks::run(*arguments)),
        Command::Show(arguments) => block_on(show::run(arguments)),
        Command::Schedules(arguments) => block_on(schedules::run(arguments)),
        Command::Job(arguments) => job::run(&arguments),
        Command::Token(arguments) => block_on(token::run(arguments)),
        Command::Verify(arguments) => block_on(verify::run(arguments)),
        Command::DeadLetters(arguments) => block_on(dead_letters::run(*arguments)),
        Command::Doctor(arguments) => block_on(doctor::run(arguments)),
        Command::Migrate(arguments) => block_on(migrate::run(arguments)),
    }
}

/// Services say what they do; commands only what goes wrong; what goes wrong in a simulation is
/// what it is about.
fn volume(command: &Command) -> logging::Volume {
    match command {
        Command::Dev(_) | Command::Serve(_) | Command::Participants(_) | Command::Projector(_) => {
            logging::Volume::Deeds
        }
        Command::Simulate(_) => logging::Volume::Nothing,
        _ => logging::Volume::Troubles,
    }
}

fn block_on(work: impl Future<Output = Result<Exit, Failure>>) -> Result<Exit, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format!("can't start the runtime: {error}")))?;
    runtime.block_on(work)
}
