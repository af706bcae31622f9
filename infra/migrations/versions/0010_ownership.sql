-- Whose each job is: the organization whose request for it came first. Written once, by whoever meets that request first.
CREATE TABLE job_owners (
    job_id uuid PRIMARY KEY,
    organization_id text NOT NULL,
    claimed_at timestamptz NOT NULL DEFAULT now()
);

-- Cancellations of jobs that nobody had asked for yet: each holds for the request of its own organization, if that comes.
CREATE TABLE early_cancellations (
    job_id uuid NOT NULL,
    organization_id text NOT NULL,
    event jsonb NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (job_id, organization_id)
);

-- Whose a job is; of jobs that came before `job_owners`, by what else is known of them. Text, as in `job_standing`.
CREATE FUNCTION job_owner(job uuid) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT coalesce(
        (SELECT claim.organization_id FROM job_owners AS claim WHERE claim.job_id = job),
        (SELECT entry.organization_id FROM quota_ledger AS entry WHERE entry.job_id = job ORDER BY entry.run LIMIT 1),
        (SELECT request.organization_id FROM job_requests AS request WHERE request.job_id = job),
        (SELECT seen.organization_id FROM customization_jobs AS seen WHERE seen.job_id = job)
    )
$$;

-- What is known of a job: its latest run, at least `known_run`; how that ended, or NULL; whether any run completed; whose it
-- is. The body is text, so that it finds its tables by name when it runs.
CREATE OR REPLACE FUNCTION job_standing(job uuid, known_run integer)
RETURNS TABLE (latest_run integer, latest_outcome text, completed boolean, owner text)
LANGUAGE sql STABLE AS $$
    SELECT
        known.run,
        (SELECT ended.outcome FROM job_outcomes AS ended WHERE ended.job_id = job AND ended.run = known.run),
        EXISTS (SELECT FROM job_outcomes AS ended WHERE ended.job_id = job AND ended.outcome = 'completed'),
        job_owner(job)
    FROM (
        SELECT greatest(
            known_run,
            (SELECT max(entry.run) FROM quota_ledger AS entry WHERE entry.job_id = job),
            (SELECT max(ended.run) FROM job_outcomes AS ended WHERE ended.job_id = job),
            (SELECT max(seen.run) FROM customization_jobs AS seen WHERE seen.job_id = job)
        ) AS run
        OFFSET 0  -- found once, not wherever it is used
    ) AS known
$$;

-- Jobs that were withdrawn before the projection had heard of their request lost its team, its wish and its time. The intake
-- has them: the request joins the archive, and the record says again what was asked.
INSERT INTO job_events (job_id, event_id, run, type, organization_id, time, event)
SELECT
    request.job_id, request.event ->> 'id', 1, request.event ->> 'type', request.organization_id,
    (request.event ->> 'time')::timestamptz, request.event
FROM job_requests AS request
JOIN customization_jobs AS job ON job.job_id = request.job_id AND job.organization_id = request.organization_id
WHERE job.run > 0 AND job.team_id IS NULL AND request.event ->> 'id' IS NOT NULL
    AND EXISTS (SELECT FROM job_events AS event WHERE event.job_id = request.job_id)
ON CONFLICT (job_id, event_id) DO NOTHING;

UPDATE customization_jobs AS job
SET team_id = request.team_id,
    requirements = coalesce(job.requirements, request.event #>> '{data,requirements}'),
    created_at = least(job.created_at, (request.event ->> 'time')::timestamptz),
    updated_at = now()
FROM job_requests AS request
WHERE job.job_id = request.job_id AND job.organization_id = request.organization_id AND job.run > 0 AND job.team_id IS NULL;
