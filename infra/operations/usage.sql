-- name: usage(organization_id, period, limit)^
-- What an organization may take in a month and has taken, and its jobs that have not ended, each counted up to a number.
SELECT
    EXISTS (SELECT FROM organizations WHERE id = :organization_id)
    OR EXISTS (SELECT FROM quota_usage WHERE organization_id = :organization_id)
    OR EXISTS (SELECT FROM customization_jobs WHERE organization_id = :organization_id) AS is_known,
    subscription.monthly_quota,
    coalesce(counter.reserved, 0) AS reserved,
    coalesce(counter.charged, 0) AS charged,
    (
        SELECT count(*) FROM (
            SELECT FROM customization_jobs WHERE organization_id = :organization_id AND status = 'pending' LIMIT :limit
        ) AS bounded
    ) AS waiting,
    (
        SELECT count(*) FROM (
            SELECT FROM customization_jobs WHERE organization_id = :organization_id AND status = 'processing' LIMIT :limit
        ) AS bounded
    ) AS in_flight,
    money.budget,
    money.kind AS budget_kind
FROM (SELECT) AS nothing
LEFT JOIN subscriptions AS subscription ON subscription.organization_id = :organization_id
LEFT JOIN quota_usage AS counter ON counter.organization_id = :organization_id AND counter.period = :period
LEFT JOIN budget_of(:organization_id, :period) AS money ON true
LIMIT 1;
