-- name: forget()!
-- Empties the line, for the next question.
TRUNCATE dispatch_runs, dispatch_organizations, generation_attempts, job_outcomes, subscriptions, organizations CASCADE;

-- name: reset_clock()!
-- Sets the virtual time back, and forgets what its own runs have told.
UPDATE dispatch_clock SET virtual = 0, cost = 1;

-- name: add_organizations(names, weights)!
-- Organizations that may have as much as they like, with their weights.
WITH named AS (
    SELECT * FROM unnest(:names::text[], :weights::float8[]) AS given (name, weight)
), added AS (
    INSERT INTO organizations (id, name) SELECT name, name FROM named
)
INSERT INTO subscriptions (organization_id, plan, status, monthly_quota, weight)
SELECT name, 'pro', 'active', 1000000, weight FROM named;

-- name: set_weight(name, weight)!
-- Changes what an organization is given.
UPDATE subscriptions SET weight = :weight WHERE organization_id = :name;

-- name: enter(names, jobs, run)!
-- Has runs of each organization wait, in turns. The event is the name alone: it is not read here.
INSERT INTO dispatch_runs (job_id, run, organization_id, rank, topic, event)
SELECT gen_random_uuid(), :run, name, (:run > 1)::int, 'job-accepted', convert_to(name, 'UTF8')
FROM generate_series(1, :jobs) AS nth CROSS JOIN unnest(:names::text[]) AS name
ORDER BY nth;

-- name: arrived()$
-- How many runs no dispatcher has seen yet.
SELECT count(*) FROM dispatch_runs WHERE state = 'arrived';

-- name: release(room)
-- Releases what may be released.
SELECT job_id, run, convert_from(event, 'UTF8') AS organization FROM dispatch(:room, false);

-- name: end_runs(job_ids, runs, seconds)!
-- Ends runs, each after one attempt of so many seconds.
WITH ending AS (
    SELECT * FROM unnest(:job_ids::uuid[], :runs::int[], :seconds::float8[]) AS given (job_id, run, seconds)
), tried AS (
    INSERT INTO generation_attempts (job_id, run, attempt, token, state, started_at, finished_at)
    SELECT line.job_id, line.run, 1, gen_random_uuid(), 'failed', released_at, released_at + seconds * interval '1 second'
    FROM ending JOIN dispatch_runs AS line ON line.job_id = ending.job_id AND line.run = ending.run
)
INSERT INTO job_outcomes (job_id, run, outcome) SELECT job_id, run, 'completed' FROM ending;
