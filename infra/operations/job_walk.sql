-- Jobs by words that many wishes have: a number of the jobs that the rest of the filter finds is looked at, one by one. Reading all
-- that have the words would take as long as there are many. `/* chosen */` as in `job_search.sql`.

-- name: newest(limit, looked_at, before_at, before_id, status, organization_id, team_id, since, until, error_code, run, job_ids, words)
-- A page of the jobs that were looked at, the newest first.
SELECT
    job.job_id, job.organization_id, job.team_id, job.status, job.run, job.error_code, job.error_message,
    left(job.requirements, 200) AS requirements, job.created_at, job.started_at, job.completed_at, job.updated_at
FROM (
    SELECT * FROM customization_jobs AS job
    WHERE /* chosen */
        AND (:before_at::timestamptz IS NULL OR (job.created_at, job.job_id) < (:before_at, :before_id::uuid))
    ORDER BY job.created_at DESC, job.job_id DESC
    LIMIT :looked_at
) AS job
WHERE /* says */
ORDER BY job.created_at DESC, job.job_id DESC
LIMIT :limit;

-- name: oldest(limit, looked_at, before_at, before_id, status, organization_id, team_id, since, until, error_code, run, job_ids, words)
-- The same, the oldest first.
SELECT
    job.job_id, job.organization_id, job.team_id, job.status, job.run, job.error_code, job.error_message,
    left(job.requirements, 200) AS requirements, job.created_at, job.started_at, job.completed_at, job.updated_at
FROM (
    SELECT * FROM customization_jobs AS job
    WHERE /* chosen */
        AND (:before_at::timestamptz IS NULL OR (job.created_at, job.job_id) > (:before_at, :before_id::uuid))
    ORDER BY job.created_at, job.job_id
    LIMIT :looked_at
) AS job
WHERE /* says */
ORDER BY job.created_at, job.job_id
LIMIT :limit;

-- name: last_newest(looked_at, before_at, before_id, status, organization_id, team_id, since, until, error_code, run, job_ids)^
-- The last job that was looked at, if there may be more after it.
SELECT job.created_at, job.job_id FROM customization_jobs AS job
WHERE /* chosen */
    AND (:before_at::timestamptz IS NULL OR (job.created_at, job.job_id) < (:before_at, :before_id::uuid))
ORDER BY job.created_at DESC, job.job_id DESC
OFFSET :looked_at - 1 LIMIT 1;

-- name: last_oldest(looked_at, before_at, before_id, status, organization_id, team_id, since, until, error_code, run, job_ids)^
-- The same of the other order.
SELECT job.created_at, job.job_id FROM customization_jobs AS job
WHERE /* chosen */
    AND (:before_at::timestamptz IS NULL OR (job.created_at, job.job_id) > (:before_at, :before_id::uuid))
ORDER BY job.created_at, job.job_id
OFFSET :looked_at - 1 LIMIT 1;

-- name: count(looked_at, status, organization_id, team_id, since, until, error_code, run, job_ids, words)^
-- How many jobs were looked at, the newest, and how many of them have the words.
SELECT count(*) AS looked_at, count(*) FILTER (WHERE /* says */) AS found
FROM (
    SELECT job.job_id FROM customization_jobs AS job
    WHERE /* chosen */
    ORDER BY job.created_at DESC, job.job_id DESC
    LIMIT :looked_at
) AS job;

-- name: saying(words, limit)$
-- How many jobs have some words in their wishes, up to a number; nothing if only words are given that they must not have, for which no
-- index is any good.
SELECT count(*) FROM (
    SELECT FROM job_words WHERE words @@ websearch_to_tsquery('simple', :words) LIMIT :limit
) AS bounded
HAVING querytree(websearch_to_tsquery('simple', :words)) <> 'T';
