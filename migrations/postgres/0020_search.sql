-- What people search sagas by.

ALTER TABLE sagas
    -- The saga that runs it.
    ADD COLUMN parent uuid,
    -- What it waits for, as in `stock[2]/reserve`. It changes with each step, so it is in no index.
    ADD COLUMN awaits text COLLATE "C",
    -- What stands in its way, or why it did not complete: the same `cause` for all with the same one.
    -- These change only for sagas in trouble; the others' updates stay within the page (HOT).
    ADD COLUMN cause text COLLATE "C",
    ADD COLUMN cause_step text COLLATE "C",
    ADD COLUMN cause_reason text,
    ADD COLUMN cause_since bigint;

-- What was suspended before has one cause a definition, until it is decided about again.
UPDATE sagas SET cause = '0000000000000000', cause_reason = reason, cause_since = updated_at
WHERE status = 'suspended';

-- Groups are read from this index alone.
CREATE INDEX sagas_by_cause ON sagas (status, name, cause, cause_since, id) WHERE cause IS NOT NULL;
CREATE INDEX sagas_of_cause ON sagas (cause, id) WHERE cause IS NOT NULL;
CREATE INDEX sagas_by_parent ON sagas (parent, id) WHERE parent IS NOT NULL;
CREATE INDEX sagas_by_start ON sagas (started_at, id);
CREATE INDEX sagas_by_end ON sagas (ended_at, id) WHERE ended_at IS NOT NULL;

-- What a definition's `labels` say of a saga. `value` begins with a letter for its type and sorts as
-- what it stands for does.
CREATE TABLE saga_labels (
    saga_id uuid NOT NULL,
    name text COLLATE "C" NOT NULL,
    value text COLLATE "C" NOT NULL,
    PRIMARY KEY (saga_id, name)
);

CREATE INDEX saga_labels_by_value ON saga_labels (name, value, saga_id);
