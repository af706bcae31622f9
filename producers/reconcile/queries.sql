-- name: try_lock()$
-- Whether this transaction is the only one that reconciles; until it ends.
SELECT pg_try_advisory_xact_lock(hashtext('teamfit:reconcile'));

-- name: is_paused()$
-- Whether operators have paused a stage for all: then what stands still does so by their will.
SELECT EXISTS (
    SELECT FROM fleet_controls
    WHERE kind = 'pause' AND organization_id = '' AND (expires_at IS NULL OR expires_at > clock_timestamp())
);

-- name: all_seen_until(margin, since)$
-- Until when every request since then is known to the read model: a request that commits later has a later time, as long as
-- its transaction is not longer than the margin.
SELECT least(min(request.accepted_at), now() - :margin::interval)
FROM job_requests AS request
WHERE request.accepted_at >= :since
    AND NOT EXISTS (SELECT FROM customization_jobs AS job WHERE job.job_id = request.job_id);

-- name: note_ahead(ahead, now)!
-- Counts from now on how long runs stand still whose times are ahead of the clock, since it was set back.
INSERT INTO reemissions (job_id, run, times, last_at)
SELECT job_id, run, 0, :now
FROM (
    SELECT job_id, run FROM customization_jobs
    WHERE status IN ('pending', 'processing') AND run > 0 AND updated_at > :ahead
    UNION
    SELECT job_id, run FROM quota_ledger WHERE state = 'reserved' AND decided_at > :ahead
    UNION
    SELECT job_id, 1 FROM job_requests WHERE accepted_at > :ahead
) AS live (job_id, run)
ON CONFLICT (job_id, run) DO NOTHING;

-- name: standing_still(since, before, ahead, attempt_time, now, base, cap, limit, run_stages, run_types)
-- Runs that should go on and have not moved since `before`, those that have stood longest first.
-- A run should go on if the read model shows it as live, if the ledger holds its reservation, or if the intake accepted
-- it and the read model does not know it. It moves when an event of its job is archived, when it is decided, attempted,
-- due, released, or sent again; an attempt under way is given `attempt_time`. What waits in `scheduled_events` or for its turn
-- does not stand still.
-- Times that are `ahead` say nothing: see `note_ahead`.
WITH live AS (
    SELECT job.job_id, job.run, job.updated_at AS moved_at
    FROM customization_jobs AS job
    WHERE job.status IN ('pending', 'processing') AND job.run > 0 AND (job.updated_at < :before OR job.updated_at > :ahead)
        -- Rows of the Celery days have no events, and nothing here could help them.
        AND EXISTS (SELECT FROM job_events AS event WHERE event.job_id = job.job_id)
    UNION ALL
    SELECT entry.job_id, entry.run, entry.decided_at
    FROM quota_ledger AS entry
    WHERE entry.state = 'reserved' AND (entry.decided_at < :before OR entry.decided_at > :ahead)
    UNION ALL
    SELECT request.job_id, 1, request.accepted_at
    FROM job_requests AS request
    WHERE request.accepted_at >= :since AND (request.accepted_at < :before OR request.accepted_at > :ahead)
        AND NOT EXISTS (SELECT FROM customization_jobs AS job WHERE job.job_id = request.job_id)
), runs AS (
    SELECT job_id, run, max(moved_at) AS moved_at FROM live GROUP BY job_id, run
), still AS (
    SELECT
        runs.job_id,
        runs.run,
        least(timestamptz '9999-12-30 00:00:00+00', greatest(
            timestamptz '0001-01-02 00:00:00+00',  -- Python knows no other years
            runs.moved_at,
            ended.decided_at,
            entry.decided_at,
            entry.settled_at,
            line.released_at,
            (SELECT max(event.archived_at) FROM job_events AS event WHERE event.job_id = runs.job_id),
            (
                SELECT max(coalesce(attempt.finished_at, attempt.started_at + :attempt_time::interval))
                FROM generation_attempts AS attempt
                WHERE attempt.job_id = runs.job_id AND attempt.run = runs.run
            )
        )) AS moved_at,
        ended.outcome,
        ended.fact,
        entry.state,
        coalesce(again.times, 0) AS times,
        coalesce(entry.organization_id, known.organization_id, request.organization_id) AS organization_id,
        request.event AS recorded
    FROM runs
    LEFT JOIN job_outcomes AS ended ON ended.job_id = runs.job_id AND ended.run = runs.run
    LEFT JOIN quota_ledger AS entry ON entry.job_id = runs.job_id AND entry.run = runs.run
    LEFT JOIN customization_jobs AS known ON known.job_id = runs.job_id
    LEFT JOIN job_requests AS request ON request.job_id = runs.job_id
    LEFT JOIN reemissions AS again ON again.job_id = runs.job_id AND again.run = runs.run
    LEFT JOIN dispatch_runs AS line ON line.job_id = runs.job_id AND line.run = runs.run
    WHERE (again.last_at IS NULL OR again.last_at > :ahead
        OR again.last_at + least(:base::interval * (2 ^ least(again.times, 20)), :cap::interval) <= :now)
        AND NOT EXISTS (
            SELECT FROM scheduled_events AS waiting
            WHERE waiting.key = convert_to(runs.job_id::text, 'UTF8')
        )
        -- But what the archive has not heard of is sent to it.
        AND NOT (ended.outcome IS NULL AND coalesce(line.state IN ('arrived', 'waiting') AND NOT line.ended, false) AND EXISTS (
            SELECT FROM job_events AS event
            WHERE event.job_id = runs.job_id AND event.run = runs.run AND event.type = 'teamfit.job.requested.v1'
        ))
)
SELECT
    still.*,
    archived.event AS archived,
    coalesce(archived.run = still.run, false) AS in_archive,
    EXISTS (
        SELECT FROM failed_events AS failed
        WHERE failed.job_id = still.job_id AND failed.run = still.run AND failed.state = 'open'
            AND failed.organization_id = still.organization_id AND failed.stage = ANY (:run_stages)
            AND failed.event_type = ANY (:run_types)
            -- Anybody can write an event that is malformed or forged, and name this job in it.
            AND failed.error_type NOT IN ('InvalidEvent', 'ForgedEvent', 'JobIdReused')
    ) AS dead_lettered,
    saved.model,
    saved.prompt_tokens,
    saved.completion_tokens,
    saved.finished_at
FROM still
-- The newest request of the job by its owner, up to this run.
LEFT JOIN LATERAL (
    SELECT event.event, event.run
    FROM job_events AS event
    WHERE event.job_id = still.job_id AND event.type = 'teamfit.job.requested.v1' AND event.run <= still.run
        AND event.organization_id = still.organization_id
    ORDER BY event.run DESC, event.sequence
    LIMIT 1
) AS archived ON true
LEFT JOIN LATERAL (
    SELECT attempt.model, attempt.prompt_tokens, attempt.completion_tokens, attempt.finished_at
    FROM generation_attempts AS attempt
    WHERE attempt.job_id = still.job_id AND attempt.run = still.run AND attempt.state = 'saved'
    LIMIT 1
) AS saved ON still.outcome = 'completed'
WHERE (still.moved_at < :before OR still.moved_at > :ahead)
    AND coalesce(readable_time(coalesce(archived.event, still.recorded) #>> '{data,run_at}') < :before, true)
ORDER BY still.moved_at
LIMIT :limit;

-- name: note(job_ids, runs, set_aside, now)!
-- Counts that runs were sent again, or why they could not be.
INSERT INTO reemissions AS again (job_id, run, times, last_at, set_aside)
SELECT job_id, run, 1, :now, set_aside
FROM unnest(:job_ids::uuid[], :runs::int[], :set_aside::text[]) AS sent (job_id, run, set_aside)
ON CONFLICT (job_id, run) DO UPDATE SET
    times = again.times + 1, last_at = excluded.last_at, set_aside = excluded.set_aside;
