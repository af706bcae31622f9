-- `/* chosen */` stands for the conditions of a filter, `/* jobs */` for the jobs that it is tried on: all, or those whose wishes
-- have some words, which few have. See `job_search.py`. A count reads in the order of a page, so that it reads the same index.

-- name: newest(limit, before_at, before_id, status, organization_id, team_id, since, until, error_code, run, job_ids, words)
-- A page of jobs, the newest first, beginning after a place in that order.
SELECT
    job.job_id, job.organization_id, job.team_id, job.status, job.run, job.error_code, job.error_message,
    left(job.requirements, 200) AS requirements, job.created_at, job.started_at, job.completed_at, job.updated_at
FROM /* jobs */
WHERE /* chosen */
    AND (:before_at::timestamptz IS NULL OR (job.created_at, job.job_id) < (:before_at, :before_id::uuid))
ORDER BY job.created_at DESC, job.job_id DESC
LIMIT :limit;

-- name: oldest(limit, before_at, before_id, status, organization_id, team_id, since, until, error_code, run, job_ids, words)
-- The same, the oldest first.
SELECT
    job.job_id, job.organization_id, job.team_id, job.status, job.run, job.error_code, job.error_message,
    left(job.requirements, 200) AS requirements, job.created_at, job.started_at, job.completed_at, job.updated_at
FROM /* jobs */
WHERE /* chosen */
    AND (:before_at::timestamptz IS NULL OR (job.created_at, job.job_id) > (:before_at, :before_id::uuid))
ORDER BY job.created_at, job.job_id
LIMIT :limit;

-- name: count(limit, status, organization_id, team_id, since, until, error_code, run, job_ids, words)$
-- How many jobs a filter finds, up to a number.
SELECT count(*) FROM (
    SELECT FROM /* jobs */ WHERE /* chosen */ ORDER BY job.created_at DESC, job.job_id DESC LIMIT :limit
) AS bounded;

-- name: plan_of(status, organization_id, team_id, since, until, error_code, run, job_ids)$
-- The plan for all jobs that a filter finds: its estimate comes from statistics, and reads no job.
EXPLAIN (FORMAT JSON) SELECT FROM customization_jobs AS job WHERE /* chosen */;

-- name: has_error_code(error_code)$
-- Whether a job ended with an error code.
SELECT EXISTS (SELECT FROM customization_jobs WHERE error_code = :error_code);

-- name: of_trace(trace_id)^
-- The jobs whose request belongs to a trace.
SELECT coalesce(array_agg(DISTINCT traced.job_id), '{}') AS ids
FROM (
    SELECT event.job_id
    FROM job_events AS event
    WHERE event.type = 'teamfit.job.requested.v1' AND substr(event.event ->> 'traceparent', 4, 32) = :trace_id
    LIMIT 10000
) AS traced;
