-- name: groups(limit, most, now, state, stage, error_type, organization_id, job_id, reason, trace_id, since, until)
-- The latest failed events that a filter finds, up to a number, as groups of one stage, error and shape of message. A shape
-- is a message without what differs from event to event: IDs, numbers, and what stands in quotes (migration 0034).
WITH latest AS (
    SELECT id, stage, error_type, shape, organization_id, first_failed_at, last_failed_at
    FROM failed_events_found(
        :state, :stage, :error_type, :organization_id, :job_id, :reason, :trace_id, :since, :until
    )
    ORDER BY last_failed_at DESC, id DESC
    LIMIT :limit
)

SELECT
    stage, error_type, shape,
    count(*) AS events,
    min(first_failed_at) AS first_failed_at,
    max(last_failed_at) AS last_failed_at,
    count(DISTINCT organization_id) AS organizations,
    array_agg(DISTINCT organization_id) FILTER (WHERE organization_id IS NOT NULL) AS some_organizations,
    (array_agg(id ORDER BY last_failed_at DESC, id DESC))[1] AS latest_id,
    array_agg(floor(extract(EPOCH FROM (:now::timestamptz - last_failed_at)) / 3600)::integer)
        FILTER (WHERE last_failed_at > :now::timestamptz - interval '1 day') AS hours_ago,
    sum(count(*)) OVER ()::bigint AS looked_at,
    count(*) OVER () AS groups
FROM latest
GROUP BY stage, error_type, shape
ORDER BY events DESC, last_failed_at DESC, stage, error_type, shape
LIMIT :most;
