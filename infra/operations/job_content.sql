-- name: wish(job_id)^
-- What the customer wrote, as the read model has it, and who it is.
SELECT requirements, coalesce(organization_id, '') AS organization_id FROM customization_jobs WHERE job_id = :job_id;

-- name: events(job_id, after, limit)
-- The job's events after a place in the archive, in the order of arrival. Fenced off by OFFSET: in the order of the archive one would
-- pass by the events of other jobs.
SELECT sequence, run, type, time, archived_at, event
FROM (SELECT * FROM job_events WHERE job_id = :job_id AND sequence > :after OFFSET 0) AS mine
ORDER BY sequence LIMIT :limit;
