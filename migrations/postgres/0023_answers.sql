-- Answers to requests that may come again: whoever sends one with the same `Idempotency-Key` is answered as before.
-- Kept for a day.
CREATE TABLE answers (
    -- SHA-256 of who sent it and the key; of what it said.
    id bytea PRIMARY KEY,
    fingerprint bytea NOT NULL,
    at bigint NOT NULL,
    -- None while it is being carried out.
    status integer,
    location text,
    kind text,
    body bytea
);

CREATE INDEX answers_by_time ON answers (at);
