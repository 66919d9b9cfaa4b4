-- What people search sagas by; see the migration of the same number for PostgreSQL.

ALTER TABLE sagas ADD COLUMN parent BLOB;
ALTER TABLE sagas ADD COLUMN awaits TEXT;
ALTER TABLE sagas ADD COLUMN cause TEXT;
ALTER TABLE sagas ADD COLUMN cause_step TEXT;
ALTER TABLE sagas ADD COLUMN cause_reason TEXT;
ALTER TABLE sagas ADD COLUMN cause_since INTEGER;

UPDATE sagas SET cause = '0000000000000000', cause_reason = reason, cause_since = updated_at
WHERE status = 'suspended';

CREATE INDEX sagas_by_cause ON sagas (status, name, cause, cause_since, id) WHERE cause IS NOT NULL;
CREATE INDEX sagas_of_cause ON sagas (cause, id) WHERE cause IS NOT NULL;
CREATE INDEX sagas_by_parent ON sagas (parent, id) WHERE parent IS NOT NULL;
CREATE INDEX sagas_by_start ON sagas (started_at, id);
CREATE INDEX sagas_by_end ON sagas (ended_at, id) WHERE ended_at IS NOT NULL;

CREATE TABLE saga_labels (
    saga_id BLOB NOT NULL,
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (saga_id, name)
) STRICT, WITHOUT ROWID;

CREATE INDEX saga_labels_by_value ON saga_labels (name, value, saga_id);
