//! The statements, each with the index it relies on.

use std::sync::LazyLock;

use crate::store::dead_letters::row::letter_columns;
use crate::store::sqlite::bulk::Bulk;

/// A batch that is stored again after a lost answer brings the same rows, hence DO NOTHING.
pub(in crate::store::sqlite) static INSERT: LazyLock<Bulk> = LazyLock::new(|| {
    Bulk::new(
        "INSERT INTO dead_letters (
            id, at, queue, code, reason, properties, body, origin_exchange, origin_routing_key,
            origin_queue, death_reason, death_count, type, message_id, fingerprint, saga_id, step,
            replays, came_back_from, body_bytes, drain_key, session, deliveries
        )",
        23,
        "ON CONFLICT DO NOTHING",
    )
});

/// By primary key.
pub(in crate::store::sqlite) static UPDATE: LazyLock<Bulk> = LazyLock::new(|| {
    Bulk::new(
        "UPDATE dead_letters SET
            version = new.column2, status = new.column3, replays = new.column4,
            edits = new.column5, outbox_id = new.column6, handled_at = new.column7
        FROM (",
        7,
        ") AS new WHERE dead_letters.id = new.column1",
    )
});

pub(in crate::store::sqlite) static INSERT_EDITS: LazyLock<Bulk> = LazyLock::new(|| {
    Bulk::new(
        "INSERT INTO letter_edits (letter_id, number, at, by, why, properties, body)",
        7,
        "",
    )
});

pub(in crate::store::sqlite) static APPEND_AUDIT: LazyLock<Bulk> = LazyLock::new(|| {
    Bulk::new(
        "INSERT INTO letter_audit (seq, at, action, letter_id, hash, body)",
        6,
        "",
    )
});

/// By primary key.
pub(in crate::store::sqlite) static SEEN_AGAIN: LazyLock<Bulk> = LazyLock::new(|| {
    Bulk::new(
        "UPDATE dead_letters SET
            seen_again = seen_again + 1, deliveries = max(deliveries, new.column2),
            session = new.column3
        FROM (",
        3,
        ") AS new WHERE dead_letters.id = new.column1",
    )
});

/// By `dead_letters_by_content`; what is open was not handled.
pub(in crate::store::sqlite) const TWINS: &str = "
    SELECT dead_letters.id, drain_key, session, deliveries
    FROM json_each(?1) AS wanted JOIN dead_letters ON dead_letters.id IN (
        SELECT twin.id FROM dead_letters AS twin
        WHERE twin.drain_key = unhex(wanted.value ->> 0) AND twin.handled_at IS NULL
            AND twin.status = 'open' AND twin.session <> unhex(wanted.value ->> 1)
            AND twin.deliveries < (wanted.value ->> 2)
        ORDER BY twin.id LIMIT ?2
    )";

/// By `dead_letters_by_message`.
pub(in crate::store::sqlite) const PARENTS: &str = "
    SELECT wanted.value ->> 0, dead_letters.id, dead_letters.replays
    FROM json_each(?1) AS wanted JOIN dead_letters ON dead_letters.id = (
        SELECT parent.id FROM dead_letters AS parent
        WHERE parent.message_id = (wanted.value ->> 1) AND parent.message_id IS NOT NULL
            AND parent.handled_at IS NOT NULL AND (
                ((wanted.value ->> 4) = 0 AND parent.status <> 'discarded')
                OR (
                    (parent.queue = (wanted.value ->> 2)
                        OR parent.origin_queue = (wanted.value ->> 2))
                    AND parent.type IS (wanted.value ->> 3)
                )
            )
        ORDER BY parent.handled_at DESC, parent.id DESC LIMIT 1
    )";

/// By `dead_letters_by_content`.
pub(in crate::store::sqlite) const PARENTS_BY_CONTENT: &str = "
    SELECT wanted.value ->> 0, dead_letters.id, dead_letters.replays
    FROM json_each(?1) AS wanted JOIN dead_letters ON dead_letters.id = (
        SELECT parent.id FROM dead_letters AS parent
        WHERE parent.drain_key = unhex(wanted.value ->> 1) AND parent.drain_key IS NOT NULL
            AND parent.handled_at IS NOT NULL
        ORDER BY parent.handled_at DESC, parent.id DESC LIMIT 1
    )";

pub(in crate::store::sqlite) const AUDIT_HEAD: &str = "SELECT seq, hash FROM letter_audit_head";

pub(in crate::store::sqlite) const MOVE_AUDIT: &str =
    "UPDATE letter_audit_head SET seq = ?1, hash = ?2";

/// By primary key.
pub(in crate::store::sqlite) const CURRENT: &str = "
    SELECT id, version, status, replays, edits, outbox_id, handled_at FROM dead_letters
    WHERE id IN (SELECT unhex(value) FROM json_each(?1))";

/// By `dead_letters_by_status`.
pub(in crate::store::sqlite) const SETTLE: &str = "
    UPDATE dead_letters SET status = 'replayed', version = version + 1, outbox_id = NULL
    WHERE status = 'replaying' AND NOT EXISTS (
        SELECT 1 FROM outbox WHERE outbox.id = dead_letters.outbox_id
    )";

/// By `dead_letters_by_status`.
pub(in crate::store::sqlite) const ON_THE_WAY: &str =
    "SELECT count(*) FROM dead_letters WHERE status = 'replaying'";

/// By `dead_letters_by_parent`.
pub(in crate::store::sqlite) const CAME_BACK: &str = "
    SELECT DISTINCT came_back_from FROM dead_letters
    WHERE came_back_from IN (SELECT unhex(value) FROM json_each(?1))
        AND came_back_from IS NOT NULL";

/// By `letter_audit_by_letter`.
pub(in crate::store::sqlite) const IMPORTED: &str = "
    SELECT DISTINCT letter_id FROM letter_audit
    WHERE letter_id IN (SELECT unhex(value) FROM json_each(?1))
        AND letter_id IS NOT NULL AND action = ?2";

/// By `dead_letters_handled`.
pub(in crate::store::sqlite) const HANDLED: &str = "
    SELECT id FROM dead_letters
    WHERE handled_at < ?1 AND status IN ('replayed', 'discarded')
    ORDER BY handled_at, id LIMIT ?2";

/// In the order in which they must run: see the triggers.
pub(in crate::store::sqlite) const PURGE: [&str; 4] = [
    "INSERT OR IGNORE INTO retention (only_row) SELECT 1 WHERE ?1 IS NOT NULL",
    "DELETE FROM letter_edits WHERE letter_id IN (SELECT unhex(value) FROM json_each(?1))",
    "DELETE FROM dead_letters WHERE id IN (SELECT unhex(value) FROM json_each(?1))",
    "DELETE FROM retention WHERE ?1 IS NOT NULL",
];

/// By primary key, one range.
pub(in crate::store::sqlite) const EDITS: &str = "
    SELECT number, at, by, why, properties, body FROM letter_edits
    WHERE letter_id = ?1 ORDER BY number";

/// From `dead_letters_by_queue` alone.
pub(in crate::store::sqlite) const COUNTS: &str = "
    SELECT queue, status, count(*) FROM dead_letters GROUP BY queue, status
    ORDER BY queue, status";

/// By primary key.
pub(in crate::store::sqlite) const AUDIT: &str = "
    SELECT seq, at, action, letter_id, hash, body FROM letter_audit
    WHERE seq > ?1 ORDER BY seq LIMIT ?2";

/// By `letter_audit_by_letter`.
pub(in crate::store::sqlite) const AUDIT_OF_LETTER: &str = "
    SELECT seq, at, action, letter_id, hash, body FROM letter_audit
    WHERE letter_id = ?3 AND seq > ?1 ORDER BY seq LIMIT ?2";

/// By primary key.
pub(in crate::store::sqlite) const LOAD: &str = concat!(
    "SELECT ",
    letter_columns!(),
    ", dead_letters.properties, dead_letters.body, letter_edits.properties AS edited_properties,
        letter_edits.body AS edited_body
    FROM dead_letters
    LEFT JOIN letter_edits ON letter_edits.letter_id = dead_letters.id
        AND letter_edits.number = dead_letters.edits
    WHERE dead_letters.id IN (SELECT unhex(value) FROM json_each(?1))"
);
