-- Every occurrence of a refused message is a letter of its own. All letters have the key of their
-- content now, not only drained ones; `ordinal` is not used any more.

-- The connection that the delivery came by, or, of a letter that was seen again, the last one.
ALTER TABLE dead_letters
    ADD COLUMN session BLOB NOT NULL DEFAULT x'00000000000000000000000000000000';
-- How often the broker had delivered it before, as far as it said so.
ALTER TABLE dead_letters ADD COLUMN deliveries INTEGER NOT NULL DEFAULT 0;
-- How often it was delivered again after it was stored.
ALTER TABLE dead_letters ADD COLUMN seen_again INTEGER NOT NULL DEFAULT 0;

DROP INDEX dead_letters_by_key;
DROP INDEX dead_letters_by_message;
CREATE INDEX dead_letters_by_content ON dead_letters (drain_key, handled_at, id)
    WHERE drain_key IS NOT NULL;
CREATE INDEX dead_letters_by_message ON dead_letters (message_id, handled_at, id)
    WHERE message_id IS NOT NULL;
