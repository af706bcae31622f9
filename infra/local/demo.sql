-- name: facts(job_ids)
-- What the archive knows about these jobs, in the order in which it was archived.
SELECT job_id, type, time FROM job_events WHERE job_id = ANY(:job_ids::uuid[]) ORDER BY sequence;

-- name: reservations(job_ids)
-- What became of these jobs' quota.
SELECT job_id, state FROM quota_ledger WHERE job_id = ANY(:job_ids::uuid[]);
