-- name: log_slow_statements()!
-- Has the server log statements that take long, with their times.
ALTER SYSTEM SET log_min_duration_statement = '100ms';

-- name: reload()!
-- Has connections that are open do so too.
SELECT pg_reload_conf();

-- name: leave_out_of_the_log()!
-- Leaves the benchmark's own questions out.
SET LOCAL log_min_duration_statement = -1;

-- name: numbers(organization_id)^
-- How an organization's jobs and its ledger stand, and what was told of its cancellations.
SELECT
    (SELECT count(*) FROM customization_jobs WHERE organization_id = :organization_id AND status = 'pending') AS pending,
    (SELECT count(*) FROM customization_jobs WHERE organization_id = :organization_id AND status = 'cancelled') AS cancelled,
    (SELECT count(*) FROM customization_jobs WHERE organization_id = :organization_id AND requirements = '[erased]') AS erased,
    (SELECT coalesce(sum(reserved), 0)::int FROM quota_usage WHERE organization_id = :organization_id) AS reserved,
    (SELECT count(*) FROM quota_ledger WHERE organization_id = :organization_id AND state = 'released') AS released,
    (SELECT count(*) FROM dispatch_runs WHERE organization_id = :organization_id) AS in_line,
    (SELECT count(*) FROM job_events WHERE type = 'teamfit.job.cancelled.v1') AS told,
    (SELECT count(DISTINCT job_id) FROM job_events WHERE type = 'teamfit.job.cancelled.v1') AS told_once;

-- name: add_team()!
-- Adds the team that failed jobs are for.
INSERT INTO teams (id, organization_id, name, size) VALUES ('bench-team', 'bench-0', 'Bench', 8);

-- name: failed_states()
-- How many failed events are in each state.
SELECT state, count(*) AS events FROM failed_events GROUP BY state;

-- name: reruns()$
-- How many second runs hold quota.
SELECT count(*) FROM quota_ledger WHERE run = 2 AND state = 'reserved';
