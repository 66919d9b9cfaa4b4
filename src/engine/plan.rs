//! What nodes would make of definitions, given what the database holds: nothing is changed.
//!
//! Separate from [`super::catalogue`], which does it: this answers before a deployment what loading
//! would refuse, and which versions live sagas keep. Both judge by the same functions.

use std::collections::BTreeMap;

use serde::Serialize;

use super::catalogue::{CatalogueError, changed};
use super::schedule::schedule_of;
use crate::definition::{Definition, TICKS_COUNTED_MAX, parse_stored};
use crate::id::Timestamp;
use crate::store::{DefinitionRow, LiveCount, ScheduleRow};

/// What the database holds.
#[derive(Debug, Clone, Copy, Default)]
pub struct Deployed<'a> {
    /// Definitions, in all versions.
    pub definitions: &'a [DefinitionRow],
    /// Sagas that have not ended.
    pub live: &'a [LiveCount],
    /// How far schedules have come.
    pub schedules: &'a [ScheduleRow],
    /// What time it is.
    pub now: Timestamp,
}

/// What loading these definitions would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeploymentPlan {
    /// Each definition of the files, by name and version.
    pub definitions: Vec<Planned>,
    /// Stored definitions that are not among the files although live sagas keep them.
    pub kept: Vec<Kept>,
}

/// What becomes of one definition of the files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Planned {
    /// Its name.
    pub saga: String,
    /// Its version.
    pub version: u32,
    /// What it is to the database.
    pub change: DefinitionChange,
    /// Why nodes would refuse it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// What is odd, but not refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Live sagas of this name, by the version that they keep.
    pub live: Vec<Pinned>,
    /// What its schedule would do, if new sagas start with this version and it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule: Option<PlannedSchedule>,
}

/// What a schedule would do when nodes load it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlannedSchedule {
    /// When it ticks and which ticks count.
    pub rhythm: String,
    /// How many sagas it would start at once, for ticks that have passed.
    pub starts_at_once: usize,
    /// Whether there are more of them than were counted.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub and_more: bool,
    /// The position that it goes on from; none if it counts from when the first node loads it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// The first tick after now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// What a definition is to the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DefinitionChange {
    /// No version of it is stored.
    New,
    /// Other versions of it are stored.
    NewVersion,
    /// It is stored as it is.
    Unchanged,
    /// It is stored with other content.
    Changed,
}

impl DefinitionChange {
    /// In words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::NewVersion => "new version",
            Self::Unchanged => "unchanged",
            Self::Changed => "changed",
        }
    }
}

/// Live sagas that keep a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Pinned {
    /// The version.
    pub version: u32,
    /// How many.
    pub sagas: u64,
}

/// A stored definition that no file has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Kept {
    /// Its name.
    pub saga: String,
    /// The version that live sagas keep.
    pub version: u32,
    /// How many.
    pub sagas: u64,
    /// Whether new sagas of this name can be started, in another version.
    pub startable: bool,
    /// Why nodes can't go on with them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

impl DeploymentPlan {
    /// Compares sound definitions with what is stored.
    pub fn new(files: &[Definition], held: &Deployed<'_>) -> Self {
        let (stored, live) = (held.definitions, held.live);
        let rows: BTreeMap<(&str, u32), &DefinitionRow> = stored
            .iter()
            .map(|row| ((row.name.as_str(), row.version), row))
            .collect();
        let mut definitions: Vec<Planned> = files
            .iter()
            .map(|definition| planned(definition, files, &rows, held))
            .collect();
        definitions.sort_by(|a, b| (&a.saga, a.version).cmp(&(&b.saga, b.version)));
        let is_loaded = |count: &&LiveCount| {
            let same = |file: &Definition| file.name == count.name && file.version == count.version;
            files.iter().any(same)
        };
        let kept = live
            .iter()
            .filter(|count| !is_loaded(count))
            .map(|count| kept(count, files, &rows))
            .collect();
        Self { definitions, kept }
    }

    /// Whether nodes would start with these definitions.
    pub fn is_accepted(&self) -> bool {
        self.definitions.iter().all(|it| it.refused.is_none())
            && self.kept.iter().all(|it| it.refused.is_none())
    }
}

fn planned(
    definition: &Definition,
    files: &[Definition],
    rows: &BTreeMap<(&str, u32), &DefinitionRow>,
    held: &Deployed<'_>,
) -> Planned {
    let live = held.live;
    let (name, version) = (definition.name.as_str(), definition.version);
    let versions = || {
        rows.keys()
            .filter(|(stored, _)| *stored == name)
            .map(|(_, version)| *version)
    };
    let row = rows.get(&(name, version));
    let change = match row {
        Some(row) if row.hash == definition.hash => DefinitionChange::Unchanged,
        Some(_) => DefinitionChange::Changed,
        None if versions().next().is_some() => DefinitionChange::NewVersion,
        None => DefinitionChange::New,
    };
    let refused = row
        .filter(|_| change == DefinitionChange::Changed)
        .map(|row| changed(row, definition).to_string());
    let of_name = files.iter().filter(|file| file.name == name);
    let newest_file = of_name.map(|file| file.version).max();
    let newer = versions()
        .max()
        .filter(|newest| Some(*newest) > newest_file);
    let note = newer.map(|newer| {
        format!("version {newer} is stored; with these files new sagas start with an older one")
    });
    let starts = Some(version) == newest_file;
    Planned {
        schedule: starts.then(|| schedule(definition, held)).flatten(),
        saga: name.to_owned(),
        version,
        change,
        refused,
        note,
        live: live
            .iter()
            .filter(|count| count.name == name)
            .map(|count| Pinned {
                version: count.version,
                sagas: count.count,
            })
            .collect(),
    }
}

fn schedule(definition: &Definition, held: &Deployed<'_>) -> Option<PlannedSchedule> {
    let every = definition.start.every.as_ref()?;
    let key = schedule_of(definition)?;
    let row = held.schedules.iter().find(|row| row.key == key);
    let since = row.filter(|row| row.absent_since.is_none());
    let due = since.map_or(0, |row| every.count_due(row.settled, held.now));
    let next = every.next_after(since.map_or(held.now, |row| row.settled.max(held.now)));
    Some(PlannedSchedule {
        rhythm: key.rhythm,
        starts_at_once: due,
        and_more: due >= TICKS_COUNTED_MAX,
        since: since.map(|row| row.settled.to_string()),
        next: next.map(|next| next.to_string()),
    })
}

fn kept(
    count: &LiveCount,
    files: &[Definition],
    rows: &BTreeMap<(&str, u32), &DefinitionRow>,
) -> Kept {
    let (saga, version) = (count.name.clone(), count.version);
    let refused = match rows.get(&(count.name.as_str(), version)) {
        None => Some("its definition is not stored".to_owned()),
        Some(row) => parse_stored(&row.source, "stored definition")
            .err()
            .map(|problems| {
                let (name, version) = (saga.clone(), version);
                let error = CatalogueError::Stored {
                    name,
                    version,
                    problems,
                };
                error.to_string()
            }),
    };
    Kept {
        startable: files.iter().any(|file| file.name == saga),
        saga,
        version,
        sagas: count.count,
        refused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::parse;

    fn source(name: &str, version: u32, step: &str) -> String {
        format!("saga: {name}\nversion: {version}\nkey: ${{ input.id }}\nsteps:\n  - {step}\n")
    }

    const STEP: &str = "{ step: a, confirm: p.f }";

    fn file(name: &str, version: u32, step: &str) -> Definition {
        parse(&source(name, version, step), "x.yaml").unwrap_or_else(|why| panic!("{why}"))
    }

    fn row(name: &str, version: u32, step: &str) -> DefinitionRow {
        let source = source(name, version, step);
        DefinitionRow {
            name: name.to_owned(),
            version,
            hash: sha2::Digest::finalize(sha2::Digest::chain_update(
                <sha2::Sha256 as sha2::Digest>::new(),
                &source,
            ))
            .into(),
            source,
            stored_at: Timestamp::default(),
        }
    }

    fn live(name: &str, version: u32, count: u64) -> LiveCount {
        LiveCount {
            name: name.to_owned(),
            version,
            count,
        }
    }

    fn plan_of(
        files: &[Definition],
        definitions: &[DefinitionRow],
        live: &[LiveCount],
    ) -> DeploymentPlan {
        let held = Deployed {
            definitions,
            live,
            ..Deployed::default()
        };
        DeploymentPlan::new(files, &held)
    }

    #[test]
    fn a_schedule_says_how_many_sagas_it_would_start_at_once() {
        let daily = |version: u32, catch_up: &str| {
            let yaml = format!(
                "saga: report\nversion: {version}\nkey: ${{ input.tick }}\nstart: {{ every: \"0 9 * * *\", catch_up: {catch_up} }}\nsteps:\n  - {STEP}\n"
            );
            parse(&yaml, "x.yaml").unwrap_or_else(|why| panic!("{why}"))
        };
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let now = at("2026-03-31T12:00:00Z");
        let row = |definition: &Definition, absent: Option<Timestamp>| ScheduleRow {
            key: schedule_of(definition).unwrap(),
            settled: at("2026-03-01T12:00:00Z"),
            absent_since: absent,
            moved: None,
        };
        let (all, last) = (daily(2, "all"), daily(2, "last"));
        let known = [row(&all, None)];
        let away = [row(&all, Some(now))];
        let cases: [(&Definition, &[ScheduleRow], usize); 5] = [
            (&all, &known, 30),
            (&all, &away, 0),
            (&all, &[], 0),
            // Another rhythm's position says nothing.
            (&last, &known, 0),
            (&last, &[row(&last, None)], 1),
        ];
        for (definition, schedules, expected) in cases {
            let held = Deployed {
                schedules,
                now,
                ..Deployed::default()
            };
            let plan = DeploymentPlan::new(std::slice::from_ref(definition), &held);
            let told = plan.definitions[0].schedule.clone().unwrap();
            assert_eq!(told.starts_at_once, expected, "{told:?}");
            assert_eq!(told.next.as_deref(), Some("2026-04-01T09:00:00Z"));
        }
        // Only the newest version starts anything.
        let held = Deployed {
            now,
            ..Deployed::default()
        };
        let plan = DeploymentPlan::new(&[daily(1, "all"), daily(2, "all")], &held);
        let told: Vec<bool> = plan
            .definitions
            .iter()
            .map(|it| it.schedule.is_some())
            .collect();
        assert_eq!(told, [false, true]);
    }

    #[test]
    fn each_definition_is_told_by_what_the_database_holds() {
        let other = "{ step: b, confirm: p.f }";
        let files = [
            file("changed", 1, other),
            file("fresh", 1, STEP),
            file("newer", 3, STEP),
            file("older", 1, STEP),
            file("same", 1, STEP),
        ];
        let rows = [
            row("changed", 1, STEP),
            row("newer", 2, STEP),
            row("older", 1, STEP),
            row("older", 2, STEP),
            row("same", 1, STEP),
        ];
        let plan = plan_of(&files, &rows, &[live("newer", 2, 7)]);
        let told: Vec<_> = plan
            .definitions
            .iter()
            .map(|it| {
                (
                    it.saga.as_str(),
                    it.change,
                    it.refused.is_some(),
                    it.note.is_some(),
                )
            })
            .collect();
        assert_eq!(
            told,
            [
                ("changed", DefinitionChange::Changed, true, false),
                ("fresh", DefinitionChange::New, false, false),
                ("newer", DefinitionChange::NewVersion, false, false),
                ("older", DefinitionChange::Unchanged, false, true),
                ("same", DefinitionChange::Unchanged, false, false),
            ]
        );
        let why = plan.definitions[0].refused.as_deref().unwrap();
        assert!(why.contains("first differing line 5"), "{why}");
        let pinned = Pinned {
            version: 2,
            sagas: 7,
        };
        assert_eq!(plan.definitions[2].live, [pinned]);
        assert!(!plan.is_accepted());
    }

    #[test]
    fn what_live_sagas_keep_is_named_and_must_be_readable_but_not_sound() {
        let unsound = "{ step: a, reserve: p.r }";
        let rows = [
            row("gone", 1, STEP),
            row("unsound", 1, unsound),
            row("broken", 1, "{ step: a, confrim: p.f }"),
            row("broken", 2, STEP),
        ];
        let counts = [live("gone", 1, 2), live("unsound", 1, 1)];
        let plan = plan_of(&[file("broken", 2, STEP)], &rows, &counts);
        let told: Vec<_> = plan
            .kept
            .iter()
            .map(|it| (it.saga.as_str(), it.startable, it.refused.is_some()))
            .collect();
        assert_eq!(told, [("gone", false, false), ("unsound", false, false)]);
        assert!(plan.is_accepted(), "{plan:?}");

        let counts = [live("broken", 1, 1), live("lost", 1, 1)];
        let plan = plan_of(&[file("broken", 2, STEP)], &rows, &counts);
        assert_eq!(plan.kept[0].sagas, 1);
        assert!(plan.kept[0].startable);
        assert!(plan.kept.iter().all(|it| it.refused.is_some()), "{plan:?}");
        assert!(!plan.is_accepted());
    }
}
