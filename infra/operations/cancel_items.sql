-- See job_search.sql: `/* chosen */` and `/* says */` are filled in by `job_search.py`.

-- name: freeze(plan_id, status, organization_id, team_id, since, until, error_code, run, job_ids, words)!
-- Writes down the jobs that a filter finds and that have not ended, the oldest first.
INSERT INTO cancel_plan_items (plan_id, position, job_id, organization_id, run)
SELECT
    :plan_id::uuid, row_number() OVER (ORDER BY job.created_at, job.job_id), job.job_id, job.organization_id,
    greatest(job.run, 1)
FROM customization_jobs AS job
WHERE job_state(job.status) IN ('pending', 'processing') AND /* chosen */
    AND (:words::text IS NULL OR /* says */);
