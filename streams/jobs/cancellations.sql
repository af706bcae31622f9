-- name: known_job(job_id, run)^
-- The newest run of a job, how it ended, and whose job it is. `older_status`: of a row that the pipeline knows nothing else of.
SELECT
    known.latest_run AS run,
    known.latest_outcome AS outcome,
    known.owner AS organization_id,
    (
        SELECT seen.status FROM customization_jobs AS seen
        WHERE seen.job_id = :job_id
            AND NOT EXISTS (SELECT FROM job_events AS event WHERE event.job_id = :job_id)
            AND NOT EXISTS (SELECT FROM job_outcomes AS ended WHERE ended.job_id = :job_id)
    ) AS older_status
FROM job_standing(:job_id, :run) AS known;
