//! Which letters are new: looked up, placed, inserted, or counted on those that are there.

use super::statements::{INSERT, PARENTS, PARENTS_BY_CONTENT, SEEN_AGAIN, TWINS};
use crate::store::dead_letters::occurrence::{
    self, NewLetter, Parent, ParentWanted, Settled, Twin,
};
use crate::store::dead_letters::row::{self, ParentRow, TwinRow};
use crate::store::postgres::column;
use crate::store::postgres::connections::Session;
use crate::store::rows;

/// Keeps letters of any origin: inserts those that are new, counts those that are seen again.
pub(in crate::store::postgres) async fn keep<'a>(
    connection: &mut Session,
    letters: Vec<NewLetter<'a>>,
) -> sqlx::Result<Settled<'a>> {
    if letters.is_empty() {
        return Ok(Settled::default());
    }
    let twins = twins(connection, &letters).await?;
    let parents = parents(connection, &letters).await?;
    let settled = occurrence::place(letters, twins, parents);
    insert(connection, &settled.new).await?;
    if !settled.again.is_empty() {
        let again = &settled.again;
        sqlx::query(SEEN_AGAIN)
            .bind(column(again, |(id, _)| *id))
            .bind(column(again, |(_, of)| i64::from(of.earlier.count())))
            .bind(column(again, |(_, of)| of.session))
            .execute(connection)
            .await?;
    }
    Ok(settled)
}

/// Open letters that redeliveries may fall together with, locked.
async fn twins(connection: &mut Session, letters: &[NewLetter<'_>]) -> sqlx::Result<Vec<Twin>> {
    let (wanted, most) = occurrence::twins_wanted(letters);
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let query = sqlx::query_as(TWINS)
        .bind(column(&wanted, |of| of.key))
        .bind(column(&wanted, |of| of.session))
        .bind(column(&wanted, |of| of.below))
        .bind(rows::limit(most));
    let found: Vec<TwinRow> = query.fetch_all(connection).await?;
    Ok(found.into_iter().map(row::twin).collect())
}

/// Letters that new ones are linked to.
async fn parents(connection: &mut Session, letters: &[NewLetter<'_>]) -> sqlx::Result<Vec<Parent>> {
    let wanted = occurrence::parents_wanted(letters);
    let (named, nameless): (Vec<_>, Vec<_>) = wanted.iter().partition(|of| of.message_id.is_some());
    let place = |of: &&ParentWanted<'_>| i64::try_from(of.place).unwrap_or(i64::MAX);
    let mut found: Vec<ParentRow> = Vec::new();
    if !named.is_empty() {
        let query = sqlx::query_as(PARENTS)
            .bind(column(&named, place))
            .bind(column(&named, |of| of.message_id.map(rows::readable)))
            .bind(column(&named, |of| rows::readable(of.queue)))
            .bind(column(&named, |of| of.kind.map(rows::readable)))
            .bind(column(&named, |of| of.strict));
        found.extend::<Vec<ParentRow>>(query.fetch_all(&mut *connection).await?);
    }
    if !nameless.is_empty() {
        let query = sqlx::query_as(PARENTS_BY_CONTENT)
            .bind(column(&nameless, place))
            .bind(column(&nameless, |of| of.key));
        found.extend::<Vec<ParentRow>>(query.fetch_all(connection).await?);
    }
    Ok(found.into_iter().filter_map(row::parent).collect())
}

async fn insert(connection: &mut Session, letters: &[NewLetter<'_>]) -> sqlx::Result<()> {
    if letters.is_empty() {
        return Ok(());
    }
    let text = |text: Option<&str>| text.map(rows::readable);
    sqlx::query(INSERT)
        .bind(column(letters, |new| new.letter.id))
        .bind(column(letters, |new| new.letter.at.as_micros()))
        .bind(column(letters, |new| rows::readable(&new.letter.queue)))
        .bind(column(letters, |new| i32::from(new.letter.code.0)))
        .bind(column(letters, |new| rows::readable(&new.letter.reason)))
        .bind(column(letters, |new| new.properties.as_str()))
        .bind(column(letters, |new| &new.letter.message.body[..]))
        .bind(column(letters, |new| {
            text(new.facts.origin.exchange.as_deref())
        }))
        .bind(column(letters, |new| {
            text(new.facts.origin.routing_key.as_deref())
        }))
        .bind(column(letters, |new| {
            text(new.facts.origin.queue.as_deref())
        }))
        .bind(column(letters, |new| {
            text(new.facts.origin.reason.as_deref())
        }))
        .bind(column(letters, |new| rows::signed(new.facts.origin.count)))
        .bind(column(letters, |new| text(new.kind())))
        .bind(column(letters, |new| text(new.message_id())))
        .bind(column(letters, |new| new.facts.fingerprint.as_str()))
        .bind(column(letters, |new| new.facts.saga.map(|saga| saga.0)))
        .bind(column(letters, |new| text(new.facts.step.as_deref())))
        .bind(column(letters, |new| i64::from(new.facts.replays)))
        .bind(column(letters, |new| new.facts.came_back_from))
        .bind(column(letters, NewLetter::body_bytes))
        .bind(column(letters, |new| new.facts.key))
        .bind(column(letters, |new| new.letter.sighting.session))
        .bind(column(letters, |new| {
            i64::from(new.letter.sighting.earlier.count())
        }))
        .execute(connection)
        .await?;
    Ok(())
}
