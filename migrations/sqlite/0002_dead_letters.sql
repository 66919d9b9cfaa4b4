-- Dead letters as data: what people search by has columns of its own, derived when a letter is
-- stored and never changed; what becomes of a letter is the few columns that may change.

ALTER TABLE dead_letters ADD COLUMN origin_exchange TEXT;
ALTER TABLE dead_letters ADD COLUMN origin_routing_key TEXT;
ALTER TABLE dead_letters ADD COLUMN origin_queue TEXT;
ALTER TABLE dead_letters ADD COLUMN death_reason TEXT;
ALTER TABLE dead_letters ADD COLUMN death_count INTEGER NOT NULL DEFAULT 0;
ALTER TABLE dead_letters ADD COLUMN type TEXT;
ALTER TABLE dead_letters ADD COLUMN message_id TEXT;
ALTER TABLE dead_letters ADD COLUMN fingerprint TEXT NOT NULL DEFAULT '';
ALTER TABLE dead_letters ADD COLUMN saga_id BLOB;
ALTER TABLE dead_letters ADD COLUMN step TEXT;
-- The same for deliveries that can't be told apart, and the number that tells them apart.
ALTER TABLE dead_letters ADD COLUMN drain_key BLOB;
ALTER TABLE dead_letters ADD COLUMN ordinal INTEGER NOT NULL DEFAULT 0;
ALTER TABLE dead_letters ADD COLUMN came_back_from BLOB;
ALTER TABLE dead_letters ADD COLUMN body_bytes INTEGER NOT NULL DEFAULT 0;
-- From here on: what may change.
ALTER TABLE dead_letters ADD COLUMN status TEXT NOT NULL DEFAULT 'open';
ALTER TABLE dead_letters ADD COLUMN version INTEGER NOT NULL DEFAULT 0;
ALTER TABLE dead_letters ADD COLUMN replays INTEGER NOT NULL DEFAULT 0;
ALTER TABLE dead_letters ADD COLUMN edits INTEGER NOT NULL DEFAULT 0;
-- Of the replay that is on its way.
ALTER TABLE dead_letters ADD COLUMN outbox_id BLOB;
ALTER TABLE dead_letters ADD COLUMN handled_at INTEGER;

CREATE UNIQUE INDEX dead_letters_by_key ON dead_letters (drain_key, ordinal)
    WHERE drain_key IS NOT NULL;
CREATE INDEX dead_letters_by_time ON dead_letters (at, id);
CREATE INDEX dead_letters_by_status ON dead_letters (status, at, id);
-- Groups are read from this index alone.
CREATE INDEX dead_letters_by_cause ON dead_letters (fingerprint, at, id, status);
-- So are the numbers by queue.
CREATE INDEX dead_letters_by_queue ON dead_letters (queue, status, at, id);
CREATE INDEX dead_letters_by_origin ON dead_letters (origin_queue, at, id)
    WHERE origin_queue IS NOT NULL;
CREATE INDEX dead_letters_by_message ON dead_letters (message_id) WHERE message_id IS NOT NULL;
CREATE INDEX dead_letters_by_saga ON dead_letters (saga_id) WHERE saga_id IS NOT NULL;
CREATE INDEX dead_letters_by_parent ON dead_letters (came_back_from)
    WHERE came_back_from IS NOT NULL;
CREATE INDEX dead_letters_handled ON dead_letters (handled_at, id) WHERE handled_at IS NOT NULL;

-- The message as edited; the letter itself stays as it was received.
CREATE TABLE letter_edits (
    letter_id BLOB NOT NULL,
    number INTEGER NOT NULL,
    at INTEGER NOT NULL,
    by TEXT NOT NULL,
    why TEXT NOT NULL,
    properties TEXT NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (letter_id, number)
) STRICT;

-- What was done to letters: one chain of hashes.
CREATE TABLE letter_audit (
    seq INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    action TEXT NOT NULL,
    letter_id BLOB,
    hash BLOB NOT NULL,
    body BLOB NOT NULL
) STRICT;

CREATE INDEX letter_audit_by_letter ON letter_audit (letter_id, seq) WHERE letter_id IS NOT NULL;

-- The end of the chain.
CREATE TABLE letter_audit_head (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    seq INTEGER NOT NULL,
    hash BLOB NOT NULL
) STRICT;

INSERT INTO letter_audit_head (only_row, seq, hash) VALUES (1, 0, zeroblob(32));

-- What was received is never changed.
DROP TRIGGER dead_letters_update;
DROP TRIGGER dead_letters_delete;

CREATE TRIGGER dead_letters_update BEFORE UPDATE OF
    id, at, queue, code, reason, properties, body, origin_exchange, origin_routing_key,
    origin_queue, death_reason, death_count, type, message_id, fingerprint, saga_id, step,
    drain_key, ordinal, came_back_from, body_bytes
    ON dead_letters
BEGIN SELECT raise(ABORT, 'dead letters are kept as they were received'); END;

CREATE TRIGGER dead_letters_delete BEFORE DELETE ON dead_letters
WHEN NOT EXISTS (SELECT only_row FROM retention) OR OLD.status NOT IN ('replayed', 'discarded')
BEGIN SELECT raise(ABORT, 'dead letters are kept until they are handled'); END;

CREATE TRIGGER letter_edits_update BEFORE UPDATE ON letter_edits
BEGIN SELECT raise(ABORT, 'rows of letter_edits are kept as they were written'); END;

CREATE TRIGGER letter_edits_delete BEFORE DELETE ON letter_edits
WHEN NOT EXISTS (SELECT only_row FROM retention)
BEGIN SELECT raise(ABORT, 'rows of letter_edits are kept as they were written'); END;

CREATE TRIGGER letter_audit_update BEFORE UPDATE ON letter_audit
BEGIN SELECT raise(ABORT, 'rows of letter_audit are never changed'); END;

CREATE TRIGGER letter_audit_delete BEFORE DELETE ON letter_audit
BEGIN SELECT raise(ABORT, 'rows of letter_audit are never removed'); END;
