-- name: job(job_id)^
-- One job, as whoever called the task sees it. A cancellation shows as soon as it is decided.
SELECT
    job.organization_id,
    job.team_id,
    job.requirements,
    job.created_at,
    CASE WHEN ended.job_id IS NULL THEN job.status ELSE 'cancelled' END AS status,
    job.error_code,
    coalesce(ended.fact #>> '{data,reason}', job.error_message) AS error_message
FROM customization_jobs AS job
LEFT JOIN job_outcomes AS ended
    ON ended.job_id = job.job_id AND ended.run = job.run AND ended.outcome = 'cancelled'
WHERE job.job_id = :job_id;

-- name: activities(job_id)
-- The activities of a job, in their order.
SELECT title, description, duration_minutes, group_size, materials, steps, objective
FROM customized_activities
WHERE job_id = :job_id
ORDER BY position;
