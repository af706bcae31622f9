-- A job with an error has failed, and mostly once: taken as independent of each other, these conditions seemed to find a twentieth of the
-- jobs that they find, or many where there were none. The lists decide by that how they read. Neither statement locks readers or
-- writers out by itself; where 0039 is applied in the same go, its locks stay until both are done.
CREATE STATISTICS IF NOT EXISTS customization_jobs_together (mcv) ON (job_state(status)), error_code, run FROM customization_jobs;
ANALYZE customization_jobs;
