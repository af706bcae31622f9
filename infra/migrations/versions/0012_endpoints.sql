-- How an endpoint is asked for a model's answers, as some worker has learned. Without `learned_at` nobody knows yet, and
-- until `learner_until` one worker is finding out.
CREATE TABLE llm_dialects (
    endpoint text NOT NULL,
    model text NOT NULL,
    completion_format text NOT NULL,  -- the setting under which it was learned
    form text,
    answer_limit text,
    takes_system boolean,
    why text NOT NULL DEFAULT '',
    learned_at timestamptz,
    learner_until timestamptz,
    PRIMARY KEY (endpoint, model, completion_format)
);

-- Why the workers that share an endpoint, a model and a key make no calls: because the account, the configuration, the
-- endpoint or its limit is to blame. One of them probes at `next_probe_at`; when a probe succeeds, `passed_at` ends the hold.
-- `credential` tells keys apart, so that a worker with a wrong one does not hold the others; it is no key.
CREATE TABLE llm_holds (
    endpoint text NOT NULL,
    model text NOT NULL,
    credential text NOT NULL,
    blame text NOT NULL,
    code text NOT NULL,
    sentence text NOT NULL,
    held_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    next_probe_at timestamptz NOT NULL,
    probes integer NOT NULL DEFAULT 0,
    passed_at timestamptz,
    PRIMARY KEY (endpoint, model, credential)
);

-- The calls that were made for no job, by UTC month, and those of them whose cost nobody told.
CREATE TABLE llm_probes (
    endpoint text NOT NULL,
    model text NOT NULL,
    period text NOT NULL,
    calls bigint NOT NULL,
    maybe_billed_calls bigint NOT NULL,
    prompt_tokens bigint NOT NULL,
    completion_tokens bigint NOT NULL,
    PRIMARY KEY (endpoint, model, period)
);
