-- Failed events to discard, as they were shown to their operator. `digest` is of the frozen set, `effects` what would follow.
CREATE TABLE discard_plans (
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
CREATE INDEX discard_plans_created_at ON discard_plans (created_at);

-- The exact set of a plan, each event with how often it had failed. `result` is NULL until it is the event's turn; then `discarded`,
-- or `changed`: it has failed again, or somebody else has dealt with it.
CREATE TABLE discard_plan_items (
    plan_id uuid NOT NULL REFERENCES discard_plans (id) ON DELETE CASCADE,
    position integer NOT NULL,
    failed_event_id uuid NOT NULL,
    occurrences integer NOT NULL,
    result text,
    done_at timestamptz,
    PRIMARY KEY (plan_id, position)
);
CREATE INDEX discard_plan_items_open ON discard_plan_items (plan_id, position) WHERE result IS NULL;
