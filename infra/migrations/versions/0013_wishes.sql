-- A digest of what the first request of a job asked for, by which a second one with another wish is told from a repeat. NULL for
-- jobs that were claimed before there was one, by a replay, or whose texts were erased.
ALTER TABLE job_owners ADD COLUMN wish bytea;
