-- name: standing(job_id, organization_id, team_id, period)^
-- What the early check must know about a request's organization, team, subscription, used quota and waiting runs, and whether the job was
-- cancelled by its organization: before it was asked for, or after a first try of which only the stream knows; and what such a
-- first try asked for. Nothing is locked.
SELECT
    asked.organization_id,
    asked.team_id,
    organizations.id IS NOT NULL AS organization_exists,
    teams.id IS NOT NULL AS team_exists,
    coalesce(organizations.trust_score, 0) AS trust_score,
    subscriptions.plan,
    subscriptions.status,
    coalesce(subscriptions.monthly_quota, 0) AS monthly_quota,
    coalesce(subscriptions.priority, false) AS priority,
    coalesce(quota_usage.reserved + quota_usage.charged, 0) AS used,
    money.budget,
    coalesce(money.spent, 0) AS spent,
    intake_room(asked.organization_id) AS room,
    coalesce(
        (
            SELECT early.event #>> '{data,reason}' FROM early_cancellations AS early
            WHERE early.job_id = :job_id AND early.organization_id = asked.organization_id AND early.event ->> 'run' = '1'
        ),
        (
            SELECT ended.fact #>> '{data,reason}' FROM job_outcomes AS ended
            WHERE ended.job_id = :job_id AND ended.run = 1 AND ended.outcome = 'cancelled'
                AND ended.fact #>> '{data,organization_id}' = asked.organization_id
        )
    ) AS withdrawn,
    (
        SELECT claim.wish FROM job_owners AS claim
        WHERE claim.job_id = :job_id AND claim.organization_id = asked.organization_id
    ) AS first_wish
FROM (SELECT :organization_id::text AS organization_id, :team_id::text AS team_id) AS asked
LEFT JOIN organizations ON organizations.id = asked.organization_id
LEFT JOIN teams ON teams.id = asked.team_id AND teams.organization_id = asked.organization_id
LEFT JOIN subscriptions ON subscriptions.organization_id = asked.organization_id
LEFT JOIN quota_usage ON quota_usage.organization_id = asked.organization_id AND quota_usage.period = :period
LEFT JOIN budget_of(asked.organization_id, :period) AS money ON money.kind = 'hard';

-- name: record(job_id, organization_id, team_id, idempotency_key, event)$
-- Records an accepted request; returns its ID, or NULL when this job is recorded. Waits for a transaction that records it.
INSERT INTO job_requests (job_id, organization_id, team_id, idempotency_key, event)
VALUES (:job_id, :organization_id, :team_id, :idempotency_key, :event)
ON CONFLICT DO NOTHING
RETURNING job_id;

-- name: recorded(organization_id, idempotency_key)^
-- The request that was accepted under an idempotency key before.
SELECT job_id, event FROM job_requests WHERE organization_id = :organization_id AND idempotency_key = :idempotency_key;

-- name: can_record()^
-- What keeps a request from being recorded now.
SELECT
    pg_is_in_recovery() AS standby,
    current_setting('transaction_read_only')::boolean AS read_only,
    to_regclass('job_requests') IS NULL AS not_migrated,
    NOT coalesce(has_table_privilege(to_regclass('job_requests'), 'INSERT'), true) AS not_permitted;
