-- name: add_plan(id, filters, created_by, now)!
-- Adds a plan without jobs.
INSERT INTO cancel_plans (id, filters, created_by, created_at) VALUES (:id, :filters, :created_by, :now);

-- name: analyze_items()!
-- Lets what reads the items next know how many there are.
ANALYZE cancel_plan_items;

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

-- name: digest_of(plan_id)$
-- The SHA-256 of a plan's set: its jobs and their runs, in their order.
SELECT encode(sha256(convert_to(coalesce(string_agg(job_id::text || ' ' || run, E'\n' ORDER BY position), ''), 'UTF8')), 'hex')
FROM cancel_plan_items
WHERE plan_id = :plan_id;

-- name: set_effects(id, effects, digest)!
-- Keeps what was shown.
UPDATE cancel_plans SET effects = :effects, digest = :digest WHERE id = :id;

-- name: plan(id)^
-- A plan, and how far it is.
SELECT
    plan.id, plan.state, plan.filters, plan.effects, plan.digest, plan.reason, plan.created_by, plan.created_at,
    plan.started_at, plan.ended_at, counted.total, counted.left, counted.cancelled
FROM cancel_plans AS plan
CROSS JOIN LATERAL (
    SELECT
        count(*) AS total,
        count(*) FILTER (WHERE item.result IS NULL) AS left,
        count(*) FILTER (WHERE item.result = 'cancelled') AS cancelled
    FROM cancel_plan_items AS item
    WHERE item.plan_id = plan.id
) AS counted
WHERE plan.id = :id;

-- name: latest(limit, before)
-- Plans, the latest first, made before a time.
SELECT id, state, filters, created_by, created_at, started_at, ended_at, (effects ->> 'jobs')::int AS jobs
FROM cancel_plans
WHERE :before::timestamptz IS NULL OR created_at < :before
ORDER BY created_at DESC, id
LIMIT :limit;

-- name: items(plan_id, after, limit)
-- A page of a plan's jobs, in their order.
SELECT position, job_id, organization_id, run, result, done_at
FROM cancel_plan_items
WHERE plan_id = :plan_id AND position > :after
ORDER BY position
LIMIT :limit;

-- name: end(id, state, now)!
-- Ends a plan that has not ended.
UPDATE cancel_plans SET state = :state, ended_at = :now WHERE id = :id AND state IN ('planned', 'applying');

-- name: state(id)$
-- A plan's state, which cannot change before the transaction ends.
SELECT state FROM cancel_plans WHERE id = :id FOR SHARE;

-- name: begin(id, reason, now)$
-- Notes that a plan is being applied; returns why, as it was first said. Nothing: it has ended.
UPDATE cancel_plans
SET state = 'applying', started_at = coalesce(started_at, :now), reason = coalesce(reason, :reason)
WHERE id = :id AND state IN ('planned', 'applying')
RETURNING reason;

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

-- name: note_done(plan_id, positions, results, now)!
-- Notes what became of jobs.
UPDATE cancel_plan_items AS item
SET result = done.result, done_at = :now
FROM unnest(:positions::int[], :results::text[]) AS done (position, result)
WHERE item.plan_id = :plan_id AND item.position = done.position;
