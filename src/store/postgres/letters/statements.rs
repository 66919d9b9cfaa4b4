//! The statements, each with the index it relies on.

use crate::store::dead_letters::row::letter_columns;

/// A batch that is stored again after a lost answer brings the same rows, hence DO NOTHING.
pub(in crate::store::postgres) const INSERT: &str = "
    INSERT INTO dead_letters (
        id, at, queue, code, reason, properties, body, origin_exchange, origin_routing_key,
        origin_queue, death_reason, death_count, type, message_id, fingerprint, saga_id, step,
        replays, came_back_from, body_bytes, drain_key, session, deliveries
    )
    SELECT
        id, at, queue, code, reason, properties, body, origin_exchange, origin_routing_key,
        origin_queue, death_reason, death_count, type, message_id, fingerprint, saga_id, step,
        replays, came_back_from, body_bytes, drain_key, session, deliveries
    FROM unnest(
        $1::uuid[], $2::bigint[], $3::text[], $4::integer[], $5::text[], $6::text[], $7::bytea[],
        $8::text[], $9::text[], $10::text[], $11::text[], $12::bigint[], $13::text[], $14::text[],
        $15::text[], $16::uuid[], $17::text[], $18::bigint[], $19::uuid[], $20::bigint[],
        $21::uuid[], $22::uuid[], $23::bigint[]
    ) AS new (
        id, at, queue, code, reason, properties, body, origin_exchange, origin_routing_key,
        origin_queue, death_reason, death_count, type, message_id, fingerprint, saga_id, step,
        replays, came_back_from, body_bytes, drain_key, session, deliveries
    )
    ON CONFLICT DO NOTHING";

/// By `dead_letters_by_content`; what is open was not handled.
pub(in crate::store::postgres) const TWINS: &str = "
    SELECT twin.id, twin.drain_key, twin.session, twin.deliveries
    FROM unnest($1::uuid[], $2::uuid[], $3::bigint[]) AS wanted (key, session, below)
    CROSS JOIN LATERAL (
        SELECT id, drain_key, session, deliveries FROM dead_letters
        WHERE drain_key = wanted.key AND handled_at IS NULL AND status = 'open'
            AND session <> wanted.session AND deliveries < wanted.below
        ORDER BY id LIMIT $4 FOR UPDATE
    ) AS twin";

/// By primary key. These are locked.
pub(in crate::store::postgres) const SEEN_AGAIN: &str = "
    UPDATE dead_letters SET
        seen_again = seen_again + 1, deliveries = greatest(dead_letters.deliveries, new.deliveries),
        session = new.session
    FROM unnest($1::uuid[], $2::bigint[], $3::uuid[]) AS new (id, deliveries, session)
    WHERE dead_letters.id = new.id";

/// By `dead_letters_by_message`.
pub(in crate::store::postgres) const PARENTS: &str = "
    SELECT wanted.place, parent.id, parent.replays
    FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::boolean[])
        AS wanted (place, message_id, queue, type, strict)
    CROSS JOIN LATERAL (
        SELECT id, replays FROM dead_letters
        WHERE message_id = wanted.message_id AND handled_at IS NOT NULL AND (
            (NOT wanted.strict AND status <> 'discarded')
            OR (
                (queue = wanted.queue OR origin_queue = wanted.queue)
                AND type IS NOT DISTINCT FROM wanted.type
            )
        )
        ORDER BY handled_at DESC, id DESC LIMIT 1
    ) AS parent";

/// By `dead_letters_by_content`.
pub(in crate::store::postgres) const PARENTS_BY_CONTENT: &str = "
    SELECT wanted.place, parent.id, parent.replays
    FROM unnest($1::bigint[], $2::uuid[]) AS wanted (place, key)
    CROSS JOIN LATERAL (
        SELECT id, replays FROM dead_letters
        WHERE drain_key = wanted.key AND handled_at IS NOT NULL
        ORDER BY handled_at DESC, id DESC LIMIT 1
    ) AS parent";

/// One row; whoever has it may append.
pub(in crate::store::postgres) const LOCK_AUDIT: &str =
    "SELECT seq, hash FROM letter_audit_head FOR UPDATE";

pub(in crate::store::postgres) const AUDIT_HEAD: &str = "SELECT seq, hash FROM letter_audit_head";

pub(in crate::store::postgres) const APPEND_AUDIT: &str = "
    INSERT INTO letter_audit (seq, at, action, letter_id, hash, body)
    SELECT seq, at, action, letter_id, hash, body
    FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::uuid[], $5::bytea[], $6::bytea[])
        AS new (seq, at, action, letter_id, hash, body)";

pub(in crate::store::postgres) const MOVE_AUDIT: &str =
    "UPDATE letter_audit_head SET seq = $1, hash = $2";

/// By primary key.
pub(in crate::store::postgres) const LOCK: &str = "
    SELECT id, version, status, replays, edits, outbox_id, handled_at FROM dead_letters
    WHERE id = ANY ($1) ORDER BY id FOR UPDATE";

/// By primary key.
pub(in crate::store::postgres) const UPDATE: &str = "
    UPDATE dead_letters SET
        version = new.version, status = new.status, replays = new.replays, edits = new.edits,
        outbox_id = new.outbox_id, handled_at = new.handled_at
    FROM unnest(
        $1::uuid[], $2::bigint[], $3::text[], $4::bigint[], $5::bigint[], $6::uuid[], $7::bigint[]
    ) AS new (id, version, status, replays, edits, outbox_id, handled_at)
    WHERE dead_letters.id = new.id";

pub(in crate::store::postgres) const INSERT_EDITS: &str = "
    INSERT INTO letter_edits (letter_id, number, at, by, why, properties, body)
    SELECT letter_id, number, $3, $4, $5, properties, body
    FROM unnest($1::uuid[], $2::bigint[], $6::text[], $7::bytea[])
        AS new (letter_id, number, properties, body)";

/// By `dead_letters_by_status`.
pub(in crate::store::postgres) const SETTLE: &str = "
    UPDATE dead_letters SET status = 'replayed', version = version + 1, outbox_id = NULL
    WHERE status = 'replaying' AND NOT EXISTS (
        SELECT 1 FROM outbox WHERE outbox.id = dead_letters.outbox_id
    )";

/// By `dead_letters_by_status`.
pub(in crate::store::postgres) const ON_THE_WAY: &str =
    "SELECT count(*) FROM dead_letters WHERE status = 'replaying'";

/// By `dead_letters_by_parent`.
pub(in crate::store::postgres) const CAME_BACK: &str = "
    SELECT DISTINCT came_back_from FROM dead_letters WHERE came_back_from = ANY ($1)";

/// By `letter_audit_by_letter`.
pub(in crate::store::postgres) const IMPORTED: &str = "
    SELECT DISTINCT letter_id FROM letter_audit WHERE letter_id = ANY ($1) AND action = $2";

/// By `dead_letters_handled`.
pub(in crate::store::postgres) const HANDLED: &str = "
    SELECT id FROM dead_letters
    WHERE handled_at < $1 AND status IN ('replayed', 'discarded')
    ORDER BY handled_at, id LIMIT $2 FOR UPDATE";

/// By primary key, one range.
pub(in crate::store::postgres) const EDITS: &str = "
    SELECT number, at, by, why, properties, body FROM letter_edits
    WHERE letter_id = $1 ORDER BY number";

/// Index only, all of it; the tables' sizes don't matter.
pub(in crate::store::postgres) const COUNTS: &str = "
    SELECT queue, status, count(*) FROM dead_letters GROUP BY queue, status
    ORDER BY queue, status";

/// By primary key.
pub(in crate::store::postgres) const AUDIT: &str = "
    SELECT seq, at, action, letter_id, hash, body FROM letter_audit
    WHERE seq > $1 ORDER BY seq LIMIT $2";

/// By `letter_audit_by_letter`.
pub(in crate::store::postgres) const AUDIT_OF_LETTER: &str = "
    SELECT seq, at, action, letter_id, hash, body FROM letter_audit
    WHERE letter_id = $3 AND seq > $1 ORDER BY seq LIMIT $2";

/// By primary key.
pub(in crate::store::postgres) const LOAD: &str = concat!(
    "SELECT ",
    letter_columns!(),
    ", dead_letters.properties, dead_letters.body, letter_edits.properties AS edited_properties,
        letter_edits.body AS edited_body
    FROM dead_letters
    LEFT JOIN letter_edits ON letter_edits.letter_id = dead_letters.id
        AND letter_edits.number = dead_letters.edits
    WHERE dead_letters.id = ANY ($1)"
);
