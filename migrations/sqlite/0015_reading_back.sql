-- What happened can be read back: events get a position among those of all aggregates (there is one
-- writer, so it is the order of the commits), where they come from, and since when they are true if
-- that is not when they were recorded. The table is made anew, for the position is its row id.
CREATE TABLE aggregate_events_placed (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL,
    id TEXT NOT NULL,
    seq INTEGER NOT NULL,
    at INTEGER NOT NULL,
    body BLOB NOT NULL,
    valid_from INTEGER,
    saga_id BLOB,
    saga_key TEXT,
    message_id TEXT,
    correlation TEXT,
    UNIQUE (kind, id, seq)
) STRICT;

INSERT INTO aggregate_events_placed (kind, id, seq, at, body)
SELECT kind, id, seq, at, body FROM aggregate_events ORDER BY at, kind, id, seq;

DROP TABLE aggregate_events;
ALTER TABLE aggregate_events_placed RENAME TO aggregate_events;

CREATE INDEX aggregate_events_by_correlation ON aggregate_events (correlation, position)
    WHERE correlation IS NOT NULL;

CREATE TRIGGER aggregate_events_update BEFORE UPDATE ON aggregate_events
BEGIN SELECT raise(ABORT, 'rows of aggregate_events are kept as they were written'); END;

CREATE TRIGGER aggregate_events_delete BEFORE DELETE ON aggregate_events
WHEN NOT EXISTS (SELECT only_row FROM retention)
BEGIN SELECT raise(ABORT, 'rows of aggregate_events are kept as they were written'); END;

-- States of aggregates with many events, now and then, so that an old one is not replayed from the
-- first event on.
CREATE TABLE aggregate_snapshots (
    kind TEXT NOT NULL,
    id TEXT NOT NULL,
    revision INTEGER NOT NULL,
    at INTEGER NOT NULL,
    state BLOB NOT NULL,
    PRIMARY KEY (kind, id, revision)
) STRICT;

-- How far a projection has come. One of its generations serves readers; another may be built beside it.
CREATE TABLE projections (
    name TEXT NOT NULL,
    generation INTEGER NOT NULL,
    version INTEGER NOT NULL,
    position INTEGER NOT NULL,
    serving INTEGER NOT NULL,
    PRIMARY KEY (name, generation)
) STRICT;

CREATE TABLE projection_documents (
    name TEXT NOT NULL,
    generation INTEGER NOT NULL,
    key TEXT NOT NULL,
    position INTEGER NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (name, generation, key)
) STRICT;

-- Documents that were made on demand.
CREATE TABLE projection_cache (
    name TEXT NOT NULL,
    key TEXT NOT NULL,
    version INTEGER NOT NULL,
    position INTEGER NOT NULL,
    body BLOB NOT NULL,
    expires_at INTEGER NOT NULL,
    PRIMARY KEY (name, key)
) STRICT;

CREATE INDEX projection_cache_by_expiry ON projection_cache (expires_at);
