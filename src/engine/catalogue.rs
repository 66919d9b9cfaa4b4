//! The definitions a node works with: the newest version of each for new sagas, and every version
//! that was ever loaded for the sagas that keep it.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::definition::{self, Definition, Problems};
use crate::id::Timestamp;
use crate::store::{DefinitionRow, Store, StoreError};

/// Definitions by name and version.
#[derive(Debug, Default)]
pub struct Catalogue {
    versions: BTreeMap<(String, u32), Arc<Definition>>,
    newest: BTreeMap<String, Arc<Definition>>,
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
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Catalogue {
    /// Stores the definitions that are new, and loads those that running sagas may keep.
    pub async fn open(
        store: &dyn Store,
        loaded: Vec<Arc<Definition>>,
        now: Timestamp,
    ) -> Result<Self, CatalogueError> {
        let mut catalogue = Self::default();
        for definition in loaded {
            let row = DefinitionRow {
                name: definition.name.clone(),
                version: definition.version,
                hash: definition.hash,
                source: definition.source.clone(),
                stored_at: now,
            };
            let stored = store.put_definition(row).await?;
            if stored.hash != definition.hash {
                return Err(changed(&stored, &definition));
            }
            catalogue.offer(definition);
        }
        let mut unread = Vec::new();
        for row in store.definitions().await? {
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

    /// What a saga keeps.
    pub fn version(&self, name: &str, version: u32) -> Option<&Arc<Definition>> {
        self.versions.get(&(name.to_owned(), version))
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
    use crate::definition::parse;
    use crate::store::Commit;
    use crate::store::conformance::sample;
    use crate::store::memory::MemoryStore;

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
        let kept = catalogue.version(sample::NAME, 3).unwrap();
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
}
