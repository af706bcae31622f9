-- Written by the HTTP intake: the durable request, committed before the caller hears 202.
CREATE TABLE job_requests (
    job_id uuid PRIMARY KEY,
    organization_id text NOT NULL,
    team_id text NOT NULL,
    idempotency_key text,
    event jsonb NOT NULL,
    accepted_at timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX job_requests_idempotency_key ON job_requests (organization_id, idempotency_key);

-- How each run ended: written once, by whoever comes first. `fact` is the terminal event where no other table could make
-- it again (failed, cancelled).
CREATE TABLE job_outcomes (
    job_id uuid NOT NULL,
    run integer NOT NULL,
    outcome text NOT NULL CHECK (outcome IN ('completed', 'failed', 'rejected', 'cancelled')),
    fact jsonb,
    decided_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (job_id, run)
);

-- Written by quota: one row per job and run, rejections included, so that a repeat finds the first decision.
CREATE TABLE quota_ledger (
    job_id uuid NOT NULL,
    run integer NOT NULL,
    organization_id text NOT NULL,
    period text NOT NULL,
    state text NOT NULL CHECK (state IN ('reserved', 'charged', 'released', 'rejected')),
    code text,
    message text,
    priority boolean NOT NULL DEFAULT false,
    decided_at timestamptz NOT NULL,
    settled_at timestamptz,
    PRIMARY KEY (job_id, run),
    CHECK ((state = 'rejected') = (code IS NOT NULL))
);
CREATE INDEX quota_ledger_reserved ON quota_ledger (decided_at) WHERE state = 'reserved';

-- The counters that admission locks; `period` is a UTC month ("2031-04").
CREATE TABLE quota_usage (
    organization_id text NOT NULL,
    period text NOT NULL,
    reserved integer NOT NULL DEFAULT 0 CHECK (reserved >= 0),
    charged integer NOT NULL DEFAULT 0 CHECK (charged >= 0),
    PRIMARY KEY (organization_id, period)
);

-- Written by generation: one row per call to the LLM that was made or may have been. Only the newest token of a run may
-- save a result.
CREATE TABLE generation_attempts (
    job_id uuid NOT NULL,
    run integer NOT NULL,
    attempt integer NOT NULL,
    token uuid NOT NULL,
    state text NOT NULL CHECK (state IN ('started', 'saved', 'failed', 'abandoned')),
    error_code text,
    model text,
    prompt_tokens integer,
    completion_tokens integer,
    maybe_billed boolean NOT NULL DEFAULT false,
    started_at timestamptz NOT NULL,
    finished_at timestamptz,
    organization_id text,  -- whose total it counts for in `llm_usage`; without one, nobody's
    PRIMARY KEY (job_id, run, attempt)
);

-- Until when nobody calls an LLM endpoint, because it said so. By this database's clock, so that no two hosts disagree.
CREATE TABLE llm_gate (
    endpoint text PRIMARY KEY,
    closed_until timestamptz NOT NULL,
    reason text NOT NULL
);

-- What each organization's calls have cost, by the UTC month in which they began ("2031-04"). A running total of what
-- `generation_attempts` says, which outlives the rows. A call is counted when its attempt ends.
CREATE TABLE llm_usage (
    organization_id text NOT NULL,
    period text NOT NULL,
    calls bigint NOT NULL,
    prompt_tokens bigint NOT NULL,
    completion_tokens bigint NOT NULL,
    maybe_billed_calls bigint NOT NULL,
    PRIMARY KEY (organization_id, period)
);

-- Adds up differences, so that a repeated or a late record of an attempt counts what is new in it and nothing twice,
-- whoever writes it. Attempts are always inserted as `started`, which counts as nothing. Organizations are sorted, so that
-- two writers cannot deadlock.
CREATE FUNCTION count_llm_usage() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO llm_usage AS total (organization_id, period, calls, prompt_tokens, completion_tokens, maybe_billed_calls)
    SELECT
        organization_id,
        to_char(started_at AT TIME ZONE 'UTC', 'YYYY-MM'),
        sum(sign),
        sum(sign * coalesce(prompt_tokens, 0)),
        sum(sign * coalesce(completion_tokens, 0)),
        sum(sign * maybe_billed::int)
    FROM (SELECT 1 AS sign, * FROM after_update UNION ALL SELECT -1, * FROM before_update) AS change
    WHERE state <> 'started' AND organization_id IS NOT NULL
    GROUP BY 1, 2
    -- A total that does not change is not locked either.
    HAVING (sum(sign), sum(sign * coalesce(prompt_tokens, 0)), sum(sign * coalesce(completion_tokens, 0)),
        sum(sign * maybe_billed::int)) <> (0, 0, 0, 0)
    ORDER BY 1, 2
    ON CONFLICT (organization_id, period) DO UPDATE SET
        calls = total.calls + excluded.calls,
        prompt_tokens = total.prompt_tokens + excluded.prompt_tokens,
        completion_tokens = total.completion_tokens + excluded.completion_tokens,
        maybe_billed_calls = total.maybe_billed_calls + excluded.maybe_billed_calls;
    RETURN NULL;
END $$;
CREATE TRIGGER generation_attempts_count_llm_usage AFTER UPDATE ON generation_attempts
REFERENCING OLD TABLE AS before_update NEW TABLE AS after_update
FOR EACH STATEMENT EXECUTE FUNCTION count_llm_usage();

-- Written by the projection: the archive of facts, append-only. An upstream service may number its events as it likes,
-- so an event's ID is unique within its job.
CREATE TABLE job_events (
    sequence bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    job_id uuid NOT NULL,
    event_id text NOT NULL,
    run integer NOT NULL,
    type text NOT NULL,
    organization_id text NOT NULL,
    time timestamptz NOT NULL,
    event jsonb NOT NULL,
    archived_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (job_id, event_id)
);

-- What is to be published later: retries, delayed jobs.
CREATE TABLE scheduled_events (
    id uuid PRIMARY KEY,
    topic text NOT NULL,
    key bytea,
    event bytea,
    headers jsonb NOT NULL DEFAULT '{}',
    due_at timestamptz NOT NULL,
    reason text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX scheduled_events_due_at ON scheduled_events (due_at);

-- The dead letters: what could not be processed, byte for byte, and why.
CREATE TABLE failed_events (
    id uuid PRIMARY KEY,
    topic text NOT NULL,
    stage text NOT NULL,
    reason text NOT NULL,
    key bytea,
    event bytea,
    headers jsonb NOT NULL DEFAULT '{}',
    error_type text NOT NULL,
    error_message text NOT NULL,
    traceback text,
    attempts integer NOT NULL,
    occurrences integer NOT NULL DEFAULT 1,
    first_failed_at timestamptz NOT NULL,
    last_failed_at timestamptz NOT NULL,
    event_id text,
    event_type text,
    job_id uuid,
    run integer,
    organization_id text,
    trace_id text,
    replayed_at timestamptz,
    discarded_at timestamptz
);
CREATE INDEX failed_events_stage ON failed_events (stage, last_failed_at);
CREATE INDEX failed_events_job_id ON failed_events (job_id);
CREATE INDEX failed_events_organization_id ON failed_events (organization_id, last_failed_at);
