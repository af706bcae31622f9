-- How many requests a minute an organization may make, and how many of its runs may wait. NULL: as its plan has it, and without
-- that, as `intake_terms` says. 0 stops an organization.
ALTER TABLE subscriptions ADD COLUMN IF NOT EXISTS requests_per_minute integer;
ALTER TABLE subscriptions ADD COLUMN IF NOT EXISTS max_waiting integer;
ALTER TABLE plan_shares ADD COLUMN requests_per_minute integer CHECK (requests_per_minute >= 0);
ALTER TABLE plan_shares ADD COLUMN max_waiting integer CHECK (max_waiting >= 0);

-- One bucket for each organization, which holds a minute's requests: when it will be full again. Not logged, as it is written with
-- each request and is worth a minute: after a crash of Postgres all buckets are full.
CREATE UNLOGGED TABLE intake_rates (
    organization_id text PRIMARY KEY,
    full_at timestamptz NOT NULL
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02);

CREATE FUNCTION intake_terms(whose text) RETURNS TABLE (per_minute integer, most_waiting integer)
LANGUAGE sql STABLE AS $$
    SELECT
        greatest(0, coalesce(given.requests_per_minute::int, shares.requests_per_minute, 60000)),
        greatest(0, coalesce(given.max_waiting::int, shares.max_waiting, 1000000))
    FROM (SELECT whose) AS asked
    LEFT JOIN subscriptions AS given ON given.organization_id = whose
    LEFT JOIN plan_shares AS shares ON shares.plan = given.plan
    LIMIT 1
$$;

-- How many more runs of the organization may wait: its limit, less those that have come in and were not released.
CREATE FUNCTION intake_room(whose text) RETURNS bigint
LANGUAGE sql STABLE AS $$
    SELECT terms.most_waiting
        - coalesce((SELECT known.waiting FROM dispatch_organizations AS known WHERE known.organization_id = whose), 0)
        - (SELECT count(*) FROM dispatch_runs AS line WHERE line.organization_id = whose AND line.state = 'arrived')
    FROM intake_terms(whose) AS terms
$$;

-- Takes `wanted` requests from an organization's bucket, or as many as are in it; it fills evenly. Whoever comes at the same time
-- waits for the transaction, so together they get no more. `wait`: seconds until another request is in it, or, where one is,
-- until it is full.
CREATE FUNCTION intake_take(whose text, wanted integer)
RETURNS TABLE (per_minute integer, granted integer, remaining integer, wait double precision)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    most integer;
    lacks double precision;  -- seconds until it is full
    free integer;
    taken integer;
BEGIN
    SELECT terms.per_minute INTO most FROM intake_terms(whose) AS terms;
    IF most = 0 THEN
        RETURN QUERY SELECT 0, 0, 0, 60::double precision;
        RETURN;
    END IF;
    INSERT INTO intake_rates (organization_id, full_at) VALUES (whose, '-infinity') ON CONFLICT DO NOTHING;
    -- The time is read when the row is locked. A clock that was set back costs a minute at most.
    SELECT CASE WHEN rate.full_at = '-infinity' THEN 0 ELSE
        greatest(0, least(60, extract(epoch FROM rate.full_at - clock_timestamp())::float8))
    END INTO lacks FROM intake_rates AS rate WHERE rate.organization_id = whose FOR UPDATE;
    free := floor(most * (1 - lacks / 60) + 0.0001);
    taken := least(wanted, free);
    IF taken > 0 THEN
        lacks := lacks + taken * 60.0::float8 / most;
        UPDATE intake_rates AS rate SET full_at = clock_timestamp() + make_interval(secs => lacks)
        WHERE rate.organization_id = whose;
    END IF;
    free := free - taken;
    RETURN QUERY SELECT most, taken, free,
        CASE WHEN free > 0 THEN lacks ELSE greatest(0, lacks - 60 + 60.0::float8 / most) END;
END
$$;

-- One request by HTTP. A stage that stalls in its transaction keeps nobody's connection for longer than a second.
CREATE FUNCTION intake_take_one(whose text)
RETURNS TABLE (per_minute integer, granted integer, remaining integer, wait double precision)
LANGUAGE sql SET lock_timeout = '1s' AS $$
    SELECT * FROM intake_take(whose, 1)
$$;
