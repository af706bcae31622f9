-- name: now()$
-- The database's time.
SELECT clock_timestamp();

-- name: completed()$
-- How many jobs are completed in the read model.
SELECT count(*) FROM customization_jobs WHERE status = 'completed';

-- name: seconds_until_the_last(start)$
-- Seconds until the last completion was archived.
SELECT extract(epoch FROM max(archived_at) - :start::timestamptz)::double precision
FROM job_events WHERE type = 'teamfit.job.completed.v1' AND archived_at >= :start;
