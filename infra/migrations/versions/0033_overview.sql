-- How many jobs were asked for (`asked`) and have ended (`completed`, `failed`, `cancelled`), by time: five minutes from `at` on
-- for the last two days, an hour before that. A job that ended again after a replay counts where it ended last.
-- `took`: of the completed, the time from request to end, as 4 × log2 of its seconds, rounded down; 999: a job that was to
-- wait or was replayed, whose time says nothing. 0 of all others.
CREATE TABLE job_counts (
    at timestamptz NOT NULL,
    state text NOT NULL CHECK (state = 'asked' OR state IN ('completed', 'failed', 'cancelled')),
    took smallint NOT NULL,
    jobs integer NOT NULL,
    PRIMARY KEY (at, state, took)
);
-- Up to where in the archive they are counted, in its one row.
CREATE TABLE job_counts_progress (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    counted_to bigint NOT NULL
);

-- When each periodic task ran last, and whether an operator wants it to run now.
CREATE TABLE periodic_tasks (
    name text PRIMARY KEY,
    started_at timestamptz,
    ended_at timestamptz,
    error text,
    wanted_at timestamptz,
    wanted_by text
) WITH (fillfactor = 50);

-- What `teamfit verify` has found, check by check, without the IDs.
CREATE TABLE verify_reports (
    at timestamptz PRIMARY KEY,
    settled boolean NOT NULL,
    ok boolean NOT NULL,
    violated jsonb NOT NULL
);

-- The money of a month is added up over all organizations.
CREATE INDEX llm_usage_period ON llm_usage (period);
-- An endpoint's last day is read by its hours.
CREATE INDEX llm_hours_hour ON llm_hours (hour);
