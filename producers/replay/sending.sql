-- name: state(plan_id)$
-- A plan's state, which cannot change before the transaction ends.
SELECT state FROM replay_plans WHERE id = :plan_id FOR SHARE;

-- name: begin(plan_id, now)$
-- Notes that a plan is being applied; returns when that was first so.
UPDATE replay_plans
SET state = 'applying', started_at = coalesce(started_at, :now)
WHERE id = :plan_id AND state IN ('planned', 'applying')
RETURNING started_at;

-- name: end(plan_id, state, now)!
-- Ends a plan that has not ended.
UPDATE replay_plans SET state = :state, ended_at = :now WHERE id = :plan_id AND state IN ('planned', 'applying');

-- name: lock_failed_events(ids)!
-- Keeps failed events as they are until the transaction ends. In the order of IDs, as the failures stage locks them.
SELECT id FROM failed_events WHERE id = ANY(:ids::uuid[]) ORDER BY id FOR UPDATE;

-- name: changes(plan_id, first, last, begun)
-- Which unsent events of a plan, in a range of positions, are no longer what the plan showed, and what they are now.
-- Once sending has begun, a job that is at the plan's own next run has not changed: a crash came between sending and noting
-- so, and sending again changes nothing.
SELECT
    item.failed_event_id,
    item.job_id,
    failed.state,
    failed.state = 'open' AND failed.occurrences <> item.occurrences AS failed_again,
    standing.latest_run,
    standing.latest_outcome
FROM replay_plan_items AS item
JOIN failed_events AS failed ON failed.id = item.failed_event_id
LEFT JOIN LATERAL job_standing(item.job_id, item.run) AS standing ON item.action = 'rerun'
WHERE item.plan_id = :plan_id
    AND item.sent_at IS NULL
    AND item.action <> 'exclude'
    AND item.position BETWEEN :first AND :last
    AND (
        failed.state <> 'open'
        OR failed.occurrences <> item.occurrences
        OR (
            item.action = 'rerun'
            AND NOT (:begun::boolean AND standing.latest_run = item.next_run)
            AND (
                standing.completed,
                standing.latest_run,
                standing.latest_outcome,
                (
                    SELECT ended.outcome FROM job_outcomes AS ended
                    WHERE ended.job_id = item.job_id AND ended.run = item.run
                )
            ) IS DISTINCT FROM (false, item.latest_run, item.latest_outcome, item.run_outcome)
        )
    )
ORDER BY item.position;

-- name: next_to_end(plan_id, limit)
-- Events whose run has to be ended before the next one starts, and has not been.
SELECT item.position, item.job_id, item.run, item.failed_event_id, failed.event, failed.headers
FROM replay_plan_items AS item
JOIN failed_events AS failed ON failed.id = item.failed_event_id
WHERE item.plan_id = :plan_id AND item.sent_at IS NULL AND item.action = 'rerun' AND item.ends_first
    AND item.ended_at IS NULL
ORDER BY item.position
LIMIT :limit;

-- name: note_outcome(plan_id, positions)!
-- Notes that the plan itself has decided that these runs failed.
UPDATE replay_plan_items
SET run_outcome = 'failed', latest_outcome = CASE WHEN latest_run = run THEN 'failed' ELSE latest_outcome END
WHERE plan_id = :plan_id AND position = ANY(:positions::int[]);

-- name: note_ended(plan_id, positions, now)!
-- Notes that the facts which say so are published.
UPDATE replay_plan_items SET ended_at = :now WHERE plan_id = :plan_id AND position = ANY(:positions::int[]);

-- name: next_batch(plan_id, limit, max_bytes)
-- The next events to send, in order, up to a number of bytes but at least one. A job that still holds quota for an earlier
-- run is passed over: its next run would need a second unit.
SELECT position, action, failed_event_id, job_id, next_run, topic, stage, key, event, headers
FROM (
    SELECT
        item.*, failed.topic, failed.stage, failed.key, failed.event, failed.headers,
        sum(coalesce(octet_length(failed.event), 0)) OVER (ORDER BY item.position)
        - coalesce(octet_length(failed.event), 0) AS bytes_before
    FROM (
        SELECT unsent.position, unsent.action, unsent.failed_event_id, unsent.job_id, unsent.next_run
        FROM replay_plan_items AS unsent
        WHERE unsent.plan_id = :plan_id AND unsent.sent_at IS NULL AND unsent.action <> 'exclude'
            AND (unsent.ended_at IS NOT NULL OR NOT unsent.ends_first)
            AND (unsent.action = 'resend' OR NOT EXISTS (
                SELECT FROM quota_ledger AS held
                WHERE held.job_id = unsent.job_id AND held.run < unsent.next_run AND held.state = 'reserved'
            ))
        ORDER BY unsent.position
        LIMIT :limit
    ) AS item
    JOIN failed_events AS failed ON failed.id = item.failed_event_id
) AS batch
WHERE bytes_before < :max_bytes
ORDER BY position;

-- name: note_sent(plan_id, positions, now)^
-- Notes that events are sent; returns them, and how often they had failed until then.
WITH sent AS (
    UPDATE replay_plan_items SET sent_at = :now
    WHERE plan_id = :plan_id AND position = ANY(:positions::int[])
    RETURNING failed_event_id, occurrences
)
SELECT array_agg(failed_event_id) AS ids, array_agg(occurrences) AS occurrences FROM sent;
