-- Actions on many sagas; see the migration of the same number for PostgreSQL.
CREATE TABLE jobs (
    id BLOB NOT NULL PRIMARY KEY,
    made_at INTEGER NOT NULL,
    by TEXT NOT NULL,
    why TEXT NOT NULL,
    filter TEXT NOT NULL,
    action TEXT NOT NULL,
    per_minute INTEGER,
    canary INTEGER NOT NULL,
    total INTEGER NOT NULL,
    total_or_more INTEGER NOT NULL,
    state TEXT NOT NULL,
    note TEXT,
    cursor BLOB,
    done INTEGER NOT NULL DEFAULT 0,
    refused INTEGER NOT NULL DEFAULT 0,
    canary_seen INTEGER NOT NULL DEFAULT 0,
    version INTEGER NOT NULL DEFAULT 0,
    held_until INTEGER NOT NULL DEFAULT 0,
    updated_at INTEGER NOT NULL
) STRICT;

CREATE INDEX jobs_running ON jobs (held_until, id) WHERE state = 'running';

CREATE TABLE job_results (
    job_id BLOB NOT NULL,
    saga_id BLOB NOT NULL,
    refused INTEGER NOT NULL,
    reason TEXT,
    at INTEGER NOT NULL,
    PRIMARY KEY (job_id, saga_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX job_refusals ON job_results (job_id, saga_id) WHERE refused;
