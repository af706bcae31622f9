-- A row for each action of an operator, written in the transaction that acts, and for each that was refused.
CREATE TABLE operator_actions (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    actor text NOT NULL,
    face text NOT NULL CHECK (face IN ('cli', 'api', 'console', 'program')),
    action text NOT NULL,
    target text NOT NULL,
    reason text,
    effects jsonb NOT NULL DEFAULT '{}',
    outcome text NOT NULL CHECK (outcome IN ('done', 'refused')),
    why text,
    CHECK ((outcome = 'refused') = (why IS NOT NULL))
);
CREATE INDEX operator_actions_at ON operator_actions (at, id);
CREATE INDEX operator_actions_actor ON operator_actions (actor, at, id);
CREATE INDEX operator_actions_action ON operator_actions (action, at, id);
CREATE INDEX operator_actions_target ON operator_actions (target, at, id);
