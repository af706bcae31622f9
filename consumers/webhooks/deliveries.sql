-- name: record(organization_ids, event_ids, types, job_ids, events, bodies, now)$
-- Has each event delivered to each endpoint of its organization that wants its type, once; returns how many deliveries are new.
-- What is for a disabled endpoint waits until it is enabled. Sorted, so that two that record the same do not wait for each other.
WITH new AS (
    INSERT INTO webhook_deliveries (endpoint_id, event_id, type, job_id, event, body, created_at, due_at)
    SELECT whose.id, told.event_id, told.type, told.job_id, told.event, told.body, :now, :now
    FROM unnest(
        :organization_ids::text[], :event_ids::text[], :types::text[], :job_ids::uuid[], :events::bytea[], :bodies::text[]
    ) AS told (organization_id, event_id, type, job_id, event, body)
    JOIN webhook_endpoints AS whose ON whose.organization_id = told.organization_id AND told.type = ANY(whose.types)
    ORDER BY whose.id, told.event_id
    ON CONFLICT (endpoint_id, event_id) DO NOTHING
    RETURNING 1
)
SELECT count(*) FROM new;

-- name: record_again(endpoint_id, organization_id, event_id, type, job_id, event, body, now)!
-- Has an event that was given up delivered to one endpoint after all, from its first try on. One that waits, or has arrived, stays.
INSERT INTO webhook_deliveries AS known (endpoint_id, event_id, type, job_id, event, body, created_at, due_at)
SELECT one.id, :event_id::text, :type::text, :job_id::uuid, :event::bytea, :body::text, :now::timestamptz, :now::timestamptz
FROM webhook_endpoints AS one
WHERE one.id = :endpoint_id AND one.organization_id = :organization_id
ON CONFLICT (endpoint_id, event_id) DO UPDATE SET given_up_at = NULL, attempts = 0, due_at = :now
WHERE known.given_up_at IS NOT NULL;

-- name: record_test(endpoint_id, event_id, type, body, now)!
-- Has a test delivered to one endpoint.
INSERT INTO webhook_deliveries (endpoint_id, event_id, type, body, created_at, due_at)
VALUES (:endpoint_id, :event_id, :type, :body, :now, :now);

-- name: claim(now, taken_until, free, most, most_failing, busy_ids, busy)
-- Takes the deliveries that are due, and returns them. Endpoints take turns, and each has no more under way than its share: one that
-- is slow or fails holds up no other. `busy`: how many this process has under way for each already. Whatever is taken is due again
-- at `taken_until`, should the process die. Endpoints with something pending are found one by one in the index: few have.
WITH RECURSIVE pending AS (
    (
        SELECT endpoint_id FROM webhook_deliveries
        WHERE delivered_at IS NULL AND given_up_at IS NULL
        ORDER BY endpoint_id LIMIT 1
    )
    UNION ALL
    SELECT (
        SELECT later.endpoint_id FROM webhook_deliveries AS later
        WHERE later.delivered_at IS NULL AND later.given_up_at IS NULL AND later.endpoint_id > pending.endpoint_id
        ORDER BY later.endpoint_id LIMIT 1
    )
    FROM pending WHERE pending.endpoint_id IS NOT NULL
), turn AS (
    SELECT due.endpoint_id, due.event_id
    FROM pending
    JOIN webhook_endpoints AS one ON one.id = pending.endpoint_id AND one.disabled_at IS NULL
    LEFT JOIN unnest(:busy_ids::uuid[], :busy::integer[]) AS mine (endpoint_id, under_way) ON mine.endpoint_id = one.id
    CROSS JOIN LATERAL (
        SELECT waits.endpoint_id, waits.event_id, waits.due_at, row_number() OVER (ORDER BY waits.due_at) AS place
        FROM webhook_deliveries AS waits
        WHERE waits.endpoint_id = one.id AND waits.delivered_at IS NULL AND waits.given_up_at IS NULL AND waits.due_at <= :now
        ORDER BY waits.due_at
        LIMIT greatest(
            0, CASE WHEN one.failing_since IS NULL THEN :most::integer ELSE :most_failing::integer END - coalesce(mine.under_way, 0)
        )
    ) AS due
    ORDER BY due.place, due.due_at
    LIMIT :free
), taken AS (
    SELECT waits.endpoint_id, waits.event_id
    FROM webhook_deliveries AS waits
    JOIN turn ON turn.endpoint_id = waits.endpoint_id AND turn.event_id = waits.event_id
    WHERE waits.delivered_at IS NULL AND waits.given_up_at IS NULL AND waits.due_at <= :now
    FOR UPDATE OF waits SKIP LOCKED
)
UPDATE webhook_deliveries AS delivery SET due_at = :taken_until
FROM taken, webhook_endpoints AS one
WHERE delivery.endpoint_id = taken.endpoint_id AND delivery.event_id = taken.event_id AND one.id = taken.endpoint_id
RETURNING
    delivery.endpoint_id, delivery.event_id, delivery.type, delivery.job_id, delivery.event, delivery.body, delivery.attempts,
    delivery.due_at AS taken_until, delivery.created_at,
    one.organization_id, one.url, one.secret,
    CASE WHEN one.secret_before_until > :now THEN one.secret_before END AS secret_before;

-- name: settle(endpoint_id, event_id, taken_until, now, status, problem, due_at, delivered, given_up)$
-- Notes how a try ended. Nothing is noted, and nothing returned, if another process has taken the delivery over meanwhile, unless it
-- has arrived.
UPDATE webhook_deliveries SET
    attempts = attempts + 1,
    last_attempt_at = :now,
    last_status = :status,
    last_error = :problem,
    due_at = :due_at,
    delivered_at = CASE WHEN :delivered::boolean THEN :now::timestamptz END,
    given_up_at = CASE WHEN :given_up::boolean THEN :now::timestamptz END
WHERE endpoint_id = :endpoint_id AND event_id = :event_id AND delivered_at IS NULL
    AND (:delivered::boolean OR (due_at = :taken_until AND given_up_at IS NULL))
RETURNING attempts;

-- name: hasten(endpoint_id, now)$
-- Makes due what waits for an endpoint; returns how much does.
WITH waiting AS (
    UPDATE webhook_deliveries SET due_at = least(due_at, :now)
    WHERE endpoint_id = :endpoint_id AND delivered_at IS NULL AND given_up_at IS NULL
    RETURNING 1
)
SELECT count(*) FROM waiting;

-- name: deliveries(endpoint_id, state, limit, before_at, before_id)
-- A page of the deliveries of an endpoint, the newest first, beginning after a place in that order.
SELECT
    event_id, type, job_id, created_at, attempts, last_attempt_at, last_status, last_error, delivered_at, given_up_at,
    CASE WHEN delivered_at IS NULL AND given_up_at IS NULL THEN due_at END AS due_at
FROM webhook_deliveries
WHERE endpoint_id = :endpoint_id
    AND (:state::text IS NULL OR :state <> 'delivered' OR delivered_at IS NOT NULL)
    AND (:state::text IS NULL OR :state <> 'given_up' OR given_up_at IS NOT NULL)
    AND (:state::text IS NULL OR :state <> 'waiting' OR (delivered_at IS NULL AND given_up_at IS NULL))
    AND (:before_at::timestamptz IS NULL OR (created_at, event_id) < (:before_at, :before_id::text))
ORDER BY created_at DESC, event_id DESC
LIMIT :limit;

-- name: start_progress()!
-- Begins to compare the archive with the deliveries: from the first endpoint on, since facts may have been lost before the first look;
-- some minutes before it, since facts that are archived side by side are not in the order of their times.
INSERT INTO webhook_progress (sequence)
SELECT coalesce((
    SELECT sequence FROM job_events
    WHERE archived_at < coalesce((SELECT min(compared_from) - interval '5 minutes' FROM webhook_endpoints), 'infinity')
    ORDER BY sequence DESC LIMIT 1
), 0)
WHERE NOT EXISTS (SELECT FROM webhook_progress)
ON CONFLICT (singleton) DO NOTHING;

-- name: lock_progress()$
-- How far the archive was compared; nothing if another process is at it.
SELECT sequence FROM webhook_progress FOR UPDATE SKIP LOCKED;

-- name: page(after, before, size)$
-- Where the next page of the archive ends: before the first event that is younger than `before`.
SELECT coalesce(min(sequence) FILTER (WHERE archived_at >= :before) - 1, max(sequence))
FROM (
    SELECT sequence, archived_at FROM job_events WHERE sequence > :after ORDER BY sequence LIMIT :size
) AS page;

-- name: forgotten(after, last, types, kinds)
-- Facts of a page that an endpoint wants and no delivery is about: the broker has lost them.
SELECT told.event
FROM job_events AS told
JOIN unnest(:types::text[], :kinds::text[]) AS wanted (type, kind) ON wanted.type = told.type
WHERE told.sequence > :after AND told.sequence <= :last AND EXISTS (
    SELECT FROM webhook_endpoints AS one
    WHERE one.organization_id = told.organization_id AND wanted.kind = ANY(one.types) AND one.compared_from <= told.archived_at
        AND NOT EXISTS (
            SELECT FROM webhook_deliveries AS known WHERE known.endpoint_id = one.id AND known.event_id = told.event_id
        )
)
ORDER BY told.sequence;

-- name: note_progress(sequence)!
-- Remembers how far the archive was compared.
UPDATE webhook_progress SET sequence = :sequence;
