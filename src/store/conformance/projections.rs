//! Cases: projections, their generations and documents.

use bytes::Bytes;
use futures_util::future::join_all;

use super::Complete;
use super::sample::{at, outbox};
use crate::store::StoreError;
use crate::store::feed::Position;
use crate::store::projections::{Advance, DocumentRow};

fn document(key: &str, position: u64) -> DocumentRow {
    DocumentRow {
        key: key.to_owned(),
        position: Position(position),
        body: Bytes::from(format!("{{\"at\": {position}}}")),
    }
}

fn step(generation: u32, from: u64, to: u64, documents: Vec<DocumentRow>) -> Advance {
    Advance {
        name: "details".to_owned(),
        generation,
        from: Position(from),
        to: Position(to),
        documents,
        outbox: Vec::new(),
    }
}

async fn keys_of(store: &dyn Complete, generation: u32) -> Vec<String> {
    let page = store.document_page("details", generation, None, 99).await;
    page.unwrap().into_iter().map(|row| row.key).collect()
}

/// Documents, messages and position at once.
pub async fn a_generation_moves_with_its_documents_or_not_at_all(store: &dyn Complete) {
    let first = store.add_generation("details", 3).await.unwrap();
    assert_eq!((first.generation, first.serving), (1, true));
    let documents = vec![document("b", 5), document("a", 7)];
    let advance = Advance {
        outbox: vec![outbox(1)],
        ..step(1, 0, 9, documents)
    };
    store.advance(advance.clone()).await.unwrap();
    let lost = Advance {
        documents: vec![document("c", 8)],
        outbox: vec![outbox(2)],
        ..advance
    };
    for refused in [lost, step(2, 0, 9, vec![document("c", 8)])] {
        let result = store.advance(refused).await;
        assert!(matches!(result, Err(StoreError::Conflict)), "{result:?}");
    }
    let result = store.advance(step(1, 9, 8, vec![])).await;
    assert!(matches!(result, Err(StoreError::Refused(_))), "{result:?}");
    store
        .advance(step(1, 9, 12, vec![document("a", 11)]))
        .await
        .unwrap();
    let found = store.generations(Some("details")).await.unwrap();
    assert_eq!(found[0].position, Position(12));
    assert_eq!(store.generations(Some("other")).await.unwrap(), []);
    assert_eq!(store.generations(None).await.unwrap(), found);
    let wanted = ["a", "c", "b", "a\0"].map(str::to_owned);
    let mut found = store.documents("details", 1, &wanted).await.unwrap();
    found.sort_by(|a, b| a.key.cmp(&b.key));
    assert_eq!(found, [document("a", 11), document("b", 5)]);
    let page = store
        .document_page("details", 1, Some("a"), 9)
        .await
        .unwrap();
    assert_eq!(page, [document("b", 5)]);
    assert_eq!(store.outbox_len().await.unwrap(), 1);
}

/// The others find that it was done.
pub async fn of_concurrent_projectors_one_does_the_step(store: &dyn Complete) {
    store.add_generation("details", 1).await.unwrap();
    let attempts = (0..6).map(|n| store.advance(step(1, 0, 10 + n, vec![document("a", n)])));
    let results = join_all(attempts).await;
    let done: Vec<u64> = (0..)
        .zip(&results)
        .filter(|(_, it)| it.is_ok())
        .map(|(n, _)| n)
        .collect();
    assert_eq!(done.len(), 1, "{results:?}");
    let generation = &store.generations(Some("details")).await.unwrap()[0];
    assert_eq!(generation.position, Position(10 + done[0]));
    let found = store
        .documents("details", 1, &["a".to_owned()])
        .await
        .unwrap();
    assert_eq!(found, [document("a", done[0])]);
}

/// Readers keep theirs until it is done; what it replaces goes bit by bit.
pub async fn a_generation_is_built_beside_the_one_that_serves(store: &dyn Complete) {
    store.add_generation("details", 1).await.unwrap();
    let old = ["a", "b", "c"].map(|key| document(key, 1));
    store.advance(step(1, 0, 5, old.to_vec())).await.unwrap();
    let next = store.add_generation("details", 2).await.unwrap();
    assert_eq!((next.generation, next.serving), (2, false));
    store
        .advance(step(2, 0, 5, vec![document("a", 1)]))
        .await
        .unwrap();
    store
        .advance(step(1, 5, 6, vec![document("d", 6)]))
        .await
        .unwrap();
    assert_eq!(store.sweep_documents("details", 99).await.unwrap(), 0);
    store.serve("details", 2).await.unwrap();
    let result = store.advance(step(1, 6, 7, vec![])).await;
    assert!(matches!(result, Err(StoreError::Conflict)), "{result:?}");
    let found = store.generations(Some("details")).await.unwrap();
    assert_eq!(found.len(), 1);
    assert!(found[0].serving);
    assert_eq!(store.sweep_documents("details", 3).await.unwrap(), 3);
    // Its number is not used again while documents bear it.
    assert_eq!(keys_of(store, 1).await.len(), 1);
    assert_eq!(store.sweep_documents("details", 99).await.unwrap(), 1);
    assert_eq!(keys_of(store, 2).await, ["a"]);
    let result = store.serve("details", 1).await;
    assert!(matches!(result, Err(StoreError::Conflict)), "{result:?}");
    let given_up = store.add_generation("details", 2).await.unwrap();
    store
        .drop_generation("details", given_up.generation)
        .await
        .unwrap();
    store.drop_generation("details", 2).await.unwrap();
    let found = store.generations(Some("details")).await.unwrap();
    assert_eq!(found.len(), 1, "the one that serves stays");
}

/// By one version, and never replaced by an older one.
pub async fn a_document_made_on_demand_is_kept_for_its_time(store: &dyn Complete) {
    let cached = async |version| store.cached("details", version, "a").await.unwrap();
    store
        .cache("details", 1, document("a", 5), at(10))
        .await
        .unwrap();
    assert_eq!(cached(1).await, Some(document("a", 5)));
    assert_eq!(cached(2).await, None);
    store
        .cache("details", 1, document("a", 4), at(50))
        .await
        .unwrap();
    assert_eq!(cached(1).await, Some(document("a", 5)));
    store
        .cache("details", 2, document("a", 4), at(20))
        .await
        .unwrap();
    assert_eq!(cached(2).await, Some(document("a", 4)));
    store
        .cache("details", 2, document("b", 4), at(30))
        .await
        .unwrap();
    assert_eq!(store.sweep_cache(at(19), 9).await.unwrap(), 0);
    assert_eq!(store.sweep_cache(at(20), 9).await.unwrap(), 1);
    assert_eq!(cached(2).await, None);
    store.forget_cached("details", "b").await.unwrap();
    assert_eq!(store.cached("details", 2, "b").await.unwrap(), None);
}
