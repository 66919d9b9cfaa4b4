-- Who may use the HTTP API: SHA-256 of each bearer token, never a token.
CREATE TABLE tokens (
    id BLOB NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    hash BLOB NOT NULL UNIQUE,
    rights TEXT NOT NULL,
    made_at INTEGER NOT NULL,
    expires_at INTEGER,
    revoked_at INTEGER,
    used_at INTEGER
) STRICT;
