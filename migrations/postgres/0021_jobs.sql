-- Actions on many sagas. A node works on a job while it holds it (`held_until`); each change counts
-- `version` up, so what two nodes do at once is done by one.
CREATE TABLE jobs (
    id uuid PRIMARY KEY,
    made_at bigint NOT NULL,
    by text NOT NULL,
    why text NOT NULL,
    filter text NOT NULL,
    action text NOT NULL,
    per_minute bigint,
    canary bigint NOT NULL,
    total bigint NOT NULL,
    total_or_more boolean NOT NULL,
    -- From here on: what changes.
    state text COLLATE "C" NOT NULL,
    note text,
    -- The last saga that is done with; sagas come in order of id.
    cursor uuid,
    done bigint NOT NULL DEFAULT 0,
    refused bigint NOT NULL DEFAULT 0,
    canary_seen boolean NOT NULL DEFAULT false,
    version bigint NOT NULL DEFAULT 0,
    held_until bigint NOT NULL DEFAULT 0,
    updated_at bigint NOT NULL
);

CREATE INDEX jobs_running ON jobs (held_until, id) WHERE state = 'running';

-- What became of each saga.
CREATE TABLE job_results (
    job_id uuid NOT NULL,
    saga_id uuid NOT NULL,
    refused boolean NOT NULL,
    reason text,
    at bigint NOT NULL,
    PRIMARY KEY (job_id, saga_id)
);

CREATE INDEX job_refusals ON job_results (job_id, saga_id) WHERE refused;
