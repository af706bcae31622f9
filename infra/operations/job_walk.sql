-- Jobs by words that many wishes have: a number of the jobs that the rest of the filter finds is looked at. Reading all that have the
-- words would take as long as there are many. `/* chosen */` as in `job_search.sql`.
-- The words of those that are looked at are read in one go: one by one takes half as long again. The OFFSET keeps the planner from
-- reading all that have the words.

-- name: newest(limit, looked_at, before_at, before_id, status, organization_id, team_id, since, until, error_code, run, job_ids, words)^
-- The newest jobs after a place: how many were looked at, how many of them have the words, the first of these, and the last looked at.
WITH looked_at AS MATERIALIZED (
    SELECT job.job_id, job.created_at FROM /* jobs */
    WHERE /* chosen */
        AND (:before_at::timestamptz IS NULL OR (job.created_at, job.job_id) < (:before_at, :before_id::uuid))
    ORDER BY job.created_at DESC, job.job_id DESC
    LIMIT :looked_at
), said AS MATERIALIZED (
    SELECT one.job_id::uuid AS job_id
    FROM (SELECT * FROM job_words WHERE job_id = ANY(ARRAY(SELECT job_id::text FROM looked_at)) OFFSET 0) AS one
    WHERE one.words @@ websearch_to_tsquery('simple', :words)
), last AS (
    SELECT job_id, created_at FROM looked_at ORDER BY created_at, job_id LIMIT 1
)
SELECT
    (SELECT count(*) FROM looked_at) AS looked_at,
    (SELECT count(*) FROM said) AS found,
    ARRAY(SELECT job_id FROM looked_at JOIN said USING (job_id) ORDER BY created_at DESC, job_id DESC LIMIT :limit) AS first,
    (SELECT created_at FROM last) AS last_at,
    (SELECT job_id FROM last) AS last_id;

-- name: oldest(limit, looked_at, before_at, before_id, status, organization_id, team_id, since, until, error_code, run, job_ids, words)^
-- The same of the oldest.
WITH looked_at AS MATERIALIZED (
    SELECT job.job_id, job.created_at FROM /* jobs */
    WHERE /* chosen */
        AND (:before_at::timestamptz IS NULL OR (job.created_at, job.job_id) > (:before_at, :before_id::uuid))
    ORDER BY job.created_at, job.job_id
    LIMIT :looked_at
), said AS MATERIALIZED (
    SELECT one.job_id::uuid AS job_id
    FROM (SELECT * FROM job_words WHERE job_id = ANY(ARRAY(SELECT job_id::text FROM looked_at)) OFFSET 0) AS one
    WHERE one.words @@ websearch_to_tsquery('simple', :words)
), last AS (
    SELECT job_id, created_at FROM looked_at ORDER BY created_at DESC, job_id DESC LIMIT 1
)
SELECT
    (SELECT count(*) FROM looked_at) AS looked_at,
    (SELECT count(*) FROM said) AS found,
    ARRAY(SELECT job_id FROM looked_at JOIN said USING (job_id) ORDER BY created_at, job_id LIMIT :limit) AS first,
    (SELECT created_at FROM last) AS last_at,
    (SELECT job_id FROM last) AS last_id;

-- name: saying(words, limit)$
-- How many jobs have some words in their wishes, up to a number; nothing if only words are given that they must not have, for which no
-- index is any good.
SELECT count(*) FROM (
    SELECT FROM job_words WHERE words @@ websearch_to_tsquery('simple', :words) LIMIT :limit
) AS bounded
HAVING querytree(websearch_to_tsquery('simple', :words)) <> 'T';

-- name: plan_of_saying(words)$
-- The plan for all that have some words: its estimate comes from statistics, and reads no job.
EXPLAIN (FORMAT JSON) SELECT FROM job_words WHERE words @@ websearch_to_tsquery('simple', :words);

-- name: kept()$
-- About how many jobs have their words kept.
SELECT reltuples FROM pg_class WHERE oid = 'job_words'::regclass;

-- name: saying_of_some(words, looked_at, limit)$
-- How many have some words among a number of jobs that lie side by side, up to a limit. Nothing if only words are given that they must
-- not have. The index cannot stop: of five million jobs that have a word it lists all before the first is counted.
SELECT count(*) FROM (
    SELECT FROM (SELECT words FROM job_words WHERE ctid < '(2000,0)'::tid LIMIT :looked_at) AS one
    WHERE one.words @@ websearch_to_tsquery('simple', :words)
    LIMIT :limit
) AS bounded
HAVING querytree(websearch_to_tsquery('simple', :words)) <> 'T';
