-- The first column of each is the gauge's label.

-- name: failed_events_open()
-- The open failed events, by stage.
SELECT stage, count(*) AS events FROM failed_events WHERE state = 'open' GROUP BY stage;

-- name: gates()
-- Until when each LLM endpoint takes no calls. What a wrong clock closed, in the future, is open.
SELECT endpoint, extract(epoch FROM closed_until)::float8 AS closed_until_s
FROM llm_gate WHERE closed_at <= clock_timestamp();

-- name: oldest_live_jobs()
-- How long ago the live job of each status last moved that has not moved for longest. Found in the order of the index
-- `customization_jobs_live`, so that a long backlog is not read for it. A request that waits for its time (`run_at`) is
-- meant to stand.
SELECT live.status, extract(epoch FROM now() - oldest.updated_at)::float8 AS age_s
FROM unnest(ARRAY['pending', 'processing']) AS live (status)
CROSS JOIN LATERAL (
    SELECT job.updated_at FROM customization_jobs AS job
    WHERE job.status = live.status AND job.status IN ('pending', 'processing') AND NOT EXISTS (
        SELECT FROM scheduled_events AS later
        WHERE later.key = convert_to(job.job_id::text, 'UTF8')
            AND later.topic = 'job-requests' AND later.due_at > now()
    )
    ORDER BY job.updated_at
    LIMIT 1
) AS oldest;

-- name: paused()
-- What operators have paused, for all or for some organizations.
SELECT DISTINCT
    CASE WHEN kind = 'intake' THEN 'intake' ELSE subject END AS stage,
    CASE WHEN organization_id = '' THEN 'all' ELSE 'some' END AS scope
FROM fleet_controls
WHERE kind IN ('pause', 'intake') AND (expires_at IS NULL OR expires_at > clock_timestamp());

-- name: webhooks()
-- Endpoints of webhooks by how they do, and how late the first delivery is that is due for one of them.
SELECT state, count(*) AS endpoints, coalesce(max(late_s), 0) AS overdue_s
FROM (
    SELECT
        CASE
            WHEN one.disabled_at IS NOT NULL THEN 'disabled' WHEN one.failing_since IS NOT NULL THEN 'failing' ELSE 'working'
        END AS state,
        greatest(0, extract(epoch FROM now() - first.due_at))::float8 AS late_s
    FROM webhook_endpoints AS one
    LEFT JOIN LATERAL (
        SELECT waits.due_at FROM webhook_deliveries AS waits
        WHERE waits.endpoint_id = one.id AND waits.delivered_at IS NULL AND waits.given_up_at IS NULL
        ORDER BY waits.due_at
        LIMIT 1
    ) AS first ON one.disabled_at IS NULL
) AS known
GROUP BY state;

-- name: scheduled_due()
-- What the schedule worker should have published by now, by topic.
SELECT topic, count(*) AS events, extract(epoch FROM now() - min(due_at))::float8 AS overdue_s
FROM scheduled_events
WHERE due_at <= now()
GROUP BY topic;
