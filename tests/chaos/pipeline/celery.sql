-- name: open_account(organization_id)!
-- An organization with quota enough.
INSERT INTO subscriptions (organization_id, monthly_quota) VALUES (:organization_id, 1000000);

-- name: statuses(organization_id)
-- Every job and its status.
SELECT job_id, status FROM customization_jobs WHERE organization_id = :organization_id;

-- name: books(organization_id)^
-- What an organization's jobs have cost.
WITH job AS (
    SELECT status, (SELECT count(*) FROM customized_activities AS saved WHERE saved.job_id = job.job_id) AS activities
    FROM customization_jobs AS job
    WHERE organization_id = :organization_id
)
SELECT
    count(*) FILTER (WHERE
        CASE WHEN status = 'completed' THEN activities <> 3 ELSE activities > 0 END
    ) AS duplicate_effects,
    count(*) FILTER (WHERE status = 'completed') AS completed,
    count(*) FILTER (WHERE status IN ('completed', 'failed')) AS known,
    (SELECT coalesce(sum(charged), 0) FROM quota_usage WHERE organization_id = :organization_id) AS charged
FROM job;
