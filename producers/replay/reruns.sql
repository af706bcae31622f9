-- name: note_arrived()!
-- Notes which requests of replayed runs the archive has: a job's row is at the run of the newest event that was archived.
-- From then on the run is found like any other if it stands still.
UPDATE replay_plan_items AS item
SET arrived = true
FROM customization_jobs AS job
WHERE item.action = 'rerun' AND item.sent_at IS NOT NULL AND NOT item.arrived
    AND job.job_id = item.job_id AND job.run >= item.next_run;

-- name: lost_reruns(before, now, base, cap, limit)
-- Requests of replayed runs that were sent before and have not arrived. A run that holds quota is found as such, and one that
-- waits in `scheduled_events` is not lost. Two plans may have sent the same run.
SELECT DISTINCT ON (item.job_id, item.next_run)
    item.job_id,
    item.next_run AS run,
    item.sent_at,
    plan.started_at,
    failed.event,
    failed.headers,
    failed.organization_id
FROM replay_plan_items AS item
JOIN replay_plans AS plan ON plan.id = item.plan_id
JOIN failed_events AS failed ON failed.id = item.failed_event_id
LEFT JOIN reemissions AS again ON again.job_id = item.job_id AND again.run = item.next_run
WHERE item.action = 'rerun' AND item.sent_at < :before AND NOT item.arrived
    AND NOT EXISTS (
        SELECT FROM quota_ledger AS held
        WHERE held.job_id = item.job_id AND held.run = item.next_run AND held.state = 'reserved'
    )
    AND NOT EXISTS (
        SELECT FROM scheduled_events AS waiting
        WHERE waiting.key = convert_to(item.job_id::text, 'UTF8')
    )
    AND (again.last_at IS NULL
        OR again.last_at + least(:base::interval * (2 ^ least(again.times, 20)), :cap::interval) <= :now)
ORDER BY item.job_id, item.next_run, item.sent_at
LIMIT :limit;
