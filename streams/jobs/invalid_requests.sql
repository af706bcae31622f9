-- name: latest(job_id, organization_id)^
-- Why the latest entry of `job-requests` that asked for a job in an organization's name was no valid request; no row once the
-- job is somebody's. A cancellation asks for nothing.
SELECT failed.error_message AS message, failed.first_failed_at, failed.last_failed_at
FROM failed_events AS failed
WHERE failed.job_id = :job_id AND failed.organization_id = :organization_id
    AND failed.topic = 'job-requests' AND failed.stage = 'quota'
    AND failed.error_type IN ('InvalidEvent', 'ForgedEvent', 'JobIdReused')
    AND failed.event_type IS DISTINCT FROM 'teamfit.job.cancel-requested.v1'
    AND job_owner(failed.job_id) IS NULL
ORDER BY failed.last_failed_at DESC
LIMIT 1;
