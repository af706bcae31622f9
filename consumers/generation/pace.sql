-- name: open(endpoint, model)!
-- Makes the row of a budget; one that is there stays.
INSERT INTO llm_pace (endpoint, model) VALUES (:endpoint, :model) ON CONFLICT DO NOTHING;

-- name: lease(endpoint, model, requests_per_minute, tokens_per_minute, requests, tokens, returned, tokens_per_call, part, speed, minute)^
-- Takes requests and tokens from the budget for one worker's calls, as many as are wanted and left, after what it returns
-- (negative: what it has used beyond). The buckets hold `part` of a minute's limit and fill at `speed` of it, so that no
-- minute has more than the limit. A clock that was set back fills nothing; one that was set ahead, a bucket.
WITH budget AS MATERIALIZED (
    SELECT
        clock_timestamp() AS now,
        CASE WHEN :requests_per_minute::float8 > 0 THEN greatest(:part::float8 * :requests_per_minute::float8, 1) END
            AS requests_size,
        :part::float8 * :tokens_per_minute::float8 AS tokens_size,
        requests_left,
        tokens_left,
        refilled_at,
        tokens_per_call
    FROM llm_pace WHERE endpoint = :endpoint AND model = :model
    FOR UPDATE
), filled AS (
    SELECT
        now,
        tokens_per_call,
        CASE WHEN requests_size IS NOT NULL THEN
            least(requests_left + since.minutes * :speed::float8 * :requests_per_minute::float8, requests_size)
        END AS requests_left,
        CASE WHEN tokens_size IS NOT NULL THEN
            least(tokens_left + since.minutes * :speed::float8 * :tokens_per_minute::float8, tokens_size) + :returned::float8
        END AS tokens_left
    FROM budget
    CROSS JOIN LATERAL (
        SELECT greatest(extract(epoch FROM now - refilled_at), 0)::float8 / :minute::float8 AS minutes
    ) AS since
), granted AS (
    SELECT
        *,
        CASE WHEN requests_left IS NULL THEN :requests::float8
        ELSE least(:requests::float8, greatest(floor(requests_left), 0)) END AS requests,
        CASE WHEN tokens_left IS NULL THEN :tokens::float8
        ELSE least(:tokens::float8, greatest(tokens_left, 0)) END AS tokens
    FROM filled
)
UPDATE llm_pace AS pace SET
    requests_per_minute = :requests_per_minute,
    tokens_per_minute = :tokens_per_minute,
    requests_left = coalesce(granted.requests_left - granted.requests, 0),
    tokens_left = coalesce(granted.tokens_left - granted.tokens, 0),
    refilled_at = granted.now,
    tokens_per_call = coalesce(:tokens_per_call::float8, granted.tokens_per_call)
FROM granted
WHERE pace.endpoint = :endpoint AND pace.model = :model
RETURNING granted.requests, granted.tokens, pace.tokens_per_call;
