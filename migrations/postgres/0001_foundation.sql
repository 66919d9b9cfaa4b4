-- Conventions. Points in time are bigint: microseconds since 1970-01-01T00:00:00Z, exactly as
-- the program has them; to read one: to_timestamp(at / 1e6). Bodies are bytea, never jsonb:
-- they must come back byte for byte, and parsing them here would cost a third of the throughput.
-- Text is compared by bytes (COLLATE "C"), as the program compares it.
-- There are no foreign keys: all rows of a saga are written in one transaction by one program,
-- and a look-up and lock a row would be the dearest part of it.

-- Which migration a program must know to use these tables; one row. A migration that only adds (a
-- table, a column with a default) leaves it alone, and programs of before go on. One after which
-- they would do harm ends with UPDATE compatibility SET oldest = its own number.
CREATE TABLE compatibility (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    oldest bigint NOT NULL
);

INSERT INTO compatibility (oldest) VALUES (1);

CREATE TABLE definitions (
    name text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    hash bytea NOT NULL,
    source text NOT NULL,
    stored_at bigint NOT NULL,
    PRIMARY KEY (name, version)
);

-- The key that signs correlation ids; one row.
CREATE TABLE secrets (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    bytes bytea NOT NULL
);

-- What each step changes (revision, head_hash, updated_at) is in no index, so that those updates
-- stay within the page (HOT). Status and wake_at change a few times in a saga's life.
CREATE TABLE sagas (
    id uuid PRIMARY KEY,
    name text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    key text COLLATE "C" NOT NULL,
    input_hash bytea NOT NULL,
    status text COLLATE "C" NOT NULL,
    reason text,
    revision bigint NOT NULL,
    head_hash bytea NOT NULL,
    started_at bigint NOT NULL,
    updated_at bigint NOT NULL,
    ended_at bigint,
    wake_at bigint,
    UNIQUE (name, key)
) WITH (
    -- Sagas that start together sit in one page and are changed together: without room for a
    -- second version of each, only a third of the updates stayed within the page, and the
    -- server's work for a transition doubled.
    fillfactor = 50,
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_cost_delay = 0
);

CREATE INDEX sagas_by_status ON sagas (status, id);
CREATE INDEX sagas_to_wake ON sagas (wake_at, id) WHERE wake_at IS NOT NULL;

CREATE TABLE journal (
    saga_id uuid NOT NULL,
    seq bigint NOT NULL,
    at bigint NOT NULL,
    hash bytea NOT NULL,
    body bytea NOT NULL,
    PRIMARY KEY (saga_id, seq)
);

-- The newest snapshot of a saga with a long journal.
CREATE TABLE snapshots (
    saga_id uuid PRIMARY KEY,
    revision bigint NOT NULL,
    body bytea NOT NULL
);

-- Rows live for milliseconds: vacuum by their number, whatever the table's size.
CREATE TABLE outbox (
    id uuid PRIMARY KEY,
    exchange text NOT NULL,
    routing_key text NOT NULL,
    properties text NOT NULL,
    body bytea NOT NULL,
    due_at bigint NOT NULL
) WITH (
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_cost_delay = 0
);

CREATE INDEX outbox_by_due_at ON outbox (due_at, id);

CREATE TABLE dead_letters (
    id uuid PRIMARY KEY,
    at bigint NOT NULL,
    queue text NOT NULL,
    code integer NOT NULL,
    reason text NOT NULL,
    properties text NOT NULL,
    body bytea NOT NULL
);

-- A participant's inbox: what was answered for a step of a saga.
CREATE TABLE barriers (
    participant text COLLATE "C" NOT NULL,
    saga_id uuid NOT NULL,
    step text COLLATE "C" NOT NULL,
    status smallint NOT NULL,
    body bytea NOT NULL,
    at bigint NOT NULL,
    PRIMARY KEY (participant, saga_id, step)
);

CREATE TABLE aggregates (
    kind text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    revision bigint NOT NULL,
    state bytea NOT NULL,
    PRIMARY KEY (kind, id)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);

CREATE TABLE aggregate_events (
    kind text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    seq bigint NOT NULL,
    at bigint NOT NULL,
    body bytea NOT NULL,
    PRIMARY KEY (kind, id, seq)
);

-- What has happened can't be changed. Retention, which removes what is old, says so first:
-- SET LOCAL backstitch.retention = 'on'.
CREATE FUNCTION backstitch_keep() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP <> 'UPDATE' AND current_setting('backstitch.retention', true) = 'on' THEN
        RETURN OLD;
    END IF;
    RAISE EXCEPTION 'rows of % are kept as they were written (% refused)', TG_TABLE_NAME, TG_OP
        USING ERRCODE = 'restrict_violation';
END
$$;

CREATE TRIGGER keep_rows BEFORE UPDATE OR DELETE ON journal
    FOR EACH ROW EXECUTE FUNCTION backstitch_keep();
CREATE TRIGGER keep_table BEFORE TRUNCATE ON journal
    FOR EACH STATEMENT EXECUTE FUNCTION backstitch_keep();
CREATE TRIGGER keep_rows BEFORE UPDATE OR DELETE ON dead_letters
    FOR EACH ROW EXECUTE FUNCTION backstitch_keep();
CREATE TRIGGER keep_table BEFORE TRUNCATE ON dead_letters
    FOR EACH STATEMENT EXECUTE FUNCTION backstitch_keep();
CREATE TRIGGER keep_rows BEFORE UPDATE OR DELETE ON aggregate_events
    FOR EACH ROW EXECUTE FUNCTION backstitch_keep();
CREATE TRIGGER keep_table BEFORE TRUNCATE ON aggregate_events
    FOR EACH STATEMENT EXECUTE FUNCTION backstitch_keep();
