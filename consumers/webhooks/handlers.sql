-- name: is_true(organization_id, period, percent, budget)$
-- Whether an organization has reached this mark of its month's budget.
SELECT EXISTS (
    SELECT FROM budget_marks
    WHERE organization_id = :organization_id AND period = :period AND percent = :percent AND budget = :budget
);

-- name: lately(since, before, kind)
-- Marks reached in a while that an endpoint wants to be told of.
SELECT
    mark.organization_id, mark.period, mark.percent, mark.budget, mark.cost AS spent, mark.reached_at,
    coalesce((SELECT terms.kind FROM budget_of(mark.organization_id, mark.period) AS terms), 'soft') AS kind
FROM budget_marks AS mark
WHERE mark.reached_at >= :since AND mark.reached_at < :before AND EXISTS (
    SELECT FROM webhook_endpoints AS one
    WHERE one.organization_id = mark.organization_id AND :kind = ANY(one.types) AND one.compared_from <= mark.reached_at
)
ORDER BY mark.organization_id, mark.period, mark.percent;
