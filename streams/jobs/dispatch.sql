-- name: enter(job_ids, runs, organization_ids, topics, events)!
-- Has runs wait for their turn. One that is known keeps its place: if it was released, its entry may be lost, so it is published
-- again; if it waits for a retry that is not kept any more, the retry is due. Sorted, as all lock these rows.
INSERT INTO dispatch_runs AS line (job_id, run, organization_id, rank, topic, event)
SELECT job_id, run, organization_id, (run > 1)::int, topic, event
FROM unnest(:job_ids::uuid[], :runs::int[], :organization_ids::text[], :topics::text[], :events::bytea[])
    WITH ORDINALITY AS admitted (job_id, run, organization_id, topic, event, nth)
ORDER BY nth
ON CONFLICT (job_id, run) DO UPDATE SET
    publish_after = CASE WHEN line.published THEN clock_timestamp() ELSE line.publish_after END,
    published = false,
    due = line.due OR (line.state = 'parked' AND NOT EXISTS (
        SELECT FROM scheduled_events AS later WHERE later.key = convert_to(line.job_id::text, 'UTF8')
    ))
WHERE line.state IN ('released', 'parked') AND NOT line.ended;

-- name: release(room, sweep)^
-- Releases what may be released now, in order; a column each. NULLs: nothing. Does not wait for the disk
-- (docs/decisions/0014-what-need-not-wait-for-the-disk.md), and so has whoever releases next wait for the work alone.
SELECT
    set_config('synchronous_commit', 'off', true) AS soon,
    array_agg(job_id) AS job_ids,
    array_agg(run) AS runs,
    array_agg(topic) AS topics,
    array_agg(event) AS events,
    array_agg(headers::text) AS headers,
    array_agg(released_at) AS released_at
FROM dispatch(:room, :sweep);

-- name: recount()$
-- Sets the counters to what the rows say; returns how many were wrong.
SELECT dispatch_recount();

-- name: published(job_ids, runs, released_at)!
-- Notes that the broker has what was released. Sorted, as all lock these rows. Does not wait for the disk.
WITH soon AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true))
UPDATE dispatch_runs AS line SET published = true
FROM soon CROSS JOIN (
    SELECT one.job_id, one.run FROM dispatch_runs AS one
    JOIN unnest(:job_ids::uuid[], :runs::int[], :released_at::timestamptz[]) AS told (job_id, run, released_at)
        ON told.job_id = one.job_id AND told.run = one.run AND told.released_at = one.released_at
    WHERE one.state = 'released'
    ORDER BY one.job_id, one.run
    FOR UPDATE OF one
) AS told
WHERE line.job_id = told.job_id AND line.run = told.run;

-- name: give_back(job_id, run)!
-- Notes that a released run waits for its retry and holds no slot meanwhile. One with an attempt under way, for another entry,
-- goes on holding its own.
UPDATE dispatch_runs SET returned = true
WHERE job_id = :job_id AND run = :run AND state = 'released' AND NOT ended AND NOT EXISTS (
    SELECT FROM generation_attempts AS call WHERE call.job_id = :job_id AND call.run = :run AND call.state = 'started'
);

-- name: note_paced(job_ids, runs, waited)!
-- Notes that released runs have begun to wait until the LLM's limits have room, once for each release. Sorted, as all lock
-- these rows. A run that has waited so a hundred times is noted no more.
UPDATE dispatch_runs AS line
SET paced = line.paced || jsonb_build_object(
    'entered_at', line.entered_at, 'released_at', line.released_at, 'began_at', greatest(clock_timestamp() - waits.waited, line.released_at)
)
FROM (
    SELECT one.job_id, one.run, waits.waited FROM dispatch_runs AS one
    JOIN unnest(:job_ids::uuid[], :runs::int[], :waited::interval[]) AS waits (job_id, run, waited)
        ON waits.job_id = one.job_id AND waits.run = one.run
    WHERE one.state = 'released' AND NOT one.ended AND jsonb_array_length(one.paced) < 100
        AND (one.paced #>> '{-1,released_at}')::timestamptz IS DISTINCT FROM one.released_at
    ORDER BY one.job_id, one.run
    FOR UPDATE OF one
) AS waits
WHERE line.job_id = waits.job_id AND line.run = waits.run;

-- name: rejoin(job_ids, runs, topics, events, headers)
-- Has runs whose retry is due wait for their turn again; returns those that do.
UPDATE dispatch_runs AS line
SET due = true, entered_at = clock_timestamp(), topic = back.topic, event = back.event, headers = back.headers::jsonb
FROM (
    SELECT one.job_id, one.run, retry.topic, retry.event, retry.headers
    FROM dispatch_runs AS one
    JOIN unnest(:job_ids::uuid[], :runs::int[], :topics::text[], :events::bytea[], :headers::text[])
        AS retry (job_id, run, topic, event, headers) ON retry.job_id = one.job_id AND retry.run = one.run
    WHERE (one.state = 'parked' OR one.returned) AND NOT one.ended AND NOT one.due
    ORDER BY one.job_id, one.run
    FOR UPDATE OF one
) AS back
WHERE line.job_id = back.job_id AND line.run = back.run
RETURNING line.job_id, line.run;

-- name: is_here(worker, slots)!
-- Counts a generation worker's slots in, for the next 20 seconds.
INSERT INTO dispatch_workers (worker, slots, seen_at) VALUES (:worker, :slots, clock_timestamp())
ON CONFLICT (worker) DO UPDATE SET slots = excluded.slots, seen_at = excluded.seen_at;

-- name: is_gone(worker)!
-- Counts them no more.
DELETE FROM dispatch_workers WHERE worker = :worker;
