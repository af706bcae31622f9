-- name: effects_of(plan_id)
-- What would follow for each organization: the jobs, those that an LLM works for, and the units of quota that are released.
SELECT
    item.organization_id,
    count(*) AS jobs,
    count(*) FILTER (WHERE job.status = 'processing') AS processing,
    count(held.job_id) AS quota
FROM cancel_plan_items AS item
JOIN customization_jobs AS job ON job.job_id = item.job_id
LEFT JOIN quota_ledger AS held ON held.job_id = item.job_id AND held.run = item.run AND held.state = 'reserved'
WHERE item.plan_id = :plan_id
GROUP BY item.organization_id
ORDER BY count(*) DESC, item.organization_id;

-- name: items(plan_id, after, limit)
-- A page of a plan's jobs, in their order.
SELECT position, job_id, organization_id, run, result, done_at
FROM cancel_plan_items
WHERE plan_id = :plan_id AND position > :after
ORDER BY position
LIMIT :limit;

-- name: next_batch(plan_id, limit)
-- The next jobs of a plan, with what has become of each since: its newest run and how that ended.
SELECT
    item.position, item.job_id, item.organization_id, item.run,
    standing.latest_run, standing.latest_outcome, standing.owner,
    -- Of a job that is older than the pipeline nothing is known but its row.
    EXISTS (SELECT FROM job_events AS event WHERE event.job_id = item.job_id) AS is_ours
FROM (
    SELECT position, job_id, organization_id, run FROM cancel_plan_items
    WHERE plan_id = :plan_id AND result IS NULL
    ORDER BY position
    LIMIT :limit
) AS item
LEFT JOIN LATERAL job_standing(item.job_id, item.run) AS standing ON true
ORDER BY item.position;
