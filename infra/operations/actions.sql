-- name: newest(limit, before_at, before_id, actor, action, target, face, outcome, since, until)
-- A page of the log of actions, the newest first, beginning after a place in that order. An action that ends in a point
-- stands for all that begin so.
SELECT id, at, actor, face, action, target, reason, effects, outcome, why
FROM operator_actions
WHERE (:actor::text IS NULL OR actor = :actor)
    AND (:action::text IS NULL OR :action LIKE '%.' OR action = :action)
    AND (
        :action::text IS NULL OR :action NOT LIKE '%.'
        OR (split_part(action, '.', 1) = split_part(:action, '.', 1) AND starts_with(action, :action))
    )
    AND (:target::text IS NULL OR target = :target)
    AND (:face::text IS NULL OR face = :face)
    AND (:outcome::text IS NULL OR outcome = :outcome)
    AND (:since::timestamptz IS NULL OR at >= :since)
    AND (:until::timestamptz IS NULL OR at < :until)
    AND (:before_at::timestamptz IS NULL OR (at, id) < (:before_at, :before_id::uuid))
ORDER BY at DESC, id DESC
LIMIT :limit;
