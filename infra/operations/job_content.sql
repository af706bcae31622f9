-- name: wish(job_id)^
-- What the customer wrote, as the read model has it, and who it is.
SELECT requirements, coalesce(organization_id, '') AS organization_id FROM customization_jobs WHERE job_id = :job_id;

-- name: events(job_id, after, limit)
-- The job's events after a place in the archive, in the order of arrival. No more of them are read than are asked for.
SELECT sequence, run, type, time, archived_at, event
FROM job_events WHERE job_id = :job_id AND sequence > :after
ORDER BY job_id, sequence LIMIT :limit;
