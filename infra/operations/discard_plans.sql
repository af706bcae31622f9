-- name: freeze(plan_id, stage, error_type, organization_id, job_id, reason, trace_id, since, until, failed_events)!
-- Writes down the open failed events that a filter finds, all or those of a list, the oldest first.
INSERT INTO discard_plan_items (plan_id, position, failed_event_id, occurrences)
SELECT :plan_id::uuid, row_number() OVER (ORDER BY last_failed_at, id), id, occurrences
FROM failed_events_found(
    'open', :stage, :error_type, :organization_id, :job_id, :reason, :trace_id, :since, :until
)
WHERE :failed_events::uuid[] IS NULL OR id = ANY(:failed_events);

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

-- name: next_batch(plan_id, limit)
-- The next events of a plan.
SELECT position, failed_event_id, occurrences FROM discard_plan_items
WHERE plan_id = :plan_id AND result IS NULL
ORDER BY position
LIMIT :limit;
