//! The definitions a node works with: the newest version of each for new sagas, and every version
//! that was ever loaded for the sagas that keep it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock};

use crate::definition::{self, Definition, Problems};
use crate::id::Timestamp;
use crate::store::{DefinitionRow, Store, StoreError};

/// What stands for the file's name in problems of what was stored.
const STORED: &str = "stored definition";

/// Definitions by name and version.
#[derive(Debug, Default)]
pub struct Catalogue(RwLock<Arc<Known>>);

/// What a catalogue holds at one time: it grows as other nodes store definitions.
#[derive(Debug, Clone, Default)]
pub struct Known {
    versions: BTreeMap<(String, u32), Arc<Definition>>,
    newest: BTreeMap<String, Arc<Definition>>,
    /// All that was stored when this was last looked at, also what can't be read.
    seen: BTreeSet<(String, u32)>,
    /// By name, the newest version that a newer release has stored since this node began, and why it can't
    /// be read here. (What was there before is history: whoever begins with older files rolls back.)
    beyond: BTreeMap<String, (u32, String)>,
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
    /// A stored definition is not what was stored.
    #[error(
        "stored saga `{name}` version {version} is damaged: it has not the hash that it was stored with, and sagas rely on it; restore its row from a backup"
    )]
    Damaged {
        /// The definition.
        name: String,
        /// Its version.
        version: u32,
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
    ///
    /// New sagas start with the newest version among `loaded`, also where a newer one is stored by
    /// now: whoever starts a node with older files rolls back. What is stored after that is
    /// [learned](Self::learn).
    pub async fn open(
        store: &dyn Store,
        loaded: Vec<Arc<Definition>>,
        now: Timestamp,
    ) -> Result<Self, CatalogueError> {
        let mut known = Known::default();
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
            known.offer(definition);
        }
        let mut unread = Vec::new();
        for row in rows {
            if known.seen.insert((row.name.clone(), row.version)) {
                unread.extend(known.keep(row));
            }
        }
        refuse_what_is_needed(store, unread).await?;
        Ok(Self(RwLock::new(Arc::new(known))))
    }

    /// Adds a definition; new sagas start with the newest version offered.
    pub fn offer(&self, definition: Arc<Definition>) {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        Arc::make_mut(&mut known).offer(definition);
    }

    /// What it holds now.
    pub fn known(&self) -> Arc<Known> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// What new sagas of this name start with.
    pub fn newest(&self, name: &str) -> Option<Arc<Definition>> {
        self.known().newest.get(name).cloned()
    }

    /// Takes over what other nodes have stored since this one last looked: a deployment is in
    /// progress, and messages for the newer definitions come to this node as well. New sagas start
    /// with what is newest then. Whether there was anything.
    pub fn learn(&self, stored: &[DefinitionRow]) -> bool {
        let known = self.known();
        let news = stored
            .iter()
            .filter(|row| !known.seen.contains(&(row.name.clone(), row.version)));
        let news: Vec<_> = news.map(|row| (row, News::read(row))).collect();
        if news.is_empty() {
            return false;
        }
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let known = Arc::make_mut(&mut known);
        for (row, news) in news {
            let version = (row.name.clone(), row.version);
            if !known.seen.insert(version.clone()) {
                continue;
            }
            match news {
                News::Sound(definition) => known.offer(definition),
                News::Readable(definition) => {
                    known.versions.insert(version, definition);
                }
                News::Newer(problems) => {
                    let (name, version) = version;
                    let why = format!("definition `{name}` version {version}: {problems}");
                    let beyond = known.beyond.entry(name).or_default();
                    if beyond.0 < version {
                        *beyond = (version, why);
                    }
                }
                News::Damaged => {}
            }
        }
        true
    }

    /// What a saga keeps: loaded at the start, or stored since by a newer node, and then read from
    /// the database. `None` if there is none.
    ///
    /// # Errors
    /// The database.
    pub async fn version(
        &self,
        store: &dyn Store,
        name: &str,
        version: u32,
    ) -> Result<Option<Result<Arc<Definition>, Unusable>>, StoreError> {
        let key = (name.to_owned(), version);
        if let Some(known) = self.known().versions.get(&key) {
            return Ok(Some(Ok(Arc::clone(known))));
        }
        let rows = store.definitions().await?;
        self.learn(&rows);
        if let Some(known) = self.known().versions.get(&key) {
            return Ok(Some(Ok(Arc::clone(known))));
        }
        let is_meant = |row: &DefinitionRow| row.name == name && row.version == version;
        let unreadable = rows.into_iter().find(is_meant);
        Ok(unreadable.map(|row| read_stored(&row).map(Arc::new)))
    }
}

impl Known {
    /// Keeps a stored version for the sagas that started with it, though it may be unsound by now;
    /// gives the problems back if it can't even be read.
    fn keep(&mut self, row: DefinitionRow) -> Option<CatalogueError> {
        let read = read_stored(&row);
        let (name, version) = (row.name, row.version);
        match read {
            Ok(definition) => {
                self.versions.insert((name, version), Arc::new(definition));
                None
            }
            Err(Unusable::Damaged) => Some(CatalogueError::Damaged { name, version }),
            Err(Unusable::Newer(problems)) => Some(CatalogueError::Stored {
                name,
                version,
                problems,
            }),
        }
    }

    fn offer(&mut self, definition: Arc<Definition>) {
        let newer = self
            .newest
            .get(&definition.name)
            .is_none_or(|known| known.version < definition.version);
        if newer {
            self.newest
                .insert(definition.name.clone(), Arc::clone(&definition));
        }
        let version = (definition.name.clone(), definition.version);
        self.seen.insert(version.clone());
        self.versions.insert(version, definition);
    }

    /// What new sagas start with, of all names.
    pub fn newest_of_all(&self) -> impl Iterator<Item = &Arc<Definition>> {
        self.newest.values()
    }

    /// Everything that any saga may keep.
    pub fn all_versions(&self) -> impl Iterator<Item = &Arc<Definition>> {
        self.versions.values()
    }

    /// Why the newest definition of this name, or of any, can't be read here, if a newer release has stored
    /// it since this node began: what can't be made sense of may be meant for that.
    pub fn beyond(&self, name: Option<&str>) -> Option<&str> {
        let newest = |name: &str| self.newest.get(name).map_or(0, |known| known.version);
        let mut beyond = self.beyond.iter().filter(|(of, (version, _))| {
            name.is_none_or(|name| name == *of) && newest(of) < *version
        });
        beyond.next().map(|(_, (_, why))| why.as_str())
    }

    /// Names that can be started, for messages to people.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.newest.keys().map(String::as_str)
    }
}

/// Why a stored definition can't be used.
#[derive(Debug)]
pub enum Unusable {
    /// It is whole; a newer release has stored what this one can't read.
    Newer(Problems),
    /// It is not what was stored.
    Damaged,
}

fn read_stored(row: &DefinitionRow) -> Result<Definition, Unusable> {
    if is_damaged(row) {
        return Err(Unusable::Damaged);
    }
    definition::parse_stored(&row.source, STORED).map_err(Unusable::Newer)
}

fn is_damaged(row: &DefinitionRow) -> bool {
    definition::hash_of(&row.source) != row.hash
}

/// A definition that another node has stored.
enum News {
    /// New sagas can start with it.
    Sound(Arc<Definition>),
    /// Not sound by this version of Backstitch, but sagas may keep it.
    Readable(Arc<Definition>),
    /// Of a newer Backstitch.
    Newer(Problems),
    /// This node can do nothing about it.
    Damaged,
}

impl News {
    fn read(row: &DefinitionRow) -> Self {
        if is_damaged(row) {
            tracing::error!(saga.name = %row.name, version = row.version, "a stored definition is damaged");
            return Self::Damaged;
        }
        if let Ok(sound) = definition::parse(&row.source, STORED) {
            return Self::Sound(Arc::new(sound));
        }
        match definition::parse_stored(&row.source, STORED) {
            Ok(readable) => Self::Readable(Arc::new(readable)),
            Err(problems) => {
                tracing::error!(saga.name = %row.name, version = row.version, %problems, "a stored definition can't be read");
                Self::Newer(problems)
            }
        }
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
        let (CatalogueError::Stored { name, version, .. }
        | CatalogueError::Damaged { name, version }) = &error
        else {
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
mod tests;
