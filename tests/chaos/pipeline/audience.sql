-- name: facts(organization_id, endpoint_id)
-- How runs of an organization have ended, as the archive has it, and when an endpoint was told.
SELECT told.event_id, told.job_id, sent.delivered_at
FROM job_events AS told
LEFT JOIN webhook_deliveries AS sent ON sent.endpoint_id = :endpoint_id AND sent.event_id = told.event_id
WHERE told.organization_id = :organization_id AND told.type IN (
    'teamfit.job.completed.v1', 'teamfit.job.failed.v1', 'teamfit.job.rejected.v1', 'teamfit.job.cancelled.v1'
);
