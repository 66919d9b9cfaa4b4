-- See the migration of the same number for PostgreSQL.
CREATE TABLE answers (
    id BLOB NOT NULL PRIMARY KEY,
    fingerprint BLOB NOT NULL,
    at INTEGER NOT NULL,
    status INTEGER,
    location TEXT,
    kind TEXT,
    body BLOB
) STRICT;

CREATE INDEX answers_by_time ON answers (at);
