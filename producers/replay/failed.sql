-- name: page(limit, before_time, before_id, state, stage, error_type, organization_id, job_id, reason, trace_id, since, until)
-- A page of the failed events that a filter finds, the latest first, beginning after a place in that order.
SELECT
    id, state, topic, stage, reason, error_type, error_message, attempts, occurrences, first_failed_at, last_failed_at,
    event_type, job_id, run, organization_id, trace_id
FROM failed_events_found(
    :state, :stage, :error_type, :organization_id, :job_id, :reason, :trace_id, :since, :until
)
WHERE (:before_time::timestamptz IS NULL OR (last_failed_at, id) < (:before_time, :before_id::uuid))
ORDER BY last_failed_at DESC, id DESC
LIMIT :limit;

-- name: count(limit, state, stage, error_type, organization_id, job_id, reason, trace_id, since, until)$
-- How many failed events a filter finds, up to a number; read in the order of a page, so that it reads the same index.
SELECT count(*) FROM (
    SELECT FROM failed_events_found(
        :state, :stage, :error_type, :organization_id, :job_id, :reason, :trace_id, :since, :until
    ) ORDER BY last_failed_at DESC, id DESC LIMIT :limit
) AS bounded;

-- name: open_ones(stage, error_type, organization_id, job_id, reason, trace_id, since, until)^
-- All open failed events that a filter finds: their IDs, and how often each has failed, as two arrays in one order.
SELECT
    coalesce(array_agg(id ORDER BY id), '{}') AS ids,
    coalesce(array_agg(occurrences ORDER BY id), '{}') AS occurrences
FROM failed_events_found(
    'open', :stage, :error_type, :organization_id, :job_id, :reason, :trace_id, :since, :until
);

-- name: one(id)^
-- Everything about one failed event.
SELECT * FROM failed_events WHERE id = :id;
