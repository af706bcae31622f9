-- name: open_period(period)$
-- Makes this period's counters where they are missing, and returns how many were made. In the order of organizations, in
-- which everybody locks them.
WITH opened AS (
    INSERT INTO quota_usage (organization_id, period)
    SELECT organization_id, :period FROM subscriptions ORDER BY organization_id
    ON CONFLICT (organization_id, period) DO NOTHING
    RETURNING 1
)
SELECT count(*) FROM opened;

-- name: delete_page(after, size, horizon)^
-- Looks at the next events of the archive and deletes all events of those jobs among them that ended before the horizon and
-- hold no quota. `last`: where the page ends; `reached`: whether all of it is younger than the horizon. The jobs' rows
-- are locked, as the projection does before it archives; a row that it holds just now is left for the next time.
WITH page AS (
    SELECT sequence, job_id, archived_at FROM job_events WHERE sequence > :after ORDER BY sequence LIMIT :size
), ended AS (
    SELECT job.job_id
    FROM customization_jobs AS job
    WHERE job.job_id IN (SELECT page.job_id FROM page WHERE page.archived_at < :horizon)
        AND job.status IN ('completed', 'failed', 'cancelled')
        AND job.completed_at < :horizon AND job.updated_at < :horizon
        AND NOT EXISTS (
            SELECT FROM quota_ledger AS held WHERE held.job_id = job.job_id AND held.state = 'reserved'
        )
    FOR UPDATE SKIP LOCKED
), deleted AS (
    DELETE FROM job_events WHERE job_id IN (SELECT ended.job_id FROM ended) RETURNING 1
), forgotten AS (
    DELETE FROM reemissions WHERE job_id IN (SELECT ended.job_id FROM ended)
)
SELECT
    (SELECT count(*) FROM deleted) AS deleted,
    (SELECT max(page.sequence) FROM page) AS last,
    coalesce((SELECT min(page.archived_at) >= :horizon FROM page), false) AS reached;

-- name: note_horizon(horizon, deleted)!
-- Remembers how far deletions went.
INSERT INTO archive_retention AS known (horizon, deleted_events)
VALUES (:horizon, :deleted)
ON CONFLICT (singleton) DO UPDATE SET
    horizon = greatest(known.horizon, excluded.horizon),
    deleted_events = known.deleted_events + excluded.deleted_events;

-- name: delete_settled(horizon, size)^
-- Deletes a page of failed events that were dealt with before the horizon, and the replay plans that ended, or were made and
-- never applied, before it. An event that a remaining plan lists stays with it.
WITH plans AS (
    SELECT id FROM replay_plans
    WHERE state <> 'applying' AND coalesce(ended_at, created_at) < :horizon
    ORDER BY created_at
    LIMIT :size
), items AS (
    DELETE FROM replay_plan_items WHERE plan_id IN (SELECT plans.id FROM plans)
), failed AS (
    DELETE FROM failed_events WHERE id IN (
        SELECT done.id FROM failed_events AS done
        WHERE done.state <> 'open' AND done.last_failed_at < :horizon
            AND greatest(done.replayed_at, done.discarded_at) < :horizon
            AND NOT EXISTS (SELECT FROM replay_plan_items AS item WHERE item.failed_event_id = done.id)
        LIMIT :size
    )
    RETURNING 1
)
SELECT
    (SELECT array_agg(plans.id) FROM plans) AS plans,
    (SELECT count(*) FROM plans) + (SELECT count(*) FROM failed) AS deleted;

-- name: delete_plans(plans)!
-- Deletes plans whose items are gone: in a statement of its own, since the constraint is checked at the end of one.
DELETE FROM replay_plans WHERE id = ANY(:plans::uuid[]);

-- name: delete_cancel_plans(horizon)!
-- Deletes plans of cancellations that ended, or were made and never applied, before the horizon; their jobs go with them.
DELETE FROM cancel_plans WHERE state <> 'applying' AND coalesce(ended_at, created_at) < :horizon;

-- name: delete_discard_plans(horizon)!
-- Deletes plans of discards as those of cancellations; their events go with them.
DELETE FROM discard_plans WHERE state <> 'applying' AND coalesce(ended_at, created_at) < :horizon;

-- name: delete_early(horizon)!
-- Deletes cancellations of jobs that had no request since the horizon; no job of theirs waits for its time so long.
DELETE FROM early_cancellations WHERE received_at < :horizon;

-- name: lock_old_jobs(horizon, size)
-- A page of jobs that ended before the horizon, in every run and for every table, locked as the projection locks them. A job
-- stays while quota is held for it, a record of it is scheduled, or a plan lists one of its failed events.
SELECT job.job_id
FROM customization_jobs AS job
WHERE job.status IN ('completed', 'failed', 'cancelled') AND job.completed_at < :horizon AND job.updated_at < :horizon
    AND NOT EXISTS (
        SELECT FROM quota_ledger AS entry
        WHERE entry.job_id = job.job_id AND (entry.state = 'reserved' OR entry.decided_at >= :horizon)
    )
    AND NOT EXISTS (
        SELECT FROM generation_attempts AS call WHERE call.job_id = job.job_id AND call.started_at >= :horizon
    )
    AND NOT EXISTS (
        SELECT FROM scheduled_events AS later WHERE later.key = convert_to(job.job_id::text, 'UTF8')
    )
    AND NOT EXISTS (
        SELECT FROM failed_events AS failed
        JOIN replay_plan_items AS item ON item.failed_event_id = failed.id
        WHERE failed.job_id = job.job_id
    )
ORDER BY job.completed_at
LIMIT :size
FOR UPDATE SKIP LOCKED;

-- name: delete_jobs(job_ids)!
-- Deletes jobs with everything about them. What is counted by month and organization stays.
WITH page AS (
    SELECT job_id FROM unnest(:job_ids::uuid[]) AS job_id
), activities AS (
    DELETE FROM customized_activities WHERE job_id IN (SELECT page.job_id FROM page)
), attempts AS (
    DELETE FROM generation_attempts WHERE job_id IN (SELECT page.job_id FROM page)
), requests AS (
    DELETE FROM job_requests WHERE job_id IN (SELECT page.job_id FROM page)
), outcomes AS (
    DELETE FROM job_outcomes WHERE job_id IN (SELECT page.job_id FROM page)
), ledger AS (
    DELETE FROM quota_ledger WHERE job_id IN (SELECT page.job_id FROM page)
), events AS (
    DELETE FROM job_events WHERE job_id IN (SELECT page.job_id FROM page)
), sent AS (
    DELETE FROM reemissions WHERE job_id IN (SELECT page.job_id FROM page)
), failed AS (
    DELETE FROM failed_events WHERE job_id IN (SELECT page.job_id FROM page)
), owners AS (
    DELETE FROM job_owners WHERE job_id IN (SELECT page.job_id FROM page)
), cancellations AS (
    DELETE FROM early_cancellations WHERE job_id IN (SELECT page.job_id FROM page)
)
DELETE FROM customization_jobs WHERE job_id IN (SELECT page.job_id FROM page);

-- name: note_jobs_horizon(horizon)!
-- Remembers how far the retention of whole jobs went; written with each page.
INSERT INTO archive_retention AS known (horizon, jobs_horizon)
VALUES (:horizon, :horizon)
ON CONFLICT (singleton) DO UPDATE SET
    horizon = greatest(known.horizon, excluded.horizon),
    jobs_horizon = greatest(known.jobs_horizon, excluded.jobs_horizon);

-- name: note_webhooks_horizon(horizon, whole_from)!
-- Remembers from when on the deliveries of endpoints are whole that lose some next.
UPDATE webhook_endpoints AS one SET compared_from = greatest(one.compared_from, :whole_from)
WHERE EXISTS (SELECT FROM webhook_deliveries AS old WHERE old.endpoint_id = one.id AND old.created_at < :horizon);

-- name: delete_webhooks(horizon, size)$
-- Deletes a page of deliveries of webhooks that are older than the horizon; returns how many. What still waits has waited for an
-- endpoint that is disabled.
WITH gone AS (
    DELETE FROM webhook_deliveries WHERE (endpoint_id, event_id) IN (
        SELECT old.endpoint_id, old.event_id FROM webhook_deliveries AS old WHERE old.created_at < :horizon LIMIT :size
    )
    RETURNING 1
)
SELECT count(*) FROM gone;

-- name: delete_hours(horizon)$
-- Deletes the hourly figures of LLM endpoints before the horizon; returns how many. A row for each endpoint and hour: few.
WITH gone AS (DELETE FROM llm_hours WHERE hour < :horizon RETURNING 1)
SELECT count(*) FROM gone;
