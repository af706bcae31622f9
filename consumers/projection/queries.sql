-- name: lock_states(job_ids)
-- The rows of these jobs, locked in the order of IDs; a job without a row gets one at run 0. The requirements, which can be
-- long and never change, stay behind. Every row is made before any is locked, and both by ID: workers that take the same
-- jobs wait for each other, and never in a ring. A row that another transaction made meanwhile is not returned: this
-- statement does not see it yet.
WITH added AS (
    INSERT INTO customization_jobs AS job (job_id, status, run)
    SELECT job_id, 'pending', 0
    FROM unnest(:job_ids::uuid[]) AS job_id
    ORDER BY job_id
    ON CONFLICT (job_id) DO NOTHING
    RETURNING
        job.job_id, job.organization_id, job.team_id, job.run, job.status, job.error_code, job.error_message,
        job.created_at, job.started_at, job.completed_at
), locked AS (
    SELECT job_id, organization_id, team_id, run, status, error_code, error_message, created_at, started_at, completed_at
    FROM customization_jobs
    -- The count is asked for so that it is known, and all rows are made, before the first is locked.
    WHERE job_id = ANY(:job_ids::uuid[]) AND (SELECT count(*) FROM added) IS NOT NULL
    ORDER BY job_id
    FOR UPDATE
)
SELECT * FROM locked
UNION ALL
SELECT * FROM added;

-- name: archive(job_ids, event_ids, runs, types, organization_ids, times, events)
-- Adds events to the archive in the order given; of those with the same job and ID only the first. Returns what is new.
-- Called under the locks of `lock_states`, so the sequence of one job's events is the order in which they are folded.
INSERT INTO job_events (job_id, event_id, run, type, organization_id, time, event)
SELECT job_id, event_id, run, type, organization_id, time, event::jsonb
FROM unnest(
    :job_ids::uuid[], :event_ids::text[], :runs::int[], :types::text[], :organization_ids::text[],
    :times::timestamptz[], :events::text[]
) WITH ORDINALITY AS fresh (job_id, event_id, run, type, organization_id, time, event, place)
ORDER BY place
ON CONFLICT (job_id, event_id) DO NOTHING
RETURNING sequence, job_id, event_id;

-- name: recorded_requests(job_ids)
-- What the intake has recorded of these jobs.
SELECT job_id, event FROM job_requests WHERE job_id = ANY(:job_ids::uuid[]) ORDER BY job_id;

-- name: write_and_tell(job_ids, organization_ids, team_ids, requirements, runs, statuses, error_codes, error_messages, created_at, started_at, completed_at, channel, payloads)!
-- Writes folded states back, and tells who listens of which jobs there is news when this transaction commits: one statement,
-- as most batches need both. Requirements are kept from the first event that had them.
WITH written AS (
    UPDATE customization_jobs AS job
    SET organization_id = folded.organization_id,
        team_id = folded.team_id,
        requirements = coalesce(job.requirements, folded.requirements),
        run = folded.run,
        status = folded.status,
        error_code = folded.error_code,
        error_message = folded.error_message,
        created_at = folded.created_at,
        started_at = folded.started_at,
        completed_at = folded.completed_at,
        updated_at = now()
    FROM unnest(
        :job_ids::uuid[], :organization_ids::text[], :team_ids::text[], :requirements::text[], :runs::int[],
        :statuses::text[], :error_codes::text[], :error_messages::text[],
        :created_at::timestamptz[], :started_at::timestamptz[], :completed_at::timestamptz[]
    ) AS folded (
        job_id, organization_id, team_id, requirements, run, status, error_code, error_message,
        created_at, started_at, completed_at
    )
    WHERE job.job_id = folded.job_id
)
SELECT pg_notify(:channel, payload) FROM unnest(:payloads::text[]) AS told (payload);

-- name: drop_unfounded(job_ids)!
-- Removes rows at run 0 that got no event: all of the batch was in the archive, though the read model was not.
DELETE FROM customization_jobs WHERE job_id = ANY(:job_ids::uuid[]) AND run = 0;

-- name: jobs(job_ids, organization_ids, ownerless)
-- Jobs as those see them who ask, each for one: a job of the Celery days without an organization only with ownerless. A
-- cancellation shows as soon as it is decided: its caller has heard of it, and no worker may be there to fold it. The
-- activities come along, so that a completed job is one round trip; rows of the Celery days have other words for that.
SELECT
    asked.place,
    job.job_id,
    job.organization_id,
    job.team_id,
    job.run,
    CASE WHEN ended.job_id IS NULL THEN job.status ELSE 'cancelled' END AS status,
    CASE WHEN ended.job_id IS NULL THEN job.error_code ELSE 'cancelled' END AS error_code,
    CASE WHEN ended.job_id IS NULL THEN job.error_message ELSE ended.fact #>> '{data,reason}' END AS error_message,
    job.created_at,
    job.started_at,
    CASE WHEN ended.job_id IS NULL THEN job.completed_at ELSE (ended.fact ->> 'time')::timestamptz END AS completed_at,
    CASE WHEN ended.job_id IS NULL AND lower(job.status) NOT IN ('pending', 'processing', 'failed', 'cancelled') THEN (
        SELECT jsonb_agg(to_jsonb(activity) ORDER BY activity.position)
        FROM (
            SELECT position, title, description, duration_minutes, group_size, materials, steps, objective
            FROM customized_activities
            WHERE customized_activities.job_id = job.job_id
        ) AS activity
    ) END AS activities
FROM unnest(:job_ids::uuid[], :organization_ids::text[], :ownerless::boolean[])
    WITH ORDINALITY AS asked (job_id, organization_id, ownerless, place)
INNER JOIN customization_jobs AS job
    ON job.job_id = asked.job_id
    AND (job.organization_id = asked.organization_id OR (job.organization_id IS NULL AND asked.ownerless))
LEFT JOIN job_outcomes AS ended
    ON ended.job_id = job.job_id AND ended.run = job.run AND ended.outcome = 'cancelled';

-- name: accepted_request(job_id, organization_id)^
-- A request that the intake has accepted and the projection may not have seen yet; it may be cancelled already.
SELECT
    request.job_id,
    request.organization_id,
    request.team_id,
    -- As the projection has it, so that it stays the same.
    coalesce((request.event ->> 'time')::timestamptz, request.accepted_at) AS created_at,
    CASE WHEN ended.job_id IS NULL THEN 'pending' ELSE 'cancelled' END AS status,
    CASE WHEN ended.job_id IS NOT NULL THEN 'cancelled' END AS error_code,
    ended.fact #>> '{data,reason}' AS error_message,
    (ended.fact ->> 'time')::timestamptz AS completed_at
FROM job_requests AS request
LEFT JOIN job_outcomes AS ended
    ON ended.job_id = request.job_id AND ended.run = 1 AND ended.outcome = 'cancelled'
WHERE request.job_id = :job_id AND request.organization_id = :organization_id;

-- name: run_at(job_id, organization_id)$
-- When a job was asked to begin, as text: what a sender wrote need not be a time that Postgres takes.
SELECT asked.run_at
FROM (
    SELECT request.event #>> '{data,run_at}' AS run_at
    FROM job_requests AS request
    WHERE request.job_id = :job_id AND request.organization_id = :organization_id
    UNION ALL
    SELECT archived.event #>> '{data,run_at}'
    FROM job_events AS archived
    WHERE archived.job_id = :job_id AND archived.type = 'teamfit.job.requested.v1'
        AND archived.organization_id = :organization_id
) AS asked
WHERE asked.run_at IS NOT NULL
LIMIT 1;

-- name: titles_so_far(job_id, run)
-- The titles of what a run's newest attempt has told of, in the order of the answer.
SELECT told.event #>> '{data,title}' AS title
FROM job_events AS told
WHERE told.job_id = :job_id AND told.run = :run AND told.type = 'teamfit.job.progressed.v1'
    AND told.event #>> '{data,step}' = 'activity' AND told.event #>> '{data,title}' IS NOT NULL
    AND (told.event #>> '{data,attempt}')::int = (
        SELECT max((one.event #>> '{data,attempt}')::int) FROM job_events AS one
        WHERE one.job_id = :job_id AND one.run = :run
            AND one.type IN ('teamfit.job.started.v1', 'teamfit.job.progressed.v1')
    )
ORDER BY (told.event #>> '{data,number}')::int;

-- name: marks(job_ids)
-- Something of each job that differs when anything about it does: an event, a repair of its row, a cancellation. `is_live`:
-- its status is surely none that ends it.
SELECT
    watched.job_id,
    job.updated_at,
    (SELECT max(event.sequence) FROM job_events AS event WHERE event.job_id = watched.job_id) AS sequence,
    (SELECT count(*) FROM job_outcomes AS ended WHERE ended.job_id = watched.job_id) AS ended,
    coalesce(lower(job.status) IN ('pending', 'processing'), false) AND NOT EXISTS (
        SELECT FROM job_outcomes AS ended
        WHERE ended.job_id = job.job_id AND ended.run = job.run AND ended.outcome = 'cancelled'
        OFFSET 0 -- else all outcomes may be read once, to be looked up in memory
    ) AS is_live
FROM unnest(:job_ids::uuid[]) AS watched (job_id)
LEFT JOIN customization_jobs AS job ON job.job_id = watched.job_id;

-- name: events(job_id, organization_id, after)
-- The archived events of an organization's job after one of them, in their order.
SELECT sequence, run, type, event
FROM job_events
WHERE job_id = :job_id AND organization_id = :organization_id AND sequence > :after
ORDER BY sequence;

-- name: nothing_follows(job_id, organization_id, run, ends)$
-- Whether the archive has told how a run ended, or has nothing of the job at all.
SELECT coalesce(bool_or(run = :run AND type = ANY(:ends::text[])), true)
FROM job_events
WHERE job_id = :job_id AND organization_id = :organization_id;
