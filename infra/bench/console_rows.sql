-- Rows of a pipeline that has served for ninety days. Everything of a job follows from its number: 1 is the newest. Its organization
-- is one of many, of which the first has a tenth of all jobs; of a thousand jobs 3 are pending, 2 are processing, 50 have failed, 10
-- were cancelled, 20 were replayed, and 10 are of the Celery days. All have the word "session", every twentieth "kayaks", one "Zanzibar".

-- name: prepare
-- Has rows written without triggers, and without the indices that can be made again afterwards: both are much quicker.
SET session_replication_role = replica;
SET work_mem = '64MB';
SET maintenance_work_mem = '512MB';
CREATE TEMPORARY TABLE indices_left_out AS
SELECT indexrelid::regclass::text AS name, pg_get_indexdef(indexrelid) AS definition
FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
WHERE NOT indisunique AND indrelid IN (
    'customization_jobs'::regclass, 'job_events'::regclass, 'job_words'::regclass, 'quota_ledger'::regclass,
    'generation_attempts'::regclass, 'failed_events'::regclass, 'job_requests'::regclass, 'webhook_deliveries'::regclass,
    'operator_actions'::regclass, 'scheduled_events'::regclass
);
DO $$
DECLARE
    one record;
BEGIN
    FOR one IN SELECT * FROM indices_left_out LOOP EXECUTE 'DROP INDEX ' || one.name; END LOOP;
END $$;

-- name: finish
-- Makes the indices.
DO $$
DECLARE
    one record;
BEGIN
    FOR one IN SELECT * FROM indices_left_out LOOP EXECUTE one.definition; END LOOP;
END $$;
SET session_replication_role = origin;

-- name: organizations
-- Organizations with a subscription, three teams and an endpoint of webhooks each.
WITH added AS (
    INSERT INTO organizations (id, name) SELECT 'org-' || n, 'Bench ' || n FROM generate_series(0, :organizations - 1) AS n
    RETURNING id
), subscribed AS (
    INSERT INTO subscriptions (organization_id, plan, status, monthly_quota) SELECT id, 'pro', 'active', 1000000 FROM added
), listening AS (
    INSERT INTO webhook_endpoints (id, organization_id, url, types, secret)
    SELECT md5('hook' || id)::uuid, id, 'https://' || id || '.example/hook', '{job.completed,job.failed}', 'whsec_none' FROM added
)
INSERT INTO teams (id, organization_id, name, size) SELECT id || '-' || n, id, 'Team ' || n, 8 FROM added, generate_series(1, 3) AS n;

-- name: jobs
-- Jobs of these numbers, the oldest first, with their words, requests, quota, outcomes, calls, activities and events.
CREATE TEMPORARY TABLE made ON COMMIT DROP AS
SELECT
    n,
    md5('bench' || n)::uuid AS job_id,
    'org-' || whose.k AS organization_id,
    'org-' || whose.k || '-' || 1 + n % 3 AS team_id,
    now() - n * (interval '90 days' / :jobs) AS at,
    CASE WHEN n % 50 = 9 THEN 2 ELSE 1 END AS run,
    CASE
        WHEN n <= :jobs * 0.003 THEN 'pending'
        WHEN n <= :jobs * 0.005 THEN 'processing'
        WHEN n % 100 = 11 THEN 'SUCCESS'
        WHEN n % 20 = 7 THEN 'failed'
        WHEN n % 100 = 3 THEN 'cancelled'
        ELSE 'completed'
    END AS status,
    'A session ' || (ARRAY['outdoors', 'indoors'])[1 + n % 2] || ' for ' || 4 + n % 9 || ' people, ' || 30 + n % 7 * 15
        || ' minutes, about theme' || n % 199 || CASE WHEN n % 20 = 0 THEN ' and kayaks' ELSE '' END
        || CASE WHEN n = :jobs / 2 THEN ' in Zanzibar' ELSE '' END || ', variant ' || n AS requirements
FROM generate_series(:last, :first, -1) AS n
CROSS JOIN LATERAL (
    SELECT floor(:organizations * power(abs(hashint4(n)::bigint) / 2147483649.0, 3))::int AS k
) AS whose;

INSERT INTO customization_jobs (
    job_id, organization_id, team_id, status, run, error_code, error_message, requirements, created_at, started_at, completed_at,
    updated_at
)
SELECT
    job_id, organization_id, team_id, status, run,
    CASE WHEN status = 'failed' THEN (ARRAY['llm_refusal', 'llm_invalid_output', 'llm_timeout', 'quota_exceeded'])[1 + n / 20 % 4] END,
    CASE WHEN status = 'failed' THEN 'the model would not, request ' || n END,
    requirements, at,
    CASE WHEN status <> 'pending' THEN at + interval '1 second' END,
    CASE WHEN status NOT IN ('pending', 'processing') THEN at + interval '9 seconds' END,
    at + interval '9 seconds'
FROM made;

INSERT INTO job_words (job_id, words) SELECT job_id::text, to_tsvector('simple', requirements) FROM made;

INSERT INTO job_owners (job_id, organization_id, claimed_at) SELECT job_id, organization_id, at FROM made;

INSERT INTO job_requests (job_id, organization_id, team_id, event, accepted_at)
SELECT job_id, organization_id, team_id, jsonb_build_object('type', 'teamfit.job.requested.v1', 'data', jsonb_build_object()), at
FROM made;

INSERT INTO quota_ledger (job_id, run, organization_id, period, state, decided_at, settled_at)
SELECT
    job_id, run, organization_id, to_char(at AT TIME ZONE 'UTC', 'YYYY-MM'),
    CASE
        WHEN status IN ('pending', 'processing') THEN 'reserved' WHEN status IN ('failed', 'cancelled') THEN 'released' ELSE 'charged'
    END,
    at, CASE WHEN status NOT IN ('pending', 'processing') THEN at + interval '9 seconds' END
FROM made;

INSERT INTO job_outcomes (job_id, run, outcome, decided_at)
SELECT job_id, run, replace(status, 'SUCCESS', 'completed'), at + interval '9 seconds'
FROM made WHERE status NOT IN ('pending', 'processing');

INSERT INTO generation_attempts (
    job_id, run, attempt, token, state, model, prompt_tokens, completion_tokens, started_at, finished_at, organization_id, endpoint,
    cost
)
SELECT
    job_id, run, 1, md5('token' || n)::uuid,
    CASE WHEN status = 'processing' THEN 'started' WHEN status IN ('failed', 'cancelled') THEN 'failed' ELSE 'saved' END,
    'gpt-4o-mini', 800, 1400, at + interval '2 seconds', CASE WHEN status <> 'processing' THEN at + interval '8 seconds' END,
    organization_id, 'openai', 900
FROM made WHERE status <> 'pending';

INSERT INTO customized_activities (job_id, position, title, description, duration_minutes, objective)
SELECT job_id, place, 'The quiet relay ' || place, repeat('A description of some length. ', 4), 45, 'People learn what others do.'
FROM made CROSS JOIN generate_series(1, 3) AS place WHERE status = 'completed' OR status = 'SUCCESS';

INSERT INTO job_events (job_id, event_id, run, type, organization_id, time, event, archived_at)
SELECT
    job_id, n || '-' || step, run, told.type, organization_id, at + step * interval '3 seconds',
    jsonb_build_object(
        'specversion', '1.0', 'id', n || '-' || step, 'source', 'teamfit', 'subject', job_id, 'type', told.type, 'run', run,
        'traceparent', '00-' || md5('trace' || n) || '-00f067aa0ba902b7-01',
        'data', CASE WHEN step = 0 THEN jsonb_build_object('requirements', requirements) ELSE jsonb_build_object('model', 'gpt-4o-mini') END
    ),
    at + step * interval '3 seconds'
FROM made CROSS JOIN generate_series(0, 2) AS step
CROSS JOIN LATERAL (
    SELECT 'teamfit.job.' || CASE
        WHEN step = 0 THEN 'requested' WHEN step = 1 THEN 'started' ELSE replace(status, 'SUCCESS', 'completed')
    END || '.v1' AS type
) AS told
WHERE step < CASE status WHEN 'pending' THEN 1 WHEN 'processing' THEN 2 ELSE 3 END;

INSERT INTO webhook_deliveries (endpoint_id, event_id, type, job_id, body, created_at, due_at, attempts, last_attempt_at, last_status,
    last_error, delivered_at, given_up_at)
SELECT
    md5('hook' || organization_id)::uuid, n || '-2', 'job.completed', job_id, '{}', at + interval '9 seconds', at + interval '9 seconds',
    1, at + interval '10 seconds', CASE WHEN n % 1000 < 2 THEN 500 ELSE 204 END, CASE WHEN n % 1000 < 2 THEN 'status 500' END,
    CASE WHEN n % 1000 >= 2 THEN at + interval '10 seconds' END, CASE WHEN n % 1000 = 1 THEN at + interval '10 seconds' END
FROM made WHERE (status = 'completed' OR status = 'failed') AND n % 5 = 1;

-- name: long_job
-- One job has many events more.
INSERT INTO job_events (job_id, event_id, run, type, organization_id, time, event, archived_at)
SELECT
    job_id, 'long-' || place, run, 'teamfit.job.progressed.v1', organization_id, created_at + place * interval '1 millisecond',
    jsonb_build_object('specversion', '1.0', 'type', 'teamfit.job.progressed.v1', 'data', jsonb_build_object('step', 'activity',
        'attempt', 1, 'number', place, 'title', 'The quiet relay ' || place)),
    created_at + place * interval '1 millisecond'
FROM customization_jobs CROSS JOIN generate_series(1, :events) AS place
WHERE job_id = md5('bench' || :job)::uuid;

-- name: failed_events
-- Failed events with bytes and a traceback of a usual length; of a hundred 10 were replayed, 5 discarded, 1 killed its workers.
INSERT INTO failed_events (
    id, topic, stage, reason, key, event, error_type, error_message, traceback, attempts, first_failed_at, last_failed_at, event_type,
    job_id, run, organization_id, trace_id, replayed_at, replayed_occurrences, discarded_at, discarded_occurrences,
    discarded_because, discarded_by
)
SELECT
    md5('failed' || n)::uuid, 'job-accepted', stage.name, CASE WHEN n % 100 = 99 THEN 'max_deliveries' ELSE 'given_up' END,
    convert_to(job.id::text, 'UTF8'), convert_to(jsonb_build_object('subject', job.id, 'data', repeat('Two hours outdoors. ', 20))::text, 'UTF8'),
    (ARRAY['Permanent', 'Transient', 'TimeoutError', 'RuntimeError'])[1 + n % 4],
    'job ' || job.id || ': the model ''' || (ARRAY['small', 'large'])[1 + n % 2] || ''' would not, after ' || n % 90 || ' s',
    repeat('File "x.py", line 1, in handle ', 60), 3, at, at, 'teamfit.job.accepted.v1', job.id, 1, 'org-' || n::bigint * n % :organizations,
    md5('trace' || n), CASE WHEN n % 10 = 5 THEN at END, CASE WHEN n % 10 = 5 THEN 1 END, CASE WHEN n % 20 = 4 THEN at END,
    CASE WHEN n % 20 = 4 THEN 1 END, CASE WHEN n % 20 = 4 THEN 'known' END, CASE WHEN n % 20 = 4 THEN 'ann' END
FROM generate_series(:failed, 1, -1) AS n
CROSS JOIN LATERAL (SELECT md5('bench' || 1 + n * 7 % :jobs)::uuid AS id) AS job
CROSS JOIN LATERAL (SELECT (ARRAY['generation', 'generation', 'generation', 'quota', 'projection'])[1 + n % 5] AS name) AS stage
CROSS JOIN LATERAL (SELECT now() - n * (interval '90 days' / :failed) AS at) AS failed;

-- name: others
-- What grows slower: counters, counts by time, money, the schedule, the log of actions, the line, the fleet.
INSERT INTO quota_usage (organization_id, period, reserved, charged)
SELECT organization_id, period, count(*) FILTER (WHERE state = 'reserved'), count(*) FILTER (WHERE state = 'charged')
FROM quota_ledger GROUP BY 1, 2;
INSERT INTO llm_usage (organization_id, period, calls, prompt_tokens, completion_tokens, maybe_billed_calls, cost)
SELECT organization_id, period, count(*), count(*) * 800, count(*) * 1400, 0, count(*) * 900 FROM quota_ledger GROUP BY 1, 2;
INSERT INTO llm_hours (endpoint, model, hour, calls, failed, refused, seconds, prompt_tokens, completion_tokens)
SELECT 'openai', 'gpt-4o-mini', date_trunc('hour', now()) - n * interval '1 hour', 400, 8, 3, 2400, 320000, 560000
FROM generate_series(0, 2159) AS n;
INSERT INTO job_counts (at, state, took, jobs)
SELECT at, state, took, 40 + took FROM (
    SELECT date_bin('5 minutes', now() - n * interval '5 minutes', 'epoch') AS at FROM generate_series(0, 575) AS n
    UNION SELECT date_trunc('hour', now()) - n * interval '1 hour' FROM generate_series(49, 2399) AS n
) AS time
CROSS JOIN (VALUES ('asked', 0), ('failed', 0), ('cancelled', 0), ('completed', 8), ('completed', 12), ('completed', 13)) AS one (state, took);
INSERT INTO scheduled_events (id, topic, key, due_at, reason)
SELECT md5('due' || n)::uuid, CASE WHEN n % 50 = 0 THEN 'job-accepted' ELSE 'job-requests' END,
    convert_to(md5('bench' || n)::uuid::text, 'UTF8'), now() + (n - 20) * interval '1 second', 'retry ' || n
FROM generate_series(1, :scheduled) AS n;
INSERT INTO operator_actions (at, actor, face, action, target, reason, outcome, why)
SELECT now() - n * interval '10 minutes', (ARRAY['ann', 'ben', 'cleo'])[1 + n % 3], (ARRAY['cli', 'api', 'console'])[1 + n % 3],
    (ARRAY['job.cancel', 'failed.discard', 'quota.repair', 'control.pause'])[1 + n % 4], 'organization org-' || n % :organizations,
    'a reason', CASE WHEN n % 500 = 0 THEN 'refused' ELSE 'done' END, CASE WHEN n % 500 = 0 THEN 'may not' END
FROM generate_series(1, :actions) AS n;
INSERT INTO dispatch_runs (job_id, run, organization_id, state, rank, topic, event)
SELECT job_id, run, organization_id, 'waiting', 0, 'job-accepted', '' FROM customization_jobs WHERE status = 'pending';
INSERT INTO dispatch_organizations (organization_id, tag, since, waiting)
SELECT organization_id, 0, 0, count(*) FROM dispatch_runs GROUP BY 1;
INSERT INTO fleet_processes (process, kind, host, pid, version, stages, seen_at, rss_bytes, log_level, doing)
SELECT gen_random_uuid(), 'worker', 'host', 1, '1', ARRAY[stage], clock_timestamp() + interval '1 day', 80000000, 'info',
    jsonb_build_array(jsonb_build_object('stage', stage, 'under_way', 0, 'concurrency', 8, 'paused', NULL, 'held', NULL, 'endpoints', '[]'::jsonb))
FROM unnest(ARRAY['quota', 'generation', 'projection', 'failures', 'webhooks', 'schedule']) AS stage;
