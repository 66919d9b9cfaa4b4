//! Requests that come again, and deeds in the audit log.

use futures_util::future::join_all;
use serde_json::json;

use super::{Complete, until_stored};
use crate::id::Timestamp;
use crate::store::dead_letters::{Actor, AuditHead, audit};
use crate::store::requests::{ANSWERS_KEPT, Answer, CLAIM_TIME, Claim, Claimed};

fn claim(id: u8, fingerprint: u8, at: Timestamp) -> Claim {
    Claim {
        id: [id; 32],
        fingerprint: [fingerprint; 32],
        at,
    }
}

fn now() -> Timestamp {
    Timestamp::from_micros(1_700_000_000_000_000)
}

fn answer() -> Answer {
    Answer {
        status: 201,
        location: Some("/sagas/1".to_owned()),
        kind: Some("application/json".to_owned()),
        body: b"{}".to_vec(),
    }
}

/// Whoever comes second is told what became of it.
pub async fn a_request_is_carried_out_once(store: &dyn Complete) {
    let first = claim(1, 1, now());
    assert_eq!(store.claim(&first).await.unwrap(), Claimed::Ours);
    assert_eq!(store.claim(&first).await.unwrap(), Claimed::Pending);
    let other = claim(1, 2, now());
    assert_eq!(store.claim(&other).await.unwrap(), Claimed::Other);
    store.keep_answer(&first, &answer()).await.unwrap();
    let later = claim(1, 1, now().after(CLAIM_TIME * 2));
    let answered = Claimed::Answered(answer());
    assert_eq!(store.claim(&later).await.unwrap(), answered);
    assert_eq!(store.claim(&other).await.unwrap(), Claimed::Other);
    // Answered is answered.
    store.give_up(&first).await.unwrap();
    assert_eq!(store.claim(&first).await.unwrap(), answered);
}

/// Nor does one that was never answered keep others out for ever.
pub async fn a_claim_is_given_up_or_taken_over(store: &dyn Complete) {
    let first = claim(1, 1, now());
    assert_eq!(store.claim(&first).await.unwrap(), Claimed::Ours);
    store.give_up(&first).await.unwrap();
    assert_eq!(store.claim(&first).await.unwrap(), Claimed::Ours);
    let later = claim(1, 1, now().after(CLAIM_TIME * 2));
    assert_eq!(store.claim(&later).await.unwrap(), Claimed::Ours);
    // It is another's by now.
    store.keep_answer(&first, &answer()).await.unwrap();
    store.give_up(&first).await.unwrap();
    assert_eq!(store.claim(&later).await.unwrap(), Claimed::Pending);
}

/// However many send it at once.
pub async fn of_the_same_requests_at_once_one_is_carried_out(store: &dyn Complete) {
    let first = claim(1, 1, now());
    let all = (0..8).map(|_| until_stored(|| store.claim(&first)));
    let all = join_all(all).await;
    let ours = all.iter().filter(|it| **it == Claimed::Ours).count();
    let pending = all.iter().filter(|it| **it == Claimed::Pending).count();
    assert_eq!((ours, pending), (1, 7), "{all:?}");
}

/// What is old is cleared away by what comes.
pub async fn answers_are_kept_for_their_time(store: &dyn Complete) {
    for id in 1..=3 {
        let old = claim(id, 1, now());
        assert_eq!(store.claim(&old).await.unwrap(), Claimed::Ours);
        store.keep_answer(&old, &answer()).await.unwrap();
    }
    let kept = claim(2, 1, now().after(ANSWERS_KEPT));
    let answered = Claimed::Answered(answer());
    assert_eq!(store.claim(&kept).await.unwrap(), answered);
    let micro = std::time::Duration::from_micros(1);
    let gone = claim(2, 9, now().after(ANSWERS_KEPT + micro));
    assert_eq!(store.claim(&gone).await.unwrap(), Claimed::Ours);
}

/// In the one chain that has all deeds.
pub async fn a_deed_is_in_the_audit_log(store: &dyn Complete) {
    let ann = Actor {
        by: "ann".to_owned(),
        why: "so".to_owned(),
        at: now(),
    };
    let detail = json!({ "saga": "1" });
    store
        .note_deed(&ann, "saga-cancel", detail.clone())
        .await
        .unwrap();
    let entries = store.letter_audit(None, 0, 9).await.unwrap();
    assert_eq!((entries.len(), &*entries[0].action), (1, "saga-cancel"));
    let body: serde_json::Value = serde_json::from_str(&entries[0].body).unwrap();
    assert_eq!((&body["by"], &body["detail"]), (&json!("ann"), &detail));
    assert_eq!(audit::verify(&mut AuditHead::default(), &entries), Ok(()));
}
