-- name: open(endpoint, model)!
-- Makes the row of a budget; one that is there stays.
INSERT INTO llm_pace (endpoint, model) VALUES (:endpoint, :model) ON CONFLICT DO NOTHING;

-- name: lease(endpoint, model, requests_per_minute, tokens_per_minute, calls, most_tokens, unused_requests, unused_tokens, tokens_per_call, part, whole, minute)^
-- Takes whole calls from the budget, as many as are wanted and left, after what the worker returns (negative: what its calls
-- have used beyond). A bucket holds `part` of a minute's limit, or one call if that is more, and fills at the rest of `whole`, at
-- half of the limit at least: no minute has more than that. While the fleet does not know what a call uses, there is one,
-- which takes the most that it may. A clock that was set back fills nothing; one set ahead, a bucket.
WITH budget AS MATERIALIZED (
    SELECT
        pace.*,
        clock_timestamp() AS now,
        coalesce(:tokens_per_call::float8, tokens_per_call) AS usual,
        CASE WHEN :tokens_per_minute::float8 > 0 THEN coalesce(:tokens_per_call::float8, tokens_per_call, :most_tokens::float8)
        ELSE 0 END AS each
    FROM llm_pace AS pace WHERE endpoint = :endpoint AND model = :model
    FOR UPDATE
), bucket AS (
    SELECT
        *,
        greatest(extract(epoch FROM now - refilled_at), 0)::float8 / :minute::float8 AS minutes,
        CASE WHEN :requests_per_minute::float8 > 0 THEN greatest(:part::float8 * :requests_per_minute::float8, 1) END
            AS requests_size,
        CASE WHEN :tokens_per_minute::float8 > 0 THEN greatest(:part::float8 * :tokens_per_minute::float8, coalesce(usual, 0)) END
            AS tokens_size
    FROM budget
), filled AS (
    SELECT
        now,
        usual,
        each,
        tokens_size,
        least(requests_size, requests_left + :unused_requests::float8 + minutes
            * greatest(:whole::float8 * :requests_per_minute::float8 - requests_size, :requests_per_minute::float8 / 2)
        ) AS requests_left,
        least(tokens_size, tokens_left + :unused_tokens::float8 + minutes
            * greatest(:whole::float8 * :tokens_per_minute::float8 - tokens_size, :tokens_per_minute::float8 / 2)
        ) AS tokens_left
    FROM bucket
), granted AS (
    SELECT
        *,
        -- A bucket that is full has one call, whatever rounding makes of it.
        greatest(least(
            :calls::float8,
            CASE WHEN requests_left IS NOT NULL THEN floor(requests_left + 1e-6) END,
            CASE
                WHEN tokens_left IS NULL THEN NULL
                WHEN usual IS NULL THEN (tokens_left >= least(tokens_size, each))::int
                ELSE floor(tokens_left / greatest(each, 1) + 1e-6)
            END
        ), 0) AS calls
    FROM filled
)
UPDATE llm_pace AS pace SET
    requests_per_minute = :requests_per_minute,
    tokens_per_minute = :tokens_per_minute,
    requests_left = coalesce(granted.requests_left - granted.calls, 0),
    tokens_left = coalesce(granted.tokens_left - granted.calls * granted.each, 0),
    refilled_at = granted.now,
    tokens_per_call = granted.usual
FROM granted
WHERE pace.endpoint = :endpoint AND pace.model = :model
RETURNING granted.calls::int AS calls, granted.each, pace.tokens_per_call;
