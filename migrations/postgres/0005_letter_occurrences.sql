-- Every occurrence of a refused message is a letter of its own. All letters have the key of their
-- content now, not only drained ones; `ordinal` is not used any more.

ALTER TABLE dead_letters
    -- The connection that the delivery came by, or, of a letter that was seen again, the last one.
    ADD COLUMN session uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',
    -- How often the broker had delivered it before, as far as it said so.
    ADD COLUMN deliveries bigint NOT NULL DEFAULT 0,
    -- How often it was delivered again after it was stored.
    ADD COLUMN seen_again bigint NOT NULL DEFAULT 0;

DROP INDEX dead_letters_by_key;
DROP INDEX dead_letters_by_message;
CREATE INDEX dead_letters_by_content ON dead_letters (drain_key, handled_at, id)
    WHERE drain_key IS NOT NULL;
CREATE INDEX dead_letters_by_message ON dead_letters (message_id, handled_at, id)
    WHERE message_id IS NOT NULL;
