-- Dead letters as data: what people search by has columns of its own, derived when a letter is
-- stored and never changed; what becomes of a letter is the few columns that may change.

ALTER TABLE dead_letters
    ADD COLUMN origin_exchange text,
    ADD COLUMN origin_routing_key text,
    ADD COLUMN origin_queue text COLLATE "C",
    ADD COLUMN death_reason text,
    ADD COLUMN death_count bigint NOT NULL DEFAULT 0,
    ADD COLUMN type text COLLATE "C",
    ADD COLUMN message_id text COLLATE "C",
    ADD COLUMN fingerprint text COLLATE "C" NOT NULL DEFAULT '',
    ADD COLUMN saga_id uuid,
    ADD COLUMN step text,
    -- The same for deliveries that can't be told apart, and the number that tells them apart.
    ADD COLUMN drain_key uuid,
    ADD COLUMN ordinal bigint NOT NULL DEFAULT 0,
    ADD COLUMN came_back_from uuid,
    ADD COLUMN body_bytes bigint NOT NULL DEFAULT 0,
    -- From here on: what may change.
    ADD COLUMN status text COLLATE "C" NOT NULL DEFAULT 'open',
    ADD COLUMN version bigint NOT NULL DEFAULT 0,
    ADD COLUMN replays bigint NOT NULL DEFAULT 0,
    ADD COLUMN edits bigint NOT NULL DEFAULT 0,
    -- Of the replay that is on its way.
    ADD COLUMN outbox_id uuid,
    ADD COLUMN handled_at bigint;

ALTER TABLE dead_letters ALTER COLUMN queue TYPE text COLLATE "C";

CREATE UNIQUE INDEX dead_letters_by_key ON dead_letters (drain_key, ordinal)
    WHERE drain_key IS NOT NULL;
CREATE INDEX dead_letters_by_time ON dead_letters (at, id);
CREATE INDEX dead_letters_by_status ON dead_letters (status, at, id);
-- Groups are read from this index alone.
CREATE INDEX dead_letters_by_cause ON dead_letters (fingerprint, at, id) INCLUDE (status);
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
    letter_id uuid NOT NULL,
    number bigint NOT NULL,
    at bigint NOT NULL,
    by text NOT NULL,
    why text NOT NULL,
    properties text NOT NULL,
    body bytea NOT NULL,
    PRIMARY KEY (letter_id, number)
);

-- What was done to letters: one chain of hashes.
CREATE TABLE letter_audit (
    seq bigint PRIMARY KEY,
    at bigint NOT NULL,
    action text NOT NULL,
    letter_id uuid,
    hash bytea NOT NULL,
    body bytea NOT NULL
);

CREATE INDEX letter_audit_by_letter ON letter_audit (letter_id, seq) WHERE letter_id IS NOT NULL;

-- The end of the chain; locked by whoever appends.
CREATE TABLE letter_audit_head (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    seq bigint NOT NULL,
    hash bytea NOT NULL
) WITH (fillfactor = 10);

INSERT INTO letter_audit_head (seq, hash) VALUES (0, decode(repeat('00', 32), 'hex'));

-- What was received is never changed. Named by column, so that a change of status needs no look
-- at the body.
DROP TRIGGER keep_rows ON dead_letters;
DROP TRIGGER keep_table ON dead_letters;

CREATE FUNCTION backstitch_keep_letter() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' AND current_setting('backstitch.retention', true) = 'on'
        AND OLD.status IN ('replayed', 'discarded') THEN
        RETURN OLD;
    END IF;
    RAISE EXCEPTION 'dead letters are kept as they were received (% refused)', TG_OP
        USING ERRCODE = 'restrict_violation';
END
$$;

CREATE TRIGGER keep_received BEFORE UPDATE OF
    id, at, queue, code, reason, properties, body, origin_exchange, origin_routing_key,
    origin_queue, death_reason, death_count, type, message_id, fingerprint, saga_id, step,
    drain_key, ordinal, came_back_from, body_bytes
    ON dead_letters FOR EACH ROW EXECUTE FUNCTION backstitch_keep_letter();
CREATE TRIGGER keep_unhandled BEFORE DELETE ON dead_letters
    FOR EACH ROW EXECUTE FUNCTION backstitch_keep_letter();
CREATE TRIGGER keep_table BEFORE TRUNCATE ON dead_letters
    FOR EACH STATEMENT EXECUTE FUNCTION backstitch_keep_letter();

CREATE TRIGGER keep_rows BEFORE UPDATE OR DELETE ON letter_edits
    FOR EACH ROW EXECUTE FUNCTION backstitch_keep();
CREATE TRIGGER keep_table BEFORE TRUNCATE ON letter_edits
    FOR EACH STATEMENT EXECUTE FUNCTION backstitch_keep();

CREATE FUNCTION backstitch_never() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'rows of % are never changed or removed (% refused)', TG_TABLE_NAME, TG_OP
        USING ERRCODE = 'restrict_violation';
END
$$;

CREATE TRIGGER keep_rows BEFORE UPDATE OR DELETE ON letter_audit
    FOR EACH ROW EXECUTE FUNCTION backstitch_never();
CREATE TRIGGER keep_table BEFORE TRUNCATE ON letter_audit
    FOR EACH STATEMENT EXECUTE FUNCTION backstitch_never();
