-- name: keep(id, topic, key, event, headers, due_at, reason, now)!
-- Keeps a record until it is due. The ID follows from the content, so a repeat changes nothing. `created_at` is by the clock
-- that `due_at` is by: see `take_due`.
INSERT INTO scheduled_events (id, topic, key, event, headers, due_at, reason, created_at)
VALUES (:id, :topic, :key, :event, :headers, :due_at, :reason, :now)
ON CONFLICT (id) DO NOTHING;

-- name: take_due(now, limit)
-- Removes and returns due records, oldest first. SKIP LOCKED lets several takers work side by side. A record that was kept
-- in the future has its time from a clock that was set back since, and would wait as long as the clock was wrong. It is
-- due at once: a retry may come early, and a request that was to wait until some moment is kept again by whoever reads it.
-- The second is for what was kept while `:now` was read.
WITH due AS (
    SELECT id FROM scheduled_events
    WHERE due_at <= :now
    ORDER BY due_at
    LIMIT :limit
    FOR UPDATE SKIP LOCKED
), ahead AS (
    SELECT id FROM scheduled_events
    WHERE created_at > :now::timestamptz + interval '1 second'
    LIMIT :limit
    FOR UPDATE SKIP LOCKED
)
DELETE FROM scheduled_events
WHERE id IN (SELECT id FROM due UNION SELECT id FROM ahead)
RETURNING topic, key, event, headers;

-- name: hasten_keys(keys, topic, now)!
-- Makes due what a topic is to get later of some keys. Read by the index on the key.
UPDATE scheduled_events SET due_at = :now WHERE key = ANY(:keys::bytea[]) AND topic = :topic AND due_at > :now;

-- name: hasten(reason, now)$
-- Makes due what waits for this reason; returns how much there was. Several do so at once: each passes by what another has locked.
WITH waiting AS (
    SELECT id FROM scheduled_events WHERE reason = :reason AND due_at > :now FOR UPDATE SKIP LOCKED
), due AS (
    UPDATE scheduled_events SET due_at = :now WHERE id IN (SELECT id FROM waiting) RETURNING id
)
SELECT count(*) FROM due;
