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
