-- name: add_plan(id, filters, created_by, now)!
-- Adds a plan without events.
INSERT INTO discard_plans (id, filters, created_by, created_at) VALUES (:id, :filters, :created_by, :now);

-- name: freeze(plan_id, stage, error_type, organization_id, job_id, reason, trace_id, since, until, failed_events)!
-- Writes down the open failed events that a filter finds, all or those of a list, the oldest first.
INSERT INTO discard_plan_items (plan_id, position, failed_event_id, occurrences)
SELECT :plan_id::uuid, row_number() OVER (ORDER BY last_failed_at, id), id, occurrences
FROM failed_events_found(
    'open', :stage, :error_type, :organization_id, :job_id, :reason, :trace_id, :since, :until
)
WHERE :failed_events::uuid[] IS NULL OR id = ANY(:failed_events);

-- name: analyze_items()!
-- Lets what reads the items next know how many there are.
ANALYZE discard_plan_items;

-- name: kinds(plan_id)
-- The events of a plan by stage and error, the most first.
SELECT failed.stage, failed.error_type, count(*) AS events
FROM discard_plan_items AS item
JOIN failed_events AS failed ON failed.id = item.failed_event_id
WHERE item.plan_id = :plan_id
GROUP BY failed.stage, failed.error_type
ORDER BY events DESC, failed.stage, failed.error_type;

-- name: organizations(plan_id)
-- The events and jobs of a plan by organization, the most first.
SELECT failed.organization_id, count(*) AS events, count(DISTINCT failed.job_id) AS jobs
FROM discard_plan_items AS item
JOIN failed_events AS failed ON failed.id = item.failed_event_id
WHERE item.plan_id = :plan_id
GROUP BY failed.organization_id
ORDER BY events DESC, failed.organization_id;

-- name: digest_of(plan_id)$
-- The SHA-256 of a plan's set: its events and how often each had failed, in their order.
SELECT encode(sha256(convert_to(
    coalesce(string_agg(failed_event_id::text || ' ' || occurrences, E'\n' ORDER BY position), ''), 'UTF8'
)), 'hex')
FROM discard_plan_items
WHERE plan_id = :plan_id;

-- name: set_effects(id, effects, digest)!
-- Keeps what was shown.
UPDATE discard_plans SET effects = :effects, digest = :digest WHERE id = :id;

-- name: plan(id)^
-- A plan, and how far it is.
SELECT
    plan.id, plan.state, plan.filters, plan.effects, plan.digest, plan.reason, plan.created_by, plan.created_at,
    plan.started_at, plan.ended_at, counted.total, counted.left, counted.discarded
FROM discard_plans AS plan
CROSS JOIN LATERAL (
    SELECT
        count(*) AS total,
        count(*) FILTER (WHERE item.result IS NULL) AS left,
        count(*) FILTER (WHERE item.result = 'discarded') AS discarded
    FROM discard_plan_items AS item
    WHERE item.plan_id = plan.id
) AS counted
WHERE plan.id = :id;

-- name: latest(limit, before)
-- Plans, the latest first, made before a time.
SELECT id, state, filters, created_by, created_at, started_at, ended_at, (effects ->> 'events')::int AS events
FROM discard_plans
WHERE :before::timestamptz IS NULL OR created_at < :before
ORDER BY created_at DESC, id
LIMIT :limit;

-- name: items(plan_id, after, limit)
-- A page of a plan's events, in their order.
SELECT
    item.position, item.failed_event_id, item.result, item.done_at, failed.stage, failed.error_type, failed.organization_id,
    failed.job_id
FROM discard_plan_items AS item
LEFT JOIN failed_events AS failed ON failed.id = item.failed_event_id
WHERE item.plan_id = :plan_id AND item.position > :after
ORDER BY item.position
LIMIT :limit;

-- name: end(id, state, now)!
-- Ends a plan that has not ended.
UPDATE discard_plans SET state = :state, ended_at = :now WHERE id = :id AND state IN ('planned', 'applying');

-- name: state(id)$
-- A plan's state, which cannot change before the transaction ends.
SELECT state FROM discard_plans WHERE id = :id FOR SHARE;

-- name: begin(id, reason, now)$
-- Notes that a plan is being applied; returns why, as it was first said. Nothing: it has ended.
UPDATE discard_plans
SET state = 'applying', started_at = coalesce(started_at, :now), reason = coalesce(reason, :reason)
WHERE id = :id AND state IN ('planned', 'applying')
RETURNING reason;

-- name: next_batch(plan_id, limit)
-- The next events of a plan.
SELECT position, failed_event_id, occurrences FROM discard_plan_items
WHERE plan_id = :plan_id AND result IS NULL
ORDER BY position
LIMIT :limit;

-- name: note_done(plan_id, positions, discarded, now)!
-- Notes what became of events.
UPDATE discard_plan_items
SET result = CASE WHEN failed_event_id = ANY(:discarded::uuid[]) THEN 'discarded' ELSE 'changed' END, done_at = :now
WHERE plan_id = :plan_id AND position = ANY(:positions::int[]);
