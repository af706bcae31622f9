-- name: reach(period)
-- Notes the marks that organizations have newly reached of their month's budgets, and returns them. A changed budget has marks
-- of its own. An ID that no event can have has spent nothing; a budget below nothing is nothing.
WITH terms AS MATERIALIZED (
    SELECT whose.organization_id, greatest(money.budget, 0) AS budget, money.kind, money.spent
    FROM (
        SELECT given.organization_id
        FROM subscriptions AS given LEFT JOIN plan_shares AS shares ON shares.plan = given.plan
        WHERE (given.budget IS NOT NULL OR shares.budget IS NOT NULL)
            AND char_length(given.organization_id) BETWEEN 1 AND 64
    ) AS whose
    CROSS JOIN LATERAL budget_of(whose.organization_id, :period) AS money
), reached AS (
    INSERT INTO budget_marks AS known (organization_id, period, percent, budget, cost)
    SELECT terms.organization_id, :period, mark.percent, terms.budget, terms.spent
    FROM terms
    JOIN (VALUES (80), (100)) AS mark (percent) ON terms.spent::numeric * 100 >= terms.budget::numeric * mark.percent
    ORDER BY terms.organization_id, mark.percent
    ON CONFLICT (organization_id, period, percent) DO UPDATE
    SET budget = excluded.budget, cost = excluded.cost, reached_at = clock_timestamp()
    WHERE known.budget <> excluded.budget
    RETURNING organization_id, period, percent, budget, cost AS spent, reached_at
)
SELECT reached.organization_id, reached.period, reached.percent, reached.budget, terms.kind, reached.spent, reached.reached_at
FROM reached JOIN terms USING (organization_id)
ORDER BY reached.organization_id, reached.percent;
