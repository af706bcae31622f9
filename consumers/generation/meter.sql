-- name: add(endpoint, model, calls, failed, refused, seconds, prompt_tokens, completion_tokens)!
-- Adds a worker's latest calls to the hour's.
INSERT INTO llm_hours AS total
    (endpoint, model, hour, calls, failed, refused, seconds, prompt_tokens, completion_tokens)
VALUES (
    :endpoint, :model, date_trunc('hour', clock_timestamp(), 'UTC'), :calls, :failed, :refused, :seconds,
    :prompt_tokens, :completion_tokens
)
ON CONFLICT (endpoint, model, hour) DO UPDATE SET
    calls = total.calls + excluded.calls,
    failed = total.failed + excluded.failed,
    refused = total.refused + excluded.refused,
    seconds = total.seconds + excluded.seconds,
    prompt_tokens = total.prompt_tokens + excluded.prompt_tokens,
    completion_tokens = total.completion_tokens + excluded.completion_tokens;

-- name: endpoints(hours)
-- Every endpoint that was called in the last hours, or that has a budget: its state, and what its calls came to. The
-- cost is that of the tokens which are known, at the hour's price of the model that was asked for.
WITH used AS (
    SELECT
        endpoint,
        model,
        sum(calls)::bigint AS calls,
        sum(failed)::bigint AS failed,
        sum(refused)::bigint AS refused,
        sum(seconds) AS seconds,
        sum(prompt_tokens)::bigint AS prompt_tokens,
        sum(completion_tokens)::bigint AS completion_tokens,
        ceil(sum(
            prompt_tokens * price.input_price::numeric + completion_tokens * price.output_price::numeric
        ) / 1000000)::bigint AS cost
    FROM llm_hours
    LEFT JOIN LATERAL llm_price_of(model, model, hour) AS price ON true
    WHERE hour > clock_timestamp() - make_interval(hours => :hours::int)
    GROUP BY endpoint, model
)
SELECT
    used.endpoint,
    used.model,
    coalesce(greatest(gate.closed_until - clock_timestamp(), interval '0'), interval '0') AS closed_for,
    coalesce((
        SELECT hold.sentence FROM llm_holds AS hold
        WHERE hold.passed_at IS NULL AND hold.model = used.model
            AND (hold.endpoint = used.endpoint OR used.endpoint LIKE replace(hold.endpoint, '_', '\_') || ' (%')
        LIMIT 1
    ), (
        -- What never leaves a worker holds that one alone. It is the endpoint's state where it is so for all that would call it.
        SELECT CASE WHEN bool_and(stage.told -> 'unreached' ? used.endpoint)
            THEN min(stage.told -> 'unreached' ->> used.endpoint) END
        FROM fleet_processes AS one CROSS JOIN jsonb_array_elements(one.doing) AS stage (told)
        WHERE one.ended_at IS NULL AND one.seen_at > clock_timestamp() - interval '20 seconds'
            AND stage.told -> 'endpoints' ? used.endpoint
    )) AS held,
    used.calls,
    used.failed,
    used.refused,
    used.seconds / nullif(used.calls, 0) AS seconds_per_call,
    used.prompt_tokens,
    used.completion_tokens,
    used.cost,
    pace.requests_per_minute,
    pace.tokens_per_minute
FROM used
LEFT JOIN llm_gate AS gate ON gate.endpoint = used.endpoint AND gate.closed_at <= clock_timestamp()
LEFT JOIN llm_pace AS pace ON pace.endpoint = used.endpoint AND pace.model = used.model
ORDER BY used.endpoint, used.model;

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
