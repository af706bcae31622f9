-- A cancellation of many jobs as it was shown to its operator. `digest` is of its frozen set, `effects` what would follow.
CREATE TABLE cancel_plans (
    id uuid PRIMARY KEY,
    state text NOT NULL DEFAULT 'planned' CHECK (state IN ('planned', 'applying', 'finished', 'aborted')),
    filters jsonb NOT NULL,
    effects jsonb NOT NULL DEFAULT '{}',
    digest text NOT NULL DEFAULT '',
    reason text,
    created_by text NOT NULL,
    created_at timestamptz NOT NULL,
    started_at timestamptz,
    ended_at timestamptz
);
CREATE INDEX cancel_plans_created_at ON cancel_plans (created_at);

-- The exact set of a plan, the oldest first. `result` is NULL until it is the job's turn; then `cancelled`, or why it was not.
CREATE TABLE cancel_plan_items (
    plan_id uuid NOT NULL REFERENCES cancel_plans (id) ON DELETE CASCADE,
    position integer NOT NULL,
    job_id uuid NOT NULL,
    organization_id text,
    run integer NOT NULL,
    result text,
    done_at timestamptz,
    PRIMARY KEY (plan_id, position)
);
CREATE INDEX cancel_plan_items_open ON cancel_plan_items (plan_id, position) WHERE result IS NULL;
