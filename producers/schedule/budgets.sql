-- name: reach(period)
-- Notes the marks that organizations have newly reached of their month's budgets, and returns them. A changed budget has marks
-- of its own.
INSERT INTO budget_marks AS known (organization_id, period, percent, budget, cost)
SELECT whose.organization_id, :period, mark.percent, money.budget, money.spent
FROM (
    SELECT given.organization_id
    FROM subscriptions AS given LEFT JOIN plan_shares AS shares ON shares.plan = given.plan
    WHERE given.budget IS NOT NULL OR shares.budget IS NOT NULL
) AS whose
CROSS JOIN LATERAL budget_of(whose.organization_id, :period) AS money
JOIN (VALUES (80), (100)) AS mark (percent) ON money.spent::numeric * 100 >= money.budget::numeric * mark.percent
ORDER BY whose.organization_id, mark.percent
ON CONFLICT (organization_id, period, percent) DO UPDATE
SET budget = excluded.budget, cost = excluded.cost, reached_at = clock_timestamp()
WHERE known.budget <> excluded.budget
RETURNING organization_id, period, percent, budget, cost;
