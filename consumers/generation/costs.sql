-- name: without_price()
-- Models whose calls are on record without a price, and how many calls.
SELECT coalesce(model, '') AS model, count(*) AS calls
FROM generation_attempts
WHERE state <> 'started' AND cost IS NULL
GROUP BY 1 ORDER BY 1;

-- name: price_again(holds_from)$
-- Has the trigger price the calls that began since and have none; returns how many have one now.
WITH priced AS (
    UPDATE generation_attempts SET cost = cost
    WHERE state <> 'started' AND cost IS NULL AND started_at >= :holds_from
    RETURNING cost
)
SELECT count(cost) FROM priced;
