-- Who may use the HTTP API: SHA-256 of each bearer token, never a token.
CREATE TABLE tokens (
    id uuid PRIMARY KEY,
    name text NOT NULL,
    hash bytea NOT NULL UNIQUE,
    rights text NOT NULL,
    made_at bigint NOT NULL,
    expires_at bigint,
    revoked_at bigint,
    used_at bigint
);
