-- The key with which internal headers of stream entries are sealed. Made here, so that every process has the same without a
-- setting. Two random UUIDs hold 244 random bits; the core of Postgres has no other source of random bytes.
CREATE TABLE seal_key (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    key bytea NOT NULL
);
INSERT INTO seal_key (key)
VALUES (sha256(convert_to(gen_random_uuid()::text || gen_random_uuid()::text, 'UTF8')));

-- A sender chooses an entry's key, and an entry of a btree holds no more than 2.7 KB of it.
DROP INDEX scheduled_events_key;
CREATE INDEX scheduled_events_key ON scheduled_events USING hash (key);

-- A stage writes its dead letters itself from now on. Those that waited here until the failures stage had them are moved.
INSERT INTO failed_events (
    id, topic, stage, reason, key, event, error_type, error_message, attempts, first_failed_at, last_failed_at
)
SELECT
    id,
    coalesce(headers ->> 'dead-letter-topic', 'unknown'),
    coalesce(headers ->> 'dead-letter-group', 'unknown'),
    'given_up', key, event,
    coalesce(headers ->> 'dead-letter-error-type', 'unknown'),
    'kept by the upgrade, before the failures stage had read it',
    1, created_at, created_at
FROM scheduled_events
WHERE topic = 'dead-letters'
ON CONFLICT (id) DO NOTHING;
DELETE FROM scheduled_events WHERE topic = 'dead-letters';

-- Why a run that stands still cannot be sent on; NULL: it can.
ALTER TABLE reemissions ADD COLUMN set_aside text;

-- A time that a sender wrote, or NULL where Postgres cannot read it or Python could not: one such row must not fail a
-- statement over all of them.
CREATE FUNCTION readable_time(written text) RETURNS timestamptz LANGUAGE plpgsql STABLE AS $$
DECLARE
    moment timestamptz;
BEGIN
    moment := written::timestamptz;
    RETURN CASE WHEN moment BETWEEN '0001-01-02 00:00:00+00' AND '9999-12-30 00:00:00+00' THEN moment END;
EXCEPTION WHEN data_exception THEN
    RETURN NULL;
END $$;
