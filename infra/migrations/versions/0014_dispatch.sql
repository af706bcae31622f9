-- What an organization is given of the fleet. NULL: as its plan has it, and without that, weight 1 (4 with priority) and no cap.
ALTER TABLE subscriptions ADD COLUMN IF NOT EXISTS weight double precision;
ALTER TABLE subscriptions ADD COLUMN IF NOT EXISTS max_in_flight integer;

CREATE TABLE plan_shares (
    plan text PRIMARY KEY,
    weight double precision CHECK (weight BETWEEN 0.001 AND 1000),
    max_in_flight integer CHECK (max_in_flight >= 0)
);

-- A row for each run that was admitted and has not ended. `state` is moved by `dispatch` alone; the marks `ended`, `returned`
-- (it waits for its retry) and `due` (its retry has come) are how others tell it what has happened.
CREATE TABLE dispatch_runs (
    job_id uuid NOT NULL,
    run integer NOT NULL,
    organization_id text NOT NULL,
    state text NOT NULL DEFAULT 'arrived' CHECK (state IN ('arrived', 'waiting', 'released', 'parked')),
    rank smallint NOT NULL,  -- replays come after what is new of their organization
    place bigint GENERATED ALWAYS AS IDENTITY,
    topic text NOT NULL,
    event bytea NOT NULL,
    headers jsonb NOT NULL DEFAULT '{}',
    entered_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    released_at timestamptz,
    charged double precision NOT NULL DEFAULT 0,  -- virtual time that its organization was moved on by when it was released
    published boolean NOT NULL DEFAULT false,
    publish_after timestamptz,
    ended boolean NOT NULL DEFAULT false,
    returned boolean NOT NULL DEFAULT false,
    due boolean NOT NULL DEFAULT false,
    PRIMARY KEY (job_id, run)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.05);
CREATE INDEX dispatch_runs_line ON dispatch_runs (organization_id, rank, place) WHERE state = 'waiting';
CREATE INDEX dispatch_runs_marked ON dispatch_runs (place) WHERE ended OR returned OR due OR state = 'arrived';
CREATE INDEX dispatch_runs_released ON dispatch_runs (place) WHERE state = 'released';

-- A row for each organization that ever had something waiting, written by `dispatch` alone. `tag`: the virtual time at which
-- its next run starts; `since`: who comes first of equals; `cost`: seconds that its recent runs have held a slot.
CREATE TABLE dispatch_organizations (
    organization_id text PRIMARY KEY,
    tag double precision NOT NULL,
    since bigint NOT NULL,
    waiting bigint NOT NULL DEFAULT 0,
    in_flight integer NOT NULL DEFAULT 0,
    capped boolean NOT NULL DEFAULT false,
    cost double precision
) WITH (fillfactor = 60, autovacuum_vacuum_scale_factor = 0.02);
CREATE INDEX dispatch_organizations_next ON dispatch_organizations (tag, since) WHERE waiting > 0 AND NOT capped;
CREATE INDEX dispatch_organizations_capped ON dispatch_organizations (organization_id) WHERE waiting > 0 AND capped;
CREATE SEQUENCE dispatch_turns;

-- The virtual time, and the seconds that recent runs of anybody have held a slot.
CREATE TABLE dispatch_clock (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    virtual double precision NOT NULL DEFAULT 0,
    cost double precision NOT NULL DEFAULT 1
);
INSERT INTO dispatch_clock DEFAULT VALUES;

-- The live generation workers, and how many runs each takes at once.
CREATE TABLE dispatch_workers (
    worker uuid PRIMARY KEY,
    slots integer NOT NULL CHECK (slots > 0),
    seen_at timestamptz NOT NULL
);

CREATE FUNCTION dispatch_terms(whose text) RETURNS TABLE (weight double precision, most integer)
LANGUAGE sql STABLE AS $$
    SELECT
        greatest(0.001, least(1000, coalesce(
            given.weight::float8, shares.weight * CASE WHEN given.priority THEN 4 ELSE 1 END,
            CASE WHEN given.priority THEN 4 ELSE 1 END
        ))),
        coalesce(given.max_in_flight::int, shares.max_in_flight, 2147483647)
    FROM (SELECT whose) AS asked
    LEFT JOIN subscriptions AS given ON given.organization_id = whose
    LEFT JOIN plan_shares AS shares ON shares.plan = given.plan
    LIMIT 1
$$;

-- Takes in what has happened to runs since the last time, at most `most` of them; returns how many. Rows that somebody else
-- holds are left for the next time: nobody is waited for.
CREATE FUNCTION dispatch_collect(most integer) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
    now_virtual double precision;
    collected integer;
BEGIN
    SELECT virtual INTO now_virtual FROM dispatch_clock;
    INSERT INTO dispatch_organizations (organization_id, tag, since)
    SELECT DISTINCT line.organization_id, now_virtual, 0 FROM dispatch_runs AS line
    WHERE (line.ended OR line.returned OR line.due OR line.state = 'arrived') AND line.state = 'arrived'
    ON CONFLICT (organization_id) DO NOTHING;

    WITH marked AS MATERIALIZED (
        SELECT
            line.job_id, line.run, line.organization_id, line.ended,
            line.state = 'released' AND (line.ended OR line.returned) AS leaves,
            CASE
                WHEN line.ended AND line.state = 'waiting' THEN -1
                WHEN line.ended OR line.state = 'waiting' THEN 0
                WHEN line.state = 'arrived' OR line.due THEN 1
                ELSE 0
            END AS waits,
            CASE WHEN line.state IN ('arrived', 'waiting') OR line.due THEN 'waiting' ELSE 'parked' END AS next_state,
            line.charged, line.released_at
        FROM dispatch_runs AS line
        WHERE (line.ended OR line.returned OR line.due OR line.state = 'arrived')
            -- Of an organization that came in after the statement above: the next time.
            AND (line.state <> 'arrived' OR EXISTS (
                SELECT FROM dispatch_organizations AS known WHERE known.organization_id = line.organization_id
            ))
        ORDER BY line.place
        LIMIT most
        FOR UPDATE OF line SKIP LOCKED
    ), removed AS (
        DELETE FROM dispatch_runs AS line USING marked
        WHERE line.job_id = marked.job_id AND line.run = marked.run AND marked.ended
    ), moved AS (
        UPDATE dispatch_runs AS line SET state = marked.next_state, returned = false, due = false
        FROM marked WHERE line.job_id = marked.job_id AND line.run = marked.run AND NOT marked.ended
    ), attempted AS (
        -- For how long the runs that leave have held a slot since they were released. A clock that was set counts for nothing.
        SELECT marked.*, (
            SELECT sum(greatest(0, least(86400, extract(
                epoch FROM coalesce(call.finished_at, clock_timestamp()) - call.started_at
            ))))::float8
            FROM generation_attempts AS call
            WHERE call.job_id = marked.job_id AND call.run = marked.run
                AND call.started_at >= marked.released_at - interval '1 second'
        ) AS measured
        FROM marked
    ), held AS (
        -- A run that was never begun has held its place in the window all the same: else cancelling would be free.
        SELECT attempted.*, CASE WHEN leaves THEN coalesce(
            measured, greatest(0, least(86400, extract(epoch FROM clock_timestamp() - released_at)))::float8
        ) END AS seconds
        FROM attempted
    ), change AS (
        SELECT
            organization_id,
            sum(waits) AS waits,
            count(*) FILTER (WHERE leaves) AS leaves,
            coalesce(sum(charged) FILTER (WHERE leaves), 0) AS charged,
            coalesce(sum(seconds), 0) AS seconds,
            count(measured) FILTER (WHERE leaves) AS runs,
            avg(measured) FILTER (WHERE leaves) AS mean
        FROM held
        GROUP BY organization_id
        HAVING sum(waits) <> 0 OR bool_or(leaves)
    ), organizations AS (
        UPDATE dispatch_organizations AS known SET
            waiting = known.waiting + change.waits,
            in_flight = known.in_flight - change.leaves,
            capped = known.in_flight - change.leaves >= terms.most,
            -- What was charged was an estimate. Whoever had nothing to wait for, or was at its cap, has saved nothing up.
            tag = CASE
                WHEN known.waiting <= 0 OR (known.capped AND known.in_flight - change.leaves < terms.most) THEN
                    greatest(now_virtual, known.tag + change.seconds / terms.weight - change.charged)
                ELSE known.tag + change.seconds / terms.weight - change.charged
            END,
            since = CASE
                WHEN known.waiting <= 0 OR (known.capped AND known.in_flight - change.leaves < terms.most) THEN
                    nextval('dispatch_turns')
                ELSE known.since
            END,
            -- Each run that ends moves the estimate by a quarter of what it was wrong by.
            cost = CASE WHEN change.runs = 0 THEN known.cost ELSE
                greatest(0.001, change.mean + (coalesce(known.cost, change.mean) - change.mean) * 0.75 ^ least(change.runs, 100))
            END
        FROM change CROSS JOIN LATERAL dispatch_terms(change.organization_id) AS terms
        WHERE known.organization_id = change.organization_id
    ), fleet AS (
        UPDATE dispatch_clock AS clock
        SET cost = greatest(0.001, total.mean + (clock.cost - total.mean) * 0.95 ^ least(total.runs, 100))
        FROM (SELECT count(measured) AS runs, avg(measured) AS mean FROM attempted WHERE leaves) AS total
        WHERE total.runs > 0
    )
    SELECT count(*) INTO collected FROM marked;
    RETURN collected;
END
$$;

-- Releases runs into the window, in the order of virtual start times; returns them in that order. One statement and one
-- transaction, and whoever calls it at the same time comes after it: so a caller that stops has no lock.
-- `room_for`: how large the window is; NULL: what the live workers take, and an eighth more. `sweep`: also look for what
-- nobody has told: runs that ended before they came in, caps that were raised, releases that were not published.
CREATE FUNCTION dispatch(room_for integer, sweep boolean)
RETURNS TABLE (job_id uuid, run integer, topic text, event bytea, headers jsonb, released_at timestamptz)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    fleet_cost double precision;
    now_virtual double precision;
    furthest double precision;
    room integer;
    pass integer;
    picked integer;
    some_jobs uuid[];
    some_runs integer[];
    all_jobs uuid[] := '{}';
    all_runs integer[] := '{}';
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('teamfit:dispatch', 0));
    IF sweep THEN
        UPDATE dispatch_runs AS line SET ended = true
        FROM (
            SELECT one.job_id, one.run FROM dispatch_runs AS one
            WHERE one.state = 'released' AND NOT one.ended AND EXISTS (
                SELECT FROM job_outcomes AS decided WHERE decided.job_id = one.job_id AND decided.run = one.run
            )
            FOR UPDATE OF one SKIP LOCKED
        ) AS over
        WHERE line.job_id = over.job_id AND line.run = over.run;
        UPDATE dispatch_organizations AS known
        SET capped = false, tag = greatest(known.tag, (SELECT virtual FROM dispatch_clock)), since = nextval('dispatch_turns')
        WHERE known.waiting > 0 AND known.capped
            AND known.in_flight < (SELECT terms.most FROM dispatch_terms(known.organization_id) AS terms);
        DELETE FROM dispatch_workers WHERE seen_at < clock_timestamp() - interval '1 hour';
    END IF;
    FOR turn IN 1..10 LOOP
        EXIT WHEN dispatch_collect(1000) < 1000;
    END LOOP;

    room := coalesce(room_for, (
        SELECT CASE WHEN count(*) = 0 THEN 100 ELSE sum(worker.slots) + greatest(2, sum(worker.slots) / 8) END
        FROM dispatch_workers AS worker WHERE worker.seen_at > clock_timestamp() - interval '20 seconds'
    )) - (SELECT count(*) FROM dispatch_runs AS one WHERE one.state = 'released');
    SELECT clock.virtual, clock.cost INTO now_virtual, fleet_cost FROM dispatch_clock AS clock;
    WHILE room > 0 LOOP
        pass := least(room, 64);
        WITH heads AS MATERIALIZED (
            SELECT
                known.organization_id, known.tag, known.since, known.in_flight, terms.most,
                coalesce(known.cost, fleet_cost) / terms.weight AS step
            FROM (
                SELECT * FROM dispatch_organizations WHERE waiting > 0 AND NOT capped ORDER BY tag, since LIMIT pass + 8
            ) AS known
            CROSS JOIN LATERAL dispatch_terms(known.organization_id) AS terms
        ), line AS (
            SELECT
                heads.organization_id, heads.since, heads.step, next.nth, next.job_id, next.run,
                heads.tag + (next.nth - 1) * heads.step AS starts
            FROM heads
            CROSS JOIN LATERAL (
                SELECT one.job_id, one.run, row_number() OVER (ORDER BY one.rank, one.place) AS nth
                FROM dispatch_runs AS one
                WHERE one.organization_id = heads.organization_id AND one.state = 'waiting' AND NOT one.ended
                ORDER BY one.rank, one.place
                LIMIT greatest(0, least(pass, heads.most - heads.in_flight))
            ) AS next
            ORDER BY starts, heads.since, next.nth
            LIMIT pass
        ), chosen AS MATERIALIZED (
            SELECT line.*, EXISTS (
                SELECT FROM job_outcomes AS decided WHERE decided.job_id = one.job_id AND decided.run = one.run
            ) AS over
            FROM line
            JOIN dispatch_runs AS one ON one.job_id = line.job_id AND one.run = line.run
            WHERE one.state = 'waiting' AND NOT one.ended
            FOR UPDATE OF one SKIP LOCKED
        ), released AS (
            UPDATE dispatch_runs AS one SET
                state = CASE WHEN chosen.over THEN 'waiting' ELSE 'released' END,
                ended = chosen.over,
                released_at = clock_timestamp(),
                charged = chosen.step,
                published = false,
                publish_after = clock_timestamp() + interval '5 seconds'
            FROM chosen
            WHERE one.job_id = chosen.job_id AND one.run = chosen.run
        ), counted AS (
            SELECT organization_id, count(*) AS runs FROM chosen WHERE NOT over GROUP BY organization_id
        ), moved_on AS (
            UPDATE dispatch_organizations AS known SET
                tag = known.tag + coalesce(counted.runs, 0) * heads.step,
                waiting = known.waiting - coalesce(counted.runs, 0),
                in_flight = known.in_flight + coalesce(counted.runs, 0),
                capped = known.in_flight + coalesce(counted.runs, 0) >= heads.most
            FROM heads LEFT JOIN counted ON counted.organization_id = heads.organization_id
            WHERE known.organization_id = heads.organization_id
                AND (counted.runs > 0 OR known.in_flight >= heads.most)
        )
        SELECT
            count(*),
            max(chosen.starts) FILTER (WHERE NOT chosen.over),
            array_agg(chosen.job_id ORDER BY chosen.starts, chosen.since, chosen.nth) FILTER (WHERE NOT chosen.over),
            array_agg(chosen.run ORDER BY chosen.starts, chosen.since, chosen.nth) FILTER (WHERE NOT chosen.over)
        INTO picked, furthest, some_jobs, some_runs
        FROM chosen;
        EXIT WHEN picked = 0;
        now_virtual := greatest(now_virtual, furthest);
        room := room - coalesce(cardinality(some_jobs), 0);
        all_jobs := all_jobs || some_jobs;
        all_runs := all_runs || some_runs;
    END LOOP;
    IF cardinality(all_jobs) > 0 THEN
        UPDATE dispatch_clock SET virtual = now_virtual WHERE virtual < now_virtual;
    END IF;

    RETURN QUERY
    SELECT one.job_id, one.run, one.topic, one.event, one.headers, one.released_at
    FROM unnest(all_jobs, all_runs) WITH ORDINALITY AS chosen (job_id, run, place)
    JOIN dispatch_runs AS one ON one.job_id = chosen.job_id AND one.run = chosen.run
    ORDER BY chosen.place;
    IF sweep THEN
        RETURN QUERY
        UPDATE dispatch_runs AS line SET publish_after = clock_timestamp() + interval '5 seconds'
        FROM (
            SELECT one.job_id, one.run FROM dispatch_runs AS one
            WHERE one.state = 'released' AND NOT one.published AND NOT one.ended AND NOT one.returned
                -- One that is far ahead is from a clock that was set back since.
                AND (one.publish_after <= clock_timestamp() OR one.publish_after > clock_timestamp() + interval '1 minute')
            LIMIT 500
            FOR UPDATE OF one SKIP LOCKED
        ) AS lost
        WHERE line.job_id = lost.job_id AND line.run = lost.run
        RETURNING line.job_id, line.run, line.topic, line.event, line.headers, line.released_at;
    END IF;
END
$$;

-- Sets the counters to what the rows say; returns how many were wrong.
CREATE FUNCTION dispatch_recount() RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
    mended integer;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('teamfit:dispatch', 0));
    WITH counted AS (
        SELECT
            known.organization_id,
            count(line.job_id) FILTER (WHERE line.state = 'waiting') AS waiting,
            count(line.job_id) FILTER (WHERE line.state = 'released') AS in_flight
        FROM dispatch_organizations AS known
        LEFT JOIN dispatch_runs AS line ON line.organization_id = known.organization_id
        GROUP BY known.organization_id
    )
    UPDATE dispatch_organizations AS known SET waiting = counted.waiting, in_flight = counted.in_flight
    FROM counted
    WHERE counted.organization_id = known.organization_id
        AND (known.waiting, known.in_flight) IS DISTINCT FROM (counted.waiting, counted.in_flight);
    GET DIAGNOSTICS mended = ROW_COUNT;
    RETURN mended;
END
$$;

-- However a run ends, its place in the line or its slot is free: `dispatch` takes that in.
CREATE FUNCTION dispatch_note_ended() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    UPDATE dispatch_runs AS line SET ended = true
    FROM (
        SELECT one.job_id, one.run FROM dispatch_runs AS one
        JOIN decided ON decided.job_id = one.job_id AND decided.run = one.run
        -- Everybody locks in this order, so nobody deadlocks.
        ORDER BY one.job_id, one.run
        FOR UPDATE OF one
    ) AS over
    WHERE line.job_id = over.job_id AND line.run = over.run AND NOT line.ended;
    RETURN NULL;
END
$$;
CREATE TRIGGER dispatch_note_ended AFTER INSERT ON job_outcomes
REFERENCING NEW TABLE AS decided FOR EACH STATEMENT EXECUTE FUNCTION dispatch_note_ended();
