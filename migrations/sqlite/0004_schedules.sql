-- How far each schedule has come: all its ticks up to this one are settled. A position means
-- nothing under another rhythm, so each that a definition has had has a row of its own.
-- `absent_since`: nodes run without it. `moved_*`: who has set its position last, if a person did.
CREATE TABLE schedules (
    name TEXT NOT NULL,
    rhythm TEXT NOT NULL,
    settled INTEGER NOT NULL,
    absent_since INTEGER,
    moved_by TEXT,
    moved_why TEXT,
    moved_at INTEGER,
    PRIMARY KEY (name, rhythm)
) STRICT;

-- A saga that has ended may give up its key to one that replaces it. The table is written anew,
-- because SQLite can't drop a constraint.
CREATE TABLE sagas_anew (
    id BLOB NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    version INTEGER NOT NULL,
    key TEXT NOT NULL,
    input_hash BLOB NOT NULL,
    status TEXT NOT NULL,
    reason TEXT,
    revision INTEGER NOT NULL,
    head_hash BLOB NOT NULL,
    started_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    ended_at INTEGER,
    wake_at INTEGER,
    superseded INTEGER NOT NULL DEFAULT 0
) STRICT;

INSERT INTO sagas_anew (
    id, name, version, key, input_hash, status, reason, revision, head_hash, started_at,
    updated_at, ended_at, wake_at
)
SELECT
    id, name, version, key, input_hash, status, reason, revision, head_hash, started_at,
    updated_at, ended_at, wake_at
FROM sagas;

DROP TABLE sagas;
ALTER TABLE sagas_anew RENAME TO sagas;

CREATE UNIQUE INDEX sagas_by_key ON sagas (name, key) WHERE NOT superseded;
CREATE INDEX sagas_by_status ON sagas (status, id);
CREATE INDEX sagas_to_wake ON sagas (wake_at, id) WHERE wake_at IS NOT NULL;
