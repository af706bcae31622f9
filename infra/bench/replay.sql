-- name: add_organizations(organizations)!
-- Organizations with quota for everything.
WITH added AS (
    INSERT INTO organizations (id, name)
    SELECT 'bench-' || number, 'Bench ' || number FROM generate_series(0, :organizations - 1) AS number
    RETURNING id
)
INSERT INTO subscriptions (organization_id, plan, status, monthly_quota) SELECT id, 'pro', 'active', 1000000 FROM added;

-- name: add_failed_jobs(jobs, organizations, padding)!
-- Jobs whose first run the generation stage gave up: their events in `failed_events`, with tracebacks of a usual length,
-- their quota released, their outcome decided, their row in the read model.
WITH job AS (
    SELECT
        gen_random_uuid() AS job_id,
        'bench-' || number % :organizations AS organization_id,
        now() - number * interval '100 milliseconds' AS failed_at,
        (ARRAY['Permanent', 'Transient', 'TimeoutError', 'RuntimeError'])[1 + number % 4] AS error_type
    FROM generate_series(1, :jobs) AS number
), letter AS (
    INSERT INTO failed_events (
        id, topic, stage, reason, key, event, error_type, error_message, traceback, attempts, first_failed_at,
        last_failed_at, event_type, job_id, run, organization_id
    )
    SELECT
        gen_random_uuid(), 'job-accepted', 'generation', 'given_up', job_id::text::bytea,
        convert_to(
            jsonb_build_object(
                'specversion', '1.0', 'id', gen_random_uuid(), 'source', 'teamfit', 'subject', job_id, 'time', failed_at,
                'datacontenttype', 'application/json', 'run', 1, 'type', 'teamfit.job.accepted.v1', 'data',
                jsonb_build_object(
                    'organization_id', organization_id, 'team_id', 'bench-team',
                    'requirements', repeat('Two hours outdoors. ', 20), 'priority', false
                )
            )::text,
            'UTF8'
        ),
        error_type, 'the model would not', repeat('File "x.py", line 1, in handle ', :padding), 3, failed_at, failed_at,
        'teamfit.job.accepted.v1', job_id, 1, organization_id
    FROM job
), outcome AS (
    INSERT INTO job_outcomes (job_id, run, outcome) SELECT job_id, 1, 'failed' FROM job
), shown AS (
    INSERT INTO customization_jobs (job_id, organization_id, status, run) SELECT job_id, organization_id, 'failed', 1 FROM job
)
INSERT INTO quota_ledger (job_id, run, organization_id, period, state, decided_at, settled_at)
SELECT job_id, 1, organization_id, to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM'), 'released', failed_at, failed_at FROM job;
