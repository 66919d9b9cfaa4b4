//! The definitions a node works with: the newest version of each for new sagas, and every version
//! that was ever loaded for the sagas that keep it.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use crate::definition::{self, Definition, Problems};
use crate::id::Timestamp;
use crate::store::{DefinitionRow, Store, StoreError};

type Versions = BTreeMap<(String, u32), Arc<Definition>>;

/// Definitions by name and version.
#[derive(Debug, Default)]
pub struct Catalogue {
    versions: Versions,
    newest: BTreeMap<String, Arc<Definition>>,
    /// Versions that other nodes have stored since this one started.
    learned: RwLock<Versions>,
}

/// Why the definitions can't be used together with what the database holds.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    /// The same version was loaded before, with other content.
    #[error(
        "saga `{name}` version {version} is already stored with other content (first differing line {line}: stored `{stored}`, loaded `{loaded}`); running sagas rely on it, so raise `version` instead of changing it"
    )]
    Changed {
        /// The definition.
        name: String,
        /// Its version.
        version: u32,
        /// From 1.
        line: usize,
        /// The line as stored.
        stored: String,
        /// The line as loaded.
        loaded: String,
    },
    /// A stored definition no longer parses: written by a newer Backstitch.
    #[error(
        "stored saga `{name}` version {version} can't be read by this version of Backstitch: {problems}"
    )]
    Stored {
        /// The definition.
        name: String,
        /// Its version.
        version: u32,
        /// What is wrong.
        problems: Problems,
    },
    /// Several of these.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Several(Vec<Self>),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl CatalogueError {
    /// Whether another set of files would help.
    pub fn is_about_files(&self) -> bool {
        !matches!(self, Self::Store(_))
    }
}

impl Catalogue {
    /// Stores the definitions that are new, and loads those that running sagas may keep. If one
    /// of them is refused, none is stored: or a mended file would be refused for what no node ran.
    pub async fn open(
        store: &dyn Store,
        loaded: Vec<Arc<Definition>>,
        now: Timestamp,
    ) -> Result<Self, CatalogueError> {
        let mut catalogue = Self::default();
        let rows = store.definitions().await?;
        refuse_what_has_changed(&rows, &loaded)?;
        for definition in loaded {
            let row = DefinitionRow {
                name: definition.name.clone(),
                version: definition.version,
                hash: definition.hash,
                source: definition.source.clone(),
                stored_at: now,
            };
            // Another node may have been faster with another file.
            let stored = store.put_definition(row).await?;
            if stored.hash != definition.hash {
                return Err(changed(&stored, &definition));
            }
            catalogue.offer(definition);
        }
        let mut unread = Vec::new();
        for row in rows {
            if catalogue
                .versions
                .contains_key(&(row.name.clone(), row.version))
            {
                continue;
            }
            unread.extend(catalogue.keep(row));
        }
        refuse_what_is_needed(store, unread).await?;
        Ok(catalogue)
    }

    /// Keeps a stored version for the sagas that started with it, though it may be unsound by now;
    /// gives the problems back if it can't even be read.
    fn keep(&mut self, row: DefinitionRow) -> Option<CatalogueError> {
        let (name, version) = (row.name, row.version);
        match definition::parse_stored(&row.source, "stored definition") {
            Ok(definition) => {
                self.versions.insert((name, version), Arc::new(definition));
                None
            }
            Err(problems) => Some(CatalogueError::Stored {
                name,
                version,
                problems,
            }),
        }
    }

    /// Adds a definition; new sagas start with the newest version offered.
    pub fn offer(&mut self, definition: Arc<Definition>) {
        let newer = self
            .newest
            .get(&definition.name)
            .is_none_or(|known| known.version < definition.version);
        if newer {
            self.newest
                .insert(definition.name.clone(), Arc::clone(&definition));
        }
        self.versions
            .insert((definition.name.clone(), definition.version), definition);
    }

    /// What new sagas of this name start with.
    pub fn newest(&self, name: &str) -> Option<&Arc<Definition>> {
        self.newest.get(name)
    }

    /// What a saga keeps: loaded at the start, or stored since by a newer node, and then read from
    /// the database. `None` if there is none; the problems if a newer release has stored one that
    /// this one can't read.
    ///
    /// # Errors
    /// The database.
    pub async fn version(
        &self,
        store: &dyn Store,
        name: &str,
        version: u32,
    ) -> Result<Option<Result<Arc<Definition>, Problems>>, StoreError> {
        let key = (name.to_owned(), version);
        if let Some(known) = self.versions.get(&key) {
            return Ok(Some(Ok(Arc::clone(known))));
        }
        if let Some(known) = self.learned(&key) {
            return Ok(Some(Ok(known)));
        }
        let rows = store.definitions().await?;
        let row = rows
            .into_iter()
            .find(|row| row.name == name && row.version == version);
        let Some(row) = row else { return Ok(None) };
        let read = definition::parse_stored(&row.source, "stored definition").map(Arc::new);
        if let Ok(read) = &read {
            let mut learned = self.learned.write().unwrap_or_else(PoisonError::into_inner);
            learned.insert(key, Arc::clone(read));
        }
        Ok(Some(read))
    }

    fn learned(&self, key: &(String, u32)) -> Option<Arc<Definition>> {
        let learned = self.learned.read().unwrap_or_else(PoisonError::into_inner);
        learned.get(key).cloned()
    }

    /// What new sagas start with, of all names.
    pub fn newest_of_all(&self) -> impl Iterator<Item = &Arc<Definition>> {
        self.newest.values()
    }

    /// Everything that any saga may keep.
    pub fn all_versions(&self) -> impl Iterator<Item = &Arc<Definition>> {
        self.versions.values()
    }

    /// Names that can be started, for messages to people.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.newest.keys().map(String::as_str)
    }
}

/// All that is stored under the same name and version with other content.
fn refuse_what_has_changed(
    rows: &[DefinitionRow],
    loaded: &[Arc<Definition>],
) -> Result<(), CatalogueError> {
    let refused = loaded.iter().filter_map(|definition| {
        let row = rows
            .iter()
            .find(|row| row.name == definition.name && row.version == definition.version)?;
        (row.hash != definition.hash).then(|| changed(row, definition))
    });
    let mut refused: Vec<CatalogueError> = refused.collect();
    match refused.len() {
        0 => Ok(()),
        1 => Err(refused.remove(0)),
        _ => Err(CatalogueError::Several(refused)),
    }
}

/// A version that can't be read is refused if sagas rely on it; else it is merely history.
async fn refuse_what_is_needed(
    store: &dyn Store,
    unread: Vec<CatalogueError>,
) -> Result<(), CatalogueError> {
    if unread.is_empty() {
        return Ok(());
    }
    let live = store.live().await?;
    for error in unread {
        let CatalogueError::Stored { name, version, .. } = &error else {
            return Err(error);
        };
        if live
            .iter()
            .any(|it| it.name == *name && it.version == *version)
        {
            return Err(error);
        }
        tracing::warn!(saga.name = %name, version, "a stored definition can't be read; no saga needs it");
    }
    Ok(())
}

pub(super) fn changed(stored: &DefinitionRow, loaded: &Definition) -> CatalogueError {
    let mut left = stored.source.lines();
    let mut right = loaded.source.lines();
    for line in 1.. {
        let (stored_line, loaded_line) = (left.next(), right.next());
        if stored_line != loaded_line || stored_line.is_none() {
            return CatalogueError::Changed {
                name: stored.name.clone(),
                version: stored.version,
                line,
                stored: stored_line.unwrap_or("(end of file)").trim().to_owned(),
                loaded: loaded_line.unwrap_or("(end of file)").trim().to_owned(),
            };
        }
    }
    unreachable!("a file has fewer lines than there are numbers")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::memory::MemoryBroker;
    use crate::definition::parse;
    use crate::engine::{Engine, EngineOptions, EngineParts, StartAnswer};
    use crate::environment::TokioEnvironment;
    use crate::saga::{OperatorAction, OperatorKind};
    use crate::store::Commit;
    use crate::store::conformance::sample;
    use crate::store::memory::MemoryStore;
    use std::sync::Arc;

    /// A store that holds a definition which could not be loaded today, and perhaps a saga of it.
    async fn open(step: &str, live: bool) -> Result<Catalogue, CatalogueError> {
        let store = MemoryStore::new();
        let source = format!(
            "saga: {}\nversion: 3\nkey: ${{ input.id }}\nsteps:\n  - {step}\n",
            sample::NAME
        );
        assert!(parse(&source, "old.yaml").is_err());
        let row = DefinitionRow {
            source,
            ..sample::definition(sample::NAME, 3)
        };
        store.put_definition(row).await?;
        if live {
            let sagas = vec![sample::new_saga(1, "a", 1)];
            let commit = Commit {
                sagas,
                ..Commit::default()
            };
            store.commit(commit).await?;
        }
        Catalogue::open(&store, Vec::new(), Timestamp::default()).await
    }

    #[tokio::test]
    async fn what_live_sagas_keep_loads_though_it_is_unsound_by_now() {
        let catalogue = open("{ step: a, reserve: p.r }", true).await.unwrap();
        let kept = catalogue
            .version(&MemoryStore::new(), sample::NAME, 3)
            .await;
        let kept = kept.unwrap().unwrap().unwrap();
        assert!(kept.step("a").unwrap().compensate.is_none());
        assert!(catalogue.newest(sample::NAME).is_none(), "nothing new");
    }

    #[tokio::test]
    async fn what_can_not_be_read_stops_a_node_only_if_live_sagas_keep_it() {
        let unreadable = "{ step: a, confrim: p.f }";
        assert!(open(unreadable, false).await.is_ok());
        let refused = open(unreadable, true).await;
        assert!(matches!(refused, Err(CatalogueError::Stored { .. })));
    }

    fn definition(name: &str, version: u32, step: &str) -> Arc<Definition> {
        let source = format!(
            "saga: {name}\nversion: {version}\nkey: ${{ input.k }}\nsteps:\n  - step: {step}\n    action: a.b\n    read_only: true\n"
        );
        definition::parse(&source, "x.yaml").unwrap().into()
    }

    async fn load(
        store: &MemoryStore,
        loaded: Vec<Arc<Definition>>,
    ) -> Result<Catalogue, CatalogueError> {
        Catalogue::open(store, loaded, Timestamp::from_micros(1)).await
    }

    #[tokio::test]
    async fn of_files_that_are_refused_none_is_stored_and_all_are_told() {
        let store = MemoryStore::new();
        let first = vec![definition("a", 1, "x"), definition("b", 1, "x")];
        load(&store, first).await.unwrap();
        let second = vec![
            definition("c", 1, "x"),
            definition("a", 1, "y"),
            definition("b", 1, "y"),
        ];
        let error = load(&store, second).await.unwrap_err();
        assert!(error.is_about_files());
        let told = error.to_string();
        assert_eq!(told.lines().count(), 2, "{told}");
        assert!(told.contains("`a`") && told.contains("`b`"), "{told}");
        assert_eq!(store.definitions().await.unwrap().len(), 2);
    }

    #[tokio::test]
    async fn a_node_drives_sagas_of_versions_that_came_after_it() {
        let (store, broker) = (MemoryStore::new(), MemoryBroker::new());
        let node = async |version| {
            let parts = EngineParts {
                environment: Arc::new(TokioEnvironment),
                store: Arc::new(store.clone()),
                broker: Arc::new(broker.clone()),
                definitions: vec![definition("a", version, "x")],
                options: EngineOptions::default(),
            };
            Engine::start(parts).await.unwrap()
        };
        let (older, newer) = (node(1).await, node(2).await);
        let input = serde_json::json!({ "k": "1" });
        let StartAnswer::Started(saga) = newer.start_saga("a", input).await.unwrap() else {
            panic!("not started");
        };
        newer.stop().await;
        let pause = OperatorAction {
            id: "1".to_owned(),
            kind: OperatorKind::Pause,
            by: "ann".to_owned(),
            why: "to see whether it can".to_owned(),
        };
        assert_eq!(older.operate(saga, pause).await, Ok(()));
        let catalogue = older.catalogue();
        let unknown = catalogue.version(&store, "a", 3).await.unwrap();
        assert!(unknown.is_none());
        older.stop().await;
    }
}
