-- A job's events in the order of the archive: a page shows the first of a job, and a client goes on after the last that it has seen.
-- Without it all events of the job were read for that, of which one may have very many. If it is there already it stays: on a large
-- database it can be made beforehand, CONCURRENTLY, while everything runs.
CREATE INDEX IF NOT EXISTS job_events_in_order ON job_events (job_id, sequence);
