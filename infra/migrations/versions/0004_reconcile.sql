-- How often a run that stood still was sent again, and when last: the reconciler's backoff.
CREATE TABLE reemissions (
    job_id uuid NOT NULL,
    run integer NOT NULL,
    times integer NOT NULL,
    last_at timestamptz NOT NULL,
    PRIMARY KEY (job_id, run)
);

-- How far retention went: events of jobs that ended before `horizon` may be gone from the archive. One row, or none yet.
CREATE TABLE archive_retention (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    horizon timestamptz NOT NULL,
    deleted_events bigint NOT NULL DEFAULT 0
);

CREATE INDEX customization_jobs_live ON customization_jobs (updated_at) WHERE status IN ('pending', 'processing');
CREATE INDEX customization_jobs_completed_at ON customization_jobs (completed_at);
CREATE INDEX job_requests_accepted_at ON job_requests (accepted_at);
CREATE INDEX scheduled_events_key ON scheduled_events (key);
