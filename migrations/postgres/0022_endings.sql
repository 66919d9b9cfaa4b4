-- How many sagas ended how, minute by minute, is read from this index alone. Neither of the two changes after a
-- saga's end, and a status that changes is in another index already.
DROP INDEX sagas_by_end;
CREATE INDEX sagas_by_ending ON sagas (ended_at, id, status) WHERE ended_at IS NOT NULL;
