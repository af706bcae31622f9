-- Failed events by every field that a caller may choose by; null: any. One statement, so that it is planned as a part of
-- the query that uses it.
CREATE FUNCTION failed_events_found(
    wanted_state text, wanted_stage text, wanted_error_type text, wanted_organization_id text, wanted_job_id uuid,
    wanted_reason text, wanted_trace_id text, since timestamptz, until timestamptz
)
RETURNS SETOF failed_events
LANGUAGE sql STABLE AS $$
    SELECT * FROM failed_events
    WHERE (wanted_state IS NULL OR state = wanted_state)
        AND (wanted_stage IS NULL OR stage = wanted_stage)
        AND (wanted_error_type IS NULL OR error_type = wanted_error_type)
        AND (wanted_organization_id IS NULL OR organization_id = wanted_organization_id)
        AND (wanted_job_id IS NULL OR job_id = wanted_job_id)
        AND (wanted_reason IS NULL OR reason = wanted_reason)
        AND (wanted_trace_id IS NULL OR trace_id = wanted_trace_id)
        AND (since IS NULL OR last_failed_at >= since)
        AND (until IS NULL OR last_failed_at < until)
$$;
