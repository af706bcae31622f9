-- What lists are read from, so that a page costs the same however many rows there are and whichever filter is asked. Whatever is there
-- already stays: on a large database it can be made beforehand, CONCURRENTLY, while everything runs.

-- A job's status in today's words, whatever a row of the Celery days says: as `status_of` of the projection has it.
CREATE OR REPLACE FUNCTION job_state(said text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE lower(said)
        WHEN 'pending' THEN 'pending' WHEN 'received' THEN 'pending'
        WHEN 'completed' THEN 'completed' WHEN 'success' THEN 'completed'
        WHEN 'failed' THEN 'failed' WHEN 'failure' THEN 'failed'
        WHEN 'cancelled' THEN 'cancelled' WHEN 'revoked' THEN 'cancelled'
        ELSE 'processing'
    END
$$;
-- In the order of time for each status, of all and of one organization. They stand for two that had some statuses alone, so a job's
-- row has as many indices as before; a version of the code that knows the old ones reads more rows until it is replaced.
CREATE INDEX IF NOT EXISTS customization_jobs_state ON customization_jobs (job_state(status), created_at, job_id);
CREATE INDEX IF NOT EXISTS customization_jobs_state_of ON customization_jobs (organization_id, job_state(status), created_at, job_id);
DROP INDEX IF EXISTS customization_jobs_unsuccessful;
DROP INDEX IF EXISTS customization_jobs_live_of;
-- Any run but the first: 0 is a job of which nothing but an end is known.
CREATE INDEX IF NOT EXISTS customization_jobs_other_runs ON customization_jobs (run, created_at, job_id) WHERE run <> 1;
DROP INDEX IF EXISTS customization_jobs_reruns;

-- The months of one organization are summed from the ledger.
CREATE INDEX IF NOT EXISTS quota_ledger_of ON quota_ledger (organization_id, period, state);

-- A message without what differs from event to event: IDs, numbers, and what stands in quotes. Made when it is written; making ten
-- thousand for each look at the groups took a third of a second.
ALTER TABLE failed_events ADD COLUMN shape text GENERATED ALWAYS AS (
    regexp_replace(
        regexp_replace(
            regexp_replace(
                left(error_message, 300),
                '[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|\y[0-9a-fA-F]{16,}\y', '<id>', 'g'
            ),
            '''[^'']*''|"[^"]*"', '<text>', 'g'
        ),
        '[0-9]+([.,:][0-9]+)*', '<n>', 'g'
    )
) STORED;
CREATE INDEX IF NOT EXISTS failed_events_dealt_with ON failed_events (state, last_failed_at, id) WHERE state <> 'open';
CREATE INDEX IF NOT EXISTS failed_events_reason ON failed_events (reason, last_failed_at, id) WHERE reason <> 'given_up';

CREATE INDEX IF NOT EXISTS operator_actions_refused ON operator_actions (at, id) WHERE outcome = 'refused';
CREATE INDEX IF NOT EXISTS operator_actions_kind ON operator_actions (split_part(action, '.', 1), at, id);
CREATE INDEX IF NOT EXISTS operator_actions_face ON operator_actions (face, at, id);

CREATE INDEX IF NOT EXISTS scheduled_events_topic ON scheduled_events (topic, due_at, id);

CREATE INDEX IF NOT EXISTS webhook_deliveries_given_up ON webhook_deliveries (endpoint_id, created_at, event_id) WHERE given_up_at IS NOT NULL;

CREATE INDEX IF NOT EXISTS teams_organization_id ON teams (organization_id);

-- Statistics of the expression, without which the first lists after the migration are planned blindly.
ANALYZE customization_jobs;
