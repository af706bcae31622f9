-- name: recorded_wish(job_id, organization_id)^
-- What an organization has asked for, as the intake or the archive has it; no row if neither does.
SELECT asked.event #>> '{data,team_id}' AS team_id, asked.event #>> '{data,requirements}' AS requirements
FROM (
    SELECT request.event FROM job_requests AS request
    WHERE request.job_id = :job_id AND request.organization_id = :organization_id
    UNION ALL
    SELECT archived.event FROM job_events AS archived
    WHERE archived.job_id = :job_id AND archived.organization_id = :organization_id
        AND archived.type = 'teamfit.job.requested.v1'
) AS asked
LIMIT 1;
