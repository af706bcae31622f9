-- The jobs of an error in the order of a page: all of an error's were read as a map for the first fifty. And those of a run other than
-- the first by their status: of millions of jobs a hundred thousand failed ones were passed by for the few of run 2. Both have a row for
-- each such job alone. What is there already stays: on a large database they can be made beforehand, CONCURRENTLY, while everything runs.
CREATE INDEX IF NOT EXISTS customization_jobs_errors ON customization_jobs (error_code, created_at, job_id) WHERE error_code IS NOT NULL;
CREATE INDEX IF NOT EXISTS customization_jobs_other_runs_state ON customization_jobs (run, job_state(status), created_at, job_id)
WHERE run <> 1;
DROP INDEX IF EXISTS customization_jobs_error_code;
