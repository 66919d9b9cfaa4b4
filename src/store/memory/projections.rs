//! Projections in memory.

use std::collections::BTreeMap;
use std::ops::Bound;

use async_trait::async_trait;

use super::MemoryStore;
use crate::id::Timestamp;
use crate::store::feed::Position;
use crate::store::projections::{Advance, DocumentRow, Generation, ProjectionStore};
use crate::store::{StoreError, shape};

/// What is kept of all projections.
#[derive(Debug, Default)]
pub(super) struct Projections {
    generations: BTreeMap<(String, u32), Generation>,
    documents: BTreeMap<(String, u32, String), DocumentRow>,
    cache: BTreeMap<(String, String), Cached>,
}

#[derive(Debug)]
struct Cached {
    version: u32,
    row: DocumentRow,
    expires_at: Timestamp,
}

#[async_trait]
impl ProjectionStore for MemoryStore {
    async fn generations(&self, name: Option<&str>) -> Result<Vec<Generation>, StoreError> {
        let state = self.state();
        let all = state.projections.generations.values();
        let wanted = all.filter(|it| name.is_none_or(|name| it.name == name));
        Ok(wanted.cloned().collect())
    }

    async fn add_generation(&self, name: &str, version: u32) -> Result<Generation, StoreError> {
        shape::check_projection(name)?;
        let mut state = self.state();
        let projections = &mut state.projections;
        let of_name = |(known, _): &&(String, u32)| known == name;
        let newest = projections.generations.keys().rfind(of_name);
        let newest = newest.map(|(_, generation)| *generation);
        let documents = projections.documents.keys();
        let left = documents.filter(|(known, _, _)| known == name);
        let left = left.map(|(_, generation, _)| *generation).max();
        let generation = Generation {
            name: name.to_owned(),
            generation: newest.max(left).unwrap_or(0) + 1,
            version,
            position: Position::START,
            serving: newest.is_none(),
        };
        let id = (name.to_owned(), generation.generation);
        projections.generations.insert(id, generation.clone());
        Ok(generation)
    }

    async fn serve(&self, name: &str, generation: u32) -> Result<(), StoreError> {
        let mut state = self.state();
        let generations = &mut state.projections.generations;
        let id = (name.to_owned(), generation);
        let Some(serving) = generations.get_mut(&id) else {
            return Err(StoreError::Conflict);
        };
        serving.serving = true;
        generations.retain(|(known, number), _| known != name || *number == generation);
        Ok(())
    }

    async fn drop_generation(&self, name: &str, generation: u32) -> Result<(), StoreError> {
        let mut state = self.state();
        let id = (name.to_owned(), generation);
        let generations = &mut state.projections.generations;
        if generations.get(&id).is_some_and(|it| !it.serving) {
            generations.remove(&id);
        }
        Ok(())
    }

    async fn sweep_documents(&self, name: &str, limit: usize) -> Result<u64, StoreError> {
        let mut state = self.state();
        let Projections {
            generations,
            documents,
            ..
        } = &mut state.projections;
        let is_over = |(known, generation, _): &&(String, u32, String)| {
            known == name && !generations.contains_key(&(known.clone(), *generation))
        };
        let over: Vec<_> = documents
            .keys()
            .filter(is_over)
            .take(limit)
            .cloned()
            .collect();
        for id in &over {
            documents.remove(id);
        }
        Ok(over.len() as u64)
    }

    async fn documents(
        &self,
        name: &str,
        generation: u32,
        keys: &[String],
    ) -> Result<Vec<DocumentRow>, StoreError> {
        let state = self.state();
        let find = |key: &String| {
            let id = (name.to_owned(), generation, key.clone());
            state.projections.documents.get(&id).cloned()
        };
        let mut found: Vec<_> = keys.iter().filter_map(find).collect();
        found.sort_by(|a, b| a.key.cmp(&b.key));
        found.dedup();
        Ok(found)
    }

    async fn document_page(
        &self,
        name: &str,
        generation: u32,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<DocumentRow>, StoreError> {
        let id = |key: &str| (name.to_owned(), generation, key.to_owned());
        let from = after.map_or_else(
            || Bound::Included(id("")),
            |after| Bound::Excluded(id(after)),
        );
        let state = self.state();
        let documents = state.projections.documents.range((from, Bound::Unbounded));
        let of_generation =
            documents.take_while(|((known, number, _), _)| known == name && *number == generation);
        Ok(of_generation
            .take(limit)
            .map(|(_, row)| row.clone())
            .collect())
    }

    async fn advance(&self, advance: Advance) -> Result<(), StoreError> {
        shape::check_advance(&advance)?;
        let mut state = self.state();
        let id = (advance.name.clone(), advance.generation);
        let Projections {
            generations,
            documents,
            ..
        } = &mut state.projections;
        match generations.get_mut(&id) {
            Some(generation) if generation.position == advance.from => {
                generation.position = advance.to;
            }
            _ => return Err(StoreError::Conflict),
        }
        for row in advance.documents {
            let id = (advance.name.clone(), advance.generation, row.key.clone());
            documents.insert(id, row);
        }
        state.put_outbox(advance.outbox);
        Ok(())
    }

    async fn cached(
        &self,
        name: &str,
        version: u32,
        key: &str,
    ) -> Result<Option<DocumentRow>, StoreError> {
        let state = self.state();
        let id = (name.to_owned(), key.to_owned());
        let cached = state.projections.cache.get(&id);
        let cached = cached.filter(|cached| cached.version == version);
        Ok(cached.map(|cached| cached.row.clone()))
    }

    async fn cache(
        &self,
        name: &str,
        version: u32,
        row: DocumentRow,
        expires_at: Timestamp,
    ) -> Result<(), StoreError> {
        shape::check_document(name, &row.key)?;
        let mut state = self.state();
        let id = (name.to_owned(), row.key.clone());
        let cache = &mut state.projections.cache;
        let older = |old: &Cached| (old.version, old.row.position) <= (version, row.position);
        if cache.get(&id).is_none_or(older) {
            let cached = Cached {
                version,
                row,
                expires_at,
            };
            cache.insert(id, cached);
        }
        Ok(())
    }

    async fn sweep_cache(&self, now: Timestamp, limit: usize) -> Result<u64, StoreError> {
        let mut state = self.state();
        let cache = &mut state.projections.cache;
        let over = cache.iter().filter(|(_, cached)| cached.expires_at <= now);
        let over: Vec<_> = over.take(limit).map(|(id, _)| id.clone()).collect();
        for id in &over {
            cache.remove(id);
        }
        Ok(over.len() as u64)
    }

    async fn forget_cached(&self, name: &str, key: &str) -> Result<(), StoreError> {
        let id = (name.to_owned(), key.to_owned());
        self.state().projections.cache.remove(&id);
        Ok(())
    }
}
