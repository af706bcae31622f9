-- name: shares()
-- What is set for plans.
SELECT
    plan, weight, max_in_flight, requests_per_minute, max_waiting, budget, budget_kind
FROM plan_shares ORDER BY plan;

-- name: set_share(plan, weight, max_in_flight, requests_per_minute, max_waiting, budget, budget_kind, no_cap)^
-- Sets what is given of a plan's share. `no_cap`: any number at once.
INSERT INTO plan_shares AS known (plan, weight, max_in_flight, requests_per_minute, max_waiting, budget, budget_kind)
VALUES (:plan, :weight, :max_in_flight, :requests_per_minute, :max_waiting, :budget, :budget_kind)
ON CONFLICT (plan) DO UPDATE SET
    weight = coalesce(excluded.weight, known.weight),
    max_in_flight = coalesce(excluded.max_in_flight, CASE WHEN NOT :no_cap THEN known.max_in_flight END),
    requests_per_minute = coalesce(excluded.requests_per_minute, known.requests_per_minute),
    max_waiting = coalesce(excluded.max_waiting, known.max_waiting),
    budget = coalesce(excluded.budget, known.budget),
    budget_kind = coalesce(excluded.budget_kind, known.budget_kind)
RETURNING
    plan, weight, max_in_flight, requests_per_minute, max_waiting, budget, budget_kind;

-- name: forget_share(plan)!
-- Forgets what was set for a plan.
DELETE FROM plan_shares WHERE plan = :plan;

-- name: of_plan(plan)^
-- How many organizations have a plan, those of them that were given values of their own, and their runs.
SELECT
    count(*) AS organizations,
    count(*) FILTER (
        WHERE num_nonnulls(
            given.weight, given.max_in_flight, given.requests_per_minute, given.max_waiting, given.budget, given.budget_kind
        ) > 0
    ) AS with_their_own,
    coalesce(sum(line.waiting), 0)::bigint AS waiting,
    coalesce(sum(line.in_flight), 0)::bigint AS in_flight
FROM subscriptions AS given
LEFT JOIN dispatch_organizations AS line ON line.organization_id = given.organization_id
WHERE given.plan = :plan;
