-- name: books(organization_id)
-- The counters of an organization beside what the ledger says they should be, the newest period first.
SELECT
    period,
    coalesce(counter.reserved, 0) AS reserved,
    coalesce(counter.charged, 0) AS charged,
    coalesce(ledger.reserved, 0) AS ledger_reserved,
    coalesce(ledger.charged, 0) AS ledger_charged,
    coalesce(ledger.released, 0) AS released,
    coalesce(ledger.rejected, 0) AS rejected
FROM (SELECT * FROM quota_usage WHERE organization_id = :organization_id) AS counter
FULL JOIN (
    SELECT
        period,
        count(*) FILTER (WHERE state = 'reserved') AS reserved,
        count(*) FILTER (WHERE state = 'charged') AS charged,
        count(*) FILTER (WHERE state = 'released') AS released,
        count(*) FILTER (WHERE state = 'rejected') AS rejected
    FROM quota_ledger WHERE organization_id = :organization_id
    GROUP BY period
) AS ledger USING (period)
ORDER BY period DESC;

-- name: subscription(organization_id)^
-- What the organization may take; no row if the backend does not know it.
SELECT organizations.name, subscriptions.plan, subscriptions.status, subscriptions.monthly_quota
FROM organizations LEFT JOIN subscriptions ON subscriptions.organization_id = organizations.id
WHERE organizations.id = :organization_id;

-- name: lock(organization_id, periods)!
-- Locks counters until the transaction ends, in the order of everybody else; one that is missing is made.
INSERT INTO quota_usage (organization_id, period)
SELECT :organization_id, period FROM unnest(:periods::text[]) AS wanted (period)
ORDER BY period
ON CONFLICT (organization_id, period) DO UPDATE SET reserved = quota_usage.reserved;

-- name: recount(organization_id, periods)!
-- Sets locked counters to what the ledger says.
UPDATE quota_usage SET
    reserved = (
        SELECT count(*) FROM quota_ledger AS entry
        WHERE entry.organization_id = quota_usage.organization_id AND entry.period = quota_usage.period
            AND entry.state = 'reserved'
    ),
    charged = (
        SELECT count(*) FROM quota_ledger AS entry
        WHERE entry.organization_id = quota_usage.organization_id AND entry.period = quota_usage.period
            AND entry.state = 'charged'
    )
WHERE organization_id = :organization_id AND period = ANY (:periods::text[]);
