//! Which letters are new: looked up, placed, inserted, or counted on those that are there.

use serde_json::{Value, json};
use sqlx::SqliteConnection;

use super::statements::{INSERT, PARENTS, PARENTS_BY_CONTENT, SEEN_AGAIN, TWINS};
use crate::store::dead_letters::occurrence::{
    self, NewLetter, Parent, ParentWanted, Settled, Twin,
};
use crate::store::dead_letters::row::{self, ParentRow, TwinRow};
use crate::store::rows;
use crate::store::sqlite::bulk;

/// Keeps letters of any origin: inserts those that are new, counts those that are seen again.
pub(in crate::store::sqlite) async fn keep<'a>(
    connection: &mut SqliteConnection,
    letters: Vec<NewLetter<'a>>,
) -> sqlx::Result<Settled<'a>> {
    if letters.is_empty() {
        return Ok(Settled::default());
    }
    let twins = twins(connection, &letters).await?;
    let parents = parents(connection, &letters).await?;
    let settled = occurrence::place(letters, twins, parents);
    insert(connection, &settled.new).await?;
    let seen = SEEN_AGAIN.execute(connection, &settled.again, |query, (id, sighting)| {
        query
            .bind(*id)
            .bind(i64::from(sighting.earlier.count()))
            .bind(sighting.session)
    });
    seen.await?;
    Ok(settled)
}

/// Open letters that redeliveries may fall together with.
async fn twins(
    connection: &mut SqliteConnection,
    letters: &[NewLetter<'_>],
) -> sqlx::Result<Vec<Twin>> {
    let (wanted, most) = occurrence::twins_wanted(letters);
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let wanted = wanted.into_iter().map(|of| {
        let session = bulk::hex(of.session);
        Value::from(vec![bulk::hex(of.key), session, Value::from(of.below)])
    });
    let query = sqlx::query_as(TWINS)
        .bind(bulk::json(wanted))
        .bind(rows::limit(most));
    let found: Vec<TwinRow> = query.fetch_all(connection).await?;
    Ok(found.into_iter().map(row::twin).collect())
}

/// Letters that new ones are linked to.
async fn parents(
    connection: &mut SqliteConnection,
    letters: &[NewLetter<'_>],
) -> sqlx::Result<Vec<Parent>> {
    let wanted = occurrence::parents_wanted(letters);
    let (named, nameless): (Vec<_>, Vec<_>) = wanted.iter().partition(|of| of.message_id.is_some());
    let mut found: Vec<ParentRow> = Vec::new();
    if !named.is_empty() {
        let named = named.into_iter().map(|of: &ParentWanted<'_>| {
            json!([of.place, of.message_id, of.queue, of.kind, of.strict])
        });
        let query = sqlx::query_as(PARENTS).bind(bulk::json(named));
        found.extend::<Vec<ParentRow>>(query.fetch_all(&mut *connection).await?);
    }
    if !nameless.is_empty() {
        let nameless = nameless.into_iter();
        let nameless = nameless.map(|of| json!([of.place, bulk::hex(of.key)]));
        let query = sqlx::query_as(PARENTS_BY_CONTENT).bind(bulk::json(nameless));
        found.extend::<Vec<ParentRow>>(query.fetch_all(connection).await?);
    }
    Ok(found.into_iter().filter_map(row::parent).collect())
}

async fn insert(connection: &mut SqliteConnection, letters: &[NewLetter<'_>]) -> sqlx::Result<()> {
    INSERT
        .execute(connection, letters, |query, new| {
            let (letter, facts) = (new.letter, &new.facts);
            query
                .bind(letter.id)
                .bind(letter.at.as_micros())
                .bind(letter.queue.as_str())
                .bind(i32::from(letter.code.0))
                .bind(letter.reason.as_str())
                .bind(new.properties.as_str())
                .bind(&letter.message.body[..])
                .bind(facts.origin.exchange.as_deref())
                .bind(facts.origin.routing_key.as_deref())
                .bind(facts.origin.queue.as_deref())
                .bind(facts.origin.reason.as_deref())
                .bind(rows::signed(facts.origin.count))
                .bind(new.kind())
                .bind(new.message_id())
                .bind(facts.fingerprint.as_str())
                .bind(facts.saga.map(|saga| saga.0))
                .bind(facts.step.as_deref())
                .bind(i64::from(facts.replays))
                .bind(facts.came_back_from)
                .bind(new.body_bytes())
                .bind(facts.key)
                .bind(letter.sighting.session)
                .bind(i64::from(letter.sighting.earlier.count()))
        })
        .await
        .map(drop)
}
