-- name: open_account(organization_id, team_id)!
-- An organization with quota enough, and its team.
WITH organization AS (
    INSERT INTO organizations (id, name) VALUES (:organization_id, :organization_id)
), subscription AS (
    INSERT INTO subscriptions (organization_id, plan, status, monthly_quota)
    VALUES (:organization_id, 'team', 'active', 1000000)
)
INSERT INTO teams (id, organization_id, name) VALUES (:team_id, :organization_id, 'Team');

-- name: anchored(job_ids)$
-- How many of these jobs the database knows.
SELECT count(DISTINCT job_id)
FROM (SELECT job_id FROM job_requests UNION ALL SELECT job_id FROM job_events) AS known
WHERE job_id = ANY(:job_ids::uuid[]);

-- name: statuses(organization_id)
-- Every job and its status.
SELECT job_id, status FROM customization_jobs WHERE organization_id = :organization_id;

-- name: failures(organization_id)
-- Why jobs failed.
SELECT coalesce(error_code, 'no code') AS code, count(*) AS jobs
FROM customization_jobs WHERE organization_id = :organization_id AND status = 'failed'
GROUP BY 1 ORDER BY 1;

-- name: books(organization_id)^
-- What an organization's jobs have cost, by the tables that each stage writes.
WITH job AS (
    SELECT
        job_id,
        ended.outcome,
        entry.state,
        (SELECT count(*) FROM customized_activities AS saved WHERE saved.job_id = entry.job_id) AS activities,
        (
            SELECT count(*) FROM generation_attempts AS attempt
            WHERE attempt.job_id = entry.job_id AND attempt.run = entry.run AND attempt.state = 'saved'
        ) AS saved
    FROM quota_ledger AS entry
    LEFT JOIN job_outcomes AS ended USING (job_id, run)
    WHERE entry.organization_id = :organization_id
)
SELECT
    count(*) FILTER (WHERE
        CASE WHEN outcome = 'completed' THEN activities <> 3 OR saved <> 1 ELSE activities + saved > 0 END
    ) AS duplicate_effects,
    count(*) FILTER (WHERE outcome = 'completed') AS completed,
    count(*) FILTER (WHERE outcome IS NOT NULL) AS known,
    (
        SELECT coalesce(sum(charged), 0) FROM quota_usage WHERE organization_id = :organization_id
    ) AS charged
FROM job;
