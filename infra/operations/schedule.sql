-- name: due(limit, after_at, after_id, topic)
-- A page of what is to be published, the soonest first, beginning after a place in that order.
SELECT id, due_at, topic, reason, key, created_at
FROM scheduled_events
WHERE (:topic::text IS NULL OR topic = :topic)
    AND (:after_at::timestamptz IS NULL OR (due_at, id) > (:after_at, :after_id::uuid))
ORDER BY due_at, id
LIMIT :limit;

-- name: counts(limit, now, topic)^
-- How many there are, and how many of them are overdue, each up to a number.
SELECT
    (
        SELECT count(*) FROM (
            SELECT FROM scheduled_events
            WHERE :topic::text IS NULL OR topic = :topic
            ORDER BY due_at, id
            LIMIT :limit
        ) AS bounded
    ) AS total,
    (
        SELECT count(*) FROM (
            SELECT FROM scheduled_events
            WHERE due_at <= :now AND (:topic::text IS NULL OR topic = :topic)
            ORDER BY due_at, id
            LIMIT :limit
        ) AS bounded
    ) AS overdue;
