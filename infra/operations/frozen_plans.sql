-- What plans of all kinds share; `frozen_plans.py` fills in the tables of one, and what it calls its items. See there.

-- name: add_plan(id, filters, created_by, now)!
-- Adds a plan without items.
INSERT INTO /* plans */ (id, filters, created_by, created_at) VALUES (:id, :filters, :created_by, :now);

-- name: analyze_items()!
-- Lets what reads the items next know how many there are.
ANALYZE /* items */;

-- name: digest_of(plan_id)$
-- The SHA-256 of a plan's set: its items, each as it was, in their order.
SELECT encode(sha256(convert_to(coalesce(string_agg(/* member */, E'\n' ORDER BY position), ''), 'UTF8')), 'hex')
FROM /* items */
WHERE plan_id = :plan_id;

-- name: set_effects(id, effects, digest)!
-- Keeps what was shown.
UPDATE /* plans */ SET effects = :effects, digest = :digest WHERE id = :id;

-- name: plan(id)^
-- A plan, and how far it is.
SELECT
    plan.id, plan.state, plan.filters, plan.effects, plan.digest, plan.reason, plan.created_by, plan.created_at,
    plan.started_at, plan.ended_at, numbers.total, numbers.left, numbers./* done */
FROM /* plans */ AS plan
CROSS JOIN LATERAL (
    SELECT
        count(*) AS total,
        count(*) FILTER (WHERE item.result IS NULL) AS left,
        count(*) FILTER (WHERE item.result = '/* done */') AS /* done */
    FROM /* items */ AS item
    WHERE item.plan_id = plan.id
) AS numbers
WHERE plan.id = :id;

-- name: latest(limit, before)
-- Plans, the latest first, made before a time.
SELECT id, state, filters, created_by, created_at, started_at, ended_at, (effects ->> '/* counted */')::int AS /* counted */
FROM /* plans */
WHERE :before::timestamptz IS NULL OR created_at < :before
ORDER BY created_at DESC, id
LIMIT :limit;

-- name: end(id, state, now)!
-- Ends a plan that has not ended.
UPDATE /* plans */ SET state = :state, ended_at = :now WHERE id = :id AND state IN ('planned', 'applying');

-- name: state(id)$
-- A plan's state, which cannot change before the transaction ends.
SELECT state FROM /* plans */ WHERE id = :id FOR SHARE;

-- name: begin(id, reason, now)$
-- Notes that a plan is being applied; returns why, as it was first said. Nothing: it has ended.
UPDATE /* plans */
SET state = 'applying', started_at = coalesce(started_at, :now), reason = coalesce(reason, :reason)
WHERE id = :id AND state IN ('planned', 'applying')
RETURNING reason;

-- name: note_done(plan_id, positions, results, now)!
-- Notes what became of items.
UPDATE /* items */ AS item
SET result = done.result, done_at = :now
FROM unnest(:positions::int[], :results::text[]) AS done (position, result)
WHERE item.plan_id = :plan_id AND item.position = done.position;
