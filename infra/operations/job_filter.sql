-- The conditions of a filter of jobs, on `job`. With the values known, those that are not given vanish from the plan.
(:status::text IS NULL OR job_state(job.status) = :status)
    AND (:organization_id::text IS NULL OR job.organization_id = :organization_id)
    AND (:team_id::text IS NULL OR job.team_id = :team_id)
    AND (:since::timestamptz IS NULL OR job.created_at >= :since)
    AND (:until::timestamptz IS NULL OR job.created_at < :until)
    AND (:error_code::text IS NULL OR job.error_code = :error_code)
    AND (:run::int IS NULL OR job.run = :run)
    AND (:job_ids::uuid[] IS NULL OR job.job_id = ANY(:job_ids))
