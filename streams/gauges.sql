-- The first column of each is the gauge's label.

-- name: failed_events_open()
-- What nobody has dealt with, by stage.
SELECT stage, count(*) AS events FROM failed_events WHERE state = 'open' GROUP BY stage;

-- name: gates()
-- Until when each LLM endpoint takes no calls.
SELECT endpoint, extract(epoch FROM closed_until)::float8 AS closed_until_s FROM llm_gate;

-- name: oldest_live_jobs()
-- The age of the oldest live job of each status. A rerun is as old as its last move: the job itself may be from last year.
-- A request that waits for its time (`run_at`) is meant to be old.
SELECT
    job.status,
    max(extract(epoch FROM now() - CASE WHEN job.run = 1 THEN job.created_at ELSE job.updated_at END))::float8 AS age_s
FROM customization_jobs AS job
WHERE job.status IN ('pending', 'processing') AND NOT EXISTS (
    SELECT FROM scheduled_events AS later
    WHERE later.topic = 'job-requests' AND later.due_at > now() AND later.key = convert_to(job.job_id::text, 'UTF8')
)
GROUP BY job.status;

-- name: scheduled_due()
-- What the schedule worker should have published by now, by topic.
SELECT topic, count(*) AS events, extract(epoch FROM now() - min(due_at))::float8 AS overdue_s
FROM scheduled_events
WHERE due_at <= now()
GROUP BY topic;
