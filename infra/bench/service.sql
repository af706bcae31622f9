-- name: store_jobs(first, last, organization_id, team_id)!
-- Stores completed jobs as the projection leaves them, with three activities each. Their IDs follow from their numbers.
WITH fresh AS (
    INSERT INTO customization_jobs (
        job_id, status, run, organization_id, team_id, requirements, created_at, started_at, completed_at
    )
    SELECT
        md5('bench' || number)::uuid,
        'completed',
        1,
        :organization_id,
        :team_id,
        'A session outdoors for 6 people, about 45 minutes, variant ' || number,
        now() - number * interval '1 second',
        now() - number * interval '1 second',
        now() - number * interval '1 second'
    FROM generate_series(:first::int, :last::int) AS number
    RETURNING job_id
)
INSERT INTO customized_activities (
    job_id, position, title, description, duration_minutes, group_size, materials, steps, objective
)
SELECT
    fresh.job_id,
    place,
    'The quiet relay ' || place,
    repeat('A description of some length. ', 8),
    45,
    '{"min": 4, "max": 8}'::jsonb,
    '["paper", "pens"]'::jsonb,
    '["Form two groups.", "Pass the drawing on.", "Talk about what was lost."]'::jsonb,
    'People who rarely talk learn what the others do.'
FROM fresh CROSS JOIN generate_series(1, 3) AS place;

-- name: analyze()!
-- Lets the planner know what has been stored.
ANALYZE customization_jobs, customized_activities;

-- name: id_of(number)$
-- The ID of a stored job.
SELECT md5('bench' || :number::int)::uuid;

-- name: live()$
-- How many jobs have not ended.
SELECT count(*) FROM customization_jobs WHERE status IN ('pending', 'processing');
