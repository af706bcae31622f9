-- name: keep(id, topic, key, event, headers, due_at, reason)!
-- Keeps a record until it is due. The ID follows from the content, so a repeat changes nothing.
INSERT INTO scheduled_events (id, topic, key, event, headers, due_at, reason)
VALUES (:id, :topic, :key, :event, :headers, :due_at, :reason)
ON CONFLICT (id) DO NOTHING;

-- name: take_due(now, limit)
-- Removes and returns due records, oldest first. SKIP LOCKED lets several takers work side by side.
DELETE FROM scheduled_events
WHERE id IN (
    SELECT id FROM scheduled_events
    WHERE due_at <= :now
    ORDER BY due_at
    LIMIT :limit
    FOR UPDATE SKIP LOCKED
)
RETURNING topic, key, event, headers;
