//! Tokens: found by their hash, revoked once, each deed in the audit log.

use uuid::Uuid;

use super::Complete;
use crate::id::Timestamp;
use crate::store::TokenRow;
use crate::store::dead_letters::{Actor, AuditHead, audit};

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_micros(seconds * 1_000_000)
}

fn row(number: u8) -> TokenRow {
    TokenRow {
        id: Uuid::from_u128(number.into()),
        name: format!("token-{number}"),
        hash: [number; 32],
        rights: "sagas:read sagas:start@place-order".to_owned(),
        made_at: at(number.into()),
        expires_at: number.is_multiple_of(2).then(|| at(1_000)),
        revoked_at: None,
        used_at: None,
    }
}

fn ann(seconds: i64) -> Actor {
    Actor {
        by: "ann".to_owned(),
        why: "night shift".to_owned(),
        at: at(seconds),
    }
}

/// By its hash alone, with everything that is kept of it.
pub async fn a_token_is_found_by_its_hash_until_it_is_revoked(store: &dyn Complete) {
    assert!(!store.any_token().await.unwrap());
    for number in [1, 2] {
        store.put_token(&row(number), &ann(9)).await.unwrap();
    }
    assert!(store.any_token().await.unwrap());
    assert_eq!(store.token_by_hash(&[2; 32]).await.unwrap(), Some(row(2)));
    assert_eq!(store.token_by_hash(&[3; 32]).await.unwrap(), None);
    store.mark_token_used(row(1).id, at(20)).await.unwrap();
    assert!(store.revoke_token(row(1).id, &ann(30)).await.unwrap());
    assert!(!store.revoke_token(row(1).id, &ann(31)).await.unwrap());
    assert!(
        !store
            .revoke_token(Uuid::from_u128(7), &ann(32))
            .await
            .unwrap()
    );
    let first = TokenRow {
        revoked_at: Some(at(30)),
        used_at: Some(at(20)),
        ..row(1)
    };
    assert_eq!(store.tokens().await.unwrap(), [row(2), first]);
    assert!(store.any_token().await.unwrap());
}

/// Who made and who revoked it, in the one chain.
pub async fn what_is_done_to_tokens_is_in_the_audit_log(store: &dyn Complete) {
    store.put_token(&row(1), &ann(9)).await.unwrap();
    store.revoke_token(row(1).id, &ann(30)).await.unwrap();
    let entries = store.letter_audit(None, 0, 10).await.unwrap();
    let actions: Vec<&str> = entries.iter().map(|entry| entry.action.as_str()).collect();
    assert_eq!(actions, ["token-create", "token-revoke"]);
    assert!(
        entries
            .iter()
            .all(|entry| entry.body.contains("night shift"))
    );
    assert!(!entries[0].body.contains("0101"), "not its hash");
    let mut head = AuditHead::default();
    audit::verify(&mut head, &entries).unwrap();
    assert_eq!(store.audit_head().await.unwrap(), head);
}
