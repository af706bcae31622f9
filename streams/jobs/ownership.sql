-- name: claim(job_ids, organization_ids, runs, wishes)!
-- Gives jobs to the organizations that ask for them, unless they are somebody's; of several the first in the order given.
-- Sorted, so that two that claim cannot deadlock. Jobs that older versions took in are whose `job_owner` says. A later run
-- claims only what a replay started: a job whose first run no stage could decide, and which a replay has ended as failed.
-- Does not wait for the disk (docs/decisions/0014-what-need-not-wait-for-the-disk.md).
WITH soon AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true))
INSERT INTO job_owners (job_id, organization_id, wish)
SELECT
    first.job_id,
    coalesce(older.owner, first.organization_id),
    CASE WHEN older.owner IS NULL THEN first.wish END
FROM (
    SELECT DISTINCT ON (asked.job_id) asked.job_id, asked.organization_id, asked.wish
    FROM unnest(:job_ids::uuid[], :organization_ids::text[], :runs::int[], :wishes::bytea[])
        WITH ORDINALITY AS asked (job_id, organization_id, run, wish, place)
    WHERE asked.run = 1 OR EXISTS (
        SELECT FROM job_outcomes AS ended
        WHERE ended.job_id = asked.job_id AND ended.run < asked.run
            AND ended.fact #>> '{data,organization_id}' = asked.organization_id
    )
    ORDER BY asked.job_id, asked.place
) AS first
CROSS JOIN LATERAL (SELECT job_owner(first.job_id) AS owner OFFSET 0) AS older
CROSS JOIN soon
ORDER BY first.job_id
ON CONFLICT (job_id) DO NOTHING;

-- name: evidence(job_ids, runs, asking)
-- What is on record about runs, in the order asked: whose the job is, what quota entered, how the run ended, how many runs
-- there have been, a cancellation that the owner sent before its request, and what that request asked for.
SELECT
    job_owner(asked.job_id) AS owner,
    entry.organization_id AS entered_for,
    entry.code,
    entry.message,
    ended.outcome,
    ended.fact,
    greatest(
        (SELECT max(one.run) FROM quota_ledger AS one WHERE one.job_id = asked.job_id),
        (SELECT max(one.run) FROM job_outcomes AS one WHERE one.job_id = asked.job_id),
        0
    ) AS latest_run,
    (
        SELECT early.event FROM early_cancellations AS early
        WHERE early.job_id = asked.job_id AND early.organization_id = job_owner(asked.job_id)
    ) AS cancelled_before,
    CASE WHEN asked.asking THEN
        (SELECT claim.wish FROM job_owners AS claim WHERE claim.job_id = asked.job_id)
    END AS wish,
    -- What the intake accepted holds from then on, though it may wait for its time; unless its text was erased.
    CASE WHEN asked.asking THEN (
        SELECT request.event -> 'data' FROM job_requests AS request
        WHERE request.job_id = asked.job_id AND request.event #>> '{data,requirements}' <> '[erased]'
    ) END AS recorded
FROM unnest(:job_ids::uuid[], :runs::int[], :asking::boolean[]) WITH ORDINALITY AS asked (job_id, run, asking, place)
LEFT JOIN quota_ledger AS entry ON entry.job_id = asked.job_id AND entry.run = asked.run
LEFT JOIN job_outcomes AS ended ON ended.job_id = asked.job_id AND ended.run = asked.run
ORDER BY asked.place;

-- name: keep_early(job_id, organization_id, event)!
-- Keeps a cancellation until the organization's request for the job comes. The first one stands.
INSERT INTO early_cancellations (job_id, organization_id, event)
VALUES (:job_id, :organization_id, :event)
ON CONFLICT (job_id, organization_id) DO NOTHING;
