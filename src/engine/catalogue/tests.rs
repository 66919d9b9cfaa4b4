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
    open_after(step, "", live).await
}

/// With something written behind it since it was stored.
async fn open_after(step: &str, after: &str, live: bool) -> Result<Catalogue, CatalogueError> {
    let store = MemoryStore::new();
    let source = format!(
        "saga: {}\nversion: 3\nkey: ${{ input.id }}\nsteps:\n  - {step}\n",
        sample::NAME
    );
    assert!(parse(&source, "old.yaml").is_err());
    let hash = definition::hash_of(&source);
    let row = DefinitionRow {
        hash,
        source: source + after,
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

#[tokio::test]
async fn what_is_damaged_stops_a_node_only_if_live_sagas_keep_it_though_it_can_be_read() {
    let readable = "{ step: a, reserve: p.r }";
    assert!(open_after(readable, " # changed", false).await.is_ok());
    let refused = open_after(readable, " # changed", true).await;
    assert!(matches!(refused, Err(CatalogueError::Damaged { .. })));
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

fn row(definition: &Definition) -> DefinitionRow {
    DefinitionRow {
        name: definition.name.clone(),
        version: definition.version,
        hash: definition.hash,
        source: definition.source.clone(),
        stored_at: Timestamp::from_micros(1),
    }
}

fn newest(catalogue: &Catalogue, name: &str) -> Option<u32> {
    catalogue.newest(name).map(|newest| newest.version)
}

#[tokio::test]
async fn new_sagas_start_with_the_newest_version_that_was_stored_meanwhile() {
    let store = MemoryStore::new();
    let catalogue = load(&store, vec![definition("a", 2, "x")]).await.unwrap();
    for version in [1, 3] {
        let row = row(&definition("a", version, "x"));
        store.put_definition(row).await.unwrap();
    }
    let other = row(&definition("b", 1, "x"));
    store.put_definition(other).await.unwrap();
    assert_eq!(newest(&catalogue, "a"), Some(2), "until it looks");
    let stored = store.definitions().await.unwrap();
    assert!(catalogue.learn(&stored));
    assert!(!catalogue.learn(&stored), "nothing new any more");
    assert_eq!(newest(&catalogue, "a"), Some(3));
    assert_eq!(newest(&catalogue, "b"), Some(1));
}

#[tokio::test]
async fn a_node_that_starts_with_older_files_rolls_back() {
    let store = MemoryStore::new();
    let newer = vec![definition("a", 2, "x"), definition("b", 1, "x")];
    load(&store, newer).await.unwrap();
    let catalogue = load(&store, vec![definition("a", 1, "x")]).await.unwrap();
    assert!(!catalogue.learn(&store.definitions().await.unwrap()));
    assert_eq!(newest(&catalogue, "a"), Some(1));
    assert_eq!(newest(&catalogue, "b"), None);
    let kept = catalogue.version(&store, "a", 2).await.unwrap();
    assert!(kept.is_some(), "for the sagas that run");
}

#[tokio::test]
async fn what_is_unsound_or_unreadable_starts_nothing() {
    let unsound =
        "saga: a\nversion: 3\nkey: ${ input.id }\nsteps:\n  - { step: a, reserve: p.r }\n";
    let unreadable = unsound.replace("reserve", "resevre");
    assert!(parse(unsound, "a.yaml").is_err());
    for (source, is_kept) in [(unsound, true), (&unreadable, false)] {
        let store = MemoryStore::new();
        let catalogue = load(&store, vec![definition("a", 2, "x")]).await.unwrap();
        let row = DefinitionRow {
            hash: definition::hash_of(source),
            source: source.to_owned(),
            ..row(&definition("a", 3, "x"))
        };
        store.put_definition(row).await.unwrap();
        let kept = catalogue.version(&store, "a", 3).await.unwrap();
        assert_eq!(kept.unwrap().is_ok(), is_kept, "{source}");
        assert_eq!(newest(&catalogue, "a"), Some(2));
    }
}
