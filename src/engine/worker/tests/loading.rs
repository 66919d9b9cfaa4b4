//! How much a batch reads of what is stored.

use super::*;
use crate::saga::Input;

#[tokio::test]
async fn a_batch_reads_as_many_large_sagas_as_there_is_memory_for_and_the_next_one_the_rest() {
    let (broker, store) = (MemoryBroker::new(), MemoryStore::new());
    let writer = engine(Arc::new(store.clone()), &broker, JOB).await;
    let fields: Vec<Value> = (0..49_900).map(|_| json!({ "a": 1 })).collect();
    let mut works = Vec::new();
    for id in ["a", "b", "c"] {
        let input = json!({ "id": id, "fields": fields });
        let begun = writer.start_saga("job", input).await.unwrap();
        let StartAnswer::Started(saga) = begun else {
            panic!("{begun:?}");
        };
        let input = Input::Wake;
        works.push(Work {
            job: Job::Tell { saga, input },
            origin: Origin::Timer,
        });
    }
    // It has none of them in its cache.
    let reader = engine(Arc::new(store), &broker, JOB).await;
    let mut rounds = Vec::new();
    while !works.is_empty() {
        let left = reader.node.attempt(works, false).await;
        works = left.map_err(|(_, error)| error).unwrap().again;
        rounds.push(works.len());
    }
    assert_eq!(rounds, [1, 0]);
    writer.stop().await;
    reader.stop().await;
}
