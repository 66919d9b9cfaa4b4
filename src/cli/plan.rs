//! `backstitch plan`: what nodes would make of definitions, asked of the running database.

use std::fmt::Write;
use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::backends::{DatabaseArguments, OpenStore};
use super::definitions::{report, sources};
use super::exit::{Exit, Failure};
use super::output;
use crate::definition::{Definition, Problem};
use crate::engine::plan::{Deployed, DeploymentPlan, Pinned, PlannedSchedule};
use crate::environment::{Environment, TokioEnvironment};
use crate::store::StoreError;

/// What to compare with which database.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Files, or directories whose *.yaml are compared.
    #[arg(default_value = "sagas")]
    paths: Vec<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    database: DatabaseArguments,
}

pub(super) async fn run(arguments: Arguments) -> Result<Exit, Failure> {
    let sources = sources(&arguments.paths)?;
    if sources.is_empty() {
        return Err(Failure::problems("there is no definition (*.yaml) to plan"));
    }
    let (definitions, refused) = match sources.check() {
        Ok(definitions) => (definitions, Vec::new()),
        Err(refused) => (sources.sound(), refused),
    };
    let database = arguments.database.database()?;
    let plan = if let Some(store) = database.open_if_any().await? {
        let plan = plan(&store, &definitions).await;
        store.close().await;
        plan.map_err(Failure::new)?
    } else {
        // To plan is to look: it makes no tables.
        output::remark(format_args!(
            "nothing is stored in {} yet (no tables): this is what the first node would make",
            database.shown()
        ));
        let now = TokioEnvironment.now();
        DeploymentPlan::new(
            &definitions,
            &Deployed {
                now,
                ..Deployed::default()
            },
        )
    };
    let accepted = plan.is_accepted() && refused.is_empty();
    if arguments.json {
        let problems: Vec<&Problem> = refused.iter().flat_map(|it| &it.0).collect();
        output::print_json(&json!({
            "accepted": accepted,
            "definitions": plan.definitions,
            "kept": plan.kept,
            "problems": problems,
        }))?;
    } else {
        output::print(&as_text(&plan))?;
        if !refused.is_empty() {
            output::remark(format_args!("{}", report(&refused)));
        }
        let verdict = if accepted {
            "nodes would start with these definitions"
        } else {
            "nodes would REFUSE to start with these definitions"
        };
        output::remark(format_args!("{verdict}"));
    }
    Ok(if accepted { Exit::Done } else { Exit::Problems })
}

async fn plan(store: &OpenStore, definitions: &[Definition]) -> Result<DeploymentPlan, StoreError> {
    let sagas = store.sagas();
    let now = sagas.clock().await?;
    let held = Deployed {
        definitions: &sagas.definitions().await?,
        live: &sagas.live().await?,
        schedules: &sagas.schedules().await?,
        now: now.unwrap_or_else(|| TokioEnvironment.now()),
    };
    Ok(DeploymentPlan::new(definitions, &held))
}

// Writing to a `String` can't fail, so results are dropped here.
pub(super) fn as_text(plan: &DeploymentPlan) -> String {
    let mut rows = Vec::new();
    let mut remarks = String::new();
    for planned in &plan.definitions {
        let change = match planned.refused {
            Some(_) => "REFUSED",
            None => planned.change.as_str(),
        };
        rows.push(vec![
            planned.saga.clone(),
            planned.version.to_string(),
            change.to_owned(),
            live(&planned.live),
        ]);
        for remark in planned.refused.iter().chain(&planned.note) {
            let (saga, version) = (&planned.saga, planned.version);
            let remark = output::printable(remark);
            let _ = writeln!(remarks, "{saga} {version}: {remark}");
        }
        if let Some(schedule) = &planned.schedule {
            let (saga, version) = (&planned.saga, planned.version);
            let _ = writeln!(remarks, "{saga} {version}: {}", in_words(schedule));
        }
    }
    for kept in &plan.kept {
        let change = match (&kept.refused, kept.startable) {
            (Some(_), _) => "REFUSED",
            (None, true) => "kept",
            (None, false) => "kept, can't be started",
        };
        let pinned = Pinned {
            version: kept.version,
            sagas: kept.sagas,
        };
        rows.push(vec![
            kept.saga.clone(),
            kept.version.to_string(),
            change.to_owned(),
            live(&[pinned]),
        ]);
        if let Some(refused) = &kept.refused {
            let refused = output::printable(refused);
            let _ = writeln!(remarks, "{} {}: {refused}", kept.saga, kept.version);
        }
    }
    output::table(&rows) + &remarks
}

fn in_words(schedule: &PlannedSchedule) -> String {
    let PlannedSchedule {
        rhythm,
        starts_at_once,
        and_more,
        since,
        next,
    } = schedule;
    let next = next.as_deref().unwrap_or("never");
    match (since, starts_at_once) {
        (None, _) => format!(
            "its schedule `{rhythm}` is new, so it counts from when a node loads it: no saga at once, the next one at {next}"
        ),
        (Some(since), 0) => {
            format!(
                "its schedule `{rhythm}` goes on from {since}: no saga at once, the next one at {next}"
            )
        }
        (Some(since), count) => {
            let at_least = if *and_more { "at least " } else { "" };
            format!(
                "its schedule `{rhythm}` goes on from {since}: {at_least}{count} saga(s) AT ONCE, the next one at {next}"
            )
        }
    }
}

fn live(pinned: &[Pinned]) -> String {
    if pinned.is_empty() {
        return "no live sagas".to_owned();
    }
    let each: Vec<String> = pinned
        .iter()
        .map(|it| format!("{} on version {}", it.sagas, it.version))
        .collect();
    format!("live: {}", each.join(", "))
}
