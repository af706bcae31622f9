-- name: usage(organization_id, period, limit, now)^
-- What an organization may take in a month and has taken, and its jobs that have not ended, each counted up to a number. One
-- that waits for its time (`run_at`) is not waiting yet, whichever way it came.
SELECT
    EXISTS (SELECT FROM organizations WHERE id = :organization_id)
    OR EXISTS (SELECT FROM quota_usage WHERE organization_id = :organization_id)
    OR EXISTS (SELECT FROM customization_jobs WHERE organization_id = :organization_id) AS is_known,
    subscription.monthly_quota,
    coalesce(counter.reserved, 0) AS reserved,
    coalesce(counter.charged, 0) AS charged,
    (
        SELECT count(*) FROM (
            SELECT FROM customization_jobs AS job
            WHERE job.organization_id = :organization_id AND job_state(job.status) = 'pending' AND NOT EXISTS (
                SELECT FROM scheduled_events AS later
                WHERE later.key = convert_to(job.job_id::text, 'UTF8')
                    AND later.topic = 'job-requests' AND later.due_at > :now
            )
            LIMIT :limit
        ) AS bounded
    ) AS waiting,
    (
        SELECT count(*) FROM (
            SELECT FROM customization_jobs WHERE organization_id = :organization_id AND job_state(status) = 'processing' LIMIT :limit
        ) AS bounded
    ) AS in_flight,
    money.budget,
    money.kind AS budget_kind
FROM (SELECT) AS nothing
LEFT JOIN subscriptions AS subscription ON subscription.organization_id = :organization_id
LEFT JOIN quota_usage AS counter ON counter.organization_id = :organization_id AND counter.period = :period
LEFT JOIN budget_of(:organization_id, :period) AS money ON true
LIMIT 1;
