-- name: stand(job_id, run, topics)^
-- What is known of where a run stands; NULL as the run: the newest. `before`: how many of its organization come first, of the
-- next 10,000.
SELECT
    asked.run,
    clock_timestamp() AS now,
    coalesce(request.accepted_at, least(told.time, entry.decided_at), entry.decided_at) AS requested_at,
    coalesce(request.event, told.event) #>> '{data,run_at}' AS run_at,
    ended.decided_at AS ended_at,
    ended.outcome,
    line.job_id IS NOT NULL AS in_line,
    CASE WHEN entry.state <> 'rejected' THEN entry.decided_at END AS admitted_at,
    line.entered_at,
    line.released_at,
    CASE WHEN line.returned AND NOT line.due THEN 'parked' WHEN line.due THEN 'waiting' ELSE line.state END AS state,
    coalesce(terms.most, 2147483647) AS most,
    coalesce(known.in_flight, 0) AS in_flight,
    later.due_at AS later_at,
    closed.until AS closed_until,
    closed.found AS is_closed,
    CASE WHEN line.state IN ('arrived', 'waiting') THEN (
        SELECT count(*) FROM (
            SELECT FROM dispatch_runs AS one
            WHERE one.organization_id = line.organization_id AND one.state = 'waiting'
                AND (one.rank, one.place) < (line.rank, line.place)
            LIMIT 10000
        ) AS first
    ) END AS before
FROM (
    SELECT coalesce(:run::int, (SELECT max(newest.run) FROM quota_ledger AS newest WHERE newest.job_id = :job_id), 1) AS run
) AS asked
LEFT JOIN job_requests AS request ON request.job_id = :job_id AND asked.run = 1
LEFT JOIN LATERAL (
    SELECT one.time, one.event FROM job_events AS one
    WHERE one.job_id = :job_id AND one.run = asked.run AND one.type = 'teamfit.job.requested.v1'
    ORDER BY one.sequence LIMIT 1
) AS told ON true
LEFT JOIN quota_ledger AS entry ON entry.job_id = :job_id AND entry.run = asked.run
LEFT JOIN job_outcomes AS ended ON ended.job_id = :job_id AND ended.run = asked.run
LEFT JOIN dispatch_runs AS line ON line.job_id = :job_id AND line.run = asked.run
LEFT JOIN dispatch_organizations AS known ON known.organization_id = line.organization_id
LEFT JOIN LATERAL dispatch_terms(line.organization_id) AS terms ON line.job_id IS NOT NULL
LEFT JOIN LATERAL (
    SELECT one.due_at FROM scheduled_events AS one
    WHERE one.key = convert_to((:job_id::uuid)::text, 'UTF8') AND one.topic = ANY(:topics::text[])
    ORDER BY one.due_at LIMIT 1
) AS later ON true
CROSS JOIN (
    SELECT count(*) > 0 AS found, max(one.until) AS until
    FROM (
        SELECT closed_until AS until FROM llm_gate
        WHERE closed_until > clock_timestamp() AND closed_at <= clock_timestamp()
        UNION ALL
        SELECT next_probe_at FROM llm_holds WHERE passed_at IS NULL
    ) AS one
) AS closed;

-- name: calls(job_id, run)
-- Its attempts, with when each came into the line and was released.
SELECT entered_at, released_at, started_at, finished_at FROM generation_attempts
WHERE job_id = :job_id AND run = :run ORDER BY attempt;
