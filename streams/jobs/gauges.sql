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

-- name: scheduled_due()
-- What the schedule worker should have published by now, by topic.
SELECT topic, count(*) AS events, extract(epoch FROM now() - min(due_at))::float8 AS overdue_s
FROM scheduled_events
WHERE due_at <= now()
GROUP BY topic;
