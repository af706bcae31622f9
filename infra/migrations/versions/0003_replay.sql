-- An event that was replayed or discarded may fail again, and is open again then. Which of its failures were dealt with is
-- kept as a count of occurrences, not as a time: the clocks of stages and operators need not agree.
ALTER TABLE failed_events
    ADD COLUMN replayed_occurrences integer,
    ADD COLUMN discarded_occurrences integer,
    ADD COLUMN discarded_because text,
    ADD COLUMN discarded_by text;
UPDATE failed_events SET replayed_occurrences = occurrences WHERE replayed_at IS NOT NULL;
UPDATE failed_events SET discarded_occurrences = occurrences WHERE discarded_at IS NOT NULL;
ALTER TABLE failed_events
    ADD COLUMN state text GENERATED ALWAYS AS (
        CASE
            WHEN discarded_occurrences >= occurrences THEN 'discarded'
            WHEN replayed_occurrences >= occurrences THEN 'replayed'
            ELSE 'open'
        END
    ) STORED;
CREATE INDEX failed_events_open ON failed_events (last_failed_at, id) WHERE state = 'open';
CREATE INDEX failed_events_last_failed_at ON failed_events (last_failed_at, id);
CREATE INDEX failed_events_error_type ON failed_events (error_type, last_failed_at);
CREATE INDEX failed_events_trace_id ON failed_events (trace_id) WHERE trace_id IS NOT NULL;

-- What a plan estimates tokens from: the latest calls whose cost is known.
CREATE INDEX generation_attempts_cost ON generation_attempts (finished_at) WHERE prompt_tokens IS NOT NULL;

-- A replay as it was shown to its operator. `effects` is what the plan said would follow.
CREATE TABLE replay_plans (
    id uuid PRIMARY KEY,
    state text NOT NULL DEFAULT 'planned' CHECK (state IN ('planned', 'applying', 'finished', 'aborted')),
    filters jsonb NOT NULL,
    effects jsonb NOT NULL DEFAULT '{}',
    created_by text NOT NULL,
    created_at timestamptz NOT NULL,
    started_at timestamptz,
    ended_at timestamptz
);

-- The exact set of a plan, in the order of sending, and for each what the plan saw: its failures so far, the job's latest
-- run and how it and the failed run had ended. If any of that is different when the plan is applied, it is refused.
CREATE TABLE replay_plan_items (
    plan_id uuid NOT NULL REFERENCES replay_plans (id),
    position integer NOT NULL,
    failed_event_id uuid NOT NULL REFERENCES failed_events (id),
    action text NOT NULL CHECK (action IN ('rerun', 'resend', 'exclude')),
    excluded_because text,
    occurrences integer NOT NULL,
    last_failed_at timestamptz NOT NULL,
    others_behind integer NOT NULL,
    job_id uuid,
    run integer,
    run_outcome text,
    latest_run integer,
    latest_outcome text,
    next_run integer,
    ends_first boolean NOT NULL DEFAULT false,
    ended_at timestamptz,
    sent_at timestamptz,
    PRIMARY KEY (plan_id, position),
    CHECK ((action = 'exclude') = (excluded_because IS NOT NULL)),
    CHECK (action <> 'rerun' OR (job_id IS NOT NULL AND next_run > run))
);
CREATE INDEX replay_plan_items_unsent ON replay_plan_items (plan_id, position)
WHERE sent_at IS NULL AND action <> 'exclude';
CREATE INDEX replay_plan_items_failed_event_id ON replay_plan_items (failed_event_id);

-- What is known of a job: its latest run, at least `known_run`; how that ended, or NULL; whether any run completed; whose it
-- is.
CREATE FUNCTION job_standing(job uuid, known_run integer)
RETURNS TABLE (latest_run integer, latest_outcome text, completed boolean, owner text)
LANGUAGE sql STABLE AS $$
    SELECT
        known.run,
        (SELECT ended.outcome FROM job_outcomes AS ended WHERE ended.job_id = job AND ended.run = known.run),
        EXISTS (SELECT FROM job_outcomes AS ended WHERE ended.job_id = job AND ended.outcome = 'completed'),
        coalesce(
            (SELECT entry.organization_id FROM quota_ledger AS entry WHERE entry.job_id = job ORDER BY entry.run LIMIT 1),
            (SELECT request.organization_id FROM job_requests AS request WHERE request.job_id = job),
            (SELECT seen.organization_id FROM customization_jobs AS seen WHERE seen.job_id = job)
        )
    FROM (
        SELECT greatest(
            known_run,
            (SELECT max(entry.run) FROM quota_ledger AS entry WHERE entry.job_id = job),
            (SELECT max(ended.run) FROM job_outcomes AS ended WHERE ended.job_id = job),
            (SELECT max(seen.run) FROM customization_jobs AS seen WHERE seen.job_id = job)
        ) AS run
        OFFSET 0  -- found once, not wherever it is used
    ) AS known
$$;
