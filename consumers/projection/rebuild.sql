-- name: page(job_id, sequence, size)
-- The next events of the archive, job by job and in the order of folding, after a job and a sequence.
SELECT job_id, sequence, archived_at, event::text AS event
FROM job_events
WHERE (job_id, sequence) > (:job_id::uuid, :sequence::bigint)
ORDER BY job_id, sequence
LIMIT :size;

-- name: count_events()$
-- How long the archive is, for the progress bar.
SELECT count(*) FROM job_events;

-- name: live_states(job_ids)
-- The read model's rows of these jobs.
SELECT
    job_id, organization_id, team_id, requirements, run, status, error_code, error_message,
    created_at, started_at, completed_at
FROM customization_jobs
WHERE job_id = ANY(:job_ids::uuid[]);

-- name: kept(job_ids, terminal_types)
-- Those of these rows that hold more than the archive tells, which a rebuild must not overwrite.
-- `older`: the row was there before the pipeline (Celery wrote it, or its first events were removed): it is older than the
-- archive, none of its events gave it its time, and none is its own organization's request for the first run.
-- Otherwise: its run did end in the way that the row shows, by `job_outcomes`, and the archive misses that fact.
SELECT job_id, older
FROM (
    SELECT
        live.job_id,
        live.created_at < coalesce((SELECT archived_at FROM job_events ORDER BY sequence LIMIT 1), 'infinity')
        AND NOT EXISTS (
            SELECT FROM job_events AS event
            WHERE event.job_id = live.job_id AND (
                event.time = live.created_at
                OR (event.organization_id = live.organization_id AND event.run = 1
                    AND event.type = 'teamfit.job.requested.v1')
            )
        ) AS older,
        EXISTS (
            SELECT FROM job_outcomes AS ended
            WHERE ended.job_id = live.job_id AND ended.run = live.run
                AND live.status = CASE ended.outcome WHEN 'rejected' THEN 'failed' ELSE ended.outcome END
        )
        AND NOT EXISTS (
            SELECT FROM job_events AS event
            WHERE event.job_id = live.job_id AND event.run >= live.run AND event.type = ANY(:terminal_types::text[])
        ) AS ended
    FROM customization_jobs AS live
    WHERE live.job_id = ANY(:job_ids::uuid[])
) AS judged
WHERE older OR ended;

-- name: gaps(size, terminal_types)^
-- What the read model shows and the archive misses: how many rows were looked at, how many gaps there are, and some of
-- them. Rows that are older than the archive (see `kept`), or whose events retention removed, may well have no events.
WITH start AS (
    SELECT coalesce((SELECT archived_at FROM job_events ORDER BY sequence LIMIT 1), 'infinity') AS began_at
), gap AS MATERIALIZED (
    SELECT
        live.job_id,
        CASE
            WHEN NOT EXISTS (SELECT FROM job_events AS event WHERE event.job_id = live.job_id) THEN 'no events'
            ELSE 'run ' || live.run || ' is ' || live.status || ' without its terminal fact'
        END AS what
    FROM customization_jobs AS live
    CROSS JOIN start
    WHERE NOT EXISTS (
            SELECT FROM job_events AS event
            WHERE event.job_id = live.job_id AND (
                live.status NOT IN ('completed', 'failed', 'cancelled', 'SUCCESS', 'FAILURE', 'REVOKED')
                OR (event.run = live.run AND event.type = ANY(:terminal_types::text[]))
            )
        )
        AND NOT (
            coalesce(live.completed_at < (SELECT max(horizon) FROM archive_retention), false)
            AND NOT EXISTS (SELECT FROM job_events AS event WHERE event.job_id = live.job_id)
        )
        AND NOT (
            live.created_at < start.began_at
            AND NOT EXISTS (
                SELECT FROM job_events AS event
                WHERE event.job_id = live.job_id AND (
                    event.time = live.created_at
                    OR (event.organization_id = live.organization_id AND event.run = 1
                        AND event.type = 'teamfit.job.requested.v1')
                )
            )
        )
)
SELECT
    (SELECT count(*) FROM customization_jobs) AS checked,
    (SELECT count(*) FROM gap) AS found,
    ARRAY(SELECT job_id || ' ' || what FROM gap ORDER BY job_id LIMIT :size) AS examples;

-- name: make_shadow()#
-- The shadow of the read model, and the list of where they differ: private to this session, gone when it ends.
CREATE TEMP TABLE IF NOT EXISTS rebuilt_jobs (
    job_id uuid PRIMARY KEY,
    organization_id text,
    team_id text,
    requirements text,
    run integer NOT NULL,
    status text NOT NULL,
    error_code text,
    error_message text,
    created_at timestamptz,
    started_at timestamptz,
    completed_at timestamptz,
    last_sequence bigint NOT NULL,
    unreadable text,
    kept boolean NOT NULL DEFAULT false
);
CREATE TEMP TABLE IF NOT EXISTS differing_jobs (
    job_id uuid PRIMARY KEY,
    missing boolean NOT NULL,
    columns text[] NOT NULL
);
TRUNCATE rebuilt_jobs, differing_jobs;

-- name: empty_shadow()!
-- Gives the disk space back, for a session that lives on.
TRUNCATE rebuilt_jobs, differing_jobs;

-- name: analyze_shadow()!
-- Autovacuum does not see temporary tables, and the planner must know how large this one is.
ANALYZE rebuilt_jobs;

-- name: news()
-- Events that are not in the shadow yet. A job's events are numbered under its row's lock, so beyond the last one that
-- was folded there is nothing older to come; of the whole archive that would not be true.
SELECT event.job_id, event.sequence, event.archived_at, event.event::text AS event
FROM job_events AS event
LEFT JOIN rebuilt_jobs AS rebuilt ON rebuilt.job_id = event.job_id
WHERE event.sequence > coalesce(rebuilt.last_sequence, 0)
ORDER BY event.job_id, event.sequence;

-- name: news_of_differing()
-- The same, of the jobs to be repaired alone.
SELECT event.job_id, event.sequence, event.archived_at, event.event::text AS event
FROM differing_jobs
JOIN rebuilt_jobs AS rebuilt ON rebuilt.job_id = differing_jobs.job_id
JOIN job_events AS event ON event.job_id = rebuilt.job_id AND event.sequence > rebuilt.last_sequence
ORDER BY event.job_id, event.sequence;

-- name: shadow_states(job_ids)
-- What was folded so far of these jobs.
SELECT
    job_id, organization_id, team_id, requirements, run, status, error_code, error_message,
    created_at, started_at, completed_at, last_sequence, unreadable
FROM rebuilt_jobs
WHERE job_id = ANY(:job_ids::uuid[]);

-- name: forget(job_ids)!
-- Makes place for newer states of these jobs.
DELETE FROM rebuilt_jobs WHERE job_id = ANY(:job_ids::uuid[]);

-- name: compare()!
-- Lists the jobs whose rows are not what the archive says.
INSERT INTO differing_jobs (job_id, missing, columns)
SELECT
    rebuilt.job_id,
    live.job_id IS NULL,
    CASE WHEN live.job_id IS NULL THEN '{}' ELSE array_remove(ARRAY[
        CASE WHEN live.organization_id IS DISTINCT FROM rebuilt.organization_id THEN 'organization_id' END,
        CASE WHEN live.team_id IS DISTINCT FROM rebuilt.team_id THEN 'team_id' END,
        CASE WHEN live.requirements IS DISTINCT FROM rebuilt.requirements THEN 'requirements' END,
        CASE WHEN live.run IS DISTINCT FROM rebuilt.run THEN 'run' END,
        CASE WHEN live.status IS DISTINCT FROM rebuilt.status THEN 'status' END,
        CASE WHEN live.error_code IS DISTINCT FROM rebuilt.error_code THEN 'error_code' END,
        CASE WHEN live.error_message IS DISTINCT FROM rebuilt.error_message THEN 'error_message' END,
        CASE WHEN live.created_at IS DISTINCT FROM rebuilt.created_at THEN 'created_at' END,
        CASE WHEN live.started_at IS DISTINCT FROM rebuilt.started_at THEN 'started_at' END,
        CASE WHEN live.completed_at IS DISTINCT FROM rebuilt.completed_at THEN 'completed_at' END
    ], NULL) END
FROM rebuilt_jobs AS rebuilt
LEFT JOIN customization_jobs AS live ON live.job_id = rebuilt.job_id
WHERE rebuilt.unreadable IS NULL AND (
    live.job_id IS NULL
    OR ROW(
        live.organization_id, live.team_id, live.requirements, live.run, live.status, live.error_code,
        live.error_message, live.created_at, live.started_at, live.completed_at
    ) IS DISTINCT FROM ROW(
        rebuilt.organization_id, rebuilt.team_id, rebuilt.requirements, rebuilt.run, rebuilt.status, rebuilt.error_code,
        rebuilt.error_message, rebuilt.created_at, rebuilt.started_at, rebuilt.completed_at
    )
);

-- name: differing_rows(job_id, size)
-- The next differing jobs that have a row, by ID.
SELECT job_id FROM differing_jobs WHERE NOT missing AND job_id > :job_id::uuid ORDER BY job_id LIMIT :size;

-- name: keep(job_ids)!
-- Takes rows that a rebuild must not overwrite from the list.
WITH kept AS (
    UPDATE rebuilt_jobs SET kept = true WHERE job_id = ANY(:job_ids::uuid[])
)
DELETE FROM differing_jobs WHERE job_id = ANY(:job_ids::uuid[]);

-- name: totals()^
-- Counts and fingerprints of both sides, without the rows that are kept. A fingerprint comes from the sum of
-- the rows' hashes, so it does not depend on their order.
SELECT
    count(*) FILTER (WHERE NOT rebuilt.kept AND rebuilt.unreadable IS NULL) AS jobs,
    count(live.job_id) FILTER (WHERE NOT rebuilt.kept AND rebuilt.unreadable IS NULL) AS rows,
    count(*) FILTER (WHERE rebuilt.kept) AS kept,
    count(*) FILTER (WHERE rebuilt.unreadable IS NOT NULL) AS unreadable,
    (SELECT count(*) FROM customization_jobs) AS all_rows,
    count(live.job_id) AS rows_with_events,
    md5(coalesce(sum(hashtextextended(ROW(
        rebuilt.job_id, rebuilt.organization_id, rebuilt.team_id, rebuilt.requirements, rebuilt.run, rebuilt.status,
        rebuilt.error_code, rebuilt.error_message, rebuilt.created_at, rebuilt.started_at, rebuilt.completed_at
    )::text, 0)) FILTER (WHERE NOT rebuilt.kept AND rebuilt.unreadable IS NULL), 0)::text) AS archive_fingerprint,
    md5(coalesce(sum(hashtextextended(ROW(
        live.job_id, live.organization_id, live.team_id, live.requirements, live.run, live.status,
        live.error_code, live.error_message, live.created_at, live.started_at, live.completed_at
    )::text, 0)) FILTER (WHERE live.job_id IS NOT NULL AND NOT rebuilt.kept AND rebuilt.unreadable IS NULL), 0)::text)
        AS row_fingerprint
FROM rebuilt_jobs AS rebuilt
LEFT JOIN customization_jobs AS live ON live.job_id = rebuilt.job_id;

-- name: differences(size)^
-- How many jobs differ, and some of them.
SELECT
    count(*) FILTER (WHERE missing) AS missing,
    count(*) FILTER (WHERE NOT missing) AS different,
    ARRAY(
        SELECT job_id || CASE WHEN missing THEN ' has no row' ELSE ' ' || array_to_string(columns, ', ') END
        FROM differing_jobs ORDER BY job_id LIMIT :size
    ) AS examples,
    ARRAY(SELECT job_id || ' ' || unreadable FROM rebuilt_jobs WHERE unreadable IS NOT NULL ORDER BY job_id LIMIT :size)
        AS unreadable
FROM differing_jobs;

-- name: add_missing_rows()!
-- Gives each differing job without a row one at run 0. All of them before any row is locked, and by ID, as the projection
-- does it: then the two can wait for each other, but never in a ring.
INSERT INTO customization_jobs (job_id, status, run)
SELECT job_id, 'pending', 0 FROM differing_jobs ORDER BY job_id
ON CONFLICT (job_id) DO NOTHING;

-- name: lock_differing()$
-- Locks the rows of the differing jobs, by ID. From now on none of them gets another event.
SELECT count(*) FROM (
    SELECT 1 FROM customization_jobs
    WHERE job_id IN (SELECT job_id FROM differing_jobs)
    ORDER BY job_id
    FOR UPDATE
) AS locked;

-- name: repair()$
-- Writes the shadow's states over the differing rows, and returns how many changed.
WITH repaired AS (
    UPDATE customization_jobs AS live
    SET organization_id = rebuilt.organization_id,
        team_id = rebuilt.team_id,
        requirements = rebuilt.requirements,
        run = rebuilt.run,
        status = rebuilt.status,
        error_code = rebuilt.error_code,
        error_message = rebuilt.error_message,
        created_at = rebuilt.created_at,
        started_at = rebuilt.started_at,
        completed_at = rebuilt.completed_at,
        updated_at = now()
    FROM differing_jobs
    JOIN rebuilt_jobs AS rebuilt ON rebuilt.job_id = differing_jobs.job_id
    WHERE live.job_id = rebuilt.job_id AND ROW(
        live.organization_id, live.team_id, live.requirements, live.run, live.status, live.error_code,
        live.error_message, live.created_at, live.started_at, live.completed_at
    ) IS DISTINCT FROM ROW(
        rebuilt.organization_id, rebuilt.team_id, rebuilt.requirements, rebuilt.run, rebuilt.status, rebuilt.error_code,
        rebuilt.error_message, rebuilt.created_at, rebuilt.started_at, rebuilt.completed_at
    )
    RETURNING 1
)
SELECT count(*) FROM repaired;
