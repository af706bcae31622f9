-- A row for each process that serves, written by itself every few seconds; those that are gone stay for an hour.
CREATE TABLE fleet_processes (
    process uuid PRIMARY KEY,
    kind text NOT NULL CHECK (kind IN ('worker', 'api', 'console')),
    host text NOT NULL,
    pid integer NOT NULL,
    version text NOT NULL,
    stages text[] NOT NULL,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    seen_at timestamptz NOT NULL,
    ended_at timestamptz,
    rss_bytes bigint NOT NULL,
    log_level text NOT NULL,
    doing jsonb NOT NULL
) WITH (fillfactor = 60);

-- What operators want of the fleet. `subject`: a stage, or a process; `organization_id`: '' is all.
CREATE TABLE fleet_controls (
    kind text NOT NULL CHECK (kind IN ('pause', 'concurrency', 'intake', 'drain', 'log_level')),
    subject text NOT NULL,
    organization_id text NOT NULL DEFAULT '',
    value text,
    reason text NOT NULL,
    set_by text NOT NULL,
    set_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at timestamptz,
    PRIMARY KEY (kind, subject, organization_id)
);

-- An organization whose generation is paused may have no run under way.
CREATE OR REPLACE FUNCTION dispatch_terms(whose text) RETURNS TABLE (weight double precision, most integer)
LANGUAGE sql STABLE AS $$
    SELECT
        greatest(0.001, least(1000, coalesce(
            given.weight::float8, shares.weight * CASE WHEN given.priority THEN 4 ELSE 1 END,
            CASE WHEN given.priority THEN 4 ELSE 1 END
        ))),
        CASE WHEN EXISTS (
            SELECT FROM fleet_controls AS control
            WHERE control.kind = 'pause' AND control.subject = 'generation' AND control.organization_id = whose
                AND (control.expires_at IS NULL OR control.expires_at > clock_timestamp())
        ) THEN 0 ELSE coalesce(given.max_in_flight::int, shares.max_in_flight, 2147483647) END
    FROM (SELECT whose) AS asked
    LEFT JOIN subscriptions AS given ON given.organization_id = whose
    LEFT JOIN plan_shares AS shares ON shares.plan = given.plan
    LIMIT 1
$$;
