-- name: completed()$
-- How many jobs are completed in the read model.
SELECT count(*) FROM customization_jobs WHERE status = 'completed';

-- name: seconds_to_completion()
-- For each completed job, the seconds from the request to the moment its completion was archived; oldest request first.
SELECT extract(epoch FROM completed.archived_at - requested.time)::double precision AS seconds
FROM job_events AS completed
JOIN job_events AS requested USING (job_id)
WHERE completed.type = 'teamfit.job.completed.v1' AND requested.type = 'teamfit.job.requested.v1'
ORDER BY requested.time;
