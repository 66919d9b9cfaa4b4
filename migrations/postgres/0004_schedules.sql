-- How far each schedule has come: all its ticks up to this one are settled. A position means
-- nothing under another rhythm, so each that a definition has had has a row of its own.
-- `absent_since`: nodes run without it. `moved_*`: who has set its position last, if a person did.
CREATE TABLE schedules (
    name text COLLATE "C" NOT NULL,
    rhythm text COLLATE "C" NOT NULL,
    settled bigint NOT NULL,
    absent_since bigint,
    moved_by text,
    moved_why text,
    moved_at bigint,
    PRIMARY KEY (name, rhythm)
);

-- A saga that has ended may give up its key to one that replaces it. `superseded` changes once,
-- after the end; other updates leave it, and so the index, alone.
ALTER TABLE sagas ADD COLUMN superseded boolean NOT NULL DEFAULT false;
ALTER TABLE sagas DROP CONSTRAINT sagas_name_key_key;
CREATE UNIQUE INDEX sagas_by_key ON sagas (name, key) WHERE NOT superseded;
