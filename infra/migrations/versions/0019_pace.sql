-- What the fleet may still ask an endpoint and model at `refilled_at`, by this database's clock: a bucket of requests and one of
-- tokens, each of which fills at its rate to a small part of a minute's limit. NULL: nobody knows of a limit.
CREATE TABLE llm_pace (
    endpoint text NOT NULL,
    model text NOT NULL,
    requests_per_minute double precision,
    tokens_per_minute double precision,
    requests_left double precision NOT NULL DEFAULT 0,
    tokens_left double precision NOT NULL DEFAULT 0,
    refilled_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    tokens_per_call double precision,  -- what the latest calls have used on average
    PRIMARY KEY (endpoint, model)
);

-- How each endpoint has answered, by UTC hour: for an operator to see, and told late. What calls have cost is in `generation_attempts`.
CREATE TABLE llm_hours (
    endpoint text NOT NULL,
    model text NOT NULL,
    hour timestamptz NOT NULL,
    calls bigint NOT NULL,
    failed bigint NOT NULL,
    refused bigint NOT NULL,
    seconds double precision NOT NULL,
    prompt_tokens bigint NOT NULL,
    completion_tokens bigint NOT NULL,
    PRIMARY KEY (endpoint, model, hour)
);
