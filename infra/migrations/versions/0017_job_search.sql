-- What lists of jobs are read from, in the order of time, so that a page costs the same whatever the number of jobs.
-- Each moves with every change of a row, so there are few: what narrows little is filtered on the way.
CREATE INDEX customization_jobs_created_at ON customization_jobs (created_at, job_id);
CREATE INDEX customization_jobs_team_id ON customization_jobs (team_id, created_at);
CREATE INDEX customization_jobs_live_of ON customization_jobs (organization_id, status)
WHERE status IN ('pending', 'processing');
-- Rare among many that completed, and what is looked for most. With the words of the Celery days.
CREATE INDEX customization_jobs_unsuccessful ON customization_jobs (created_at, job_id)
WHERE status IN ('failed', 'cancelled', 'FAILED', 'CANCELLED', 'failure', 'revoked', 'FAILURE', 'REVOKED');
CREATE INDEX customization_jobs_error_code ON customization_jobs (error_code, created_at) WHERE error_code IS NOT NULL;
CREATE INDEX customization_jobs_reruns ON customization_jobs (run, created_at) WHERE run > 1;
-- Every event of a job carries on the trace of its request.
CREATE INDEX job_events_trace_id ON job_events (substr(event ->> 'traceparent', 4, 32))
WHERE type = 'teamfit.job.requested.v1';

-- The words of each wish, apart from the job's row: that changes several times, and a wish never but for an erasure. Wishes
-- come in all languages, so no word is left out or cut to its stem.
-- The ID is text, and no reference: on the way back to Celery a job's ID becomes text again, and a read model may be emptied.
CREATE TABLE job_words (
    job_id text PRIMARY KEY,
    words tsvector NOT NULL
);
INSERT INTO job_words (job_id, words)
SELECT job_id::text, to_tsvector('simple', left(requirements, 10000))
FROM customization_jobs
WHERE requirements IS NOT NULL;
CREATE INDEX job_words_words ON job_words USING gin (words);

CREATE FUNCTION note_job_words() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO job_words (job_id, words) VALUES (NEW.job_id::text, to_tsvector('simple', left(coalesce(NEW.requirements, ''), 10000)))
    ON CONFLICT (job_id) DO UPDATE SET words = excluded.words;
    RETURN NULL;
END $$;
CREATE FUNCTION forget_job_words() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM job_words AS forgotten USING gone WHERE forgotten.job_id = gone.job_id::text;
    RETURN NULL;
END $$;
CREATE TRIGGER customization_jobs_words_of_gone AFTER DELETE ON customization_jobs
REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION forget_job_words();
CREATE TRIGGER customization_jobs_words_of_new AFTER INSERT ON customization_jobs
FOR EACH ROW WHEN (NEW.requirements IS NOT NULL) EXECUTE FUNCTION note_job_words();
CREATE TRIGGER customization_jobs_words_of_changed AFTER UPDATE OF requirements ON customization_jobs
FOR EACH ROW WHEN (NEW.requirements IS DISTINCT FROM OLD.requirements)
EXECUTE FUNCTION note_job_words();
