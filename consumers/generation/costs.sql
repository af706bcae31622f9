-- name: without_price(most)
-- Models whose calls are on record without a price, and how many calls; of each at most so many are counted. The index of such calls is
-- read from one model to the next, so that the others are passed by.
WITH RECURSIVE models AS (
    SELECT (
        SELECT min(coalesce(model, '')) FROM generation_attempts WHERE state <> 'started' AND cost IS NULL
    ) AS model
    UNION ALL
    SELECT (
        SELECT min(coalesce(call.model, '')) FROM generation_attempts AS call
        WHERE call.state <> 'started' AND call.cost IS NULL AND coalesce(call.model, '') > models.model
    )
    FROM models WHERE models.model IS NOT NULL
)
SELECT models.model, counted.calls
FROM models
CROSS JOIN LATERAL (
    SELECT count(*) AS calls
    FROM (
        SELECT FROM generation_attempts AS call
        WHERE call.state <> 'started' AND call.cost IS NULL AND coalesce(call.model, '') = models.model
        LIMIT :most
    ) AS found
) AS counted
WHERE models.model IS NOT NULL
ORDER BY models.model;

-- name: would_price(model, holds_from, most)$
-- How many calls a price would be the first of, counted up to so many: those that answer or were asked by this name, with or without its
-- date, and those whose model is not known.
SELECT count(*)
FROM (
    SELECT FROM generation_attempts
    WHERE state <> 'started' AND cost IS NULL AND started_at >= :holds_from
        AND (
            model IS NULL
            OR :model::text IN (model, llm_base_model(model), asked_model, llm_base_model(asked_model))
        )
    LIMIT :most
) AS found;

-- name: price_again(holds_from)$
-- Has the trigger price the calls that began since and have none; returns how many have one now.
WITH priced AS (
    UPDATE generation_attempts SET cost = cost
    WHERE state <> 'started' AND cost IS NULL AND started_at >= :holds_from
    RETURNING cost
)
SELECT count(cost) FROM priced;
