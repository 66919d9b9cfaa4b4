-- How far each schedule has come: all its ticks up to this one are settled.
CREATE TABLE schedules (
    name text COLLATE "C" PRIMARY KEY,
    settled bigint NOT NULL
);

-- A saga that has ended may give up its key to one that replaces it. `superseded` changes once,
-- after the end; other updates leave it, and so the index, alone.
ALTER TABLE sagas ADD COLUMN superseded boolean NOT NULL DEFAULT false;
ALTER TABLE sagas DROP CONSTRAINT sagas_name_key_key;
CREATE UNIQUE INDEX sagas_by_key ON sagas (name, key) WHERE NOT superseded;
