-- name: open_account(organization_id)!
-- Adds an organization with quota enough.
INSERT INTO subscriptions (organization_id, monthly_quota) VALUES (:organization_id, 1000000);

-- name: completed()$
-- How many jobs are completed.
SELECT count(*) FROM customization_jobs WHERE status = 'completed';
